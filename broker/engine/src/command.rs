//! Proposed changes of a data shard. A command is an entry's header in the journal; the bodies it
//! carries (a batch of records) are the entry's data and never pass through here.
//!
//! What an existing variant does never changes and its place in the enum stays: a fix is a new
//! variant at the end.

use alloc::string::String;
use alloc::vec::Vec;

use millrace_types::{Address, Count, DedupKey, LogId, Offset, SessionId, Stamp};
use serde::{Deserialize, Serialize};

use crate::spec::{DeadLetters, PartitionSpec, QueueSpec};

/// A command with the time it was proposed at: an entry's whole header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The only time `apply` sees.
    pub stamp: Stamp,
    /// What to do.
    pub command: Command,
}

/// A change of a data shard's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Does nothing but move time on: due leases, backoffs and sessions end.
    Tick,
    /// Creates or changes a queue, or thaws an orphan.
    ConfigureQueue {
        /// Which.
        log: LogId,
        /// How it is called.
        address: Address,
        /// Topology revision that asked for it; older ones are ignored.
        revision: u64,
        /// What is declared.
        spec: QueueSpec,
        /// What becomes of those that die in it.
        dead_letters: DeadLetters,
    },
    /// Creates or changes a partition of a topic, or thaws an orphan.
    ConfigurePartition {
        /// Which.
        log: LogId,
        /// Address of the topic.
        address: Address,
        /// Which of its partitions.
        partition: u32,
        /// Topology revision that asked for it; older ones are ignored.
        revision: u64,
        /// What is declared.
        spec: PartitionSpec,
    },
    /// Its resource is gone and its messages are to be kept: nothing is delivered or published.
    Freeze {
        /// Queue or partition.
        log: LogId,
        /// Topology revision that asked for it.
        revision: u64,
    },
    /// Its resource is gone and so are its messages.
    Remove {
        /// Queue or partition.
        log: LogId,
        /// Topology revision that asked for it.
        revision: u64,
    },
    /// Everything up to this topology revision has been configured here.
    Configured {
        /// The revision.
        revision: u64,
    },
    /// Appends a batch, unless it was appended before. The records are the entry's data.
    Publish {
        /// Queue or partition.
        log: LogId,
        /// What the records are, without looking into them.
        batch: BatchHeader,
        /// How a retry of it is told; `None`: each one is appended.
        dedup: Option<Dedup>,
    },
    /// Moves a binding's cursor on and appends what matched. Applies only where `from` is the
    /// cursor and the queue is still configured as the proposer saw it.
    Transfer {
        /// The bound queue.
        queue: LogId,
        /// The queue's configuration, whose filters chose.
        revision: u64,
        /// The partition that was read.
        partition: LogId,
        /// The cursor the proposer started from.
        from: Offset,
        /// The cursor afterwards.
        to: Offset,
        /// What matched; absent when nothing did.
        batch: Option<BatchHeader>,
    },
    /// Appends dead letters of another queue, numbered `number..number + count`. When some have
    /// arrived or were recalled, the whole batch is refused with what has arrived
    /// (`Outcome::Numbered`). A `number` beyond the expected one is taken: the letters between went
    /// to another queue, which was the target then. So a proposer sends one batch of a source at a
    /// time.
    AcceptDead {
        /// The dead-letter queue.
        queue: LogId,
        /// The queue they died in.
        source: LogId,
        /// Outbox number of the first one.
        number: u64,
        /// The records are the entry's data.
        batch: BatchHeader,
    },
    /// Dead letters numbered below this have arrived and leave their queue.
    ConfirmDead {
        /// The queue they died in.
        queue: LogId,
        /// One past the last that arrived.
        number: u64,
    },
    /// Opens a consumer's session; deliveries begin at once.
    OpenSession {
        /// Random.
        session: SessionId,
        /// From which queue.
        queue: LogId,
        /// For people.
        consumer: String,
        /// What may be in flight.
        window: Window,
        /// Closed when not attached for this long.
        ttl_ms: u64,
    },
    /// A client came back to its session: a new epoch begins, tags stay valid.
    AttachSession {
        /// Which.
        session: SessionId,
        /// What may be in flight.
        window: Window,
        /// What the client still holds; every other delivery of the session is an effect again.
        held: Vec<Held>,
    },
    /// The client's connection is gone; what was sent (`NoteSent`) stays its own until the
    /// session's time to live has passed, the rest is released without counting a failure. Ignored
    /// when a newer epoch is attached.
    DetachSession {
        /// Which.
        session: SessionId,
        /// The connection that ended.
        epoch: u32,
    },
    /// Changes what may be in flight; a window of 0 stops deliveries.
    SetWindow {
        /// Which.
        session: SessionId,
        /// The new window.
        window: Window,
    },
    /// Closes a session: its deliveries are released without counting a failure.
    CloseSession {
        /// Which.
        session: SessionId,
    },
    /// Leases messages outside any session, for `Receive`.
    Acquire {
        /// From which queue.
        queue: LogId,
        /// Random; owns the leases.
        owner: SessionId,
        /// At most this many,
        messages_max: Count,
        /// and about this many bytes, the first message excepted.
        bytes_max: u64,
        /// Length of the leases; `None` takes the queue's.
        lease_ms: Option<u64>,
    },
    /// Ends leases.
    Settle {
        /// Of which queue.
        queue: LogId,
        /// Each is decided on its own.
        settlements: Vec<Settlement>,
    },
    /// Drops a partition's messages below `first`.
    Trim {
        /// Which.
        partition: LogId,
        /// The oldest that stays.
        first: Offset,
    },
    /// First entry of every leader, also after a restart: connections of the past are gone, so all
    /// sessions are detached and their time to live starts: some with this entry, the others with
    /// those that follow, and each before anything else happens in its queue. A command, because
    /// replay has to detach where the leader did. What is outstanding a leader finds by looking
    /// (`Shard::outstanding`).
    Lead,
    /// Takes no dead letter of `source` below `number` any more and says which have arrived
    /// (`Outcome::Numbered`): those after are free to go to another queue. Answered by a removed
    /// queue too, until `ForgetDead`.
    RecallDead {
        /// The dead-letter queue they may have been sent to.
        queue: LogId,
        /// The queue they died in.
        source: LogId,
        /// One past the last that may have been sent.
        number: u64,
    },
    /// Those that have arrived leave their queue; the others get new numbers and go to the present
    /// dead-letter queue. Applies only while the outbox starts at `first` and is bound to `from`.
    RedirectDead {
        /// The queue they died in.
        queue: LogId,
        /// The dead-letter queue that recalled them.
        from: LogId,
        /// The first number in the outbox.
        first: u64,
        /// One past the last that has arrived, as `RecallDead` said.
        arrived: u64,
    },
    /// These sources send nothing to this queue any more: their numbers may go.
    ForgetDead {
        /// The dead-letter queue, perhaps removed.
        queue: LogId,
        /// Queues that are gone, or that send elsewhere.
        sources: Vec<LogId>,
    },
    /// These leases were sent to their clients: one that runs out then has failed, which one that
    /// nobody saw has not. Noted before anything that is due by its stamp ends, so that a leader
    /// can say so in time.
    NoteSent {
        /// By session.
        sent: Vec<SentLeases>,
    },
}

/// What a batch of records is, without looking into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchHeader {
    /// Records in the batch, at least one.
    pub count: Count,
    /// Their bytes, as stored.
    pub bytes: u64,
}

/// How a retry of a publish is told from another publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dedup {
    /// The same for each attempt.
    pub id: DedupId,
    /// How long ago the first attempt was made; 0 for the first one.
    pub age_ms: u64,
}

/// What all attempts of one publish have in common, and no other publish to that queue or
/// partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DedupId {
    /// An id of the message's own.
    Message(DedupKey),
    /// A place among the batches of a producer.
    Batch {
        /// Who.
        producer: DedupKey,
        /// The producer's number for it. There may be gaps.
        sequence: u64,
        /// The producer will send none below this number any more.
        floor: u64,
    },
}

impl DedupId {
    /// What it is known under.
    #[must_use]
    pub const fn key(&self) -> DedupKey {
        match self {
            Self::Message(key) => *key,
            Self::Batch { producer, .. } => *producer,
        }
    }
}

/// What a session may have in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Messages; 0 stops deliveries.
    pub messages: Count,
    /// Bytes; one message may exceed it when nothing else is in flight.
    pub bytes: u64,
}

/// One lease, as its holder names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Held {
    /// Of the message.
    pub offset: Offset,
    /// How often the message had been handed out, this time included: tells one lease from the
    /// next.
    pub acquired: u32,
}

/// Leases that one connection of a session has sent to its client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentLeases {
    /// Whose.
    pub session: SessionId,
    /// The connection they were sent on. An epoch of the past says nothing.
    pub epoch: u32,
    /// Which.
    pub held: Vec<Held>,
}

/// One message to settle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settlement {
    /// Whose lease it is.
    pub owner: SessionId,
    /// Which lease.
    pub held: Held,
    /// How it ends.
    pub settle: Settle,
}

/// How a lease ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Settle {
    /// Handled.
    Accept,
    /// Not handled, no failure.
    Release {
        /// Not delivered again before this has passed.
        delay_ms: u64,
    },
    /// Failed.
    Retry {
        /// Not delivered again before this has passed; `None` takes the queue's backoff.
        delay_ms: Option<u64>,
        /// Why.
        note: String,
    },
    /// Hopeless.
    Reject {
        /// Why.
        note: String,
    },
    /// Goes on: the lease starts anew.
    Extend,
}
