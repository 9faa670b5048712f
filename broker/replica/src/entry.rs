//! An entry of a shard's log as the rest of the broker sees it.

use bytes::Bytes;
use millrace_types::{LogIndex, Term};
use serde::{Deserialize, Serialize};

/// A place in a log that two replicas can compare: same index and term, same log up to there.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Mark {
    /// The place; 0 is before the first entry.
    pub index: LogIndex,
    /// The term of the entry there; 0 before the first entry.
    pub term: Term,
}

impl Mark {
    /// From bare numbers.
    #[must_use]
    pub const fn new(index: u64, term: u64) -> Self {
        Self {
            index: LogIndex::new(index),
            term: Term::new(term),
        }
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A command of the engine: it has a header.
    Command = 1,
    /// A new leader's first entry: empty; there is nothing to apply.
    Lead = 2,
    /// A change of members, or (empty) the end of one in two steps. The replica carries it out
    /// itself when `applied` passes it.
    Members = 3,
}

impl EntryKind {
    /// From the number on disk or wire; `None` when there is no such kind.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Command),
            2 => Some(Self::Lead),
            3 => Some(Self::Members),
            _ => None,
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: Term,
    /// Its place.
    pub index: LogIndex,
    /// What it is.
    pub kind: EntryKind,
    /// A command's header, or a change of members.
    pub header: Bytes,
    /// The client's bytes.
    pub body: Bytes,
}

impl Entry {
    /// Header and body.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.header.len() as u64 + self.body.len() as u64
    }

    /// Index and term.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark {
            index: self.index,
            term: self.term,
        }
    }

    /// Whether header and body are what an entry of this kind has.
    pub(crate) fn is_well_formed(&self) -> bool {
        match self.kind {
            EntryKind::Command => !self.header.is_empty(),
            EntryKind::Lead => self.header.is_empty() && self.body.is_empty(),
            EntryKind::Members => self.body.is_empty(),
        }
    }
}
