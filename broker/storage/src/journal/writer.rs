//! The end of the journal: the file in use and the place of the next batch.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::format::{BATCH_ALIGN, BatchPlace, Encoded, FILE_HEADER_BYTES, aligned, frame_bytes};
use super::live::{Live, LiveFile};
use super::recovery::Found;
use super::supply::{RETRY_EVERY, Supply};
use super::{JournalOptions, JournalRecord};
use crate::data_dir::DataDir;
use crate::disk::DiskFile;
use crate::error::{Action, DiskFailure, OpenError, failed};

/// A file ready for batches.
pub(crate) struct ActiveFile {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) number: u64,
    pub(crate) nonce: u64,
    pub(crate) file_bytes: u64,
    /// Where the next batch goes.
    pub(crate) at: u64,
    /// Batches in it.
    pub(crate) ordinal: u32,
}

/// Whether a batch fits.
pub(crate) enum Room {
    Made,
    /// Not before there is another file, or at this time at the latest.
    Awaited(Option<Instant>),
}

/// Where the journal is written.
pub(crate) struct Writer {
    pub(crate) options: JournalOptions,
    pub(crate) dir: DataDir,
    pub(crate) supply: Arc<Supply>,
    active: ActiveFile,
    /// Number of the file with the batch before the first one of this file.
    previous: u64,
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
        let mut live = found.live;
        live.push(LiveFile::new(active.path.clone(), active.file_bytes));
        let (previous, sequence_next) = (found.previous, found.sequence_next);
        let live = Arc::new(Mutex::new(live));
        let mut writer = Self {
            options,
            dir,
            supply,
            active,
            previous,
            sequence_next,
            live,
        };
        if !found.rewrite.is_empty() {
            writer.write(&found.rewrite)?;
            writer.sync()?;
        }
        Ok(writer)
    }

    /// Goes on in the next file when these records do not fit this one.
    pub(crate) fn make_room(
        &mut self,
        records: &[JournalRecord],
        now: Instant,
    ) -> Result<Room, DiskFailure> {
        let frames_bytes = records.iter().map(frame_bytes).sum();
        // With room for a seal behind it.
        let needed = batch_bytes_max(frames_bytes) + BATCH_ALIGN;
        if self.active.at + needed <= self.active.file_bytes {
            return Ok(Room::Made);
        }
        let file_bytes = file_bytes_for(frames_bytes, self.options);
        let next = if file_bytes == self.options.file_bytes {
            self.supply.take()?
        } else {
            match self.supply.make(file_bytes) {
                Ok(file) => Some(file),
                Err(failure) if failure.is_full() => None,
                Err(failure) => return Err(failure),
            }
        };
        let Some(next) = next else {
            // The supply rings when a usual file is ready; a larger one is tried again.
            let retry = file_bytes != self.options.file_bytes;
            return Ok(Room::Awaited(retry.then(|| now + RETRY_EVERY)));
        };
        if self.active.ordinal > 0 {
            self.previous = self.active.number;
        }
        self.active = next;
        let file = LiveFile::new(self.active.path.clone(), self.active.file_bytes);
        self.live().push(file);
        Ok(Room::Made)
    }

    /// Writes a batch that fits. Returns its bytes.
    pub(crate) fn write(&mut self, records: &[JournalRecord]) -> Result<u64, DiskFailure> {
        let batch = Encoded::new(self.place(), records);
        let active = &mut self.active;
        let bytes = aligned(batch.header.batch_bytes());
        assert!(
            active.at + bytes <= active.file_bytes,
            "the batch was given room"
        );
        active
            .file
            .write_all_at(&batch.slices(records), active.at)
            .map_err(failed(Action::Write, &active.path))?;
        let at = active.at;
        active.at += bytes;
        active.ordinal += 1;
        self.sequence_next += 1;
        self.live().note(records, at);
        Ok(bytes)
    }

    /// Says, durably, that the last batch was synced: damage in it is then no torn tail. The next
    /// batch takes the seal's place and number.
    pub(crate) fn seal(&mut self) -> Result<(), DiskFailure> {
        let active = &self.active;
        let seal = Encoded::new(self.place(), &[]);
        active
            .file
            .write_all_at(&seal.slices(&[]), active.at)
            .map_err(failed(Action::Write, &active.path))?;
        self.sync()
    }

    /// Of the next batch.
    fn place(&self) -> BatchPlace {
        let ActiveFile { nonce, ordinal, .. } = self.active;
        BatchPlace {
            nonce,
            previous: self.previous,
            sequence: self.sequence_next,
            ordinal,
        }
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> Result<(), DiskFailure> {
        if millrace_types::mutant!(AckBeforeSync) {
            return Ok(());
        }
        self.active
            .file
            .sync_data()
            .map_err(failed(Action::Sync, &self.active.path))
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
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
        .max(FILE_HEADER_BYTES + batch_bytes_max(frames_bytes) + BATCH_ALIGN)
}
