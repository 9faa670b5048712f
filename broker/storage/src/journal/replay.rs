//! Hands out what a journal holds, in the order it was written, one batch in memory at a time.
//!
//! Recovery has read every batch once and said which records count; this reads them again. A batch
//! that reads otherwise than before is an error that names file and byte.

use std::collections::{BTreeMap, BTreeSet};

use millrace_types::ShardId;

use super::JournalRecord;
use super::fold::Fold;
use super::scan::Scan;
use crate::error::{Corruption, OpenError};

/// What recovery found, to be read again.
pub(crate) struct Replay {
    /// In the order of what they hold.
    scans: Vec<Scan>,
    /// Copies of batches that do not count: file and place.
    ignored: BTreeSet<(usize, u64)>,
    /// Batches that are known not to be whole.
    bad: BTreeSet<(usize, u64)>,
    shards: BTreeMap<ShardId, Fold>,
}

impl Replay {
    pub(crate) const fn new(
        scans: Vec<Scan>,
        ignored: BTreeSet<(usize, u64)>,
        bad: BTreeSet<(usize, u64)>,
        shards: BTreeMap<ShardId, Fold>,
    ) -> Self {
        Self {
            scans,
            ignored,
            bad,
            shards,
        }
    }

    pub(crate) fn run(&mut self, each: &mut dyn FnMut(JournalRecord)) -> Result<(), OpenError> {
        let expected = self.rewind();
        for (file, scan) in self.scans.iter_mut().enumerate() {
            scan.rewind();
            while let Some(batch) = scan.next()? {
                if self.ignored.contains(&(file, batch.at)) {
                    continue;
                }
                if let Some((at, kind)) = batch.bad
                    && !self.bad.contains(&(file, batch.at))
                {
                    let path = scan.path.clone();
                    return Err(OpenError::Corrupt { path, at, kind });
                }
                for record in batch.records {
                    let Some(fold) = self.shards.get_mut(&record.shard) else {
                        let (path, at) = (scan.path.clone(), batch.at);
                        let kind = Corruption::Content;
                        return Err(OpenError::Corrupt { path, at, kind });
                    };
                    if fold.counts(&record) {
                        each(record);
                    }
                }
            }
        }
        let found = self.rewind();
        match self.scans.last() {
            // A batch could not be found again.
            Some(scan) if found != expected => Err(OpenError::Corrupt {
                path: scan.path.clone(),
                at: 0,
                kind: Corruption::Content,
            }),
            _ => Ok(()),
        }
    }

    /// Begins anew; how many records there were of shards that can be used. What is left of a batch
    /// that is damaged may read in more ways than one.
    fn rewind(&mut self) -> u64 {
        let mut records = 0;
        for fold in self.shards.values_mut() {
            let count = fold.rewind();
            if fold.damage.is_none() {
                records += count;
            }
        }
        records
    }
}
