//! How the engine's values become bytes: a version byte, then postcard. Decoding takes any bytes
//! without panicking, refuses versions it does not know and bytes that are left over.

pub(crate) mod first;

use alloc::vec::Vec;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::catalogue::CatalogueEntry;
use crate::command::Entry;

/// Format of `Entry` and `CatalogueEntry`.
const ENTRY_VERSION: u8 = 2;
/// What brokers before replication wrote, entries and snapshots alike.
const FIRST_VERSION: u8 = 1;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Nothing there.
    #[error("no bytes to decode")]
    Empty,
    /// Written by a newer broker, or not by a broker.
    #[error("format version {found} is unknown, {known} is the newest known")]
    Version {
        /// What the first byte says.
        found: u8,
        /// What this code writes.
        known: u8,
    },
    /// Not of the format's shape.
    #[error("malformed: {0}")]
    Malformed(postcard::Error),
    /// More bytes than the value takes.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// Decodes, but contradicts itself.
    #[error("inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// Bytes of a value under a version.
pub(crate) fn encode<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    postcard::to_extend(value, Vec::from([version]))
        .expect("a vector grows and every collection knows its length")
}

/// A value of a version.
fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    let (&found, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if found != version {
        return Err(DecodeError::Version {
            found,
            known: version,
        });
    }
    whole(postcard::take_from_bytes(rest))
}

/// A value as it is written now, or by `first` as it was in version 1.
pub(crate) fn decode_any<T: DeserializeOwned>(
    version: u8,
    bytes: &[u8],
    first: impl FnOnce(&[u8]) -> postcard::Result<(T, &[u8])>,
) -> Result<T, DecodeError> {
    match bytes.split_first() {
        Some((&FIRST_VERSION, rest)) => whole(first(rest)),
        _ => decode(version, bytes),
    }
}

/// What was read, if nothing is left over.
fn whole<T>(read: postcard::Result<(T, &[u8])>) -> Result<T, DecodeError> {
    let (value, left) = read.map_err(DecodeError::Malformed)?;
    if left.is_empty() {
        Ok(value)
    } else {
        Err(DecodeError::Trailing(left.len()))
    }
}

/// FNV-1a of the bytes that `encode` would give: to compare states by, not to guard bytes with.
pub(crate) fn checksum<T: Serialize>(version: u8, value: &T) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.extend([version]);
    postcard::to_extend(value, hash)
        .expect("hashing takes any bytes and every collection knows its length")
        .0
}

/// A hash that bytes are appended to.
struct Fnv(u64);

impl Extend<u8> for Fnv {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    }
}

impl Entry {
    /// As the header of a journal record.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(ENTRY_VERSION, self).into()
    }

    /// From the header of a journal record.
    ///
    /// # Errors
    /// When the bytes are not an entry of a known version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_any(ENTRY_VERSION, bytes, first::entry)
    }
}

impl CatalogueEntry {
    /// As the header of a journal record.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(ENTRY_VERSION, self).into()
    }

    /// From the header of a journal record.
    ///
    /// # Errors
    /// When the bytes are not a catalogue entry of a known version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_any(ENTRY_VERSION, bytes, first::catalogue_entry)
    }
}
