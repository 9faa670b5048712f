//! What a client is told when something is refused. `ErrorCode` is the list; its `match`es are the
//! only place that decides status and advice.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

/// Whether a refused operation happened all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// It did not, and will not.
    No,
    /// It did.
    Yes,
    /// It may still take effect.
    Unknown,
}

/// Stable reasons. Adding one is fine, renaming one breaks clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// The request itself is wrong: a field is missing, too long or out of range.
    InvalidArgument,
    /// No queue of that address.
    NoSuchQueue,
    /// No topic of that address.
    NoSuchTopic,
    /// No such partition in that topic.
    NoSuchPartition,
    /// The address is of another kind than the call works on.
    WrongKind,
    /// The message is larger than the queue or topic accepts.
    MessageTooLarge,
    /// The queue has reached its limit of messages or bytes.
    QueueFull,
    /// The queue or topic is kept but frozen: its resource was removed.
    Orphaned,
    /// The delivery tag is not one of ours.
    InvalidTag,
    /// The lease has ended: settled, expired, or given to another consumer.
    StaleDelivery,
    /// The session has ended or was taken over.
    SessionExpired,
    /// Too much of something: sessions, in-flight deliveries, waiting calls.
    LimitReached,
    /// The offset is outside what the partition holds.
    OffsetOutOfRange,
    /// The topology changed since the caller looked.
    RevisionConflict,
    /// The call is meant for another cluster.
    WrongCluster,
    /// The control token is missing or wrong.
    Unauthenticated,
    /// The disk has no room for more messages.
    DiskFull,
    /// The node has more to do than it can hold in memory.
    Overloaded,
    /// The shard is not serving: it recovers, or its data is damaged.
    ShardUnavailable,
    /// Another replica of the shard leads it, or none does at the moment.
    NotLeader,
    /// The node is going down.
    Draining,
    /// A retry came so late that whether it is one cannot be told any more: it was not stored.
    RetryTooLate,
    /// A defect of ours.
    Internal,
    /// No node of that id.
    NoSuchNode,
    /// The node has replicas that nobody else could take, or would miss.
    NodeInUse,
}

impl ErrorCode {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 25] = [
        Self::InvalidArgument,
        Self::NoSuchQueue,
        Self::NoSuchTopic,
        Self::NoSuchPartition,
        Self::WrongKind,
        Self::MessageTooLarge,
        Self::QueueFull,
        Self::Orphaned,
        Self::InvalidTag,
        Self::StaleDelivery,
        Self::SessionExpired,
        Self::LimitReached,
        Self::OffsetOutOfRange,
        Self::RevisionConflict,
        Self::WrongCluster,
        Self::Unauthenticated,
        Self::DiskFull,
        Self::Overloaded,
        Self::ShardUnavailable,
        Self::NotLeader,
        Self::Draining,
        Self::RetryTooLate,
        Self::Internal,
        Self::NoSuchNode,
        Self::NodeInUse,
    ];

    /// The stable reason, as it goes over the wire.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::NoSuchQueue => "NO_SUCH_QUEUE",
            Self::NoSuchTopic => "NO_SUCH_TOPIC",
            Self::NoSuchPartition => "NO_SUCH_PARTITION",
            Self::WrongKind => "WRONG_KIND",
            Self::MessageTooLarge => "MESSAGE_TOO_LARGE",
            Self::QueueFull => "QUEUE_FULL",
            Self::Orphaned => "ORPHANED",
            Self::InvalidTag => "INVALID_TAG",
            Self::StaleDelivery => "STALE_DELIVERY",
            Self::SessionExpired => "SESSION_EXPIRED",
            Self::LimitReached => "LIMIT_REACHED",
            Self::OffsetOutOfRange => "OFFSET_OUT_OF_RANGE",
            Self::RevisionConflict => "REVISION_CONFLICT",
            Self::WrongCluster => "WRONG_CLUSTER",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::DiskFull => "DISK_FULL",
            Self::Overloaded => "OVERLOADED",
            Self::ShardUnavailable => "SHARD_UNAVAILABLE",
            Self::NotLeader => "NOT_LEADER",
            Self::Draining => "DRAINING",
            Self::RetryTooLate => "RETRY_TOO_LATE",
            Self::Internal => "INTERNAL",
            Self::NoSuchNode => "NO_SUCH_NODE",
            Self::NodeInUse => "NODE_IN_USE",
        }
    }

    /// The gRPC status code, as its number.
    #[must_use]
    pub const fn grpc_code(self) -> i32 {
        match self {
            Self::InvalidArgument | Self::WrongKind | Self::MessageTooLarge | Self::InvalidTag => 3,
            Self::NoSuchQueue | Self::NoSuchTopic | Self::NoSuchPartition | Self::NoSuchNode => 5,
            Self::QueueFull | Self::LimitReached | Self::DiskFull | Self::Overloaded => 8,
            Self::Orphaned
            | Self::StaleDelivery
            | Self::SessionExpired
            | Self::WrongCluster
            | Self::NodeInUse
            | Self::RetryTooLate => 9,
            Self::RevisionConflict => 10,
            Self::OffsetOutOfRange => 11,
            Self::Internal => 13,
            Self::ShardUnavailable | Self::NotLeader | Self::Draining => 14,
            Self::Unauthenticated => 16,
        }
    }

    /// Whether the same request may succeed later without anybody changing it.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::QueueFull
            | Self::LimitReached
            | Self::DiskFull
            | Self::Overloaded
            | Self::ShardUnavailable
            | Self::NotLeader
            | Self::Draining => true,
            Self::InvalidArgument
            | Self::NoSuchQueue
            | Self::NoSuchTopic
            | Self::NoSuchPartition
            | Self::WrongKind
            | Self::MessageTooLarge
            | Self::Orphaned
            | Self::InvalidTag
            | Self::StaleDelivery
            | Self::SessionExpired
            | Self::OffsetOutOfRange
            | Self::RevisionConflict
            | Self::WrongCluster
            | Self::Unauthenticated
            | Self::RetryTooLate
            | Self::Internal
            | Self::NoSuchNode
            | Self::NodeInUse => false,
        }
    }
}

/// A refusal with everything a client needs: what, why, whether it happened, when to try again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub code: ErrorCode,
    /// For people: names the object and the limit.
    pub message: String,
    /// Whether it happened all the same.
    pub applied: Applied,
    /// Try again after this long, if that helps.
    pub retry_after_ms: Option<u64>,
    /// Facts for programs: `address`, `limit`, `actual`, `field`.
    pub metadata: BTreeMap<String, String>,
}

impl Refusal {
    /// A refusal of something that did not happen.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            applied: Applied::No,
            retry_after_ms: None,
            metadata: BTreeMap::new(),
        }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Says that it may have happened.
    #[must_use]
    pub fn unknown(mut self) -> Self {
        self.applied = Applied::Unknown;
        self
    }

    /// Says when to try again.
    #[must_use]
    pub const fn retry_after_millis(mut self, millis: u64) -> Self {
        self.retry_after_ms = Some(millis);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.reason(), self.message)
    }
}

impl core::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_list_once_and_in_order() {
        for (place, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, place);
        }
        // A code added after the last one must be added to the list.
        assert_eq!(ErrorCode::NodeInUse as usize + 1, ErrorCode::ALL.len());
    }
}
