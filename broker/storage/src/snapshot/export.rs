//! The sending side: a picture of a shard's last checkpoint that stays as it is while the shard
//! goes on, readable at any place.
//!
//! Promises: the segments it is made of are neither removed nor changed before it is dropped; a
//! stretch that was read once reads the same again; bodies are checked before they are handed out.
//! The checkpoint's own file was checked when this was made; whoever receives it checks it again.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use millrace_types::LogId;

use crate::checkpoint::{self, Checkpoint, Covered, Manifest};
use crate::disk::{DiskFile, OpenMode};
use crate::error::{Action, Corruption, OpenError, ReadError, failed};
use crate::size::in_memory;
use crate::store::run::Run;
use crate::store::segment::{self, FRAME_HEADER_BYTES};
use crate::store::{Pin, Store};

/// A checkpoint may be replaced between looking for it and opening it; seldom this often.
const TRIES: usize = 8;

/// A pinned picture of a shard's last checkpoint.
pub struct Export {
    store: Arc<Store>,
    _pin: Pin,
    covered: Covered,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// Of the checkpoint's file.
    file_bytes: u64,
    /// In the order in which they travel.
    parts: Vec<Part>,
    total: u64,
    /// What was read last: neighbours are asked for together.
    block: Option<Block>,
}

/// The frames of a run.
struct Part {
    /// Of its first byte in the whole.
    at: u64,
    log: LogId,
    run: Run,
}

/// Some frames of a part.
struct Block {
    part: usize,
    /// From the start of the run.
    at: u64,
    bytes: Vec<u8>,
}

impl Store {
    /// The last checkpoint, to be sent; `None` when there is none, or it changes too fast. Blocks
    /// on the disk.
    ///
    /// # Errors
    /// When it is damaged or the system refuses.
    pub fn export(self: &Arc<Self>) -> Result<Option<Export>, OpenError> {
        for _ in 0..TRIES {
            let mut pin = self.pin();
            let Some(path) = checkpoint::newest(&self.dir, self.shard) else {
                return Ok(None);
            };
            let Ok(file) = self.dir.disk().open(&path, OpenMode::Read) else {
                continue;
            };
            let Some(checkpoint) = Checkpoint::read(&self.dir, self.shard, &path)? else {
                continue;
            };
            let listed = checkpoint.manifest.segments.iter();
            let listed: BTreeSet<u64> = listed.map(|segment| segment.number).collect();
            if !pin.keep_only(&listed) {
                // It has just come into force, and the store does not know yet.
                continue;
            }
            let file_bytes = file.bytes().map_err(failed(Action::Read, &path))?;
            let (parts, total) = parts(&checkpoint.manifest, file_bytes);
            return Ok(Some(Export {
                store: Arc::clone(self),
                _pin: pin,
                covered: checkpoint.covered,
                file,
                path,
                file_bytes,
                parts,
                total,
                block: None,
            }));
        }
        Ok(None)
    }
}

/// Every run, by segment and place in it, and where the last one ends.
fn parts(manifest: &Manifest, file_bytes: u64) -> (Vec<Part>, u64) {
    let mut parts = Vec::new();
    for (log, run) in runs(manifest) {
        parts.push(Part { at: 0, log, run });
    }
    let mut at = file_bytes;
    for part in &mut parts {
        part.at = at;
        at += u64::from(part.run.bytes);
    }
    (parts, at)
}

/// The runs of a checkpoint in the order in which they travel.
pub(super) fn runs(manifest: &Manifest) -> Vec<(LogId, Run)> {
    let logs = manifest.logs.iter();
    let runs = logs.flat_map(|log| log.runs.iter().map(|run| (log.log, *run)));
    let mut runs: Vec<(LogId, Run)> = runs.collect();
    runs.sort_unstable_by_key(|(_, run)| run.place());
    runs
}

impl Export {
    /// What it covers.
    #[must_use]
    pub const fn covered(&self) -> &Covered {
        &self.covered
    }

    /// Bytes of the whole.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.total
    }

    /// As many bytes from `offset` on as there are, `bytes_max` at most. Blocks on the disk.
    ///
    /// # Errors
    /// When what is stored is damaged or cannot be read.
    pub fn read(&mut self, offset: u64, bytes_max: usize) -> Result<Bytes, ReadError> {
        let left = self.total.saturating_sub(offset);
        let wanted = bytes_max.min(usize::try_from(left).unwrap_or(bytes_max));
        let mut found = Vec::with_capacity(wanted);
        while found.len() < wanted {
            let at = offset + found.len() as u64;
            let wanted = wanted - found.len();
            if at < self.file_bytes {
                self.read_file(at, wanted, &mut found)?;
            } else {
                self.read_part(at, wanted, &mut found)?;
            }
        }
        Ok(found.into())
    }

    fn read_file(&self, at: u64, wanted: usize, found: &mut Vec<u8>) -> Result<(), ReadError> {
        let left = in_memory(self.file_bytes - at);
        let start = found.len();
        found.resize(start + wanted.min(left), 0);
        let read = self.file.read_exact_at(&mut found[start..], at);
        Ok(read.map_err(failed(Action::Read, &self.path))?)
    }

    fn read_part(&mut self, at: u64, wanted: usize, found: &mut Vec<u8>) -> Result<(), ReadError> {
        let place = self.parts.partition_point(|part| part.at <= at) - 1;
        let within = at - self.parts[place].at;
        let holds = |block: &&Block| {
            let end = block.at + block.bytes.len() as u64;
            block.part == place && (block.at..end).contains(&within)
        };
        if self.block.as_ref().filter(holds).is_none() {
            self.block = Some(self.load(place, within)?);
        }
        let Some(block) = self.block.as_ref().filter(holds) else {
            return Err(self.unsound(place));
        };
        let from = in_memory(within - block.at);
        let bytes = wanted.min(block.bytes.len() - from);
        found.extend_from_slice(&block.bytes[from..from + bytes]);
        Ok(())
    }

    /// The frames of a part around a place in it.
    fn load(&self, place: usize, within: u64) -> Result<Block, ReadError> {
        let Part { log, run, .. } = &self.parts[place];
        let at = Cell::new(0);
        let loaded = self.store.block(*log, run, |blocks| {
            let behind = blocks.partition_point(|block| u64::from(block.at) <= within);
            let number = behind.saturating_sub(1);
            at.set(blocks.get(number).map_or(0, |block| u64::from(block.at)));
            number
        })?;
        let seed = segment::seed(self.store.shard, *log);
        let mut bytes = Vec::new();
        for frame in loaded.frames.iter() {
            bytes.reserve(FRAME_HEADER_BYTES + frame.records.len());
            frame.header.encode(seed, &mut bytes);
            bytes.extend_from_slice(&frame.records);
        }
        Ok(Block {
            part: place,
            at: at.get(),
            bytes,
        })
    }

    /// A run that is shorter than its checkpoint says.
    fn unsound(&self, place: usize) -> ReadError {
        let run = &self.parts[place].run;
        ReadError::Corrupt {
            path: self.store.segment_path(run.file),
            at: u64::from(run.at),
            kind: Corruption::Content,
        }
    }
}
