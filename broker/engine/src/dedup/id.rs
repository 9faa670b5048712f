//! From the ids that clients choose to those that are kept: a hash that nobody can make collide,
//! since a message whose id collides with another's would be lost.

use millrace_types::DedupKey;
use sha2::{Digest as _, Sha256};

use crate::command::DedupId;

/// Told apart, so that no message's id is a producer's.
const MESSAGE: &[u8] = b"message";
const PRODUCER: &[u8] = b"producer";

impl DedupId {
    /// A message's own id.
    #[must_use]
    pub fn of_message(id: &str) -> Self {
        Self::Message(key(MESSAGE, id.as_bytes()))
    }

    /// A batch of a producer: its number, and the first one that the producer may send again.
    #[must_use]
    pub fn of_batch(producer: &[u8], sequence: u64, floor: u64) -> Self {
        Self::Batch {
            producer: key(PRODUCER, producer),
            sequence,
            floor,
        }
    }
}

fn key(kind: &[u8], id: &[u8]) -> DedupKey {
    let hash: [u8; 32] = Sha256::new()
        .chain_update(kind)
        .chain_update(id)
        .finalize()
        .into();
    let mut half = [0; 16];
    for (half, byte) in half.iter_mut().zip(hash) {
        *half = byte;
    }
    DedupKey::new(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_ids_have_one_key() {
        let ids = [
            DedupId::of_message(""),
            DedupId::of_message("a"),
            DedupId::of_message("b"),
            DedupId::of_batch(b"", 0, 0),
            DedupId::of_batch(b"a", 0, 0),
        ];
        for (n, id) in ids.iter().enumerate() {
            assert!(ids[n + 1..].iter().all(|other| other.key() != id.key()));
        }
        assert_eq!(DedupId::of_message("a"), ids[1]);
    }
}
