//! What is declared, as a data shard needs it: checked, with defaults filled in and references
//! resolved to log ids.

use alloc::string::String;
use alloc::vec::Vec;

use millrace_types::{Address, LogId};
use serde::{Deserialize, Serialize};

/// A queue, except for what only one can have: of many queues, most have one of a few specs.
/// Addresses that do not resolve are absent here and a problem in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueSpec {
    /// One for each bound topic. A partition that vanishes loses its cursor.
    pub bindings: Vec<BoundTopic>,
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
    /// Unsettled messages; `None`: no limit.
    pub messages_max: Option<u64>,
    /// Their bytes; `None`: no limit.
    pub bytes_max: Option<u64>,
    /// One encoded message.
    pub message_bytes_max: u32,
    /// How long the dedup ids of what was published are known.
    pub dedup_ms: u64,
}

impl QueueSpec {
    /// The bound partitions of all topics.
    pub fn partitions(&self) -> impl Iterator<Item = LogId> {
        let topics = self.bindings.iter();
        topics.flat_map(|topic| topic.partitions.iter().copied())
    }
}

/// What becomes of a queue's dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeadLetters {
    /// There are none: deliveries are not counted out and a rejected message is dropped. So it is
    /// in an implicit dead-letter queue.
    Dropped,
    /// They wait while the address of their queue does not resolve.
    Waiting,
    /// They go to this queue.
    To(LogId),
}

impl DeadLetters {
    /// The queue they go to.
    #[must_use]
    pub const fn target(self) -> Option<LogId> {
        match self {
            Self::To(log) => Some(log),
            Self::Dropped | Self::Waiting => None,
        }
    }
}

/// A topic that a queue is bound to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BoundTopic {
    /// For people.
    pub topic: Address,
    /// The lives of its partitions, by number.
    pub partitions: Vec<LogId>,
    /// A message of any partition matches when any of these does.
    pub filters: Vec<Filter>,
}

/// One binding's condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Filter {
    /// Subject pattern.
    pub pattern: String,
    /// Header conditions.
    pub headers: Vec<HeaderCondition>,
    /// Whether one header condition is enough.
    pub any: bool,
}

/// A condition on a header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeaderCondition {
    /// Of the header.
    pub name: String,
    /// As text; `None`: any value.
    pub value: Option<String>,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartitionSpec {
    /// Messages older than this may go; `None`: no bound.
    pub age_ms_max: Option<u64>,
    /// Bytes kept; `None`: no bound.
    pub bytes_max: Option<u64>,
    /// Messages kept; `None`: no bound.
    pub messages_max: Option<u64>,
    /// One encoded message.
    pub message_bytes_max: u32,
    /// How long the dedup ids of what was published are known.
    pub dedup_ms: u64,
}

#[cfg(test)]
pub(crate) mod testing {
    //! Specs to start a test from.

    use super::*;

    pub(crate) fn queue_spec() -> QueueSpec {
        QueueSpec {
            bindings: Vec::new(),
            lease_ms: 30_000,
            in_flight_max: 1000,
            deliveries_max: 5,
            backoff_initial_ms: 1000,
            backoff_max_ms: 60_000,
            backoff_factor_milli: 2000,
            messages_max: None,
            bytes_max: None,
            message_bytes_max: 1 << 20,
            dedup_ms: 120_000,
        }
    }
}
