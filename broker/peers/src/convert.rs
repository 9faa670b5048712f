//! Between the wire's types and ours: the only place that names both. What is made here is valid;
//! what cannot be is told apart into what a newer version may send, which is skipped, and what
//! nobody may, which ends the stream.

use bytes::Bytes;
use millrace_proto::peer::v1 as proto;
use millrace_proto::peer::v1::raft_message::Payload;
use millrace_types::{NodeId, ReplicaId, ShardId};
use prost::Message as _;

use crate::error::{Reason, Refusal};
use crate::handshake::Identity;
use crate::lane::Lane;
use crate::limits::{CHUNK_BYTES_MAX, HELLO_BYTES_MAX, TEXT_CHARS_MAX};
use crate::message::{Body, Next, ShardMessage, SnapshotAck, SnapshotChunk};

/// A frame, as it is sent.
pub(crate) type Frame = proto::PeerFrame;

/// A checksum's place on the wire, which is not in `encoded_len` before it is set: tag, four bytes,
/// and one that the length around it may grow by.
const CHECKSUM_BYTES: usize = 6;
/// What a frame adds to a message, tag and length, and what the lengths inside may grow by.
const AROUND_BYTES: usize = 12;

/// The first thing each side says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) identity: Identity,
    pub(crate) to: NodeId,
    pub(crate) lane: Lane,
}

/// A message ready for the wire but for its checksums, and how much of a frame it takes.
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

impl From<Hello> for Frame {
    fn from(hello: Hello) -> Self {
        let identity = hello.identity;
        let hello = proto::Hello {
            cluster_id: identity.cluster_id,
            node_id: identity.node.get(),
            to_node_id: hello.to.get(),
            lane: proto::Lane::from(hello.lane).into(),
            version_min: *identity.versions.start(),
            version_max: *identity.versions.end(),
            feature_level: identity.feature_level,
            build: identity.build,
        };
        Self {
            hello: Some(hello),
            ..Self::default()
        }
    }
}

impl TryFrom<Frame> for Hello {
    type Error = Refusal;

    fn try_from(frame: Frame) -> Result<Self, Refusal> {
        let protocol = |text: &str| Refusal::new(Reason::Protocol, text);
        let Some(hello) = frame.hello else {
            return Err(protocol("the first frame is no hello"));
        };
        if hello.encoded_len() > HELLO_BYTES_MAX {
            return Err(protocol("the hello is too large"));
        }
        let lane = match hello.lane() {
            proto::Lane::Unspecified => return Err(protocol("the hello names no known lane")),
            proto::Lane::Votes => Lane::Votes,
            proto::Lane::Appends => Lane::Appends,
            proto::Lane::Snapshots => Lane::Snapshots,
        };
        Ok(Self {
            identity: Identity {
                cluster_id: hello.cluster_id,
                node: NodeId::new(hello.node_id),
                versions: hello.version_min..=hello.version_max,
                feature_level: hello.feature_level,
                build: hello.build,
            },
            to: NodeId::new(hello.to_node_id),
            lane,
        })
    }
}

impl From<Lane> for proto::Lane {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Votes => Self::Votes,
            Lane::Appends => Self::Appends,
            Lane::Snapshots => Self::Snapshots,
        }
    }
}

impl From<&Refusal> for Frame {
    fn from(refusal: &Refusal) -> Self {
        use proto::refused::Reason as Wire;
        let reason = match refusal.reason {
            Reason::Cluster => Wire::Cluster,
            Reason::Node => Wire::Node,
            Reason::Itself => Wire::Self_,
            Reason::Version => Wire::Version,
            Reason::Superseded => Wire::Superseded,
            Reason::Protocol => Wire::Protocol,
            Reason::Busy => Wire::Busy,
            Reason::Closing => Wire::Closing,
            // A wrong token is told by the call's status, before there are frames.
            Reason::Token | Reason::Unknown => Wire::Unspecified,
        };
        let refused = proto::Refused {
            reason: reason.into(),
            message: refusal.text.clone(),
        };
        Self {
            refused: Some(refused),
            ..Self::default()
        }
    }
}

/// Takes the refusal out of a frame, if there is one.
pub(crate) fn refusal(frame: &mut Frame) -> Option<Refusal> {
    use proto::refused::Reason as Wire;
    let refused = frame.refused.take()?;
    let reason = match refused.reason() {
        Wire::Unspecified => Reason::Unknown,
        Wire::Cluster => Reason::Cluster,
        Wire::Node => Reason::Node,
        Wire::Self_ => Reason::Itself,
        Wire::Version => Reason::Version,
        Wire::Superseded => Reason::Superseded,
        Wire::Protocol => Reason::Protocol,
        Wire::Busy => Reason::Busy,
        Wire::Closing => Reason::Closing,
    };
    Some(Refusal::new(reason, shortened(&refused.message)))
}

/// A text from the other side, in a size for a status.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// A frame that answers a ping.
pub(crate) fn pong(ping: proto::Ping) -> Frame {
    Frame {
        pong: Some(proto::Pong { id: ping.id }),
        ..Frame::default()
    }
}

/// A frame of messages that waited, and a ping if one is due. Makes the checksums: here, because
/// this runs beside the thread that gave the messages, and not on it.
pub(crate) fn sealed(ping: Option<u64>, messages: Vec<Packed>) -> Frame {
    let seal = |packed: Packed| {
        let mut message = packed.message;
        seal(&mut message);
        message
    };
    Frame {
        ping: ping.map(|id| proto::Ping { id }),
        messages: messages.into_iter().map(seal).collect(),
        ..Frame::default()
    }
}

fn seal(message: &mut proto::ShardMessage) {
    use proto::shard_message::Body as Wire;
    match &mut message.body {
        Some(Wire::Raft(raft)) => {
            if let Some(Payload::Append(append)) = &mut raft.payload {
                for entry in &mut append.entries {
                    entry.crc32c = checksum(entry);
                }
            }
        }
        Some(Wire::Chunk(chunk)) => chunk.crc32c = crc32c::crc32c(&chunk.data),
        Some(Wire::Ack(_)) | None => {}
    }
}

fn checksum(entry: &proto::Entry) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&entry.header), &entry.body)
}

impl From<ShardMessage> for Packed {
    fn from(message: ShardMessage) -> Self {
        use proto::shard_message::Body as Wire;
        let (body, entries) = match message.body {
            Body::Raft(raft) => {
                let entries = match &raft.payload {
                    Some(Payload::Append(append)) => append.entries.len(),
                    _ => 0,
                };
                (Wire::Raft(raft), entries)
            }
            Body::Chunk(chunk) => (Wire::Chunk(chunk.into()), 0),
            Body::Ack(ack) => (Wire::Ack(ack.into()), 0),
        };
        let message = proto::ShardMessage {
            shard: message.shard.get(),
            from: message.from.get(),
            to: message.to.get(),
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

/// A message as it came, checked.
pub(crate) fn unpacked(message: proto::ShardMessage) -> Result<ShardMessage, BadMessage> {
    use proto::shard_message::Body as Wire;
    let body = match message.body.ok_or(BadMessage::Unknown)? {
        Wire::Raft(raft) => Body::Raft(checked(raft)?),
        Wire::Chunk(chunk) => Body::Chunk(stretch(chunk)?),
        Wire::Ack(ack) => Body::Ack(ack.into()),
    };
    Ok(ShardMessage {
        shard: ShardId::new(message.shard),
        from: ReplicaId::new(message.from),
        to: ReplicaId::new(message.to),
        body,
    })
}

fn checked(raft: proto::RaftMessage) -> Result<proto::RaftMessage, BadMessage> {
    match &raft.payload {
        None => return Err(BadMessage::Unknown),
        Some(Payload::Append(append)) => {
            for entry in &append.entries {
                if entry.kind() == proto::entry::Kind::Unspecified {
                    return Err(BadMessage::Unknown);
                }
                if entry.crc32c != checksum(entry) {
                    return Err(BadMessage::Damaged);
                }
            }
        }
        Some(_) => {}
    }
    Ok(raft)
}

impl From<SnapshotChunk> for proto::SnapshotChunk {
    fn from(chunk: SnapshotChunk) -> Self {
        let end = chunk.offset.checked_add(chunk.data.len() as u64);
        Self {
            id: chunk.id,
            offset: chunk.offset,
            total: chunk.total,
            last: end == Some(chunk.total),
            data: chunk.data,
            crc32c: 0,
        }
    }
}

fn stretch(chunk: proto::SnapshotChunk) -> Result<SnapshotChunk, BadMessage> {
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
        id: chunk.id,
        offset: chunk.offset,
        total: chunk.total,
        data,
    })
}

impl From<SnapshotAck> for proto::SnapshotAck {
    fn from(ack: SnapshotAck) -> Self {
        let (next, refused) = match ack.next {
            Next::From(offset) => (offset, false),
            Next::Refused => (0, true),
        };
        Self {
            id: ack.id,
            next,
            refused,
        }
    }
}

impl From<proto::SnapshotAck> for SnapshotAck {
    fn from(ack: proto::SnapshotAck) -> Self {
        let next = if ack.refused {
            Next::Refused
        } else {
            Next::From(ack.next)
        };
        Self { id: ack.id, next }
    }
}
