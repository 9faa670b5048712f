//! What replicas of a shard say to each other, together with what comes along: stretches of
//! snapshots. The streams between nodes carry it.

use bytes::Bytes;
use millrace_types::{ReplicaId, ShardId};

use super::lane::Lane;
use super::message::{Message, Payload};

/// A stretch of a snapshot: a few of them under way fill a fast network, and one that was lost is
/// cheap to send again.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Something one replica of a shard has to say to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMessage {
    /// The shard of both.
    pub shard: ShardId,
    /// What it says.
    pub body: Body,
}

/// What a replica says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A message of Raft's.
    Raft(Message),
    /// A stretch of a snapshot.
    Chunk(SnapshotChunk),
    /// An answer to a stretch.
    Ack(SnapshotAck),
}

/// A stretch of a snapshot; its checksum is made and checked on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// Who sends it.
    pub from: ReplicaId,
    /// Who needs it.
    pub to: ReplicaId,
    /// Which snapshot: chosen by its sender.
    pub id: u64,
    /// Of its first byte in the snapshot.
    pub offset: u64,
    /// Bytes of the whole snapshot; the stretch that reaches it is the last.
    pub total: u64,
    /// At most [`CHUNK_BYTES_MAX`].
    pub data: Bytes,
}

/// An answer to a stretch of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotAck {
    /// Who has it.
    pub from: ReplicaId,
    /// Who sent it.
    pub to: ReplicaId,
    /// Which snapshot.
    pub id: u64,
    /// What its receiver does with the rest.
    pub next: Next,
}

impl ShardMessage {
    /// The lane for it: what elections wait for in one, what is large in the others.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match &self.body {
            Body::Raft(message) => match message.payload {
                Payload::Append { .. } | Payload::Accepted { .. } | Payload::Rejected { .. } => {
                    Lane::Appends
                }
                Payload::Heartbeat { .. }
                | Payload::HeartbeatAnswer { .. }
                | Payload::Vote { .. }
                | Payload::VoteAnswer { .. }
                | Payload::TimeoutNow => Lane::Votes,
                Payload::Snapshot { .. } => Lane::Snapshots,
            },
            Body::Chunk(_) | Body::Ack(_) => Lane::Snapshots,
        }
    }

    /// The replica that says it, and the one it is for.
    #[must_use]
    pub const fn ends(&self) -> (ReplicaId, ReplicaId) {
        match &self.body {
            Body::Raft(message) => (message.from, message.to),
            Body::Chunk(chunk) => (chunk.from, chunk.to),
            Body::Ack(ack) => (ack.from, ack.to),
        }
    }
}

/// Where a snapshot goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// From this byte on.
    From(u64),
    /// It is not wanted any more.
    Refused,
}
