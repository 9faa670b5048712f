//! Refusals of the engine in their exact words: each names the object, and the limit when there is
//! one.

use alloc::format;

use millrace_types::{Address, ErrorCode, LogId, Refusal, SessionId};

use crate::command::{BatchHeader, Held};

/// When a full queue is worth another try: room comes with settlements, which are many a second.
const QUEUE_FULL_RETRY_MS: u64 = 200;
/// A cluster that is not founded yet will be with the next entry of its first leader.
const FOUNDING_RETRY_MS: u64 = 100;

pub(crate) fn invalid(message: impl Into<alloc::string::String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidArgument, message)
}

pub(crate) fn being_founded() -> Refusal {
    let refusal = Refusal::new(ErrorCode::ShardUnavailable, "the cluster is being founded");
    refusal.retry_after_millis(FOUNDING_RETRY_MS)
}

pub(crate) fn no_such_queue(log: LogId) -> Refusal {
    Refusal::new(ErrorCode::NoSuchQueue, format!("no queue has log id {log}"))
}

pub(crate) fn no_such_partition(log: LogId) -> Refusal {
    let message = format!("no partition has log id {log}");
    Refusal::new(ErrorCode::NoSuchPartition, message)
}

pub(crate) fn no_such_log(log: LogId) -> Refusal {
    let message = format!("no queue or partition has log id {log}");
    Refusal::new(ErrorCode::NoSuchQueue, message)
}

pub(crate) fn orphaned(address: &Address) -> Refusal {
    let message = format!("{address} is frozen: its resource was removed, its messages are kept");
    Refusal::new(ErrorCode::Orphaned, message).with("address", format!("{address}"))
}

pub(crate) fn session_expired(session: SessionId) -> Refusal {
    let message = format!("session {session:016x} has ended", session = session.get());
    Refusal::new(ErrorCode::SessionExpired, message)
}

pub(crate) fn stale(address: &Address, held: Held) -> Refusal {
    let message = format!(
        "the lease of message {} of {address} has ended",
        held.offset
    );
    Refusal::new(ErrorCode::StaleDelivery, message)
        .with("address", format!("{address}"))
        .with("offset", format!("{}", held.offset))
}

pub(crate) fn limit_reached(address: &Address, what: &str, limit: u64) -> Refusal {
    Refusal::new(
        ErrorCode::LimitReached,
        format!("{address} has reached its limit of {limit} {what}"),
    )
    .with("address", format!("{address}"))
    .with("limit", format!("{limit}"))
}

/// A limit of a queue that a batch does not fit under.
pub(crate) struct Full<'a> {
    pub(crate) address: &'a Address,
    /// `messages` or `bytes`.
    pub(crate) unit: &'static str,
    pub(crate) limit: u64,
    pub(crate) actual: u64,
    pub(crate) batch: &'a BatchHeader,
}

pub(crate) fn queue_full(full: &Full<'_>) -> Refusal {
    let Full {
        address,
        unit,
        limit,
        actual,
        batch,
    } = full;
    let message = format!(
        "{address} is full: it holds {actual} of at most {limit} {unit}, a batch of {} messages \
         and {} bytes does not fit",
        batch.count, batch.bytes
    );
    Refusal::new(ErrorCode::QueueFull, message)
        .with("address", format!("{address}"))
        .with("limit", format!("{limit} {unit}"))
        .with("actual", format!("{actual}"))
        .retry_after_millis(QUEUE_FULL_RETRY_MS)
}
