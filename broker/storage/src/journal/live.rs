//! Which files hold something that no checkpoint covers.
//!
//! Decides when a file may be used again: in order of age, because a file taken from the middle
//! would look like lost batches at the next start. No checkpoint covers a shard's last hard state:
//! it is written again before the file that has it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use millrace_types::{LogIndex, ShardId};

use super::format::frame_bytes;
use super::handle::JournalStats;
use super::places::{At, Course, Places};
use super::{JournalRecord, RecordKind};

/// An index that nothing reaches.
const PINNED: LogIndex = LogIndex::new(u64::MAX);

/// The files in use.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Oldest first; the last one is written to.
    files: Vec<LiveFile>,
    released: BTreeMap<ShardId, LogIndex>,
    /// The index of each shard's last entry or snapshot.
    last: BTreeMap<ShardId, LogIndex>,
    /// The last hard state of each shard, and the number of the file it is in.
    hard: BTreeMap<ShardId, (JournalRecord, u64)>,
    places: Places,
    /// Of the next file.
    number_next: u64,
}

/// What a file in use holds.
#[derive(Debug)]
pub(crate) struct LiveFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    number: u64,
    shards: BTreeMap<ShardId, Held>,
}

/// What a file holds of one shard.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// Released when a checkpoint covers this index.
    index_max: LogIndex,
    bytes: u64,
}

impl LiveFile {
    pub(crate) fn new(path: PathBuf, bytes: u64) -> Self {
        let shards = BTreeMap::new();
        Self {
            path,
            bytes,
            number: 0,
            shards,
        }
    }

    /// Counts a record.
    fn note(&mut self, record: &JournalRecord) {
        let held = self.shards.entry(record.shard).or_default();
        if record.kind != RecordKind::HardState {
            held.index_max = held.index_max.max(record.index);
        }
        held.bytes += frame_bytes(record);
    }

    /// Shards with something in it that no checkpoint covers.
    fn holders<'a>(
        &'a self,
        released: &'a BTreeMap<ShardId, LogIndex>,
    ) -> impl Iterator<Item = (ShardId, Held)> + 'a {
        self.shards.iter().filter_map(|(shard, held)| {
            let upto = released.get(shard).copied().unwrap_or_default();
            (held.index_max > upto).then_some((*shard, *held))
        })
    }
}

impl Live {
    /// Goes on in another file.
    pub(crate) fn push(&mut self, mut file: LiveFile) {
        file.number = self.number_next;
        self.number_next += 1;
        self.files.push(file);
    }

    /// Keeps a file, whatever is released.
    pub(crate) fn pin(&mut self, file: usize, shard: ShardId) {
        self.files[file].shards.entry(shard).or_default().index_max = PINNED;
    }

    /// Counts records of a batch written to the file in use.
    pub(crate) fn note(&mut self, records: &[JournalRecord], byte: u64) {
        let file = self.files.last().map_or(0, |file| file.number);
        self.places.note(records, At { file, byte });
        for record in records {
            let file = self.files.last_mut().expect("one is always written to");
            file.note(record);
            if record.kind == RecordKind::HardState {
                let hard = (record.clone(), file.number);
                self.hard.insert(record.shard, hard);
            } else {
                let last = self.last.insert(record.shard, record.index);
                if last.is_some_and(|last| record.index < last) {
                    self.cut(record.shard, record.index);
                }
            }
        }
    }

    /// What was behind this index has been replaced: no checkpoint will have to reach it.
    fn cut(&mut self, shard: ShardId, index: LogIndex) {
        for file in &mut self.files {
            if let Some(held) = file.shards.get_mut(&shard)
                && held.index_max != PINNED
            {
                held.index_max = held.index_max.min(index);
            }
        }
    }

    /// Forgets what was released of shards that begin anew.
    pub(crate) fn restart(&mut self, shards: &BTreeSet<ShardId>) {
        self.released.retain(|shard, _| !shards.contains(shard));
    }

    /// Takes note of checkpoints. Returns the files that hold nothing any more.
    pub(crate) fn release(&mut self, released: BTreeMap<ShardId, LogIndex>) -> Vec<LiveFile> {
        for (shard, upto) in released {
            let known = self.released.entry(shard).or_default();
            *known = upto.max(*known);
        }
        let free = self.covered();
        let hard = self.hard.values().map(|(_, file)| *file).min();
        let is_free = |file: &&LiveFile| hard.is_none_or(|hard| file.number < hard);
        let free = self.files[..free].iter().take_while(is_free).count();
        let freed = self.files.drain(..free).collect();
        let first = self
            .files
            .first()
            .map_or(self.number_next, |file| file.number);
        self.places.forget(first);
        freed
    }

    /// How to find entries of a shard, and the files by number.
    pub(crate) fn course(
        &self,
        shard: ShardId,
        from: LogIndex,
    ) -> (Course, BTreeMap<u64, PathBuf>) {
        let paths = self.files.iter();
        let paths = paths.map(|file| (file.number, file.path.clone()));
        (self.places.course(shard, from), paths.collect())
    }

    /// Hard states that alone keep files from being used again: once they have been written again,
    /// and that is synced, another `release` returns those files.
    pub(crate) fn carry(&self) -> Vec<JournalRecord> {
        let Some(file) = self.files.get(self.covered()) else {
            return Vec::new();
        };
        let held_by = |(_, held): &&(JournalRecord, u64)| *held < file.number;
        let hard = self.hard.values().filter(held_by);
        hard.map(|(record, _)| record.clone()).collect()
    }

    /// How many files hold nothing but hard states that a checkpoint does not cover.
    fn covered(&self) -> usize {
        let closed = self.files.len().saturating_sub(1);
        let is_covered = |file: &&LiveFile| file.holders(&self.released).next().is_none();
        self.files[..closed].iter().take_while(is_covered).count()
    }

    /// Fills in what is there now.
    pub(crate) fn describe(&self, stats: &mut JournalStats) {
        for file in &self.files {
            stats.files += 1;
            stats.file_bytes += file.bytes;
            for (shard, held) in file.holders(&self.released) {
                *stats.live_bytes.entry(shard).or_default() += held.bytes;
            }
        }
        if let [oldest, _, ..] = &self.files[..] {
            let holders = oldest.holders(&self.released);
            stats.pinned_by.extend(holders.map(|(shard, _)| shard));
        }
    }
}
