//! The journal's thread: takes what waits, writes it as one batch, syncs, answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use millrace_types::{LogIndex, ShardId};

use super::files::Supply;
use super::format::{Encoded, FILE_HEADER_BYTES, aligned, frame_bytes};
use super::handle::Shared;
use super::inbox::Work;
use super::recovery::{Found, PINNED};
use super::{JournalOptions, JournalRecord};
use crate::data_dir::DataDir;
use crate::disk::DiskFile;
use crate::error::{Action, DiskFailure, OpenError, failed};

/// A file ready for batches.
pub(crate) struct ActiveFile {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) nonce: u64,
    pub(crate) file_bytes: u64,
    /// Where the next batch goes.
    pub(crate) at: u64,
    /// Batches in it.
    pub(crate) ordinal: u32,
}

/// What a file in use holds.
#[derive(Debug)]
pub(crate) struct LiveFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) shards: BTreeMap<ShardId, Held>,
}

/// What a file holds of one shard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// Released when a checkpoint covers this index.
    pub(crate) index_max: LogIndex,
    pub(crate) bytes: u64,
}

impl LiveFile {
    pub(crate) fn new(path: PathBuf, bytes: u64) -> Self {
        Self {
            path,
            bytes,
            shards: BTreeMap::new(),
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
}

/// State of the journal's thread.
pub(crate) struct Writer {
    pub(crate) options: JournalOptions,
    pub(crate) dir: DataDir,
    pub(crate) supply: Arc<Supply>,
    active: ActiveFile,
    sequence_next: u64,
    /// Oldest first; the last one is active.
    live: Vec<LiveFile>,
    released: BTreeMap<ShardId, LogIndex>,
}

impl Writer {
    pub(crate) fn new(
        dir: DataDir,
        options: JournalOptions,
        found: Found,
    ) -> Result<Self, OpenError> {
        let supply = Supply::new(dir.clone(), options, found.spares, found.number_next);
        let rewrite_bytes: u64 = found.rewrite.iter().map(frame_bytes).sum();
        let active = supply.make(file_bytes_for(rewrite_bytes, options))?;
        let mut live = found.live;
        live.push(LiveFile::new(active.path.clone(), active.file_bytes));
        let (sequence_next, released) = (found.sequence_next, BTreeMap::new());
        let mut writer = Self {
            options,
            dir,
            supply,
            active,
            sequence_next,
            live,
            released,
        };
        if !found.rewrite.is_empty() {
            writer.write(&found.rewrite)?;
            writer.sync()?;
        }
        Ok(writer)
    }

    /// Works until everything is drained, or a write fails.
    pub(crate) fn run(&mut self, shared: &Shared) -> Result<(), DiskFailure> {
        self.publish_live(shared);
        while let Some(work) = shared.inbox.take() {
            let Work {
                records,
                dones,
                released,
            } = work;
            if !released.is_empty() {
                self.release(released);
            }
            if !records.is_empty() {
                self.append(&records, shared)?;
            }
            self.publish_live(shared);
            for done in dones {
                done();
            }
        }
        Ok(())
    }

    fn append(&mut self, records: &[JournalRecord], shared: &Shared) -> Result<(), DiskFailure> {
        let bytes: u64 = records.iter().map(frame_bytes).sum();
        self.make_room(bytes)?;
        let written = self.write(records)?;
        let started = Instant::now();
        self.sync()?;
        shared.count(records.len() as u64, written, started.elapsed());
        Ok(())
    }

    /// Goes on in the next file when the batch does not fit this one.
    fn make_room(&mut self, frames_bytes: u64) -> Result<(), DiskFailure> {
        let needed = batch_bytes_max(frames_bytes);
        if self.active.at + needed <= self.active.file_bytes {
            return Ok(());
        }
        let file_bytes = file_bytes_for(frames_bytes, self.options);
        self.active = if file_bytes == self.options.file_bytes {
            self.supply.take()?
        } else {
            self.supply.make(file_bytes)?
        };
        self.live.push(LiveFile::new(
            self.active.path.clone(),
            self.active.file_bytes,
        ));
        Ok(())
    }

    fn write(&mut self, records: &[JournalRecord]) -> Result<u64, DiskFailure> {
        let active = &mut self.active;
        let batch = Encoded::new(active.nonce, self.sequence_next, active.ordinal, records);
        let bytes = aligned(batch.header.batch_bytes());
        assert!(
            active.at + bytes <= active.file_bytes,
            "the batch was given room"
        );
        active
            .file
            .write_all_at(&batch.slices(records), active.at)
            .map_err(failed(Action::Write, &active.path))?;
        active.at += bytes;
        active.ordinal += 1;
        self.sequence_next += 1;
        let live = self
            .live
            .last_mut()
            .expect("the active file is one of them");
        for record in records {
            live.note(record);
        }
        Ok(bytes)
    }

    fn sync(&self) -> Result<(), DiskFailure> {
        self.active
            .file
            .sync_data()
            .map_err(failed(Action::Sync, &self.active.path))
    }

    /// Retires files from the oldest on: were one taken from the middle, its batches would look
    /// lost at the next start.
    fn release(&mut self, released: BTreeMap<ShardId, LogIndex>) {
        for (shard, upto) in released {
            let known = self.released.entry(shard).or_default();
            *known = upto.max(*known);
        }
        let closed = self.live.len() - 1;
        let free = self.live[..closed]
            .iter()
            .take_while(|file| holders(file, &self.released).next().is_none())
            .count();
        for file in self.live.drain(..free) {
            self.supply.retire(file.path, file.bytes);
        }
    }

    fn publish_live(&self, shared: &Shared) {
        let mut live_bytes: BTreeMap<ShardId, u64> = BTreeMap::new();
        for file in &self.live {
            for (shard, held) in holders(file, &self.released) {
                *live_bytes.entry(shard).or_default() += held.bytes;
            }
        }
        let oldest = &self.live[0];
        let pinned_by = if self.live.len() > 1 {
            holders(oldest, &self.released)
                .map(|(shard, _)| shard)
                .collect()
        } else {
            Vec::new()
        };
        let file_bytes = self.live.iter().map(|file| file.bytes).sum();
        shared.set_live(live_bytes, pinned_by, self.live.len(), file_bytes);
    }
}

/// Shards with something in the file that no checkpoint covers.
fn holders<'a>(
    file: &'a LiveFile,
    released: &'a BTreeMap<ShardId, LogIndex>,
) -> impl Iterator<Item = (ShardId, Held)> + 'a {
    file.shards.iter().filter_map(|(shard, held)| {
        let upto = released.get(shard).copied().unwrap_or_default();
        (held.index_max > upto).then_some((*shard, *held))
    })
}

/// Upper bound of a batch with these frames.
fn batch_bytes_max(frames_bytes: u64) -> u64 {
    aligned(super::format::BATCH_HEADER_BYTES_MAX as u64 + frames_bytes)
}

fn file_bytes_for(frames_bytes: u64, options: JournalOptions) -> u64 {
    options
        .file_bytes
        .max(FILE_HEADER_BYTES + batch_bytes_max(frames_bytes))
}
