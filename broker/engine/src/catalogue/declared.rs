//! What is declared, by names: the content of a `TopologyObject`, checked for its shape by whoever
//! made it and for its limits by the catalogue again.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use millrace_types::Address;
use serde::{Deserialize, Serialize};

use super::class::ShardClass;
use crate::spec::{Filter, PartitionSpec};

/// A declared object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Declared {
    /// Of a queue or topic.
    pub address: Address,
    /// Of the resource.
    pub uid: String,
    /// Of the resource.
    pub generation: i64,
    /// The encoded `TopologyObject`, for the digest and for showing it as it was declared.
    pub wire: Bytes,
    /// The same, understood.
    pub spec: DeclaredSpec,
}

/// An object whose resource is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Of a queue or topic; an unknown one is no error.
    pub address: Address,
    /// Of the resource; another one is refused.
    pub uid: String,
}

/// What kind of object, and all about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeclaredSpec {
    /// A queue.
    Queue(DeclaredQueue),
    /// A topic.
    Topic(DeclaredTopic),
}

/// A queue, with names where `QueueSpec` has log ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeclaredQueue {
    /// Several of one topic add up: a message matches when any does.
    pub bindings: Vec<DeclaredBinding>,
    /// Length of a lease.
    pub lease_ms: u64,
    /// Deliveries in flight over all consumers.
    pub in_flight_max: u32,
    /// Failed deliveries after which a message is dead.
    pub deliveries_max: u32,
    /// First delay after a failure,
    pub backoff_initial_ms: u64,
    /// the longest one,
    pub backoff_max_ms: u64,
    /// and what it is multiplied by each time, in thousandths.
    pub backoff_factor_milli: u32,
    /// What it may hold.
    pub limits: DeclaredLimits,
    /// How long the dedup ids of what was published are known.
    pub dedup_ms: u64,
    /// Where dead letters go.
    pub dead_letter: DeclaredDeadLetter,
    /// What it asks of its shard. Counts when it is placed; see `Problem`.
    pub class: ShardClass,
    /// What becomes of the messages when the resource is removed.
    pub deletion: DeletionPolicy,
}

/// A binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeclaredBinding {
    /// Of a topic.
    pub topic: Address,
    /// What of it.
    pub filter: Filter,
}

/// What a queue may hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeclaredLimits {
    /// Unsettled messages; `None`: no limit.
    pub messages_max: Option<u64>,
    /// Their bytes; `None`: no limit.
    pub bytes_max: Option<u64>,
    /// One encoded message.
    pub message_bytes_max: u32,
}

/// Where a queue's dead letters go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeclaredDeadLetter {
    /// A queue; `None`: the implicit one, which exists either way.
    pub queue: Option<Address>,
    /// Of the implicit one.
    pub limits: DeclaredLimits,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeclaredTopic {
    /// Grow only.
    pub partitions: u32,
    /// The same for each.
    pub partition: PartitionSpec,
    /// What it asks of its shards. Counts when it is placed; see `Problem`.
    pub class: ShardClass,
    /// What becomes of the messages when the resource is removed.
    pub deletion: DeletionPolicy,
}

/// What becomes of the messages when the resource is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// Kept and frozen until the resource returns.
    Orphan,
    /// They go, too.
    Delete,
}

impl DeclaredSpec {
    /// What becomes of the messages when the resource is removed.
    #[must_use]
    pub const fn deletion(&self) -> DeletionPolicy {
        match self {
            Self::Queue(queue) => queue.deletion,
            Self::Topic(topic) => topic.deletion,
        }
    }

    /// Longest encoded message it takes.
    #[must_use]
    pub const fn message_bytes_max(&self) -> u32 {
        match self {
            Self::Queue(queue) => queue.limits.message_bytes_max,
            Self::Topic(topic) => topic.partition.message_bytes_max,
        }
    }

    /// What it asks of its shards.
    #[must_use]
    pub const fn class(&self) -> ShardClass {
        match self {
            Self::Queue(queue) => queue.class,
            Self::Topic(topic) => topic.class,
        }
    }

    /// Deliveries in flight over all consumers; a topic has none.
    pub(super) const fn in_flight_max(&self) -> u32 {
        match self {
            Self::Queue(queue) => queue.in_flight_max,
            Self::Topic(_) => 0,
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! What to start a test from.

    use super::*;

    pub(in super::super) fn queue() -> DeclaredQueue {
        let limits = DeclaredLimits {
            messages_max: None,
            bytes_max: None,
            message_bytes_max: 1 << 20,
        };
        DeclaredQueue {
            bindings: Vec::new(),
            lease_ms: 30_000,
            in_flight_max: 100,
            deliveries_max: 5,
            backoff_initial_ms: 1_000,
            backoff_max_ms: 60_000,
            backoff_factor_milli: 2_000,
            limits: limits.clone(),
            dedup_ms: 120_000,
            dead_letter: DeclaredDeadLetter {
                queue: None,
                limits,
            },
            class: ShardClass::default(),
            deletion: DeletionPolicy::Orphan,
        }
    }
}
