//! A map in order of its keys whose copy is cheap: entries lie in chunks that copies share until
//! one of them changes. A copy of a million entries is some thousand pointers, and the first change
//! afterwards copies one chunk, so that a state can be frozen without holding up its worker.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Entries of a chunk at most: copying one takes a microsecond or two.
const CHUNK_MAX: usize = 256;
/// A chunk with fewer is merged with a neighbour, so that chunks stay few when most entries go.
const CHUNK_MIN: usize = CHUNK_MAX / 4;
/// Merged chunks have room left, or the next insertion would split them again.
const MERGED_MAX: usize = CHUNK_MAX / 4 * 3;

/// The map. One that is empty costs a pointer: a queue has nine, and of many queues most are idle.
#[derive(Clone)]
pub(crate) struct Chunks<K, V>(Option<Box<Filled<K, V>>>);

/// What a map that is not empty has.
#[derive(Clone)]
struct Filled<K, V> {
    /// None is empty.
    chunks: Vec<Arc<Chunk<K, V>>>,
    len: usize,
}

type Chunk<K, V> = VecDeque<(K, V)>;

/// A set in order, of the same kind.
pub(crate) type ChunkSet<K> = Chunks<K, ()>;

impl<K, V> Default for Chunks<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Chunks<K, V> {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |filled| filled.len)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn chunks(&self) -> &[Arc<Chunk<K, V>>] {
        self.0.as_ref().map_or(&[], |filled| &filled.chunks)
    }

    fn chunks_mut(&mut self) -> &mut [Arc<Chunk<K, V>>] {
        self.0.as_mut().map_or(&mut [], |filled| &mut filled.chunks)
    }

    /// What becomes another map with the next change; one that is empty gets something to fill.
    fn fill(&mut self) -> &mut Filled<K, V> {
        self.0.get_or_insert_with(|| {
            let (chunks, len) = (Vec::new(), 0);
            Box::new(Filled { chunks, len })
        })
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        let entries = self.chunks().iter().flat_map(|chunk| chunk.iter());
        entries.map(|(key, value)| (key, value))
    }

    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }

    pub(crate) fn first_key(&self) -> Option<K>
    where
        K: Copy,
    {
        self.first().map(|(key, _)| *key)
    }

    pub(crate) fn last_key(&self) -> Option<K>
    where
        K: Copy,
    {
        self.last().map(|(key, _)| *key)
    }

    pub(crate) fn first(&self) -> Option<(&K, &V)> {
        let (key, value) = self.chunks().first()?.front()?;
        Some((key, value))
    }

    pub(crate) fn last(&self) -> Option<(&K, &V)> {
        let (key, value) = self.chunks().last()?.back()?;
        Some((key, value))
    }
}

impl<K: Copy + Ord, V: Clone> Chunks<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let (chunk, at) = self.find(key).ok()?;
        let (_, value) = self.chunks().get(chunk)?.get(at)?;
        Some(value)
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    /// The value, to be changed.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (chunk, at) = self.find(key).ok()?;
        let (_, value) = Arc::make_mut(self.chunks_mut().get_mut(chunk)?).get_mut(at)?;
        Some(value)
    }

    /// All values, to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let chunks = self.chunks_mut().iter_mut().map(Arc::make_mut);
        let entries = chunks.flat_map(|chunk| chunk.iter_mut());
        entries.map(|(key, value)| (&*key, value))
    }

    /// The last value, to be changed.
    pub(crate) fn last_mut(&mut self) -> Option<(K, &mut V)> {
        let (key, value) = Arc::make_mut(self.chunks_mut().last_mut()?).back_mut()?;
        Some((*key, value))
    }

    /// Sets a value; the old one if there was one.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (chunk, at) = match self.find(&key) {
            Ok((chunk, at)) => {
                let (_, old) = Arc::make_mut(self.chunks_mut().get_mut(chunk)?).get_mut(at)?;
                return Some(core::mem::replace(old, value));
            }
            Err(place) => place,
        };
        let Filled { chunks, len } = self.fill();
        *len += 1;
        let last = chunks.len().saturating_sub(1);
        let Some(entries) = chunks.get_mut(chunk) else {
            chunks.push(Arc::new(Chunk::from([(key, value)])));
            return None;
        };
        if entries.len() < CHUNK_MAX {
            Arc::make_mut(entries).insert(at, (key, value));
        } else if chunk == last && at == entries.len() {
            // Keys mostly grow: full chunks stay full.
            chunks.push(Arc::new(Chunk::from([(key, value)])));
        } else {
            let entries = Arc::make_mut(entries);
            let mut second = entries.split_off(CHUNK_MAX / 2);
            match at.checked_sub(CHUNK_MAX / 2) {
                Some(at) => second.insert(at, (key, value)),
                None => entries.insert(at, (key, value)),
            }
            chunks.insert(chunk + 1, Arc::new(second));
        }
        None
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (chunk, at) = self.find(key).ok()?;
        let (_, value) = Arc::make_mut(self.chunks_mut().get_mut(chunk)?).remove(at)?;
        let filled = self.fill();
        filled.tidy(chunk);
        if filled.len == 0 {
            self.0 = None;
        }
        Some(value)
    }

    /// Entries from a key on.
    pub(crate) fn from(&self, key: K) -> impl Iterator<Item = (&K, &V)> {
        let (chunk, at) = self.find(&key).unwrap_or_else(|place| place);
        let chunks = self.chunks().get(chunk..).unwrap_or_default();
        let entries = chunks.iter().flat_map(|chunk| chunk.iter());
        entries.skip(at).map(|(key, value)| (key, value))
    }

    /// Entries after a key; all when there is none.
    pub(crate) fn after(&self, key: Option<K>) -> impl Iterator<Item = (&K, &V)> {
        let (chunk, at) = match key.as_ref().map(|key| self.find(key)) {
            None => (0, 0),
            Some(Ok((chunk, at))) => (chunk, at + 1),
            Some(Err(place)) => place,
        };
        let chunks = self.chunks().get(chunk..).unwrap_or_default();
        let entries = chunks.iter().flat_map(|chunk| chunk.iter());
        entries.skip(at).map(|(key, value)| (key, value))
    }

    /// The last entry up to a key.
    pub(crate) fn last_upto(&self, key: &K) -> Option<(&K, &V)> {
        let (chunk, at) = match self.find(key) {
            Ok(place) => place,
            Err((chunk, at)) => (chunk, at.checked_sub(1)?),
        };
        let (key, value) = self.chunks().get(chunk)?.get(at)?;
        Some((key, value))
    }

    /// Where a key is, or would be put: its chunk, and its place in that.
    fn find(&self, key: &K) -> Result<(usize, usize), (usize, usize)> {
        let begins_after = |chunk: &Arc<Chunk<K, V>>| chunk.front().is_some_and(|(k, _)| k <= key);
        let chunk = self
            .chunks()
            .partition_point(begins_after)
            .saturating_sub(1);
        let Some(entries) = self.chunks().get(chunk) else {
            return Err((0, 0));
        };
        match entries.binary_search_by(|(k, _)| k.cmp(key)) {
            Ok(at) => Ok((chunk, at)),
            Err(at) => Err((chunk, at)),
        }
    }
}

impl<K: Copy + Ord, V: Clone> Filled<K, V> {
    /// After an entry of a chunk went: drops the chunk if it is empty, merges one that is small.
    fn tidy(&mut self, chunk: usize) {
        self.len -= 1;
        let len = |at: usize| self.chunks.get(at).map(|chunk| chunk.len());
        let Some(own) = len(chunk).filter(|own| *own < CHUNK_MIN) else {
            return;
        };
        if own == 0 {
            self.chunks.remove(chunk);
            return;
        }
        let fits = |other: Option<usize>| other.is_some_and(|other| own + other <= MERGED_MAX);
        let first = if fits(len(chunk + 1)) {
            chunk
        } else if chunk > 0 && fits(len(chunk - 1)) {
            chunk - 1
        } else {
            return;
        };
        let second = self.chunks.remove(first + 1);
        if let Some(first) = self.chunks.get_mut(first) {
            Arc::make_mut(first).extend(second.iter().cloned());
        }
    }
}

impl<K: Copy + Ord> ChunkSet<K> {
    /// Adds a key; whether it is new.
    pub(crate) fn add(&mut self, key: K) -> bool {
        self.insert(key, ()).is_none()
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Chunks<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for Chunks<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Chunks<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Copy + Ord, V: Clone> FromIterator<(K, V)> for Chunks<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let mut chunks = Self::new();
        for (key, value) in entries {
            chunks.insert(key, value);
        }
        chunks
    }
}

impl<K: Serialize, V: Serialize> Serialize for Chunks<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Counted(self.iter(), self.len()))
    }
}

/// An iterator that knows how much it yields.
struct Counted<I>(I, usize);

impl<I: Iterator> Iterator for Counted<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.1 = self.1.saturating_sub(1);
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.1, Some(self.1))
    }
}

impl<'de, K, V> Deserialize<'de> for Chunks<K, V>
where
    K: Copy + Ord + Deserialize<'de>,
    V: Clone + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Ascending(PhantomData))
    }
}

/// Takes entries in the order they are written in, and no other.
struct Ascending<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for Ascending<K, V>
where
    K: Copy + Ord + Deserialize<'de>,
    V: Clone + Deserialize<'de>,
{
    type Value = Chunks<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map in order of its keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut chunks = Chunks::new();
        while let Some((key, value)) = entries.next_entry()? {
            if chunks.last().is_some_and(|(last, _)| *last >= key) {
                return Err(A::Error::custom("keys are not in order"));
            }
            chunks.insert(key, value);
        }
        Ok(chunks)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn check(chunks: &Chunks<u16, u32>, plain: &BTreeMap<u16, u32>) {
        assert!(chunks.iter().eq(plain.iter()));
        assert!(chunks.iter().rev().eq(plain.iter().rev()));
        assert_eq!(chunks.len(), plain.len());
        assert_eq!(chunks.first(), plain.first_key_value());
        assert_eq!(chunks.last(), plain.last_key_value());
        let small = |chunk: &&Arc<Chunk<u16, u32>>| chunk.len() <= CHUNK_MAX / 8;
        let pairs = chunks.chunks().windows(2);
        let wasted = pairs.filter(|pair| pair.iter().all(|chunk| small(&chunk)));
        assert_eq!(wasted.count(), 0, "neighbours that could be one");
        assert!(chunks.chunks().iter().all(|chunk| !chunk.is_empty()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn chunks_do_what_a_tree_does_and_copies_stay_what_they_were(
            runs in prop::collection::vec((0..3_u8, 0..4000_u16, 1..900_u16, 1..5_u16), 1..20),
        ) {
            let mut chunks = Chunks::new();
            let mut plain = BTreeMap::new();
            let mut copies = Vec::new();
            for (kind, start, count, step) in runs {
                copies.push((chunks.clone(), plain.clone()));
                for key in (0..count).map(|n| start + n * step) {
                    match kind {
                        0 | 1 => {
                            let value = u32::from(kind) * 7 + u32::from(start);
                            prop_assert_eq!(chunks.insert(key, value), plain.insert(key, value));
                        }
                        _ => prop_assert_eq!(chunks.remove(&key), plain.remove(&key)),
                    }
                }
                check(&chunks, &plain);
                for key in [start, start + 1, 0, u16::MAX] {
                    prop_assert_eq!(chunks.get(&key), plain.get(&key));
                    prop_assert!(chunks.from(key).eq(plain.range(key..)));
                    let after = plain.range(key..).filter(|(k, _)| **k > key);
                    prop_assert!(chunks.after(Some(key)).eq(after));
                    prop_assert_eq!(chunks.last_upto(&key), plain.range(..=key).next_back());
                }
            }
            for (copy, plain) in &copies {
                check(copy, plain);
            }
            let bytes = postcard::to_allocvec(&chunks).unwrap();
            prop_assert_eq!(&bytes, &postcard::to_allocvec(&plain).unwrap());
            prop_assert_eq!(postcard::from_bytes::<Chunks<u16, u32>>(&bytes), Ok(chunks));
        }
    }

    #[test]
    fn keys_out_of_order_are_refused() {
        for keys in [[(2_u16, 1_u32), (1, 1)], [(1, 1), (1, 1)]] {
            let mut bytes = alloc::vec![2_u8];
            for (key, value) in keys {
                bytes.extend(postcard::to_allocvec(&key).unwrap());
                bytes.extend(postcard::to_allocvec(&value).unwrap());
            }
            assert!(postcard::from_bytes::<Chunks<u16, u32>>(&bytes).is_err());
        }
    }

    #[test]
    fn a_copy_shares_all_but_what_changes() {
        let mut chunks: Chunks<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
        let copy = chunks.clone();
        *chunks.get_mut(&5_000).unwrap() += 1;
        let both = chunks.chunks().iter().zip(copy.chunks());
        let own = both.filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!(own, 1);
        assert_eq!(copy.get(&5_000), Some(&5_000));
    }
}
