//! A consumer's connection to its session: what is sent to it, within its credit, and what it says.

use std::time::Duration;

use bytes::Bytes;
use millrace_engine::command::Window;
use millrace_types::{ErrorCode, Refusal, SessionId};

use super::api::{Credit, Delivered, SettleTag};

/// The talking half of a connection. Dropping it detaches the session.
#[derive(Debug)]
pub struct Consumer {
    session: SessionId,
    session_ttl: Duration,
    in_flight: Window,
}

/// The listening half.
#[derive(Debug)]
pub struct ConsumerEvents {}

/// What a connection is told.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// Messages under lease, within the credit given.
    Deliveries(Vec<Delivered>),
    /// Answer to one `Consumer::settle`.
    Settled(SettleResults),
    /// These leases ended without the client.
    LeasesLost(Vec<Bytes>),
    /// The node is going down; the session can be resumed elsewhere or later. Comes once.
    Drain,
    /// The session is over, or another connection has taken it. Nothing follows.
    Closed(Refusal),
}

/// Answer to one `Consumer::settle`.
#[derive(Debug)]
pub struct SettleResults {
    /// As the client numbered it.
    pub sequence: u64,
    /// How many were settled.
    pub settled: u32,
    /// The others.
    pub refused: Vec<(Bytes, Refusal)>,
}

impl Consumer {
    /// To resume with.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// A session that hears nothing for this long is closed.
    #[must_use]
    pub const fn session_ttl(&self) -> Duration {
        self.session_ttl
    }

    /// What was asked for, cut to the limits.
    #[must_use]
    pub const fn in_flight(&self) -> Window {
        self.in_flight
    }

    /// Lets the broker send this much more.
    pub fn credit(&self, _more: Credit) {}

    /// Ends leases; the answer comes as an event. Does not wait.
    pub fn settle(&self, _sequence: u64, _settlements: Vec<SettleTag>) {}

    /// The client is alive.
    pub fn touch(&self) {}

    /// Ends the session: what it holds is released without counting a failure.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE`, `DRAINING`; then the session ends by its time to live.
    pub async fn close(self) -> Result<(), Refusal> {
        Err(Refusal::new(
            ErrorCode::ShardUnavailable,
            "the core is being built",
        ))
    }
}

impl ConsumerEvents {
    /// The next event; waits for it. `None` after `Closed`. Cancel-safe: what a dropped call would
    /// have returned is returned by the next one.
    pub async fn next(&mut self) -> Option<ConsumerEvent> {
        None
    }
}
