//! Reads one journal file from its start.
//!
//! Finds every batch whose header is valid, also behind unreadable ones, and of each batch the
//! records up to its first bad frame. Does not judge: whether a bad frame is a torn tail or damage
//! depends on what follows, perhaps in another file.

use std::path::{Path, PathBuf};

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

/// What a file holds.
pub(crate) struct FileScan {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// Or what is wrong with it; then there are no batches.
    pub(crate) header: Result<FileHeader, Corruption>,
    /// In order of place and of sequence.
    pub(crate) batches: Vec<ScannedBatch>,
    /// Where the last batch ends.
    pub(crate) end: u64,
    /// A batch was begun at the end, its header is unreadable.
    pub(crate) begun: bool,
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

/// Scans a file.
pub(crate) fn scan(disk: &dyn Disk, path: &Path) -> Result<FileScan, OpenError> {
    let file = disk
        .open(path, OpenMode::Read)
        .map_err(failed(Action::Open, path))?;
    let bytes = file.bytes().map_err(failed(Action::Read, path))?;
    let mut scan = FileScan {
        path: path.into(),
        bytes,
        header: Err(Corruption::Short {
            expected: FILE_HEADER_BYTES,
            found: bytes,
        }),
        batches: Vec::new(),
        end: FILE_HEADER_BYTES,
        begun: false,
    };
    if bytes < FILE_HEADER_BYTES {
        return Ok(scan);
    }
    let mut page = [0; FILE_HEADER_PAGE];
    file.read_exact_at(&mut page, 0)
        .map_err(failed(Action::Read, path))?;
    scan.header = match FileHeader::decode(&page) {
        Ok(header) if header.file_bytes != bytes => Err(Corruption::Short {
            expected: header.file_bytes,
            found: bytes,
        }),
        Ok(header) => Ok(header),
        Err(FileHeaderError::Corrupt(kind)) => Err(kind),
        Err(FileHeaderError::Newer(found)) => {
            let supported = super::format::FILE_VERSION;
            return Err(OpenError::NewerVersion {
                path: path.into(),
                found,
                supported,
            });
        }
    };
    if let Ok(header) = scan.header {
        read_batches(&*file, header.nonce, &mut scan)?;
    }
    Ok(scan)
}

fn read_batches(file: &dyn DiskFile, nonce: u64, scan: &mut FileScan) -> Result<(), DiskFailure> {
    let mut at = FILE_HEADER_BYTES;
    let mut sequence_min = 0;
    while at < scan.bytes {
        let Some(header) = read_header(file, at, nonce, sequence_min, scan)? else {
            match search(file, at + BATCH_ALIGN, nonce, sequence_min, scan)? {
                Some(next) => at = next,
                None => break,
            }
            continue;
        };
        let batch = read_batch(file, at, header, &scan.path)?;
        scan.end = batch.end();
        sequence_min = batch.header.sequence + 1;
        at = aligned(batch.end());
        scan.batches.push(batch);
    }
    let mut start = [0; 16];
    let at = aligned(scan.end);
    if at + 16 <= scan.bytes {
        file.read_exact_at(&mut start, at)
            .map_err(failed(Action::Read, &scan.path))?;
        scan.begun = looks_like_batch(&start, nonce);
    }
    Ok(())
}

/// The header at `at` if it is valid, fits the file, and comes later than what came before.
fn read_header(
    file: &dyn DiskFile,
    at: u64,
    nonce: u64,
    sequence_min: u64,
    scan: &FileScan,
) -> Result<Option<BatchHeader>, DiskFailure> {
    let mut buffer = [0; BATCH_HEADER_BYTES_MAX];
    let bytes = in_memory((scan.bytes - at).min(buffer.len() as u64));
    let buffer = &mut buffer[..bytes];
    file.read_exact_at(buffer, at)
        .map_err(failed(Action::Read, &scan.path))?;
    Ok(BatchHeader::decode(buffer, nonce).filter(|header| {
        header.sequence >= sequence_min && header.batch_bytes() <= scan.bytes - at
    }))
}

/// The next place from `at` on with a valid header.
fn search(
    file: &dyn DiskFile,
    mut at: u64,
    nonce: u64,
    sequence_min: u64,
    scan: &FileScan,
) -> Result<Option<u64>, DiskFailure> {
    let mut buffer = Vec::new();
    while at < scan.bytes {
        let bytes = SEARCH_BYTES.min(scan.bytes - at);
        buffer.resize(in_memory(bytes), 0);
        file.read_exact_at(&mut buffer, at)
            .map_err(failed(Action::Read, &scan.path))?;
        for (place, sector) in buffer.chunks(SECTOR).enumerate() {
            let found = at + place as u64 * BATCH_ALIGN;
            if looks_like_batch(sector, nonce)
                && read_header(file, found, nonce, sequence_min, scan)?.is_some()
            {
                return Ok(Some(found));
            }
        }
        at += bytes;
    }
    Ok(None)
}

fn read_batch(
    file: &dyn DiskFile,
    at: u64,
    header: BatchHeader,
    path: &Path,
) -> Result<ScannedBatch, DiskFailure> {
    let start = at + header.header_bytes() as u64;
    let mut frames = vec![0; header.length as usize];
    file.read_exact_at(&mut frames, start)
        .map_err(failed(Action::Read, path))?;
    let mut rest = &frames[..];
    let mut records = Vec::new();
    let mut bad = None;
    while records.len() < header.records as usize {
        let place = start + (frames.len() - rest.len()) as u64;
        match decode_frame(&mut rest, header.nonce, header.sequence) {
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
