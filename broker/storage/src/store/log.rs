//! Where the bodies of one queue or partition are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use millrace_types::{LogId, Offset, Wall};

use super::segment::Segment;
use crate::range_set::RangeSet;
use crate::records::{self, RecordsError};
use crate::size::in_memory;

/// One log. The lock is held for look-ups and changes of the maps only.
pub(crate) struct Log {
    pub(crate) id: LogId,
    state: Mutex<State>,
}

/// Its state.
#[derive(Default)]
pub(crate) struct State {
    /// In memory, by first offset.
    pub(crate) batches: BTreeMap<u64, Arc<Batch>>,
    /// On disk, by first offset.
    pub(crate) segments: BTreeMap<u64, Arc<Segment>>,
    /// Everything discarded; coalesces to a single range once a prefix is gone.
    pub(crate) discarded: RangeSet,
    /// One past the last offset ever stored.
    pub(crate) end: u64,
    /// The log is gone; whoever still holds it must not add anything.
    pub(crate) removed: bool,
}

/// Records that arrived together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) stored_at: Wall,
    pub(crate) records: Bytes,
    /// Checkpoints begun before it arrived.
    pub(crate) epoch: u64,
    starts: OnceLock<Result<Box<[u32]>, RecordsError>>,
}

/// Where a message is.
pub(crate) enum Place {
    Memory(Arc<Batch>),
    Disk(Arc<Segment>),
}

impl Batch {
    pub(crate) fn new(
        first: Offset,
        count: u32,
        stored_at: Wall,
        records: Bytes,
        epoch: u64,
    ) -> Self {
        let (first, starts) = (first.get(), OnceLock::new());
        Self {
            first,
            count,
            stored_at,
            records,
            epoch,
            starts,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.records.len() as u64
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.first..self.first + u64::from(self.count)
    }

    /// The records at these offsets, as one slice; `offsets` is within `range()`.
    pub(crate) fn slice(&self, offsets: Range<u64>) -> Result<Bytes, RecordsError> {
        if offsets == self.range() {
            return Ok(self.records.clone());
        }
        let starts = self.starts.get_or_init(|| {
            let starts = records::starts(&self.records)?;
            let (expected, found) = (self.count, starts.len() - 1);
            if found != expected as usize {
                let found = u32::try_from(found).unwrap_or(u32::MAX);
                return Err(RecordsError::Count { expected, found });
            }
            Ok(starts.into())
        });
        let starts = starts.as_ref().map_err(|error| *error)?;
        let place = |offset: u64| starts[in_memory(offset - self.first)] as usize;
        Ok(self.records.slice(place(offsets.start)..place(offsets.end)))
    }
}

impl Log {
    pub(crate) fn new(id: LogId) -> Self {
        Self {
            id,
            state: Mutex::default(),
        }
    }

    pub(crate) fn with_state(id: LogId, state: State) -> Self {
        Self {
            id,
            state: Mutex::new(state),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the batch was kept: it is not when all of it is discarded already.
    pub(crate) fn append(&mut self, batch: Batch) -> bool {
        assert!(!self.removed, "the worker appends to a log it has removed");
        let range = batch.range();
        self.end = self.end.max(range.end);
        if self.discarded.covers(range) {
            return false;
        }
        let replaced = self.batches.insert(batch.first, Arc::new(batch));
        assert!(replaced.is_none(), "an offset is stored once");
        true
    }

    /// Bytes of memory freed.
    pub(crate) fn discard(&mut self, range: Range<u64>) -> u64 {
        let range = range.start..range.end.min(self.end);
        if range.is_empty() {
            return 0;
        }
        self.discarded.insert(range.clone());
        let first = self.batches.range(..=range.start).next_back();
        let first = first.map_or(range.start, |(&first, _)| first);
        let gone: Vec<u64> = self
            .batches
            .range(first..range.end)
            .filter(|(_, batch)| self.discarded.covers(batch.range()))
            .map(|(&first, _)| first)
            .collect();
        gone.iter()
            .filter_map(|first| self.batches.remove(first))
            .map(|batch| batch.bytes())
            .sum()
    }

    /// Bytes of memory freed. Segments stay, for the caller to take.
    pub(crate) fn remove(&mut self) -> u64 {
        self.removed = true;
        std::mem::take(&mut self.batches)
            .values()
            .map(|batch| batch.bytes())
            .sum()
    }

    /// Where the first live message at or after `from` is, and its offset.
    pub(crate) fn locate(&self, mut from: u64) -> Option<(u64, Place)> {
        loop {
            from = self.discarded.first_gap(from);
            if from >= self.end {
                return None;
            }
            let batch = covering(&self.batches, from, |batch| batch.range());
            if let Some(batch) = batch {
                return Some((from, Place::Memory(Arc::clone(batch))));
            }
            let segment = covering(&self.segments, from, |segment| segment.range());
            if let Some(segment) = segment {
                return Some((from, Place::Disk(Arc::clone(segment))));
            }
            let next_batch = self.batches.range(from..).next().map(|(&first, _)| first);
            let next_segment = self.segments.range(from..).next().map(|(&first, _)| first);
            from = match (next_batch, next_segment) {
                (Some(batch), Some(segment)) => batch.min(segment),
                (Some(next), None) | (None, Some(next)) => next,
                (None, None) => return None,
            };
        }
    }

    pub(crate) fn is_resident(&self, range: Range<u64>) -> bool {
        let range = range.start..range.end.min(self.end);
        self.discarded.gaps(range).into_iter().all(|gap| {
            let mut at = gap.start;
            while at < gap.end {
                match covering(&self.batches, at, |batch| batch.range()) {
                    Some(batch) => at = batch.range().end,
                    None => return false,
                }
            }
            true
        })
    }
}

/// The item whose range holds `at`.
fn covering<T>(
    items: &BTreeMap<u64, Arc<T>>,
    at: u64,
    range: impl Fn(&T) -> Range<u64>,
) -> Option<&Arc<T>> {
    items
        .range(..=at)
        .next_back()
        .map(|(_, item)| item)
        .filter(|item| range(item).contains(&at))
}
