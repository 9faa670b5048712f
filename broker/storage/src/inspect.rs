//! For the simulation: where things are in a data directory, so that it can tell what a damaged
//! byte may cost from what it must not. Reads, and changes nothing.

use std::ops::Range;
use std::path::{Path, PathBuf};

use millrace_types::ShardId;

use crate::checkpoint::CHECKPOINT;
use crate::disk::Disk;
use crate::envelope;
use crate::journal::format::BatchHeader;
use crate::journal::scan::Scan;

/// A batch with a valid header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBatch {
    /// Its file.
    pub path: PathBuf,
    /// Where it is in the file, its header first.
    pub bytes: Range<u64>,
    /// Of these, the header.
    pub header_bytes: u64,
    /// Counts batches over all files.
    pub sequence: u64,
    /// Records in it; none in a seal.
    pub records: u32,
    /// Whose records.
    pub shards: Vec<ShardId>,
}

/// The batches in all files of a journal's directory; nothing of what cannot be read.
#[must_use]
pub fn journal_batches(disk: &dyn Disk, directory: &Path) -> Vec<FoundBatch> {
    let mut found = Vec::new();
    for name in disk.list(directory).unwrap_or_default() {
        let path = directory.join(name);
        let Ok(mut scan) = Scan::open(disk, &path) else {
            continue;
        };
        while let Ok(Some(batch)) = scan.next() {
            found.push(FoundBatch {
                path: path.clone(),
                bytes: batch.at..batch.end(),
                header_bytes: batch.header.header_bytes() as u64,
                sequence: batch.header.place.sequence,
                records: batch.header.records,
                shards: batch.header.shards,
            });
        }
    }
    found
}

/// Sequence number and records of a batch on its way to a journal file; `None` when these bytes do
/// not begin with one.
#[must_use]
pub fn batch_written(bytes: &[u8]) -> Option<(u64, u32)> {
    let nonce = bytes.get(8..16)?.try_into().ok()?;
    let header = BatchHeader::decode(bytes, u64::from_le_bytes(nonce))?;
    Some((header.place.sequence, header.records))
}

/// Whether a file is a whole checkpoint.
#[must_use]
pub fn is_checkpoint(disk: &dyn Disk, path: &Path) -> bool {
    matches!(envelope::read(disk, path, CHECKPOINT), Ok(Some(_)))
}
