//! The frame around a file that is read and written whole (identity, checkpoint), little-endian:
//!
//! ```text
//! magic 8 | crc32c 4 | version 4 | length 8 | payload
//! ```
//! The checksum covers everything behind it. A file longer than its payload is corrupt.

use std::io::IoSlice;
use std::path::Path;

use bytes::{Buf, BufMut, Bytes};

use crate::disk::{Disk, OpenMode};
use crate::error::{Action, Corruption, DiskFailure, OpenError, failed};

/// Bytes before the payload.
const HEADER_BYTES: usize = 24;

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

/// Replaces `path` by a file with `payload`: temporary file, sync, rename, sync of the directory.
/// What is left of a failed attempt is removed if the disk still lets us.
pub(crate) fn replace(
    disk: &dyn Disk,
    path: &Path,
    kind: Kind,
    payload: &[&[u8]],
) -> Result<u64, DiskFailure> {
    let temporary = path.with_extension(TEMPORARY);
    let written = write(disk, &temporary, kind, payload)
        .and_then(|bytes| {
            disk.rename(&temporary, path)
                .map_err(failed(Action::Rename, path))?;
            Ok(bytes)
        })
        .inspect_err(|_| {
            // Best effort: the next start removes it too.
            drop(disk.remove(&temporary));
        })?;
    let directory = path.parent().unwrap_or(path);
    disk.sync_dir(directory)
        .map_err(failed(Action::Sync, directory))?;
    Ok(written)
}

/// Extension of files that are not complete yet.
pub(crate) const TEMPORARY: &str = "new";

fn write(disk: &dyn Disk, path: &Path, kind: Kind, payload: &[&[u8]]) -> Result<u64, DiskFailure> {
    let header = header(kind, payload);
    let file = match disk.open(path, OpenMode::CreateNew) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.remove(path).map_err(failed(Action::Remove, path))?;
            disk.open(path, OpenMode::CreateNew)
        }
        opened => opened,
    }
    .map_err(failed(Action::Create, path))?;
    let mut slices = vec![IoSlice::new(&header)];
    slices.extend(payload.iter().map(|part| IoSlice::new(part)));
    file.write_all_at(&slices, 0)
        .map_err(failed(Action::Write, path))?;
    file.sync_data().map_err(failed(Action::Sync, path))?;
    Ok(slices.iter().map(|slice| slice.len() as u64).sum())
}

fn header(kind: Kind, payload: &[&[u8]]) -> Vec<u8> {
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
    header
}

/// The payload and its version; `None` when there is no such file.
pub(crate) fn read(
    disk: &dyn Disk,
    path: &Path,
    kind: Kind,
) -> Result<Option<(u32, Bytes)>, OpenError> {
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
    if version > kind.version {
        let (path, supported) = (path.into(), kind.version);
        return Err(OpenError::NewerVersion {
            path,
            found: version,
            supported,
        });
    }
    if length > kind.payload_bytes_max || version == 0 {
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
    Ok(Some((version, payload.into())))
}
