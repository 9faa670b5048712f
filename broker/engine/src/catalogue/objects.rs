//! Declared objects in order of their addresses, cheap to copy: a copy shares its parts with the
//! original until either changes them, and a change copies the part it falls into and nothing else.
//! So everybody may have a picture of the whole catalogue at each revision.
//!
//! Knows order only: what an object means is decided elsewhere.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use millrace_types::Address;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::placed::{Lane, Placed};

/// Objects of one part at most. A change copies so many references; a copy of the whole has one
/// reference for each part. At 100 000 objects both are about a thousand.
const PART_OBJECTS_MAX: usize = 128;

/// All objects; parts are never empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Objects {
    parts: Vec<Arc<Vec<Arc<Placed>>>>,
    len: usize,
}

impl Objects {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, address: &Address) -> Option<&Arc<Placed>> {
        let part = self.parts.get(self.part_of(address))?;
        let at = find(part, address).ok()?;
        part.get(at)
    }

    /// Puts an object in its place; gives back what was there.
    pub(super) fn insert(&mut self, placed: Arc<Placed>) -> Option<Arc<Placed>> {
        let at = self.part_of(&placed.address);
        let Some(shared) = self.parts.get_mut(at) else {
            self.parts.push(Arc::new(Vec::from([placed])));
            self.len += 1;
            return None;
        };
        let part = Arc::make_mut(shared);
        match find(part, &placed.address) {
            Ok(found) => Some(core::mem::replace(&mut part[found], placed)),
            Err(place) => {
                part.insert(place, placed);
                self.len += 1;
                if part.len() > PART_OBJECTS_MAX {
                    let upper = split(part, place);
                    self.parts.insert(at + 1, Arc::new(upper));
                }
                None
            }
        }
    }

    pub(super) fn remove(&mut self, address: &Address) -> Option<Arc<Placed>> {
        let at = self.part_of(address);
        let shared = self.parts.get_mut(at)?;
        let found = find(shared, address).ok()?;
        let part = Arc::make_mut(shared);
        let removed = part.remove(found);
        if part.is_empty() {
            self.parts.remove(at);
        }
        self.len -= 1;
        Some(removed)
    }

    /// Notes the revision at which shards have to be told about some logs of an object.
    pub(super) fn mark(&mut self, address: &Address, lanes: &[Lane], revision: u64) {
        let at = self.part_of(address);
        let Some(part) = self.parts.get_mut(at).map(Arc::make_mut) else {
            return;
        };
        if let Ok(found) = find(part, address) {
            Arc::make_mut(&mut part[found]).mark(lanes, revision);
        }
    }

    /// Changes all of them.
    pub(super) fn for_each_mut(&mut self, mut change: impl FnMut(&mut Placed)) {
        let parts = self.parts.iter_mut().map(Arc::make_mut);
        parts
            .flatten()
            .for_each(|placed| change(Arc::make_mut(placed)));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Placed> {
        self.parts.iter().flat_map(|part| part.iter()).map(|p| &**p)
    }

    /// Those whose addresses come after this one.
    pub(super) fn iter_after(&self, address: &Address) -> impl Iterator<Item = &Placed> {
        let from = self.part_of(address);
        let parts = self.parts.get(from..).unwrap_or_default().iter();
        let behind = move |placed: &&Placed| *placed.address <= *address;
        parts
            .flat_map(|part| part.iter())
            .map(|p| &**p)
            .skip_while(behind)
    }

    /// The part that has, or would have, an address: the last one that does not begin behind it.
    fn part_of(&self, address: &Address) -> usize {
        let begins = |part: &Arc<Vec<Arc<Placed>>>| {
            part.first().is_none_or(|first| *first.address <= *address)
        };
        self.parts.partition_point(begins).saturating_sub(1)
    }
}

fn find(part: &[Arc<Placed>], address: &Address) -> Result<usize, usize> {
    part.binary_search_by(|placed| (*placed.address).cmp(address))
}

/// Cuts a part in two. One that grew at its end stays nearly full: objects that are declared in
/// order of their addresses, as most are, leave full parts behind.
fn split(part: &mut Vec<Arc<Placed>>, grown_at: usize) -> Vec<Arc<Placed>> {
    let at_end = grown_at + 1 == part.len();
    let upper = part.split_off(if at_end { grown_at } else { part.len() / 2 });
    part.shrink_to_fit();
    upper
}

impl Serialize for Objects {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq;
        let mut list = serializer.serialize_seq(Some(self.len))?;
        for placed in self.iter() {
            list.serialize_element(placed)?;
        }
        list.end()
    }
}

/// Takes any order: `snapshot` refuses what is not in order.
impl<'de> Deserialize<'de> for Objects {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        listed::<Placed, D>(deserializer)
    }
}

/// The same from what becomes an object: an older shape of one.
pub(super) fn listed<'de, P, D>(deserializer: D) -> Result<Objects, D::Error>
where
    P: Deserialize<'de> + Into<Placed>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(Listed::<P>(PhantomData))
}

struct Listed<P>(PhantomData<P>);

impl<'de, P: Deserialize<'de> + Into<Placed>> Visitor<'de> for Listed<P> {
    type Value = Objects;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Objects, A::Error> {
        let (mut objects, mut part) = (Objects::default(), Vec::new());
        while let Some(placed) = list.next_element::<P>()? {
            part.push(Arc::new(placed.into()));
            objects.len += 1;
            if part.len() == PART_OBJECTS_MAX {
                objects.parts.push(Arc::new(core::mem::take(&mut part)));
            }
        }
        if !part.is_empty() {
            objects.parts.push(Arc::new(part));
        }
        Ok(objects)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::format;

    use bytes::Bytes;
    use millrace_types::{LogId, ShardId};

    use super::super::declared::testing::queue;
    use super::super::placed::{Place, PlacedState, Placement};
    use super::super::{DeclaredSpec, ShardClass};
    use super::*;

    fn placed(name: u32, generation: i64) -> Arc<Placed> {
        let place = Place::new(LogId::new(1));
        Arc::new(Placed {
            address: Arc::new(address(name)),
            uid: "uid".into(),
            generation,
            spec: Arc::new(DeclaredSpec::Queue(queue())),
            class: ShardClass::default(),
            placement: Placement::Queue {
                shard: ShardId::new(1),
                queue: place,
                dead: place,
            },
            state: PlacedState::Active,
            wire: Bytes::new(),
        })
    }

    fn address(name: u32) -> Address {
        format!("queue/n/q{name:05}").parse().unwrap()
    }

    /// Numbers that look like chance and are always the same.
    fn numbers(count: u32, below: u32) -> impl Iterator<Item = u32> {
        let next = |x: &u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        core::iter::successors(Some(7), next)
            .map(move |x| (x >> 8) % below)
            .take(count as usize)
    }

    #[test]
    fn it_holds_what_an_ordinary_map_holds() {
        let (mut objects, mut naive) = (Objects::default(), BTreeMap::new());
        for (turn, name) in numbers(5_000, 900).enumerate() {
            let generation = turn as i64;
            if turn % 3 == 0 {
                let gone = objects.remove(&address(name)).map(|p| p.generation);
                assert_eq!(gone, naive.remove(&name));
            } else {
                let old = objects.insert(placed(name, generation));
                assert_eq!(old.map(|p| p.generation), naive.insert(name, generation));
            }
            assert_eq!(objects.len(), naive.len());
        }
        let held: Vec<i64> = objects.iter().map(|p| p.generation).collect();
        assert_eq!(held, naive.values().copied().collect::<Vec<_>>());
        for name in 0..900 {
            let found = objects.get(&address(name)).map(|p| p.generation);
            assert_eq!(found, naive.get(&name).copied());
            let after = objects.iter_after(&address(name)).next();
            let expected = naive.range(name + 1..).next();
            assert_eq!(after.map(|p| p.generation), expected.map(|(_, g)| *g));
        }
    }

    #[test]
    fn a_copy_keeps_what_it_had_and_shares_all_but_the_part_that_changed() {
        let mut objects = Objects::default();
        for name in 0..1_000 {
            objects.insert(placed(name, 1));
        }
        let copy = objects.clone();
        objects.insert(placed(500, 2));
        assert_eq!(copy.get(&address(500)).unwrap().generation, 1);
        assert_eq!(objects.get(&address(500)).unwrap().generation, 2);
        let shared = objects.parts.iter().zip(&copy.parts);
        let copied = shared.filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!(copied, 1);
    }

    #[test]
    fn objects_declared_in_order_fill_their_parts() {
        let mut objects = Objects::default();
        for name in 0..1_000 {
            objects.insert(placed(name, 1));
        }
        assert_eq!(objects.parts.len(), 1_000_usize.div_ceil(PART_OBJECTS_MAX));
    }
}
