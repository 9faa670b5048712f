//! Reads one journal file from its start, a batch at a time.
//!
//! Finds every batch whose header is valid, also behind unreadable ones, and of each batch the
//! records up to its first bad frame. Does not judge: whether a bad frame is a torn tail or damage
//! depends on what follows, perhaps in another file. What does not check is read a second time: a
//! bit that flipped on its way must not cost an acknowledged batch. Holds one batch in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::JournalRecord;
use super::format::{
    BATCH_ALIGN, BATCH_HEADER_BYTES_MAX, BatchHeader, FILE_HEADER_BYTES, FILE_HEADER_PAGE,
    FileHeader, FileHeaderError, SECTOR, aligned, decode_frame, looks_like_batch,
};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Action, Corruption, DiskFailure, OpenError, failed};
use crate::size::in_memory;

/// Bytes read at a time when looking for the next batch.
const SEARCH_BYTES: u64 = 1 << 20;
/// How often what does not check is read, all in all.
const READS: u32 = 2;

/// A journal file that is read.
pub(crate) struct Scan {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// Or what is wrong with it; then there are no batches.
    pub(crate) header: Result<FileHeader, Corruption>,
    /// Sequence number of the first batch.
    pub(crate) first: Option<u64>,
    /// Number of the file that was written to before it, as its first batch says; 0: none.
    pub(crate) previous: u64,
    /// A batch was begun behind the last one, its header is unreadable. Known at the end.
    pub(crate) begun: Option<u64>,
    file: Arc<dyn DiskFile>,
    /// Where the next batch is looked for.
    at: u64,
    /// The least sequence number it may have.
    sequence_min: u64,
}

/// One batch with a valid header.
pub(crate) struct ScannedBatch {
    pub(crate) at: u64,
    pub(crate) header: BatchHeader,
    /// Those before the first bad frame.
    pub(crate) records: Vec<JournalRecord>,
    /// The first bad frame.
    pub(crate) bad: Option<(u64, Corruption)>,
}

impl ScannedBatch {
    pub(crate) fn end(&self) -> u64 {
        self.at + self.header.batch_bytes()
    }
}

impl Scan {
    /// Opens a file and looks for its first batch.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Self, OpenError> {
        let file = disk
            .open(path, OpenMode::Read)
            .map_err(failed(Action::Open, path))?;
        let bytes = file.bytes().map_err(failed(Action::Read, path))?;
        let header = match read_file_header(&*file, path, bytes)? {
            Err(_) => read_file_header(&*file, path, bytes)?,
            header => header,
        };
        let mut scan = Self {
            path: path.into(),
            bytes,
            header,
            first: None,
            previous: 0,
            begun: None,
            file,
            at: FILE_HEADER_BYTES,
            sequence_min: 0,
        };
        if let Some((at, header)) = scan.find()? {
            scan.first = Some(header.place.sequence);
            scan.previous = header.place.previous;
            scan.at = at;
        }
        Ok(scan)
    }

    /// Goes back to the first batch.
    pub(crate) const fn rewind(&mut self) {
        (self.at, self.sequence_min) = (FILE_HEADER_BYTES, 0);
    }

    /// Makes what was read durable: whoever wrote it may have been killed before its sync.
    pub(crate) fn sync(&self) -> Result<(), DiskFailure> {
        let synced = self.file.sync_data();
        synced.map_err(failed(Action::Sync, &self.path))
    }

    /// The next batch.
    pub(crate) fn next(&mut self) -> Result<Option<ScannedBatch>, DiskFailure> {
        let Some((at, header)) = self.find()? else {
            return Ok(None);
        };
        let batch = self.read_batch(at, header)?;
        self.sequence_min = batch.header.place.sequence + 1;
        self.at = aligned(batch.end());
        Ok(Some(batch))
    }

    /// The next valid header, and where it is.
    fn find(&mut self) -> Result<Option<(u64, BatchHeader)>, DiskFailure> {
        let Ok(FileHeader { nonce, .. }) = self.header else {
            return Ok(None);
        };
        if self.at >= self.bytes {
            return Ok(None);
        }
        for _ in 0..READS {
            if let Some(header) = self.read_header(self.at, nonce)? {
                return Ok(Some((self.at, header)));
            }
        }
        let found = self.search(self.at + BATCH_ALIGN, nonce)?;
        if found.is_none() {
            self.begun = self.is_begun(nonce)?.then_some(self.at);
            self.at = self.bytes;
        }
        Ok(found)
    }

    /// The header at `at` if it is valid, fits the file, and comes later than what came before.
    fn read_header(&self, at: u64, nonce: u64) -> Result<Option<BatchHeader>, DiskFailure> {
        let mut buffer = [0; BATCH_HEADER_BYTES_MAX];
        let bytes = in_memory((self.bytes - at).min(buffer.len() as u64));
        let buffer = &mut buffer[..bytes];
        self.read(buffer, at)?;
        Ok(BatchHeader::decode(buffer, nonce).filter(|header| {
            let follows = header.place.sequence >= self.sequence_min;
            (follows || millrace_types::mutant!(SequenceNotChecked))
                && header.batch_bytes() <= self.bytes - at
        }))
    }

    /// The next place from `at` on with a valid header.
    fn search(&self, mut at: u64, nonce: u64) -> Result<Option<(u64, BatchHeader)>, DiskFailure> {
        let mut buffer = Vec::new();
        while at < self.bytes {
            let bytes = SEARCH_BYTES.min(self.bytes - at);
            buffer.resize(in_memory(bytes), 0);
            self.read(&mut buffer, at)?;
            for (place, sector) in buffer.chunks(SECTOR).enumerate() {
                let found = at + place as u64 * BATCH_ALIGN;
                if !looks_like_batch(sector, nonce) {
                    continue;
                }
                if let Some(header) = self.read_header(found, nonce)? {
                    return Ok(Some((found, header)));
                }
            }
            at += bytes;
        }
        Ok(None)
    }

    fn is_begun(&self, nonce: u64) -> Result<bool, DiskFailure> {
        let mut start = [0; 16];
        if self.at + start.len() as u64 > self.bytes {
            return Ok(false);
        }
        self.read(&mut start, self.at)?;
        Ok(looks_like_batch(&start, nonce))
    }

    fn read_batch(&self, at: u64, header: BatchHeader) -> Result<ScannedBatch, DiskFailure> {
        let mut batch = self.read_batch_once(at, header)?;
        for _ in 1..READS {
            if batch.bad.is_some() {
                let again = self.read_batch_once(at, batch.header.clone())?;
                if again.records.len() > batch.records.len() {
                    batch = again;
                }
            }
        }
        Ok(batch)
    }

    fn read_batch_once(&self, at: u64, header: BatchHeader) -> Result<ScannedBatch, DiskFailure> {
        let start = at + header.header_bytes() as u64;
        let mut frames = vec![0; header.length as usize];
        self.read(&mut frames, start)?;
        let mut rest = &frames[..];
        let mut records = Vec::new();
        let mut bad = None;
        while records.len() < header.records as usize {
            let place = start + (frames.len() - rest.len()) as u64;
            match decode_frame(&mut rest, header.place.nonce, header.place.sequence) {
                Ok(record) => records.push(record),
                Err(kind) => {
                    bad = Some((place, kind));
                    break;
                }
            }
        }
        Ok(ScannedBatch {
            at,
            header,
            records,
            bad,
        })
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<(), DiskFailure> {
        self.file
            .read_exact_at(buffer, at)
            .map_err(failed(Action::Read, &self.path))
    }
}

fn read_file_header(
    file: &dyn DiskFile,
    path: &Path,
    bytes: u64,
) -> Result<Result<FileHeader, Corruption>, OpenError> {
    if bytes < FILE_HEADER_BYTES {
        let (expected, found) = (FILE_HEADER_BYTES, bytes);
        return Ok(Err(Corruption::Short { expected, found }));
    }
    let mut page = [0; FILE_HEADER_PAGE];
    file.read_exact_at(&mut page, 0)
        .map_err(failed(Action::Read, path))?;
    match FileHeader::decode(&page) {
        Ok(header) if header.file_bytes != bytes => Ok(Err(Corruption::Short {
            expected: header.file_bytes,
            found: bytes,
        })),
        Ok(header) => Ok(Ok(header)),
        Err(FileHeaderError::Corrupt(kind)) => Ok(Err(kind)),
        Err(FileHeaderError::Newer(found)) => {
            let supported = super::format::FILE_VERSION;
            Err(OpenError::NewerVersion {
                path: path.into(),
                found,
                supported,
            })
        }
    }
}
