//! Which files hold something that no checkpoint covers.
//!
//! Decides when a file may be used again: in order of age, because a file taken from the middle
//! would look like lost batches at the next start.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millrace_types::{LogIndex, ShardId};

use super::JournalRecord;
use super::format::frame_bytes;
use super::handle::JournalStats;

/// An index that nothing reaches.
const PINNED: LogIndex = LogIndex::new(u64::MAX);

/// The files in use.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Oldest first; the last one is written to.
    files: Vec<LiveFile>,
    released: BTreeMap<ShardId, LogIndex>,
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
    pub(crate) fn note(&mut self, record: &JournalRecord) {
        let held = self.shards.entry(record.shard).or_default();
        held.index_max = held.index_max.max(record.index);
        held.bytes += frame_bytes(record);
    }

    /// Keeps the file, whatever is released.
    pub(crate) fn pin(&mut self, shard: ShardId) {
        self.shards.entry(shard).or_default().index_max = PINNED;
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
    pub(crate) fn new(files: Vec<LiveFile>) -> Self {
        let released = BTreeMap::new();
        Self { files, released }
    }

    /// Goes on in another file.
    pub(crate) fn push(&mut self, file: LiveFile) {
        self.files.push(file);
    }

    /// Counts records written to the file in use.
    pub(crate) fn note(&mut self, records: &[JournalRecord]) {
        let file = self.files.last_mut().expect("one is always written to");
        for record in records {
            file.note(record);
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
