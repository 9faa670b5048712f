//! A file of bodies of one log, in offset order, little-endian:
//!
//! ```text
//! file  = header | frame*
//! header= magic 8 | crc 4 | version 4 | shard 4 | log 8 | first offset 8 | checkpoint index 8
//! frame = crc of the header 4 | crc of the records 4 | length 4 | count 4 | first offset 8
//!       | stored at 8 | records
//! ```
//! The checkpoint's manifest says how much of the file is valid; nothing behind that is ever read.
//! A header's crc covers what follows it up to the records, seeded with shard and log, so that a
//! frame of another log cannot pass for one of this. Frames are found through a sparse index, built
//! from the frames at the first read. Every read checks the checksums of what it returns.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::{Buf, BufMut, Bytes};
use millrace_types::{LogId, LogIndex, Offset, ShardId, Wall};

use crate::disk::DiskFile;
use crate::error::{Action, Corruption, DiskFailure, ReadError, failed};
use crate::size::in_memory;

/// Bytes of the file's header.
pub(crate) const HEADER_BYTES: u64 = 44;
/// As an array's length.
pub(crate) const HEADER_SIZE: usize = in_memory(HEADER_BYTES);
/// Bytes of a frame without its records.
pub(crate) const FRAME_HEADER_BYTES: usize = 32;
/// A segment grows to about this size: small enough to go away whole soon after its messages.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Written, and the latest read.
pub(crate) const VERSION: u32 = 1;

/// One index entry for this much of the file: what one read fetches at least.
const BLOCK_BYTES: u64 = 64 << 10;
/// Bytes read at a time while building the index.
const SCAN_BYTES: u64 = 256 << 10;
const MAGIC: [u8; 8] = *b"MRSEGMNT";
/// Records of a frame at most, in bytes; a larger length is damage.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// A segment as the last durable checkpoint has it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) log: LogId,
    pub(crate) first: Offset,
    /// One past its last offset.
    pub(crate) end: Offset,
    /// Valid bytes.
    pub(crate) bytes: u64,
    pub(crate) index: OnceLock<Arc<[Block]>>,
}

/// Where some of its frames are: up to the next block or the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) first: u64,
    pub(crate) at: u64,
}

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
pub(crate) fn name(first: Offset) -> String {
    format!("{:020}.seg", first.get())
}

/// The offset in a segment's file name.
pub(crate) fn parse_name(name: &str) -> Option<Offset> {
    let offset = name.strip_suffix(".seg")?.parse().ok()?;
    Some(Offset::new(offset)).filter(|first| self::name(*first) == name)
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
    pub(crate) log: LogId,
    pub(crate) first: Offset,
    /// The checkpoint that created it; without that checkpoint it is an unfinished attempt.
    pub(crate) checkpoint: LogIndex,
}

impl FileHeader {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut covered = Vec::with_capacity(HEADER_SIZE);
        covered.put_u32_le(VERSION);
        covered.put_u32_le(self.shard.get());
        covered.put_u64_le(self.log.get());
        covered.put_u64_le(self.first.get());
        covered.put_u64_le(self.checkpoint.get());
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
        let (shard, log) = (
            ShardId::new(rest.get_u32_le()),
            LogId::new(rest.get_u64_le()),
        );
        let first = Offset::new(rest.get_u64_le());
        let checkpoint = LogIndex::new(rest.get_u64_le());
        Ok((
            version,
            Self {
                shard,
                log,
                first,
                checkpoint,
            },
        ))
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

impl Segment {
    pub(crate) fn range(&self) -> Range<u64> {
        self.first.get()..self.end.get()
    }

    /// Number of the block that holds `offset` or, when none does, the one before.
    pub(crate) fn block_of(index: &[Block], offset: u64) -> usize {
        index
            .partition_point(|block| block.first <= offset)
            .saturating_sub(1)
    }

    /// The index, built if need be.
    pub(crate) fn index(
        &self,
        file: &dyn DiskFile,
        path: &Path,
        seed: u32,
    ) -> Result<Arc<[Block]>, ReadError> {
        if let Some(index) = self.index.get() {
            return Ok(Arc::clone(index));
        }
        let index: Arc<[Block]> = self.build_index(file, path, seed)?.into();
        Ok(Arc::clone(self.index.get_or_init(|| index)))
    }

    fn build_index(
        &self,
        file: &dyn DiskFile,
        path: &Path,
        seed: u32,
    ) -> Result<Vec<Block>, ReadError> {
        let mut builder = IndexBuilder::default();
        let (mut at, mut buffer, mut buffer_at) = (HEADER_BYTES, Vec::new(), 0_u64);
        while at < self.bytes {
            let corrupt = |kind| ReadError::Corrupt {
                path: path.into(),
                at,
                kind,
            };
            let needed = FRAME_HEADER_BYTES as u64;
            if self.bytes - at < needed {
                let found = self.bytes - at;
                return Err(corrupt(Corruption::Short {
                    expected: needed,
                    found,
                }));
            }
            if at < buffer_at || at + needed > buffer_at + buffer.len() as u64 {
                buffer.resize(in_memory(SCAN_BYTES.min(self.bytes - at)), 0);
                read(file, path, &mut buffer, at)?;
                buffer_at = at;
            }
            let header = FrameHeader::decode(&buffer[in_memory(at - buffer_at)..], seed);
            let header = header.map_err(corrupt)?;
            builder.push(&header, at);
            at += needed + u64::from(header.length);
        }
        Ok(builder.blocks)
    }

    /// All frames of a block, checksums checked.
    pub(crate) fn read_block(
        &self,
        file: &dyn DiskFile,
        path: &Path,
        seed: u32,
        blocks: Range<usize>,
    ) -> Result<Vec<Frame>, ReadError> {
        let index = self.index(file, path, seed)?;
        let (Some(block), end) = (index.get(blocks.start), index.get(blocks.end)) else {
            return Ok(Vec::new());
        };
        let end = end.map_or(self.bytes, |next| next.at);
        let mut buffer = vec![0; in_memory(end - block.at)];
        read(file, path, &mut buffer, block.at)?;
        let (mut rest, mut at) = (Bytes::from(buffer), block.at);
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
            if crc32c::crc32c_append(seed, &records) != header.records_crc {
                return Err(corrupt(Corruption::Checksum));
            }
            at += FRAME_HEADER_BYTES as u64 + u64::from(header.length);
            frames.push(Frame { header, records });
        }
        Ok(frames)
    }
}

/// Builds the sparse index while frames go by.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexBuilder {
    pub(crate) blocks: Vec<Block>,
}

impl IndexBuilder {
    pub(crate) fn push(&mut self, header: &FrameHeader, at: u64) {
        if self
            .blocks
            .last()
            .is_none_or(|last| at - last.at >= BLOCK_BYTES)
        {
            self.blocks.push(Block {
                first: header.first,
                at,
            });
        }
    }
}

fn read(file: &dyn DiskFile, path: &Path, buffer: &mut [u8], at: u64) -> Result<(), DiskFailure> {
    file.read_exact_at(buffer, at)
        .map_err(failed(Action::Read, path))
}
