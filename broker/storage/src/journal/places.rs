//! Where the entries of a shard are in the journal's files: roughly, so that it costs little
//! memory, and without reading.
//!
//! A mark says from which batch on an index can be found. An index that is written again (another
//! leader had something else there) leaves what was there before behind: what counts is told by the
//! cuts.

use std::collections::BTreeMap;

use millrace_types::{LogIndex, ShardId};

use super::{JournalRecord, RecordKind};

/// Bytes of a file between the marks of a shard: a search reads as much in vain, and a file of the
/// usual size has a few hundred marks.
const MARK_EVERY: u64 = 256 << 10;

/// A batch: the number of its file's use, and where in that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) file: u64,
    pub(crate) byte: u64,
}

/// A batch and an index.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: At,
    index: LogIndex,
}

/// Where the entries of all shards are.
#[derive(Debug, Default)]
pub(crate) struct Places(BTreeMap<ShardId, Shard>);

#[derive(Debug, Default)]
struct Shard {
    last: LogIndex,
    /// In the order they were written.
    marks: Vec<Mark>,
    /// What was written before such a batch does not count from its index on.
    cuts: Vec<Mark>,
}

/// Where to look for entries, and which of those found count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Course {
    /// Of each file where to begin, in the order they were written.
    pub(crate) starts: Vec<At>,
    cuts: Vec<Mark>,
}

impl Places {
    /// Records were written.
    pub(crate) fn note(&mut self, records: &[JournalRecord], at: At) {
        for record in records.iter().filter(|r| r.kind != RecordKind::HardState) {
            let shard = self.0.entry(record.shard).or_default();
            let index = record.index;
            // A snapshot takes the place of everything, whatever its index.
            let cut = match record.kind {
                RecordKind::Snapshot => Some(LogIndex::default()),
                _ => (index <= shard.last).then_some(index),
            };
            if let Some(index) = cut {
                shard.cuts.push(Mark { at, index });
            }
            let is_far = |mark: &Mark| {
                mark.at.file != at.file || at.byte.saturating_sub(mark.at.byte) >= MARK_EVERY
            };
            if cut.is_some() || shard.marks.last().is_none_or(is_far) {
                shard.marks.push(Mark { at, index });
            }
            shard.last = index;
        }
    }

    /// Files before this one are gone.
    pub(crate) fn forget(&mut self, before: u64) {
        for shard in self.0.values_mut() {
            let gone = |mark: &Mark| mark.at.file < before;
            let marks = shard.marks.partition_point(gone);
            shard.marks.drain(..marks);
            let cuts = shard.cuts.partition_point(gone);
            shard.cuts.drain(..cuts);
        }
    }

    /// How to find the entries of a shard from one on; nothing when it is not there any more.
    pub(crate) fn course(&self, shard: ShardId, from: LogIndex) -> Course {
        let Some(shard) = self.0.get(&shard) else {
            return Course::default();
        };
        // What was written behind the last mark before it has not been written again since.
        let Some(first) = shard.marks.iter().rposition(|mark| mark.index <= from) else {
            return Course::default();
        };
        let mut starts: Vec<At> = Vec::new();
        for mark in &shard.marks[first..] {
            if starts.last().is_none_or(|start| start.file != mark.at.file) {
                starts.push(mark.at);
            }
        }
        let cuts = shard.cuts.iter().filter(|cut| cut.at > starts[0]);
        Course {
            cuts: cuts.copied().collect(),
            starts,
        }
    }
}

impl Course {
    /// Whether an entry of a batch counts: nothing later has taken its place.
    pub(crate) fn counts(&self, at: At, index: LogIndex) -> bool {
        let is_cut = |cut: &Mark| cut.at > at && cut.index <= index;
        !self.cuts.iter().any(is_cut)
    }
}
