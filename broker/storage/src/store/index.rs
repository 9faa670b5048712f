//! The sparse index of a run: where some of its frames are, by offset and by time.
//!
//! Written behind the run's frames, little-endian: `crc 4 | count 4 | entry*`, an entry being
//! `first offset 8 | stored at 8 | at 4` with `at` counted from the start of the run. It is never
//! trusted over the frames: one that is damaged, or does not fit what it points at, is built again
//! from them. Runs of one block have none.

use bytes::{Buf, BufMut};
use millrace_types::Wall;

use super::run::Run;
use super::segment::{FRAME_HEADER_BYTES, FrameHeader};

/// One entry for at most this much of a run, but for a longer frame: what one read fetches.
pub(crate) const BLOCK_BYTES: u32 = 64 << 10;
/// Of an entry.
const ENTRY_BYTES: usize = 20;
/// Of the checksum and the count.
const PREFIX_BYTES: usize = 8;

/// A stretch of a run: up to the next block or the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// First offset.
    pub(crate) first: u64,
    /// When that was stored.
    pub(crate) stored_at: Wall,
    /// Where it starts, from the start of the run.
    pub(crate) at: u32,
}

/// Notes a frame that starts at `at`, if a block begins there.
pub(crate) fn note(blocks: &mut Vec<Block>, header: &FrameHeader, at: u32) {
    let end = u64::from(at) + FRAME_HEADER_BYTES as u64 + u64::from(header.length);
    let due = |last: &Block| end - u64::from(last.at) > u64::from(BLOCK_BYTES);
    let due = blocks.last().is_none_or(due);
    if due {
        blocks.push(Block {
            first: header.first,
            stored_at: header.stored_at,
            at,
        });
    }
}

/// The index as it is written; nothing for a run of one block.
pub(crate) fn encode(blocks: &[Block], seed: u32) -> Vec<u8> {
    if blocks.len() < 2 {
        return Vec::new();
    }
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + ENTRY_BYTES * blocks.len());
    bytes.put_u32_le(0);
    bytes.put_u32_le(u32::try_from(blocks.len()).expect("a segment is bounded"));
    for block in blocks {
        bytes.put_u64_le(block.first);
        bytes.put_u64_le(block.stored_at.as_millis());
        bytes.put_u32_le(block.at);
    }
    let crc = crc32c::crc32c_append(seed, &bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The blocks of a run; `None` when this is not its index.
pub(crate) fn decode(mut bytes: &[u8], seed: u32, run: &Run) -> Option<Vec<Block>> {
    if bytes.len() < PREFIX_BYTES {
        return None;
    }
    let crc = bytes.get_u32_le();
    if crc32c::crc32c_append(seed, bytes) != crc {
        return None;
    }
    let count = bytes.get_u32_le() as usize;
    if count.checked_mul(ENTRY_BYTES) != Some(bytes.len()) {
        return None;
    }
    let mut blocks = Vec::with_capacity(count);
    for _ in 0..count {
        blocks.push(Block {
            first: bytes.get_u64_le(),
            stored_at: Wall::from_millis(bytes.get_u64_le()),
            at: bytes.get_u32_le(),
        });
    }
    is_sound(&blocks, run).then_some(blocks)
}

fn is_sound(blocks: &[Block], run: &Run) -> bool {
    let ascending = blocks
        .windows(2)
        .all(|pair| pair[0].at < pair[1].at && pair[0].first < pair[1].first);
    let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else {
        return false;
    };
    ascending
        && first.at == 0
        && first.first == run.first
        && last.at < run.bytes
        && last.first < run.end
}

/// The number of the block that holds `offset` or, when none does, the one before.
pub(crate) fn block_of(blocks: &[Block], offset: u64) -> usize {
    let after = blocks.partition_point(|block| block.first <= offset);
    after.saturating_sub(1)
}

/// The number of the block in which the first message stored at or after `wall` is, if the run has
/// one; otherwise of the last.
pub(crate) fn block_at_time(blocks: &[Block], wall: Wall) -> usize {
    let after = blocks.partition_point(|block| block.stored_at < wall);
    after.saturating_sub(1)
}
