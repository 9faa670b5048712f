//! Ids and positions. Each is a newtype; none of them does arithmetic that could wrap unseen.

use core::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the bare number.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The bare number, for the wire, the disk and people.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A shard of the cluster: 0 is the metadata shard, data shards follow from 1.
    ShardId(u32)
);
number!(
    /// One replica of a shard. A replica that lost anything returns under another id.
    ReplicaId(u64)
);
number!(
    /// A node, minted at its first start and kept on its disk.
    NodeId(u64)
);
number!(
    /// A Raft term.
    Term(u64)
);
number!(
    /// Place of an entry in a shard's log: 1-based, dense.
    LogIndex(u64)
);
number!(
    /// One life of a queue or partition, cluster-wide and never used again: a queue that is deleted
    /// and declared anew gets another one. Its bodies, tags and cursors carry it.
    LogId(u64)
);
number!(
    /// Place of a message in a queue or partition: 0-based, dense, assigned at commit, never
    /// reused.
    Offset(u64)
);
number!(
    /// A consumer's session, or one `Receive` call; random, so that a tag cannot be guessed.
    SessionId(u64)
);

/// How many messages.
pub type Count = u32;

/// A dedup id or a producer's id, hashed: what is kept of either is of one small size. Whoever
/// hashes takes care that no two ids of clients have the same key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DedupKey([u8; 16]);

impl DedupKey {
    /// Wraps the hash.
    #[must_use]
    pub const fn new(hash: [u8; 16]) -> Self {
        Self(hash)
    }

    /// Half of it as a number, to choose by.
    #[must_use]
    pub const fn spread(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for DedupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DedupKey({:032x})", u128::from_be_bytes(self.0))
    }
}

impl ShardId {
    /// The shard that keeps the catalogue.
    pub const METADATA: Self = Self(0);
}

impl LogIndex {
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Offset {
    /// The offset `count` further on. Offsets start at 0 and grow by one a message, so 2^64 of them
    /// are never reached; saturates all the same.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// Messages in `self..end`; 0 when `end` is not after `self`.
    #[must_use]
    pub const fn until(self, end: Self) -> u64 {
        end.0.saturating_sub(self.0)
    }
}
