//! The catalogue's state as bytes. Version 1 is pinned by a golden file: another shape of
//! `Catalogue` or anything in it is a new version, and this reader stays.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::Catalogue;
use crate::codec::{self, DecodeError};

/// Format of the catalogue's snapshot.
const VERSION: u8 = 1;

pub(super) fn encode(catalogue: &Catalogue) -> Vec<u8> {
    codec::encode(VERSION, catalogue)
}

pub(super) fn checksum(catalogue: &Catalogue) -> u64 {
    codec::checksum(VERSION, catalogue)
}

pub(super) fn decode(bytes: &[u8]) -> Result<Catalogue, DecodeError> {
    let catalogue: Catalogue = codec::decode(VERSION, bytes)?;
    let mut seen = BTreeSet::new();
    for (address, placed) in &catalogue.objects {
        if placed.address != *address {
            return Err(DecodeError::Inconsistent("an object has another address"));
        }
        for (shard, log) in placed.logs() {
            let known = catalogue.logs.get(&log);
            if known.is_none_or(|known| known.shard != shard) || !seen.insert(log) {
                return Err(DecodeError::Inconsistent("an object and its logs differ"));
            }
        }
    }
    if catalogue.logs.keys().any(|log| *log > catalogue.last_log) {
        return Err(DecodeError::Inconsistent("a log id was never assigned"));
    }
    Ok(catalogue)
}
