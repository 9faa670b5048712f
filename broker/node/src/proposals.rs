//! Commands of one shard on their way to the disk: gives them their indexes and hands them back, in
//! order, once they are synced. Pure; this is where consensus will stand between proposing and
//! writing.

use std::collections::VecDeque;

use bytes::Bytes;
use millrace_storage::{JournalRecord, RecordKind};
use millrace_types::{LogIndex, ReplicaId, ShardId, Term};

/// Until there are elections, every leader leads this term.
pub(super) const FIRST_TERM: Term = Term::new(1);

/// The log of one shard, from its last synced entry on.
#[derive(Debug)]
pub(super) struct Proposals<E> {
    shard: ShardId,
    replica: ReplicaId,
    last: LogIndex,
    bytes: u64,
    waiting: VecDeque<Proposed<E>>,
}

/// A command with its place.
#[derive(Debug)]
pub(super) struct Proposed<E> {
    /// Its place.
    pub(super) index: LogIndex,
    /// The client's bytes.
    pub(super) body: Bytes,
    /// Size of its journal record, about.
    pub(super) bytes: u64,
    /// The command, and what its caller needs.
    pub(super) entry: E,
}

impl<E> Proposals<E> {
    /// A log that ends at `last`.
    pub(super) const fn new(shard: ShardId, replica: ReplicaId, last: LogIndex) -> Self {
        Self {
            shard,
            replica,
            last,
            bytes: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Takes a command; what comes back has to reach the journal, in the order it came back.
    pub(super) fn propose(&mut self, header: Bytes, body: Bytes, entry: E) -> JournalRecord {
        let index = self.last.next();
        let bytes = (header.len() + body.len()) as u64;
        self.last = index;
        self.bytes += bytes;
        self.waiting.push_back(Proposed {
            index,
            body: body.clone(),
            bytes,
            entry,
        });
        JournalRecord {
            shard: self.shard,
            replica: self.replica,
            kind: RecordKind::Entry,
            term: FIRST_TERM,
            index,
            header,
            body,
        }
    }

    /// The next command to apply, when everything up to `upto` is synced.
    pub(super) fn next_synced(&mut self, upto: LogIndex) -> Option<Proposed<E>> {
        let proposed = self
            .waiting
            .pop_front_if(|proposed| proposed.index <= upto)?;
        self.bytes -= proposed.bytes;
        Some(proposed)
    }

    /// Commands not yet applied.
    pub(super) fn len(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Their bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether everything taken has been applied.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_dense_and_commands_come_back_in_order_when_synced() {
        let mut proposals = Proposals::new(ShardId::new(1), ReplicaId::new(9), LogIndex::new(40));
        let indexes: Vec<u64> = ["a", "b", "c"]
            .map(|name| {
                let record = proposals.propose(Bytes::from(name), Bytes::from("body"), name);
                assert_eq!(record.body, "body");
                record.index.get()
            })
            .into();
        assert_eq!(indexes, [41, 42, 43]);
        assert_eq!((proposals.len(), proposals.bytes()), (3, 15));

        assert!(proposals.next_synced(LogIndex::new(40)).is_none());
        let upto = LogIndex::new(42);
        let synced: Vec<&str> = std::iter::from_fn(|| proposals.next_synced(upto))
            .map(|p| p.entry)
            .collect();
        assert_eq!(synced, ["a", "b"]);
        assert_eq!((proposals.len(), proposals.bytes()), (1, 5));
        assert!(!proposals.is_empty());
    }
}
