//! Messages of shards, and their checksums.

use bytes::Bytes;
use millrace_proto::peer::v1 as proto;
use millrace_proto::peer::v1::raft_message::Payload;
use millrace_proto::peer::v1::shard_message::Body as Wire;
use millrace_replica::{Body, CHUNK_BYTES_MAX, Next, ShardMessage, SnapshotAck, SnapshotChunk};
use millrace_types::{ReplicaId, ShardId};
use prost::Message as _;

use super::raft;

/// A checksum's place on the wire, which is not in `encoded_len` before it is set: tag, four bytes,
/// and one that the length around it may grow by.
const CHECKSUM_BYTES: usize = 6;
/// What a frame adds to a message, tag and length, and what the lengths inside may grow by.
const AROUND_BYTES: usize = 12;

/// A message ready for the wire but for its checksums, and how much of a frame it takes at most.
#[derive(Debug)]
pub(crate) struct Packed {
    message: proto::ShardMessage,
    pub(crate) bytes: usize,
    pub(crate) entries: usize,
}

/// Why a message cannot be handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMessage {
    /// A newer version says something that we do not know: it is left out.
    #[error("of an unknown kind")]
    Unknown,
    /// Its checksum is another one.
    #[error("damaged on its way")]
    Damaged,
    /// No version sends this.
    #[error("malformed")]
    Malformed,
}

impl From<ShardMessage> for Packed {
    fn from(message: ShardMessage) -> Self {
        let (from, to) = message.ends();
        let (body, entries) = match message.body {
            Body::Raft(message) => {
                let message = raft::to_wire(message);
                let entries = match &message.payload {
                    Some(Payload::Append(append)) => append.entries.len(),
                    _ => 0,
                };
                (Wire::Raft(message), entries)
            }
            Body::Chunk(chunk) => (Wire::Chunk(chunk_to_wire(chunk)), 0),
            Body::Ack(ack) => (Wire::Ack(ack_to_wire(ack)), 0),
        };
        let message = proto::ShardMessage {
            shard: message.shard.get(),
            from: from.get(),
            to: to.get(),
            body: Some(body),
        };
        // A chunk has a checksum without having entries.
        let checksums = entries + 1;
        let bytes = message.encoded_len() + checksums * CHECKSUM_BYTES + AROUND_BYTES;
        Self {
            message,
            bytes,
            entries,
        }
    }
}

impl Packed {
    /// The message with its checksums.
    pub(crate) fn sealed(self) -> proto::ShardMessage {
        let mut message = self.message;
        match &mut message.body {
            Some(Wire::Raft(raft)) => {
                if let Some(Payload::Append(append)) = &mut raft.payload {
                    for entry in &mut append.entries {
                        entry.crc32c = raft::checksum(entry);
                    }
                }
            }
            Some(Wire::Chunk(chunk)) => chunk.crc32c = crc32c::crc32c(&chunk.data),
            Some(Wire::Ack(_)) | None => {}
        }
        message
    }
}

/// A message as it came, checked.
pub(crate) fn unpacked(message: proto::ShardMessage) -> Result<ShardMessage, BadMessage> {
    let (from, to) = (ReplicaId::new(message.from), ReplicaId::new(message.to));
    let body = match message.body.ok_or(BadMessage::Unknown)? {
        Wire::Raft(raft) => Body::Raft(raft::from_wire(from, to, raft)?),
        Wire::Chunk(chunk) => Body::Chunk(stretch(from, to, chunk)?),
        Wire::Ack(ack) => Body::Ack(SnapshotAck {
            from,
            to,
            id: ack.id,
            next: if ack.refused {
                Next::Refused
            } else {
                Next::From(ack.next)
            },
        }),
    };
    Ok(ShardMessage {
        shard: ShardId::new(message.shard),
        body,
    })
}

fn chunk_to_wire(chunk: SnapshotChunk) -> proto::SnapshotChunk {
    let end = chunk.offset.checked_add(chunk.data.len() as u64);
    proto::SnapshotChunk {
        id: chunk.id,
        offset: chunk.offset,
        total: chunk.total,
        last: end == Some(chunk.total),
        data: chunk.data,
        crc32c: 0,
    }
}

fn stretch(
    from: ReplicaId,
    to: ReplicaId,
    chunk: proto::SnapshotChunk,
) -> Result<SnapshotChunk, BadMessage> {
    let data: Bytes = chunk.data;
    let end = chunk.offset.checked_add(data.len() as u64);
    let end = end.ok_or(BadMessage::Malformed)?;
    let is_last = end == chunk.total;
    if data.len() > CHUNK_BYTES_MAX || end > chunk.total || chunk.last != is_last {
        return Err(BadMessage::Malformed);
    }
    if chunk.crc32c != crc32c::crc32c(&data) {
        return Err(BadMessage::Damaged);
    }
    Ok(SnapshotChunk {
        from,
        to,
        id: chunk.id,
        offset: chunk.offset,
        total: chunk.total,
        data,
    })
}

const fn ack_to_wire(ack: SnapshotAck) -> proto::SnapshotAck {
    let (next, refused) = match ack.next {
        Next::From(offset) => (offset, false),
        Next::Refused => (0, true),
    };
    proto::SnapshotAck {
        id: ack.id,
        next,
        refused,
    }
}
