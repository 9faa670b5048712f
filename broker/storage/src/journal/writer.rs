//! The journal's thread: takes what waits, writes it as one batch, syncs, answers.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::files::Supply;
use super::format::{Encoded, FILE_HEADER_BYTES, aligned, frame_bytes};
use super::handle::Shared;
use super::inbox::Work;
use super::live::{Live, LiveFile};
use super::recovery::Found;
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

/// State of the journal's thread.
pub(crate) struct Writer {
    pub(crate) options: JournalOptions,
    pub(crate) dir: DataDir,
    pub(crate) supply: Arc<Supply>,
    active: ActiveFile,
    sequence_next: u64,
    /// Shared with who asks for numbers.
    pub(crate) live: Arc<Mutex<Live>>,
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
        let mut live = Live::new(found.live);
        live.push(LiveFile::new(active.path.clone(), active.file_bytes));
        let (live, sequence_next) = (Arc::new(Mutex::new(live)), found.sequence_next);
        let mut writer = Self {
            options,
            dir,
            supply,
            active,
            sequence_next,
            live,
        };
        if !found.rewrite.is_empty() {
            writer.write(&found.rewrite)?;
            writer.sync()?;
        }
        Ok(writer)
    }

    /// Works until everything is drained, or a write fails.
    pub(crate) fn run(&mut self, shared: &Shared) -> Result<(), DiskFailure> {
        while let Some(work) = shared.inbox.take() {
            let Work {
                records,
                dones,
                released,
            } = work;
            if !released.is_empty() {
                let free = self.live().release(released);
                for file in free {
                    self.supply.retire(file.path, file.bytes);
                }
            }
            if !records.is_empty() {
                self.append(&records, shared)?;
            }
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
        let file = LiveFile::new(self.active.path.clone(), self.active.file_bytes);
        self.live().push(file);
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
        self.live().note(records);
        Ok(bytes)
    }

    fn sync(&self) -> Result<(), DiskFailure> {
        self.active
            .file
            .sync_data()
            .map_err(failed(Action::Sync, &self.active.path))
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
