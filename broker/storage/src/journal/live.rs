//! Which files hold something that no checkpoint covers.
//!
//! Decides when a file may be used again: in order of age, because a file taken from the middle
//! would look like lost batches at the next start.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millrace_types::{LogIndex, ShardId};

use super::format::frame_bytes;
use super::handle::JournalStats;
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
}

/// What a file in use holds.
#[derive(Debug)]
pub(crate) struct LiveFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
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
            shards,
        }
    }

    /// Counts a record.
    fn note(&mut self, record: &JournalRecord) {
        let held = self.shards.entry(record.shard).or_default();
        held.index_max = held.index_max.max(record.index);
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
    pub(crate) fn push(&mut self, file: LiveFile) {
        self.files.push(file);
    }

    /// Keeps a file, whatever is released.
    pub(crate) fn pin(&mut self, file: usize, shard: ShardId) {
        self.files[file].shards.entry(shard).or_default().index_max = PINNED;
    }

    /// Counts records written to the file in use.
    pub(crate) fn note(&mut self, records: &[JournalRecord]) {
        for record in records {
            // A hard state replaces nothing.
            if record.kind != RecordKind::HardState {
                let last = self.last.insert(record.shard, record.index);
                if last.is_some_and(|last| record.index < last) {
                    self.cut(record.shard, record.index);
                }
            }
            let file = self.files.last_mut().expect("one is always written to");
            file.note(record);
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

    /// Takes note of checkpoints. Returns the files that hold nothing any more.
    pub(crate) fn release(&mut self, released: BTreeMap<ShardId, LogIndex>) -> Vec<LiveFile> {
        for (shard, upto) in released {
            let known = self.released.entry(shard).or_default();
            *known = upto.max(*known);
        }
        let closed = self.files.len().saturating_sub(1);
        let is_free = |file: &&LiveFile| file.holders(&self.released).next().is_none();
        let free = self.files[..closed].iter().take_while(is_free).count();
        self.files.drain(..free).collect()
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
