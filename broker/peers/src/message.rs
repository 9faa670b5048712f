//! What the streams carry.

use bytes::Bytes;
use millrace_proto::peer::v1::RaftMessage;
use millrace_types::{ReplicaId, ShardId};

/// Something one replica of a shard has to say to another.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardMessage {
    /// The shard of both.
    pub shard: ShardId,
    /// The replica that says it.
    pub from: ReplicaId,
    /// The replica it is for.
    pub to: ReplicaId,
    /// What it says.
    pub body: Body,
}

/// What a replica says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A message of Raft's.
    Raft(RaftMessage),
    /// A stretch of a snapshot.
    Chunk(SnapshotChunk),
    /// An answer to a stretch.
    Ack(SnapshotAck),
}

/// A stretch of a snapshot; its checksum is made and checked on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// Which snapshot: chosen by its sender.
    pub id: u64,
    /// Of its first byte in the snapshot.
    pub offset: u64,
    /// Bytes of the whole snapshot; the stretch that reaches it is the last.
    pub total: u64,
    /// At most [`crate::CHUNK_BYTES_MAX`].
    pub data: Bytes,
}

/// An answer to a stretch of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotAck {
    /// Which snapshot.
    pub id: u64,
    /// What its receiver does with the rest.
    pub next: Next,
}

/// Where a snapshot goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// From this byte on.
    From(u64),
    /// It is not wanted any more.
    Refused,
}
