//! The framing inside a batch: each record is its length as a LEB128 varint, then its bytes (what
//! protobuf calls length-delimited). Reading never goes beyond the batch and never panics.

use bytes::{Buf, Bytes};
use millrace_types::BATCH_BYTES_MAX;
use thiserror::Error;

use crate::size::in_memory;

/// A record: a message of the largest size and what dead-lettering adds to it.
pub const RECORD_BYTES_MAX: u32 = BATCH_BYTES_MAX;
/// Bytes of a length: 7 bits each.
const VARINT_BYTES_MAX: usize = 5;

/// Why bytes are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordsError {
    /// It ends within a record.
    #[error("the batch ends within record {record}")]
    Short {
        /// 0-based.
        record: u32,
    },
    /// A record is too long.
    #[error("record {record} exceeds {RECORD_BYTES_MAX} bytes")]
    TooLong {
        /// 0-based.
        record: u32,
    },
    /// Another number of records than stated.
    #[error("the batch has {found} records, not {expected}")]
    Count {
        /// As stated.
        expected: u32,
        /// As found.
        found: u32,
    },
}

#[cfg(test)]
std::thread_local! {
    /// Records this thread has walked over.
    pub(crate) static WALKED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Appends one record to a batch.
pub fn push_record(batch: &mut Vec<u8>, record: &[u8]) {
    push_record_parts(batch, &[record]);
}

/// Appends one record made of several parts to a batch.
///
/// # Panics
/// When the record exceeds `RECORD_BYTES_MAX`: callers have checked it.
pub fn push_record_parts(batch: &mut Vec<u8>, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    assert!(
        length <= RECORD_BYTES_MAX as usize,
        "a record of {length} bytes"
    );
    let mut rest = length;
    while rest >= 0x80 {
        batch.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    batch.push(rest.to_le_bytes()[0]);
    for part in parts {
        batch.extend_from_slice(part);
    }
}

/// Bytes that a record of `length` bytes takes in a batch.
#[must_use]
pub const fn framed_bytes(length: usize) -> usize {
    let mut bytes = 1;
    let mut rest = length >> 7;
    while rest > 0 {
        bytes += 1;
        rest >>= 7;
    }
    bytes + length
}

/// The records of a batch, without their lengths, in order. Shares the batch's memory. After an
/// error nothing follows.
#[must_use]
pub fn split(batch: Bytes) -> Split {
    Split {
        rest: batch,
        record: 0,
    }
}

/// Checks that a batch consists of `expected` records.
///
/// # Errors
/// When it does not.
pub fn check(batch: &[u8], expected: u32) -> Result<(), RecordsError> {
    let mut found = 0;
    let mut at = 0;
    while at < batch.len() {
        let (start, length) = next(&batch[at..], found)?;
        at += start + length;
        found += 1;
    }
    if found == expected {
        Ok(())
    } else {
        Err(RecordsError::Count { expected, found })
    }
}

/// Where each record starts, its length included, and where the last one ends.
pub(crate) fn starts(batch: &[u8]) -> Result<Vec<u32>, RecordsError> {
    let mut starts = Vec::new();
    let (mut at, mut record) = (0, 0);
    while at < batch.len() {
        starts.push(narrow(at, record)?);
        let (start, length) = next(&batch[at..], record)?;
        at += start + length;
        record += 1;
    }
    starts.push(narrow(at, record)?);
    Ok(starts)
}

/// The first records that together have at most `bytes_max` bytes, lengths included, or the first
/// one alone: how many, and their bytes.
pub(crate) fn first_of(batch: &[u8], bytes_max: usize) -> Result<(u32, usize), RecordsError> {
    let (mut count, mut bytes) = (0, 0);
    while bytes < batch.len() {
        let (start, length) = next(&batch[bytes..], count)?;
        let more = start + length;
        if count > 0 && bytes + more > bytes_max {
            break;
        }
        bytes += more;
        count += 1;
    }
    Ok((count, bytes))
}

fn narrow(at: usize, record: u32) -> Result<u32, RecordsError> {
    u32::try_from(at).map_err(|_| RecordsError::TooLong { record })
}

/// Iterator of `split`.
#[derive(Clone, Debug)]
pub struct Split {
    rest: Bytes,
    record: u32,
}

impl Iterator for Split {
    type Item = Result<Bytes, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.record;
        self.record += 1;
        Some(match next(&self.rest, record) {
            Ok((start, length)) => {
                self.rest.advance(start);
                Ok(self.rest.split_to(length))
            }
            Err(error) => {
                self.rest.clear();
                Err(error)
            }
        })
    }
}

/// Bytes of the first record's length, and that length; both within `bytes`.
fn next(bytes: &[u8], record: u32) -> Result<(usize, usize), RecordsError> {
    #[cfg(test)]
    WALKED.set(WALKED.get() + 1);
    let mut length = 0_u64;
    for (place, byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            if length > u64::from(RECORD_BYTES_MAX) {
                return Err(RecordsError::TooLong { record });
            }
            let (start, length) = (place + 1, in_memory(length));
            let fits = bytes.len() - start >= length;
            return if fits {
                Ok((start, length))
            } else {
                Err(RecordsError::Short { record })
            };
        }
    }
    if bytes.len() < VARINT_BYTES_MAX {
        Err(RecordsError::Short { record })
    } else {
        Err(RecordsError::TooLong { record })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(records: &[Vec<u8>]) -> Vec<u8> {
        let mut batch = Vec::new();
        for record in records {
            push_record(&mut batch, record);
        }
        batch
    }

    #[test]
    fn a_record_longer_than_the_batch_is_refused() {
        assert_eq!(check(&[3, 1, 2], 1), Err(RecordsError::Short { record: 0 }));
        assert_eq!(
            check(&[1, 1, 0x80], 2),
            Err(RecordsError::Short { record: 1 })
        );
        assert_eq!(
            check(&[0xff; 9], 1),
            Err(RecordsError::TooLong { record: 0 })
        );
        assert_eq!(
            check(&[0; 3], 2),
            Err(RecordsError::Count {
                expected: 2,
                found: 3
            })
        );
    }

    #[test]
    fn parts_become_one_record() {
        let mut parts = Vec::new();
        push_record_parts(&mut parts, &[b"original", b"death"]);
        assert_eq!(parts, batch(&[b"originaldeath".to_vec()]));
    }

    proptest! {
        #[test]
        fn a_batch_is_split_into_what_was_pushed(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        ) {
            let batch = batch(&records);
            prop_assert_eq!(check(&batch, u32::try_from(records.len()).unwrap()), Ok(()));
            let bytes: usize = records.iter().map(|record| framed_bytes(record.len())).sum();
            prop_assert_eq!(bytes, batch.len());
            prop_assert_eq!(starts(&batch).unwrap().len(), records.len() + 1);
            let found: Result<Vec<Bytes>, _> = split(batch.into()).collect();
            prop_assert_eq!(found.unwrap(), records);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let records = split(bytes.clone().into()).filter(Result::is_ok).count();
            let whole = starts(&bytes).is_ok();
            prop_assert_eq!(check(&bytes, u32::try_from(records).unwrap()).is_ok(), whole);
        }
    }
}
