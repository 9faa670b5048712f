//! What a journal file looks like, little-endian:
//!
//! ```text
//! file   = header page (4096) | batch*               each batch starts at a multiple of 512
//! header = magic 8 | crc 4 | version 4 | number 8 | nonce 8 | file bytes 8 | zeros
//! batch  = magic 4 | crc 4 | nonce 8 | previous 8 | sequence 8 | ordinal 4 | length 4
//!        | records 4 | shards 4 | shard 4 * shards | frame * records | zeros
//! frame  = length 4 | crc 4 | shard 4 | replica 8 | kind 1 | term 8 | index 8
//!        | header length 4 | header | body
//! ```
//! A crc covers everything behind it up to the frames (of a frame: its length too). `nonce` is
//! random for each use of a file: bytes of its earlier uses, or of a client's message, cannot pass
//! for a batch. A frame's crc is seeded with nonce and sequence, so that a frame of an earlier
//! batch at the same place cannot pass for one of a torn batch. `sequence` counts batches over all
//! files, `ordinal` within the file, and `previous` is the number of the file written to before
//! this one: if that is there, it holds batches. A batch without records is a seal: it says that
//! the one before it was synced, and the next batch is written over it, under the same numbers.
//!
//! Decides what is a valid header or frame; does not decide what an invalid one means.

use std::io::IoSlice;
use std::ops::Range;

use bytes::{Buf, BufMut, Bytes};
use millrace_types::{LogIndex, ReplicaId, SHARDS_MAX, ShardId, Term};

use super::{JOURNAL_RECORD_BYTES_MAX, JournalRecord, RecordKind};
use crate::error::Corruption;
use crate::size::in_memory;

/// A page of its own, so that writing it again never touches a batch.
pub(crate) const FILE_HEADER_BYTES: u64 = 4096;
/// Batches start on sectors, so that writing one never touches a sector of the one before.
pub(crate) const BATCH_ALIGN: u64 = 512;
/// Written, and the latest read.
pub(crate) const FILE_VERSION: u32 = 1;
/// A batch header without its shards.
pub(crate) const BATCH_FIXED_BYTES: usize = 48;
/// The longest batch header.
pub(crate) const BATCH_HEADER_BYTES_MAX: usize = BATCH_FIXED_BYTES + 4 * BATCH_SHARDS_MAX;
/// A frame without its record's header and body.
pub(crate) const FRAME_FIXED_BYTES: usize = 41;

/// Every data shard and the metadata shard.
const BATCH_SHARDS_MAX: usize = SHARDS_MAX as usize + 1;
const FILE_MAGIC: [u8; 8] = *b"MRJOURNL";
const FILE_HEADER_USED: usize = 40;
/// As an array's length.
pub(crate) const FILE_HEADER_PAGE: usize = in_memory(FILE_HEADER_BYTES);
pub(crate) const SECTOR: usize = in_memory(BATCH_ALIGN);
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"MRBT");
/// Of a frame: its length and crc come before what the length counts.
const FRAME_UNCOUNTED: usize = 8;

/// A use of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// Ascending over all uses of all files.
    pub(crate) number: u64,
    /// Random.
    pub(crate) nonce: u64,
    /// Length of the file.
    pub(crate) file_bytes: u64,
}

/// Why a file header is not one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FileHeaderError {
    /// Damaged.
    Corrupt(Corruption),
    /// Of a later version.
    Newer(u32),
}

impl FileHeader {
    pub(crate) fn encode(self) -> [u8; FILE_HEADER_PAGE] {
        let mut page = [0; FILE_HEADER_PAGE];
        page[..8].copy_from_slice(&FILE_MAGIC);
        let mut rest = &mut page[12..FILE_HEADER_USED];
        rest.put_u32_le(FILE_VERSION);
        rest.put_u64_le(self.number);
        rest.put_u64_le(self.nonce);
        rest.put_u64_le(self.file_bytes);
        let crc = crc32c::crc32c(&page[12..]);
        page[8..12].copy_from_slice(&crc.to_le_bytes());
        page
    }

    pub(crate) fn decode(page: &[u8; FILE_HEADER_PAGE]) -> Result<Self, FileHeaderError> {
        if page[..8] != FILE_MAGIC {
            return Err(FileHeaderError::Corrupt(Corruption::Magic));
        }
        let mut rest = &page[8..FILE_HEADER_USED];
        let (crc, version) = (rest.get_u32_le(), rest.get_u32_le());
        if crc32c::crc32c(&page[12..]) != crc {
            return Err(FileHeaderError::Corrupt(Corruption::Checksum));
        }
        // Behind the checksum: a later version keeps at least this much of the header.
        if version > FILE_VERSION {
            return Err(FileHeaderError::Newer(version));
        }
        let (number, nonce, file_bytes) = (rest.get_u64_le(), rest.get_u64_le(), rest.get_u64_le());
        Ok(Self {
            number,
            nonce,
            file_bytes,
        })
    }
}

/// Where a batch belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchPlace {
    /// Of its file.
    pub(crate) nonce: u64,
    /// The number of the file that holds the batch before this file's first one; 0: there is none.
    pub(crate) previous: u64,
    pub(crate) sequence: u64,
    /// Batches before it in the file.
    pub(crate) ordinal: u32,
}

/// Everything a batch says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) place: BatchPlace,
    /// Of all frames.
    pub(crate) length: u32,
    pub(crate) records: u32,
    /// Ascending.
    pub(crate) shards: Vec<ShardId>,
}

impl BatchHeader {
    /// The header and the frames, without what follows up to the next batch.
    pub(crate) fn batch_bytes(&self) -> u64 {
        self.header_bytes() as u64 + u64::from(self.length)
    }

    pub(crate) fn header_bytes(&self) -> usize {
        BATCH_FIXED_BYTES + 4 * self.shards.len()
    }

    fn encode(&self, target: &mut Vec<u8>) {
        let start = target.len();
        target.put_u32_le(BATCH_MAGIC);
        target.put_u32_le(0);
        target.put_u64_le(self.place.nonce);
        target.put_u64_le(self.place.previous);
        target.put_u64_le(self.place.sequence);
        target.put_u32_le(self.place.ordinal);
        target.put_u32_le(self.length);
        target.put_u32_le(self.records);
        let shards = u32::try_from(self.shards.len()).expect("at most BATCH_SHARDS_MAX");
        target.put_u32_le(shards);
        for shard in &self.shards {
            target.put_u32_le(shard.get());
        }
        let crc = crc32c::crc32c(&target[start + 8..]);
        target[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// `None` when these bytes do not start with a header of this use of the file.
    pub(crate) fn decode(bytes: &[u8], nonce: u64) -> Option<Self> {
        if bytes.len() < BATCH_FIXED_BYTES || !looks_like_batch(bytes, nonce) {
            return None;
        }
        let mut rest = &bytes[4..BATCH_FIXED_BYTES];
        let crc = rest.get_u32_le();
        let place = BatchPlace {
            nonce: rest.get_u64_le(),
            previous: rest.get_u64_le(),
            sequence: rest.get_u64_le(),
            ordinal: rest.get_u32_le(),
        };
        let (length, records, count) = (rest.get_u32_le(), rest.get_u32_le(), rest.get_u32_le());
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= BATCH_SHARDS_MAX)?;
        let end = BATCH_FIXED_BYTES + 4 * count;
        // The last number is never used: there would be none for the batch after it.
        if crc32c::crc32c(bytes.get(8..end)?) != crc || place.sequence == u64::MAX {
            return None;
        }
        let mut list = &bytes[BATCH_FIXED_BYTES..end];
        let shards = (0..count)
            .map(|_| ShardId::new(list.get_u32_le()))
            .collect();
        Some(Self {
            place,
            length,
            records,
            shards,
        })
    }
}

/// Whether a batch of this use of the file was begun here, its header perhaps incomplete.
pub(crate) fn looks_like_batch(bytes: &[u8], nonce: u64) -> bool {
    bytes.starts_with(&BATCH_MAGIC.to_le_bytes()) && bytes.get(8..16) == Some(&nonce.to_le_bytes())
}

/// Rounds up to where the next batch may start.
pub(crate) const fn aligned(at: u64) -> u64 {
    at.next_multiple_of(BATCH_ALIGN)
}

/// Bytes of a record's frame.
pub(crate) fn frame_bytes(record: &JournalRecord) -> u64 {
    FRAME_FIXED_BYTES as u64 + record.bytes()
}

/// A batch about to be written. Bodies stay where they are.
pub(crate) struct Encoded {
    pub(crate) header: BatchHeader,
    /// The batch header, then of each frame everything but the body.
    small: Vec<u8>,
    /// Where in `small` each frame's part is.
    parts: Vec<Range<usize>>,
}

impl Encoded {
    /// Encodes records; none for a seal.
    pub(crate) fn new(place: BatchPlace, records: &[JournalRecord]) -> Self {
        let mut shards: Vec<ShardId> = records.iter().map(|record| record.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        assert!(
            shards.len() <= BATCH_SHARDS_MAX,
            "more shards than there can be"
        );
        let length: u64 = records.iter().map(frame_bytes).sum();
        let header = BatchHeader {
            place,
            length: u32::try_from(length).expect("batches are bounded"),
            records: u32::try_from(records.len()).expect("batches are bounded"),
            shards,
        };
        let mut small = Vec::with_capacity(header.header_bytes() + records.len() * 128);
        header.encode(&mut small);
        let seed = seed(place.nonce, place.sequence);
        let mut parts = Vec::with_capacity(records.len());
        for record in records {
            let start = small.len();
            encode_frame(record, seed, &mut small);
            parts.push(start..small.len());
        }
        Self {
            header,
            small,
            parts,
        }
    }

    /// What to write, the zeros up to the next batch included.
    pub(crate) fn slices<'a>(&'a self, records: &'a [JournalRecord]) -> Vec<IoSlice<'a>> {
        static ZEROS: [u8; SECTOR] = [0; SECTOR];
        let mut slices = Vec::with_capacity(2 * records.len() + 2);
        // Neighbouring parts of `small` become one slice when no body is between them.
        let mut start = 0;
        for (part, record) in self.parts.iter().zip(records) {
            if !record.body.is_empty() {
                slices.push(IoSlice::new(&self.small[start..part.end]));
                slices.push(IoSlice::new(&record.body));
                start = part.end;
            }
        }
        slices.push(IoSlice::new(&self.small[start..]));
        let bytes = self.header.batch_bytes();
        let padding = usize::try_from(aligned(bytes) - bytes).expect("less than a sector");
        slices.push(IoSlice::new(&ZEROS[..padding]));
        slices.retain(|slice| !slice.is_empty());
        slices
    }
}

fn encode_frame(record: &JournalRecord, seed: u32, target: &mut Vec<u8>) {
    let start = target.len();
    let length = frame_bytes(record) - FRAME_UNCOUNTED as u64;
    target.put_u32_le(u32::try_from(length).expect("records are bounded"));
    target.put_u32_le(0);
    target.put_u32_le(record.shard.get());
    target.put_u64_le(record.replica.get());
    target.put_u8(record.kind as u8);
    target.put_u64_le(record.term.get());
    target.put_u64_le(record.index.get());
    target.put_u32_le(u32::try_from(record.header.len()).expect("records are bounded"));
    target.put_slice(&record.header);
    let crc = crc32c::crc32c_append(seed, &target[start..start + 4]);
    let crc = crc32c::crc32c_append(crc, &target[start + 8..]);
    let crc = crc32c::crc32c_append(crc, &record.body);
    target[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Takes the first frame off `frames`. The record has memory of its own.
pub(crate) fn decode_frame(
    frames: &mut &[u8],
    nonce: u64,
    sequence: u64,
) -> Result<JournalRecord, Corruption> {
    let (bytes, whole) = (*frames, frames.len() as u64);
    let short = |expected| Corruption::Short {
        expected,
        found: whole,
    };
    if bytes.len() < FRAME_FIXED_BYTES {
        return Err(short(FRAME_FIXED_BYTES as u64));
    }
    let mut rest = bytes;
    let (length, crc) = (u64::from(rest.get_u32_le()), rest.get_u32_le());
    let fixed = (FRAME_FIXED_BYTES - FRAME_UNCOUNTED) as u64;
    if !(fixed..=fixed + JOURNAL_RECORD_BYTES_MAX).contains(&length) {
        return Err(Corruption::Length);
    }
    let end = FRAME_UNCOUNTED + in_memory(length);
    let Some(counted) = bytes.get(FRAME_UNCOUNTED..end) else {
        return Err(short(end as u64));
    };
    let found = crc32c::crc32c_append(seed(nonce, sequence), &bytes[..4]);
    if crc32c::crc32c_append(found, counted) != crc {
        return Err(Corruption::Checksum);
    }
    let mut rest = counted;
    let shard = ShardId::new(rest.get_u32_le());
    let replica = ReplicaId::new(rest.get_u64_le());
    let kind = match rest.get_u8() {
        1 => RecordKind::Entry,
        2 => RecordKind::HardState,
        3 => RecordKind::Snapshot,
        4 => RecordKind::Lead,
        5 => RecordKind::Members,
        _ => return Err(Corruption::Content),
    };
    let (term, index) = (
        Term::new(rest.get_u64_le()),
        LogIndex::new(rest.get_u64_le()),
    );
    let header_bytes = rest.get_u32_le() as usize;
    if header_bytes > rest.len() {
        return Err(Corruption::Content);
    }
    let mut header = Bytes::copy_from_slice(rest);
    let body = header.split_off(header_bytes);
    *frames = &bytes[end..];
    Ok(JournalRecord {
        shard,
        replica,
        kind,
        term,
        index,
        header,
        body,
    })
}

/// Puts magic, nonce and checksums right in a batch of any content, as far as it is one.
#[cfg(feature = "test-util")]
pub(crate) fn seal_batch(batch: &mut [u8], nonce: u64) {
    let long = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    batch[..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
    batch[8..16].copy_from_slice(&nonce.to_le_bytes());
    let shards = in_memory(word(&batch[44..48]).into());
    let end = shards
        .saturating_mul(4)
        .saturating_add(BATCH_FIXED_BYTES)
        .min(batch.len());
    let crc = crc32c::crc32c(&batch[8..end]);
    batch[4..8].copy_from_slice(&crc.to_le_bytes());
    let seed = seed(nonce, long(&batch[24..32]));
    let mut frames = &mut batch[end..];
    while frames.len() >= FRAME_FIXED_BYTES {
        let length = in_memory(word(&frames[..4]).into());
        let end = length.saturating_add(FRAME_UNCOUNTED).min(frames.len());
        let (frame, rest) = frames.split_at_mut(end.max(FRAME_UNCOUNTED));
        let crc = crc32c::crc32c_append(seed, &frame[..4]);
        let crc = crc32c::crc32c_append(crc, &frame[FRAME_UNCOUNTED..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        frames = rest;
    }
}

fn seed(nonce: u64, sequence: u64) -> u32 {
    crc32c::crc32c_append(
        crc32c::crc32c(&nonce.to_le_bytes()),
        &sequence.to_le_bytes(),
    )
}
