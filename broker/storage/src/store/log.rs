//! Where the bodies of one queue or partition are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use millrace_types::{LogId, Offset, Wall};

use super::pinned::Pinned;
use super::run::Run;
use crate::range_set::RangeSet;
use crate::records::{self, RecordsError};
use crate::size::in_memory;

/// What a batch costs in memory besides its records, about: itself, its place in the map, and the
/// allocations behind it.
const BATCH_OVERHEAD_BYTES: u64 = 320;
/// For each record: where it starts, once anybody has asked.
const RECORD_OVERHEAD_BYTES: u64 = 4;

/// One log. The lock is held for look-ups and changes of the maps only.
pub(crate) struct Log {
    pub(crate) id: LogId,
    state: Mutex<State>,
}

/// Its state. There may be a hundred thousand of them, most with nothing in memory.
#[derive(Default)]
pub(crate) struct State {
    /// In memory, by first offset.
    pub(crate) batches: BTreeMap<u64, Resident>,
    /// On disk, ascending, without overlaps.
    pub(crate) runs: Vec<Run>,
    /// Everything discarded; a prefix costs nothing.
    pub(crate) discarded: RangeSet,
    /// One past the last offset ever stored.
    pub(crate) end: u64,
    /// The log is gone; whoever still holds it must not add anything.
    pub(crate) removed: bool,
}

/// A batch in memory, and how much of it is needed.
pub(crate) struct Resident {
    pub(crate) batch: Arc<Batch>,
    /// Its messages that are not discarded.
    live: u32,
    /// When so few are left, it is worth a look whether a copy of them is smaller.
    look_at: u32,
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
    pinned: Pinned,
    starts: OnceLock<Result<Box<[u32]>, RecordsError>>,
}

/// Where a message is.
pub(crate) enum Place {
    Memory(Arc<Batch>),
    Disk(Run),
}

impl Batch {
    pub(crate) fn new(
        first: Offset,
        count: u32,
        stored_at: Wall,
        records: impl AsRef<[u8]> + Send + 'static,
        epoch: u64,
        pinned: &Pinned,
    ) -> Self {
        let (first, starts) = (first.get(), OnceLock::new());
        let records = pinned.hold(records, overhead_bytes(count));
        let pinned = pinned.clone();
        Self {
            first,
            count,
            stored_at,
            records,
            epoch,
            pinned,
            starts,
        }
    }

    /// What it costs.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.records.len() as u64 + overhead_bytes(self.count)
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

    /// Copies of the parts of it that `discarded` leaves, if they cost at most half as much.
    fn remains(&self, discarded: &RangeSet) -> Option<Vec<Self>> {
        let gaps = discarded.gaps(self.range());
        let slices: Result<Vec<Bytes>, _> =
            gaps.iter().map(|gap| self.slice(gap.clone())).collect();
        // What cannot be divided stays whole: `append` was promised sound framing.
        let slices = slices.ok()?;
        let records: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        let overhead = gaps.iter().map(|gap| overhead_bytes(length(gap)));
        let bytes = records + overhead.sum::<u64>();
        if 2 * bytes > self.memory_bytes() {
            return None;
        }
        let remains = gaps.into_iter().zip(slices).map(|(gap, slice)| {
            let records: Box<[u8]> = (&*slice).into();
            let (first, count) = (Offset::new(gap.start), length(&gap));
            let (stored_at, pinned) = (self.stored_at, &self.pinned);
            Self::new(first, count, stored_at, records, self.epoch, pinned)
        });
        Some(remains.collect())
    }
}

/// What a batch of so many records costs besides them.
fn overhead_bytes(count: u32) -> u64 {
    BATCH_OVERHEAD_BYTES + RECORD_OVERHEAD_BYTES * u64::from(count)
}

/// Of a part of a batch.
fn length(part: &Range<u64>) -> u32 {
    u32::try_from(part.end - part.start).expect("a part of a batch")
}

impl Resident {
    fn whole(batch: Batch) -> Self {
        Self {
            live: batch.count,
            look_at: batch.count / 2,
            batch: Arc::new(batch),
        }
    }
}

impl Log {
    pub(crate) fn new(id: LogId, state: State) -> Self {
        let state = Mutex::new(state);
        Self { id, state }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Of a log whose messages up to `end` are all discarded.
    pub(crate) fn settled(end: u64) -> Self {
        let mut state = Self {
            end,
            ..Self::default()
        };
        state.discarded.insert(0..end);
        state
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.runs.is_empty() && !self.removed
    }

    /// Bytes of memory taken; none when all of the batch is discarded already.
    pub(crate) fn append(&mut self, batch: Batch) -> u64 {
        assert!(!self.removed, "the worker appends to a log it has removed");
        let range = batch.range();
        self.end = self.end.max(range.end);
        let gone = self.discarded.count_within(range);
        let mut resident = Resident::whole(batch);
        let gone = u32::try_from(gone).expect("at most the batch");
        resident.live -= gone;
        if resident.live == 0 {
            return 0;
        }
        let bytes = resident.batch.memory_bytes();
        let replaced = self.batches.insert(resident.batch.first, resident);
        assert!(replaced.is_none(), "an offset is stored once");
        bytes
    }

    /// Bytes of memory freed. A batch of which little is left is replaced by a copy of that, so
    /// that it costs at most about twice what its messages would cost one by one.
    pub(crate) fn discard(&mut self, range: Range<u64>) -> u64 {
        let range = range.start..range.end.min(self.end);
        if range.is_empty() {
            return 0;
        }
        let first = self.batches.range(..=range.start).next_back();
        let first = first.map_or(range.start, |(&first, _)| first);
        let mut thin = Vec::new();
        for (&first, resident) in self.batches.range_mut(first..range.end) {
            let batch = resident.batch.range();
            let both = batch.start.max(range.start)..batch.end.min(range.end);
            if both.is_empty() {
                continue;
            }
            let newly = both.end - both.start - self.discarded.count_within(both);
            resident.live -= u32::try_from(newly).expect("at most the batch");
            if resident.live <= resident.look_at {
                thin.push(first);
            }
        }
        self.discarded.insert(range);
        let freed = thin.into_iter().map(|first| self.thin_out(first)).sum();
        self.let_go();
        freed
    }

    /// Bytes of memory freed.
    fn thin_out(&mut self, first: u64) -> u64 {
        let Some(resident) = self.batches.get_mut(&first) else {
            return 0;
        };
        let before = resident.batch.memory_bytes();
        if resident.live == 0 {
            self.batches.remove(&first);
            return before;
        }
        let Some(remains) = resident.batch.remains(&self.discarded) else {
            resident.look_at = resident.live / 2;
            return 0;
        };
        self.batches.remove(&first);
        let mut after = 0;
        for batch in remains {
            after += batch.memory_bytes();
            self.batches.insert(batch.first, Resident::whole(batch));
        }
        before - after
    }

    /// An emptied map keeps its memory, and there may be many logs.
    pub(crate) fn let_go(&mut self) {
        if self.batches.is_empty() {
            self.batches = BTreeMap::new();
        }
    }

    /// Bytes of memory freed.
    pub(crate) fn remove(&mut self) -> u64 {
        self.removed = true;
        self.runs = Vec::new();
        std::mem::take(&mut self.batches)
            .values()
            .map(|resident| resident.batch.memory_bytes())
            .sum()
    }

    /// Where the first live message at or after `from` is, and its offset.
    pub(crate) fn locate(&self, mut from: u64) -> Option<(u64, Place)> {
        loop {
            from = self.discarded.first_gap(from);
            if from >= self.end {
                return None;
            }
            if let Some(batch) = self.batch_at(from) {
                return Some((from, Place::Memory(Arc::clone(batch))));
            }
            let next_run = self.runs.partition_point(|run| run.end <= from);
            let next_run = self.runs.get(next_run);
            if let Some(run) = next_run
                && run.first <= from
            {
                return Some((from, Place::Disk(*run)));
            }
            let next_run = next_run.map(|run| run.first);
            let next_batch = self.batches.range(from..).next().map(|(&first, _)| first);
            from = next_run.into_iter().chain(next_batch).min()?;
        }
    }

    fn batch_at(&self, at: u64) -> Option<&Arc<Batch>> {
        let before = self.batches.range(..=at).next_back();
        before
            .map(|(_, resident)| &resident.batch)
            .filter(|batch| batch.range().contains(&at))
    }

    pub(crate) fn is_resident(&self, range: Range<u64>) -> bool {
        let range = range.start..range.end.min(self.end);
        self.discarded.gaps(range).into_iter().all(|gap| {
            let mut at = gap.start;
            while at < gap.end {
                match self.batch_at(at) {
                    Some(batch) => at = batch.range().end,
                    None => return false,
                }
            }
            true
        })
    }

    /// Its runs once these are replaced by those.
    pub(crate) fn runs_after(&self, removed: &[Run], added: &[Run]) -> Vec<Run> {
        let gone = |run: &Run| removed.iter().any(|gone| gone.place() == run.place());
        let mut runs: Vec<Run> = Vec::with_capacity(self.runs.len() + added.len());
        runs.extend(self.runs.iter().filter(|run| !gone(run)));
        runs.extend(added);
        runs.sort_unstable_by_key(|run| run.first);
        runs
    }
}
