//! What goes into the broker's calls and what comes out. Values only; checked by the calls.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use millrace_engine::command::{Dedup, Settle, Window};
use millrace_types::{Address, Count, Offset, SessionId, Wall};

/// Records that are stored together: all at consecutive offsets of one partition, or none.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Partition of a topic, as from `partition_for`; `None` lets the broker take turns. Must be
    /// `None` or 0 for a queue.
    pub partition: Option<u32>,
    /// Messages in `records`.
    pub count: Count,
    /// Encoded messages, each preceded by its length as a varint. The split into messages and their
    /// sizes are checked; what is inside a message is the caller's to check.
    pub records: Bytes,
    /// How a retry is told; `None`: each one is stored. Of a topic, a batch with an id and without
    /// a partition always goes to the same one.
    pub dedup: Option<Dedup>,
}

/// How batches are published.
#[derive(Clone, Copy, Debug)]
pub struct PublishOptions {
    /// How long to wait for room instead of being refused as overloaded.
    pub patience: Duration,
    /// How long the answer may take; after that the outcome is unknown.
    pub answer_within: Duration,
    /// When to answer.
    pub acknowledge: Acknowledge,
}

/// When a publish is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledge {
    /// When a majority of the shard's replicas has synced it.
    #[default]
    Synced,
    /// When the leader has put it in order. It may be lost, or refused in its turn, and nobody is
    /// told.
    OnReceipt,
}

/// A batch was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Of the topic; 0 for a queue.
    pub partition: u32,
    /// What is guaranteed.
    pub taken: Taken,
    /// Voting replicas of its shard.
    pub replicas: u32,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is here, synced by a majority of the replicas.
    Stored(Range<Offset>),
    /// It was here before, by an earlier attempt, and is as safe.
    Repeated(Range<Offset>),
    /// The leader has it in memory.
    Received,
}

impl Acknowledged {
    /// Where its messages are, if they have a place yet.
    #[must_use]
    pub const fn offsets(&self) -> Option<&Range<Offset>> {
        match &self.taken {
            Taken::Stored(offsets) | Taken::Repeated(offsets) => Some(offsets),
            Taken::Received => None,
        }
    }
}

/// Takes messages outside any session.
#[derive(Clone, Debug)]
pub struct Receive {
    /// A queue or dead-letter queue.
    pub address: Address,
    /// 1..=1000.
    pub messages_max: Count,
    /// The first message may exceed it.
    pub bytes_max: u64,
    /// For the first message, at most 60 s.
    pub wait: Duration,
    /// `None` takes the queue's.
    pub lease: Option<Duration>,
}

/// One message under lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Names the lease; opaque to clients.
    pub tag: Bytes,
    /// Of the message.
    pub offset: Offset,
    /// Failed deliveries before this one.
    pub attempts: u32,
    /// Hand-outs, this one included.
    pub acquired: u32,
    /// How long the lease runs.
    pub lease: Duration,
    /// When the message was stored in this queue.
    pub stored_at: Wall,
    /// An encoded `millrace.v1.Message`.
    pub message: Bytes,
}

/// One lease to end, as a client names it.
#[derive(Clone, Debug)]
pub struct SettleTag {
    /// As delivered.
    pub tag: Bytes,
    /// How it ends.
    pub settle: Settle,
}

/// What may still be sent to a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Messages,
    pub messages: u64,
    /// and bytes; one message may overdraw them once.
    pub bytes: u64,
}

/// Opens a session, or comes back to one.
#[derive(Clone, Debug)]
pub struct OpenConsumer {
    /// A queue or dead-letter queue.
    pub address: Address,
    /// For people.
    pub consumer: String,
    /// The session to come back to; `None` opens a new one.
    pub resume: Option<Resume>,
    /// What may be in flight; 0 takes the queue's limit (messages) or the broker's (bytes).
    pub in_flight: Window,
    /// What may be sent at once.
    pub credit: Credit,
}

/// A session of the past.
#[derive(Clone, Debug)]
pub struct Resume {
    /// Which.
    pub session: SessionId,
    /// Tags that the client still holds; unreadable ones are ignored.
    pub held: Vec<Bytes>,
}

/// Looks at messages of a queue without taking them.
#[derive(Clone, Debug)]
pub struct Peek {
    /// A queue or dead-letter queue.
    pub address: Address,
    /// Lowest offset of interest.
    pub from: Offset,
    /// 1..=1000.
    pub messages_max: Count,
}

/// What `peek` saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeekAnswer {
    /// In order of their offsets.
    pub messages: Vec<Peeked>,
    /// Go on from here; `None` at the end.
    pub next: Option<Offset>,
}

/// One message of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// An encoded `millrace.v1.Message`.
    pub message: Bytes,
    /// Of the message.
    pub offset: Offset,
    /// What becomes of it.
    pub state: PeekedState,
    /// Failed deliveries.
    pub attempts: u32,
    /// Hand-outs.
    pub acquired: u32,
    /// When it was stored.
    pub stored_at: Wall,
}

/// State of a message in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeekedState {
    /// May be delivered now.
    Ready,
    /// Leased.
    InFlight,
    /// Waits for its backoff.
    Delayed,
    /// On its way to the dead-letter queue.
    Dying,
}

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The oldest message kept.
    Earliest,
    /// After the newest message.
    Latest,
    /// This one.
    Offset(Offset),
    /// The first message stored at this time or later.
    Time(Wall),
}

/// Reads a partition.
#[derive(Clone, Debug)]
pub struct Read {
    /// A topic.
    pub address: Address,
    /// One of its partitions.
    pub partition: u32,
    /// Where to start. An offset below what is kept starts at the oldest; one beyond the end is
    /// `OFFSET_OUT_OF_RANGE`.
    pub from: Position,
    /// 1..=10000.
    pub messages_max: Count,
    /// The first message may exceed it.
    pub bytes_max: u64,
}

/// What a read found, perhaps nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAnswer {
    /// In order of their offsets.
    pub records: Vec<Record>,
    /// Go on from here. When `next - records.len()` is above where the reader asked to start, the
    /// messages between were trimmed.
    pub next: Offset,
    /// What the partition held.
    pub available: Range<Offset>,
}

/// One message as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of the message.
    pub offset: Offset,
    /// When it was stored.
    pub stored_at: Wall,
    /// An encoded `millrace.v1.Message`.
    pub message: Bytes,
}
