//! Between the wire's types and ours: the only place that names both. What is made here is valid;
//! what cannot be is told apart into what a newer version may send, which is skipped, and what
//! nobody may, which ends the stream.

use millrace_proto::peer::v1 as proto;
use millrace_replica::Lane;
use millrace_types::NodeId;
use prost::Message as _;

use crate::error::{Reason, Refusal};
use crate::handshake::Identity;
use crate::limits::{HELLO_BYTES_MAX, TEXT_CHARS_MAX};

mod message;
mod raft;
#[cfg(test)]
mod tests;

pub(crate) use message::{BadMessage, Packed, unpacked};

/// A frame, as it is sent.
pub(crate) type Frame = proto::PeerFrame;
/// One of its messages.
pub(crate) type Sealed = proto::ShardMessage;

/// The first thing each side says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) identity: Identity,
    pub(crate) to: NodeId,
    pub(crate) lane: Lane,
}

impl From<Hello> for Frame {
    fn from(hello: Hello) -> Self {
        let identity = hello.identity;
        let hello = proto::Hello {
            cluster_id: identity.cluster_id,
            node_id: identity.node.get(),
            to_node_id: hello.to.get(),
            lane: lane(hello.lane).into(),
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

const fn lane(lane: Lane) -> proto::Lane {
    match lane {
        Lane::Votes => proto::Lane::Votes,
        Lane::Appends => proto::Lane::Appends,
        Lane::Snapshots => proto::Lane::Snapshots,
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
    Frame {
        ping: ping.map(|id| proto::Ping { id }),
        messages: messages.into_iter().map(Packed::sealed).collect(),
        ..Frame::default()
    }
}
