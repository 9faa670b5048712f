//! What `apply` answers: the outcome for whoever proposed the command, changes of stored bodies
//! that every replica makes, and effects that only the leader carries out.

use alloc::vec::Vec;
use core::ops::Range;

use millrace_types::{Count, LogId, Offset, Refusal, SessionId};

use serde::{Deserialize, Serialize};

use crate::command::Held;

/// The whole answer.
#[derive(Debug, Default, PartialEq)]
pub struct Applied {
    /// For the proposer.
    pub outcome: Outcome,
    /// What becomes of bodies: every replica does this, on replay too.
    pub bodies: Vec<BodyChange>,
    /// What the leader does; followers and replay drop it. None is needed for correctness:
    /// `outstanding` finds every one again.
    pub effects: Vec<Effect>,
}

/// The answer to the proposer.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, nothing to say.
    #[default]
    Done,
    /// The batch is at these offsets.
    Appended(Range<Offset>),
    /// The batch was appended before, by an earlier attempt, at these offsets.
    Repeated(Range<Offset>),
    /// A session is open or attached; this is its epoch.
    Session {
        /// Fences connections of the past.
        epoch: u32,
        /// What the client said it holds and does not.
        lost: Vec<Held>,
    },
    /// Leased for `Receive`.
    Acquired(Vec<Delivery>),
    /// One for each settlement, in order.
    Settled(Vec<Result<(), Refusal>>),
    /// `Transfer` started elsewhere than at the cursor, or from an older configuration: it is here.
    Cursor(Offset),
    /// `AcceptDead` refused, or `RecallDead` done: one past the last number that has arrived.
    /// `ConfirmDead` or `RedirectDead` done: the first number unconfirmed. An `AcceptDead` that was
    /// taken answers `Appended`.
    Numbered(u64),
    /// Nothing was changed.
    Refused(Refusal),
}

/// A change of stored bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyChange {
    /// The entry's data are the records at these offsets.
    Store {
        /// Queue or partition.
        log: LogId,
        /// As many as records.
        offsets: Range<Offset>,
    },
    /// Nobody will ask for these again.
    Discard {
        /// Queue or partition.
        log: LogId,
        /// Perhaps among others that stay.
        offsets: Range<Offset>,
    },
    /// Nobody will ask for anything of this log again.
    DiscardAll {
        /// Queue or partition.
        log: LogId,
    },
}

/// One message handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Of the message.
    pub offset: Offset,
    /// Which hand-out: part of the tag.
    pub acquired: u32,
    /// Failed deliveries before this one.
    pub attempts: u32,
    /// How long the lease runs.
    pub lease_ms: u64,
}

/// What the leader does because of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Hand messages to a session's connection.
    Deliver {
        /// To whom.
        session: SessionId,
        /// Of which queue.
        queue: LogId,
        /// In order of delivery.
        deliveries: Vec<Delivery>,
    },
    /// Tell a session that these leases are over.
    LeasesLost {
        /// Whom.
        session: SessionId,
        /// Of which queue.
        queue: LogId,
        /// Which leases.
        held: Vec<Held>,
    },
    /// The session is closed; end its connection.
    SessionClosed {
        /// Which.
        session: SessionId,
    },
    /// A queue has messages that no session took: wake waiting `Receive` calls.
    Available {
        /// Which queue.
        queue: LogId,
        /// How many.
        ready: u64,
    },
    /// A partition or queue has grown: wake its readers, and the bindings to it.
    Appended {
        /// Which.
        log: LogId,
        /// One past the last message.
        end: Offset,
    },
    /// A binding may move: its queue has room again, or the binding is new. Dead letters on their
    /// way to this queue may move too.
    TransferDue {
        /// The bound queue.
        queue: LogId,
    },
    /// A queue has dead letters to send.
    DeadLettersDue {
        /// Which.
        queue: LogId,
    },
    /// A queue or partition was configured, frozen or removed.
    Reconfigured {
        /// Which.
        log: LogId,
    },
}

/// A dead letter waiting to leave its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place in the queue's outbox.
    pub number: u64,
    /// Where its body is.
    pub offset: Offset,
    /// Failed deliveries.
    pub attempts: u32,
    /// Rejected by a consumer; otherwise delivered too often.
    pub rejected: bool,
    /// What the consumer said.
    pub note: alloc::string::String,
    /// When it died.
    pub died_at: millrace_types::Wall,
}

/// Where a message of a queue is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    /// May be delivered now.
    Ready,
    /// Leased.
    InFlight,
    /// Waits for its backoff.
    Delayed,
    /// Waits in the outbox.
    Dying,
}

/// One unsettled message, without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageView {
    /// Where its body is.
    pub offset: Offset,
    /// Where it is in its life.
    pub state: MessageState,
    /// Failed deliveries.
    pub attempts: u32,
    /// Times it was handed out.
    pub acquired: u32,
}

/// What a queue can still take; `u64::MAX` stands for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
    /// Somebody was refused, and is woken when there is room: no need to be refused again.
    pub awaited: bool,
}

/// A session, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Which.
    pub session: SessionId,
    /// What its client calls itself.
    pub consumer: alloc::string::String,
    /// Which connection is the current one.
    pub epoch: u32,
    /// Whether a connection is attached.
    pub attached: bool,
    /// Leases it holds.
    pub in_flight: Count,
    /// What it may hold.
    pub window: crate::command::Window,
}

/// Counts of a queue, for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    /// May be delivered now.
    pub ready: u64,
    /// Leased.
    pub in_flight: u64,
    /// Wait for their backoff.
    pub delayed: u64,
    /// Wait in the outbox.
    pub dying: u64,
    /// Of all unsettled messages.
    pub bytes: u64,
    /// Wall time of the oldest unsettled message.
    pub oldest: Option<millrace_types::Wall>,
    /// Open sessions.
    pub consumers: Count,
}
