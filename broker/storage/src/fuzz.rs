//! For the fuzz targets: files with the right checksums around any content, and journals of given
//! records. What is behind a checksum is not to be trusted for that.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes};
use millrace_types::{LogId, ShardId};

use crate::checkpoint::CHECKPOINT;
use crate::envelope;
use crate::journal::format::{
    BATCH_FIXED_BYTES, BatchPlace, Encoded, FILE_HEADER_BYTES, FileHeader, aligned, seal_batch,
};
use crate::size::in_memory;
use crate::store::segment::{self, FRAME_HEADER_BYTES};
use crate::{Damage, DataDir, Journal, JournalOptions, JournalRecord, OpenError};

/// Of every journal file made here.
const NONCE: u64 = 0x6d69_6c6c_7261_6365;

/// A journal file whose batches have any content: of each chunk, magic, nonce and all checksums
/// become right, lengths and counts stay as they are.
#[must_use]
pub fn journal_file(number: u64, chunks: &[&[u8]]) -> Vec<u8> {
    let mut file = vec![0; in_memory(FILE_HEADER_BYTES)];
    for chunk in chunks {
        let start = file.len();
        file.extend_from_slice(chunk);
        if chunk.len() >= BATCH_FIXED_BYTES {
            seal_batch(&mut file[start..], NONCE);
        }
        file.resize(in_memory(aligned(file.len() as u64)), 0);
    }
    with_header(file, number)
}

/// A checkpoint's file as the first version would have written it; `None` when it is none.
#[must_use]
pub fn checkpoint_of_version_1(file: Vec<u8>) -> Option<Bytes> {
    crate::checkpoint::as_version_1(&file.into())
}

/// A journal file of these batches, and where each begins and ends. `sequence` is that of the
/// first one; the file before it has the number before.
#[must_use]
pub fn journal_of(
    number: u64,
    sequence: u64,
    batches: &[Vec<JournalRecord>],
) -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let mut file = vec![0; in_memory(FILE_HEADER_BYTES)];
    let mut places = Vec::new();
    for (ordinal, records) in (0_u32..).zip(batches) {
        let place = BatchPlace {
            nonce: NONCE,
            previous: number - 1,
            sequence: sequence + u64::from(ordinal),
            ordinal,
        };
        let encoded = Encoded::new(place, records);
        let start = file.len();
        places.push(start..start + in_memory(encoded.header.batch_bytes()));
        for slice in encoded.slices(records) {
            file.extend_from_slice(&slice);
        }
    }
    (with_header(file, number), places)
}

fn with_header(mut file: Vec<u8>, number: u64) -> Vec<u8> {
    let file_bytes = file.len() as u64;
    let nonce = NONCE;
    let header = FileHeader {
        number,
        nonce,
        file_bytes,
    };
    let page = header.encode();
    file[..page.len()].copy_from_slice(&page);
    file
}

/// A checkpoint file with any payload.
#[must_use]
pub fn checkpoint_file(payload: &[u8]) -> Vec<u8> {
    let payload = Bytes::copy_from_slice(payload);
    let header = envelope::header(CHECKPOINT, std::slice::from_ref(&payload));
    [header, payload].concat()
}

/// A segment file with one run of a log, whose frames have any content: both checksums of each
/// become right, lengths and counts stay as they are.
#[must_use]
pub fn segment_file(shard: ShardId, number: u64, log: LogId, frames: &[u8]) -> Vec<u8> {
    let header = segment::FileHeader { shard, number };
    let (mut file, seed) = (header.encode(), segment::seed(shard, log));
    let mut rest = frames.to_vec();
    while rest.len() >= FRAME_HEADER_BYTES {
        let length = u32::from_le_bytes([rest[8], rest[9], rest[10], rest[11]]);
        let end = FRAME_HEADER_BYTES
            .saturating_add(length as usize)
            .min(rest.len());
        let records = crc32c::crc32c_append(seed, &rest[FRAME_HEADER_BYTES..end]);
        rest[4..8].copy_from_slice(&records.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &rest[4..FRAME_HEADER_BYTES]);
        rest[..4].copy_from_slice(&crc.to_le_bytes());
        file.put_slice(&rest[..end]);
        rest.drain(..end);
    }
    file.put_slice(&rest);
    file
}

/// What a journal holds of a shard, and whether something synced is lost.
pub type Held = (Vec<JournalRecord>, Option<Damage>);

/// Opens a journal and reads all of it.
///
/// # Errors
/// As `Journal::open`.
pub fn recover(
    dir: &DataDir,
    options: JournalOptions,
) -> Result<BTreeMap<ShardId, Held>, OpenError> {
    let (mut journal, recovery) = Journal::open(dir, options)?;
    let shards = recovery.shards.into_iter();
    let shards = shards.map(|(id, shard)| (id, (Vec::new(), shard.damage)));
    let mut shards: BTreeMap<ShardId, Held> = shards.collect();
    journal.replay(&mut |record| {
        let (records, _) = shards.entry(record.shard).or_default();
        records.push(record);
    })?;
    Ok(shards)
}

/// The name of a segment's file.
#[must_use]
pub fn segment_name(number: u64) -> String {
    segment::name(number)
}
