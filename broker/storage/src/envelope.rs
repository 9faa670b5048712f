//! The frame around a file that is read and written whole (identity, checkpoint), little-endian:
//!
//! ```text
//! magic 8 | crc32c 4 | version 4 | length 8 | payload
//! ```
//! The checksum covers everything behind it. A file longer than its payload is corrupt.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Action, Corruption, DiskFailure, OpenError, ReadError, failed};

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 24;

/// Kind of file, and the latest version of its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// First bytes of the file.
    pub(crate) magic: [u8; 8],
    /// Written, and the latest read.
    pub(crate) version: u32,
    /// Payloads beyond it are corrupt, before anything is allocated for them.
    pub(crate) payload_bytes_max: u64,
}

/// Extension of files that are not complete yet.
pub(crate) const TEMPORARY: &str = "new";
/// Bytes verified in one step.
const VERIFY_BYTES: u64 = 256 << 10;
/// Bytes written in one step.
const STEP_BYTES: usize = 4 << 20;

/// Replaces `path` by a file with `payload`, durably. What is left of a failed attempt is removed
/// if the disk still lets us.
pub(crate) fn replace(
    disk: &dyn Disk,
    path: &Path,
    kind: Kind,
    payload: Vec<Bytes>,
) -> Result<(), DiskFailure> {
    let mut replacement = Replacement::new(path, kind, payload);
    while !replacement.step(disk)? {}
    Ok(())
}

/// A file being replaced: temporary file, sync, rename, sync of the directory; one of them a step.
pub(crate) struct Replacement {
    path: PathBuf,
    temporary: PathBuf,
    /// The header and the payload.
    parts: Vec<Bytes>,
    bytes: u64,
    stage: Stage,
}

enum Stage {
    Create,
    Write(Arc<dyn DiskFile>, u64),
    Rename,
    SyncDir,
    Done,
}

impl Replacement {
    /// Nothing is done yet.
    pub(crate) fn new(path: &Path, kind: Kind, mut payload: Vec<Bytes>) -> Self {
        payload.insert(0, header(kind, &payload));
        payload.retain(|part| !part.is_empty());
        Self {
            path: path.into(),
            temporary: path.with_extension(TEMPORARY),
            bytes: payload.iter().map(|part| part.len() as u64).sum(),
            parts: payload,
            stage: Stage::Create,
        }
    }

    /// Bytes of the whole file.
    pub(crate) fn written(&self) -> u64 {
        self.bytes
    }

    /// Does the next thing; true when the file is in place and durable. After an error what was
    /// written is removed as far as the disk lets us, and nothing may follow.
    pub(crate) fn step(&mut self, disk: &dyn Disk) -> Result<bool, DiskFailure> {
        let result = self.advance(disk);
        if result.is_err() && !matches!(self.stage, Stage::SyncDir) {
            // Best effort: the next start removes it too.
            drop(disk.remove(&self.temporary));
        }
        result
    }

    fn advance(&mut self, disk: &dyn Disk) -> Result<bool, DiskFailure> {
        let (path, temporary) = (&self.path, &self.temporary);
        self.stage = match &self.stage {
            Stage::Create => Stage::Write(create(disk, temporary)?, 0),
            Stage::Write(file, at) if self.parts.is_empty() => {
                assert!(*at > 0, "a header at least was written");
                file.sync_data().map_err(failed(Action::Sync, temporary))?;
                Stage::Rename
            }
            Stage::Write(file, at) => {
                let (file, at) = (Arc::clone(file), *at);
                let written = write_some(&*file, temporary, at, &mut self.parts)?;
                Stage::Write(file, at + written)
            }
            Stage::Rename => {
                disk.rename(temporary, path)
                    .map_err(failed(Action::Rename, path))?;
                Stage::SyncDir
            }
            Stage::SyncDir => {
                let directory = path.parent().unwrap_or(path);
                disk.sync_dir(directory)
                    .map_err(failed(Action::Sync, directory))?;
                Stage::Done
            }
            Stage::Done => Stage::Done,
        };
        Ok(matches!(self.stage, Stage::Done))
    }
}

/// A new file in place of what a failed attempt may have left.
fn create(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn DiskFile>, DiskFailure> {
    match disk.open(path, OpenMode::CreateNew) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.remove(path).map_err(failed(Action::Remove, path))?;
            disk.open(path, OpenMode::CreateNew)
        }
        opened => opened,
    }
    .map_err(failed(Action::Create, path))
}

/// Writes the first parts, or some of the first one, and takes them away.
fn write_some(
    file: &dyn DiskFile,
    path: &Path,
    at: u64,
    parts: &mut Vec<Bytes>,
) -> Result<u64, DiskFailure> {
    let (mut now, mut bytes) = (Vec::new(), 0);
    while let Some(part) = parts.first_mut()
        && bytes < STEP_BYTES
    {
        let piece = part.split_to(part.len().min(STEP_BYTES - bytes));
        bytes += piece.len();
        now.push(piece);
        if part.is_empty() {
            parts.remove(0);
        }
    }
    let slices: Vec<IoSlice<'_>> = now.iter().map(|piece| IoSlice::new(piece)).collect();
    file.write_all_at(&slices, at)
        .map_err(failed(Action::Write, path))?;
    Ok(bytes as u64)
}

pub(crate) fn header(kind: Kind, payload: &[Bytes]) -> Bytes {
    let length: u64 = payload.iter().map(|part| part.len() as u64).sum();
    assert!(
        length <= kind.payload_bytes_max,
        "payload of {length} bytes exceeds its bound"
    );
    let mut covered = Vec::with_capacity(HEADER_BYTES);
    covered.put_u32_le(kind.version);
    covered.put_u64_le(length);
    let crc = payload.iter().fold(crc32c::crc32c(&covered), |crc, part| {
        crc32c::crc32c_append(crc, part)
    });
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.put_slice(&kind.magic);
    header.put_u32_le(crc);
    header.put_slice(&covered);
    header.into()
}

/// The payload and its version; `None` when there is no such file. What does not check is read
/// again: a bit that flipped on its way must not cost a shard.
pub(crate) fn read(
    disk: &dyn Disk,
    path: &Path,
    kind: Kind,
) -> Result<Option<(u32, Bytes)>, OpenError> {
    match read_once(disk, path, kind) {
        Err(OpenError::Corrupt { .. }) if !millrace_types::mutant!(MisreadTrusted) => {
            read_once(disk, path, kind)
        }
        found => found,
    }
}

fn read_once(disk: &dyn Disk, path: &Path, kind: Kind) -> Result<Option<(u32, Bytes)>, OpenError> {
    let file = match disk.open(path, OpenMode::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed(Action::Open, path))?,
    };
    let found = file.bytes().map_err(failed(Action::Read, path))?;
    let corrupt = |at, kind| OpenError::Corrupt {
        path: path.into(),
        at,
        kind,
    };
    if found < HEADER_BYTES as u64 {
        let kind = Corruption::Short {
            expected: HEADER_BYTES as u64,
            found,
        };
        return Err(corrupt(0, kind));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0)
        .map_err(failed(Action::Read, path))?;
    let (magic, mut rest) = header.split_at(kind.magic.len());
    if magic != kind.magic {
        return Err(corrupt(0, Corruption::Magic));
    }
    let (crc, version, length) = (rest.get_u32_le(), rest.get_u32_le(), rest.get_u64_le());
    if length > kind.payload_bytes_max {
        return Err(corrupt(12, Corruption::Length));
    }
    let expected = HEADER_BYTES as u64 + length;
    if expected != found {
        return Err(corrupt(found, Corruption::Short { expected, found }));
    }
    let mut payload =
        vec![0; usize::try_from(length).map_err(|_| corrupt(16, Corruption::Length))?];
    file.read_exact_at(&mut payload, HEADER_BYTES as u64)
        .map_err(failed(Action::Read, path))?;
    if crc32c::crc32c_append(crc32c::crc32c(&header[12..]), &payload) != crc {
        return Err(corrupt(8, Corruption::Checksum));
    }
    // Behind the checksum: a bit that flipped here must not keep a whole node from starting.
    if version > kind.version {
        let (path, supported) = (path.into(), kind.version);
        return Err(OpenError::NewerVersion {
            path,
            found: version,
            supported,
        });
    }
    if version == 0 {
        return Err(corrupt(12, Corruption::Content));
    }
    Ok(Some((version, payload.into())))
}

/// The length of the whole file that begins with this header.
pub(crate) fn length(header: &[u8], kind: Kind) -> Result<u64, Corruption> {
    let rest = header.strip_prefix(&kind.magic).ok_or(Corruption::Magic)?;
    let mut rest = rest.get(8..).ok_or(Corruption::Length)?;
    let length = rest.try_get_u64_le().map_err(|_| Corruption::Length)?;
    if length > kind.payload_bytes_max {
        return Err(Corruption::Length);
    }
    Ok(HEADER_BYTES as u64 + length)
}

/// A file being verified, a piece at a time.
#[derive(Default)]
pub(crate) struct Verify {
    /// As the header has them: checksum, and length of the whole file.
    expected: Option<(u32, u64)>,
    crc: u32,
    at: u64,
}

impl Verify {
    /// The bytes read; `None` at the end, when all is well.
    pub(crate) fn step(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        kind: Kind,
    ) -> Result<Option<u64>, ReadError> {
        let corrupt = |at, kind| ReadError::Corrupt {
            path: path.into(),
            at,
            kind,
        };
        let file = disk.open(path, OpenMode::Read);
        let file = file.map_err(failed(Action::Open, path))?;
        let found = file.bytes().map_err(failed(Action::Read, path))?;
        let end = self.expected.map_or(HEADER_BYTES as u64, |(_, end)| end);
        if self.at >= end {
            let matches = self.expected.is_some_and(|(crc, _)| crc == self.crc);
            let damaged = corrupt(8, Corruption::Checksum);
            return if matches { Ok(None) } else { Err(damaged) };
        }
        if found < end || (self.expected.is_some() && found != end) {
            let expected = end;
            return Err(corrupt(found, Corruption::Short { expected, found }));
        }
        let bytes = (end - self.at).min(VERIFY_BYTES);
        let mut buffer = vec![0; usize::try_from(bytes).expect("bounded above")];
        file.read_exact_at(&mut buffer, self.at)
            .map_err(failed(Action::Read, path))?;
        if self.expected.is_none() {
            let (magic, mut rest) = buffer.split_at(kind.magic.len());
            if magic != kind.magic {
                return Err(corrupt(0, Corruption::Magic));
            }
            let (crc, covered) = (rest.get_u32_le(), rest);
            let length = (&covered[4..]).get_u64_le();
            if length > kind.payload_bytes_max {
                return Err(corrupt(12, Corruption::Length));
            }
            self.expected = Some((crc, HEADER_BYTES as u64 + length));
            self.crc = crc32c::crc32c(covered);
        } else {
            self.crc = crc32c::crc32c_append(self.crc, &buffer);
        }
        self.at += bytes;
        Ok(Some(bytes))
    }
}
