//! Numbers batches, so that the server knows a retry when it sees one. Costs the server what is
//! undecided here, and nothing for what is decided.

use std::collections::BTreeSet;

use bytes::Bytes;
use millrace_proto::v1;

/// Bytes of a producer's id: random ones, so that no two lives have the same.
const ID_BYTES: usize = 16;

/// One life of a publisher.
#[derive(Debug)]
pub(super) struct Producer {
    /// `None`: its batches are not made known.
    id: Option<Bytes>,
    next: u64,
    undecided: BTreeSet<u64>,
}

impl Producer {
    /// Whose batches the server knows again.
    pub(super) fn known() -> Self {
        let mut id = [0; ID_BYTES];
        // Without random bytes there can be no id that nobody else has.
        let id = getrandom::fill(&mut id).map(|()| Bytes::copy_from_slice(&id));
        Self {
            id: id.ok(),
            ..Self::unknown()
        }
    }

    /// Each of whose batches is new to the server.
    pub(super) const fn unknown() -> Self {
        Self {
            id: None,
            next: 0,
            undecided: BTreeSet::new(),
        }
    }

    /// Numbers a batch; it is undecided from here on.
    pub(super) fn number(&mut self) -> u64 {
        let sequence = self.next;
        self.next += 1;
        self.undecided.insert(sequence);
        sequence
    }

    /// A batch will not be sent again.
    pub(super) fn decided(&mut self, sequence: u64) {
        self.undecided.remove(&sequence);
    }

    /// What makes a batch known.
    pub(super) fn of(&self, sequence: u64) -> Option<v1::Producer> {
        Some(v1::Producer {
            id: self.id.clone()?,
            sequence,
            floor: self.undecided.first().copied().unwrap_or(sequence),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_first_batch_that_may_be_sent_again() {
        let mut producer = Producer::known();
        let numbers: Vec<u64> = (0..3).map(|_| producer.number()).collect();
        assert_eq!(numbers, [0, 1, 2]);
        producer.decided(1);
        assert_eq!(producer.of(2).unwrap().floor, 0);
        producer.decided(0);
        assert_eq!(producer.of(2).unwrap().floor, 2);
        assert_eq!(producer.of(2).unwrap().id.len(), ID_BYTES);
        assert_eq!(Producer::unknown().of(0), None);
    }
}
