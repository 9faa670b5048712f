//! A file of bodies, little-endian. A log with much to write has segments of its own, those with
//! little share one; each writes a run at a time:
//!
//! ```text
//! file  = header | run*
//! header= magic 8 | crc 4 | version 4 | shard 4 | number 8
//! run   = frame* | index?
//! frame = crc of the header 4 | crc of the records 4 | length 4 | count 4 | first offset 8
//!       | stored at 8 | records
//! ```
//! The checkpoint's manifest says which runs are where; nothing else is ever read. A header's crc
//! covers what follows it up to the records, seeded with shard and log, so that a frame of another
//! log cannot pass for one of this. Every read checks the checksums of what it returns.

use std::ops::Range;
use std::path::Path;

use bytes::{Buf, BufMut, Bytes};
use millrace_types::{LogId, ShardId, Wall};

use crate::disk::DiskFile;
use crate::error::{Action, Corruption, OpenError, ReadError, failed};
use crate::size::in_memory;

/// Bytes of the file's header.
pub(crate) const HEADER_BYTES: u64 = 28;
/// As an array's length.
pub(crate) const HEADER_SIZE: usize = in_memory(HEADER_BYTES);
/// Bytes of a frame without its records.
pub(crate) const FRAME_HEADER_BYTES: usize = 32;
/// A segment grows to about this size: small enough to go away whole soon after its messages.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Written, and the latest read.
pub(crate) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"MRSEGMNT";
/// Records of a frame at most, in bytes; a larger length is damage.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// What a frame says about its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) records_crc: u32,
    pub(crate) length: u32,
    pub(crate) count: u32,
    pub(crate) first: u64,
    pub(crate) stored_at: Wall,
}

/// A frame with its records.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) records: Bytes,
}

/// A segment's file name.
pub(crate) fn name(number: u64) -> String {
    format!("{number:016}.seg")
}

/// The number in a segment's file name.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".seg")?.parse().ok()?;
    Some(number).filter(|number| self::name(*number) == name)
}

/// Seed of the checksums of a log's frames.
pub(crate) fn seed(shard: ShardId, log: LogId) -> u32 {
    crc32c::crc32c_append(
        crc32c::crc32c(&shard.get().to_le_bytes()),
        &log.get().to_le_bytes(),
    )
}

/// A file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) shard: ShardId,
    /// As in its name.
    pub(crate) number: u64,
}

impl FileHeader {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut covered = Vec::with_capacity(HEADER_SIZE);
        covered.put_u32_le(VERSION);
        covered.put_u32_le(self.shard.get());
        covered.put_u64_le(self.number);
        let mut header = Vec::with_capacity(HEADER_SIZE);
        header.put_slice(&MAGIC);
        header.put_u32_le(crc32c::crc32c(&covered));
        header.put_slice(&covered);
        header
    }

    /// The version and the header.
    pub(crate) fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<(u32, Self), Corruption> {
        if bytes[..8] != MAGIC {
            return Err(Corruption::Magic);
        }
        let mut rest = &bytes[8..];
        let crc = rest.get_u32_le();
        if crc32c::crc32c(rest) != crc {
            return Err(Corruption::Checksum);
        }
        let version = rest.get_u32_le();
        let shard = ShardId::new(rest.get_u32_le());
        let number = rest.get_u64_le();
        Ok((version, Self { shard, number }))
    }

    /// Checks that a file starts with this header. What does not check is read again, as a bit may
    /// have flipped on its way.
    pub(crate) fn check(self, file: &dyn DiskFile, path: &Path) -> Result<(), OpenError> {
        match self.check_once(file, path) {
            Err(OpenError::Corrupt { .. }) => self.check_once(file, path),
            checked => checked,
        }
    }

    fn check_once(self, file: &dyn DiskFile, path: &Path) -> Result<(), OpenError> {
        let corrupt = |kind| OpenError::Corrupt {
            path: path.into(),
            at: 0,
            kind,
        };
        let found = file.bytes().map_err(failed(Action::Read, path))?;
        let expected = HEADER_BYTES;
        if found < expected {
            return Err(corrupt(Corruption::Short { expected, found }));
        }
        let mut bytes = [0; HEADER_SIZE];
        file.read_exact_at(&mut bytes, 0)
            .map_err(failed(Action::Read, path))?;
        let (version, header) = Self::decode(&bytes).map_err(corrupt)?;
        if version > VERSION {
            let (path, supported) = (path.into(), VERSION);
            return Err(OpenError::NewerVersion {
                path,
                found: version,
                supported,
            });
        }
        if header != self {
            return Err(corrupt(Corruption::Content));
        }
        Ok(())
    }
}

impl FrameHeader {
    pub(crate) fn new(first: u64, count: u32, stored_at: Wall, records: &[u8], seed: u32) -> Self {
        let length = u32::try_from(records.len()).expect("batches are bounded");
        assert!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        let records_crc = crc32c::crc32c_append(seed, records);
        Self {
            records_crc,
            length,
            count,
            first,
            stored_at,
        }
    }

    pub(crate) fn encode(&self, seed: u32, target: &mut Vec<u8>) {
        let start = target.len();
        target.put_u32_le(0);
        target.put_u32_le(self.records_crc);
        target.put_u32_le(self.length);
        target.put_u32_le(self.count);
        target.put_u64_le(self.first);
        target.put_u64_le(self.stored_at.as_millis());
        let crc = crc32c::crc32c_append(seed, &target[start + 4..]);
        target[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// `bytes` has at least `FRAME_HEADER_BYTES`.
    pub(crate) fn decode(bytes: &[u8], seed: u32) -> Result<Self, Corruption> {
        let mut rest = &bytes[..FRAME_HEADER_BYTES];
        let crc = rest.get_u32_le();
        if crc32c::crc32c_append(seed, rest) != crc {
            return Err(Corruption::Checksum);
        }
        let (records_crc, length, count) =
            (rest.get_u32_le(), rest.get_u32_le(), rest.get_u32_le());
        if length > FRAME_BYTES_MAX || count == 0 {
            return Err(Corruption::Length);
        }
        let (first, stored_at) = (rest.get_u64_le(), Wall::from_millis(rest.get_u64_le()));
        if first.checked_add(u64::from(count)).is_none() {
            return Err(Corruption::Content);
        }
        Ok(Self {
            records_crc,
            length,
            count,
            first,
            stored_at,
        })
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.first..self.first + u64::from(self.count)
    }
}

/// Takes frames apart, checksums checked; `at` is where they start in the file.
pub(crate) fn frames(
    mut rest: Bytes,
    path: &Path,
    mut at: u64,
    seed: u32,
) -> Result<Vec<Frame>, ReadError> {
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let corrupt = |kind| ReadError::Corrupt {
            path: path.into(),
            at,
            kind,
        };
        if rest.len() < FRAME_HEADER_BYTES {
            let (expected, found) = (FRAME_HEADER_BYTES as u64, rest.len() as u64);
            return Err(corrupt(Corruption::Short { expected, found }));
        }
        let header = FrameHeader::decode(&rest, seed).map_err(corrupt)?;
        rest.advance(FRAME_HEADER_BYTES);
        if header.length as usize > rest.len() {
            let (expected, found) = (u64::from(header.length), rest.len() as u64);
            return Err(corrupt(Corruption::Short { expected, found }));
        }
        let records = rest.split_to(header.length as usize);
        let crc = crc32c::crc32c_append(seed, &records);
        if crc != header.records_crc && !millrace_types::mutant!(ChecksumSkipped) {
            return Err(corrupt(Corruption::Checksum));
        }
        at += FRAME_HEADER_BYTES as u64 + u64::from(header.length);
        frames.push(Frame { header, records });
    }
    Ok(frames)
}
