//! What can be seen of the streams: a picture, made when somebody asks.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use millrace_replica::Lane;
use millrace_types::NodeId;

use crate::error::{LinkError, Refusal};
use crate::handshake::Agreed;

/// A peer: one we dial, or one that called us.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Which.
    pub node: NodeId,
    /// Where we dial it; nothing when we only heard from it.
    pub address: Option<String>,
    /// In the order of [`Lane::ALL`].
    pub lanes: [LaneStatus; 3],
    /// Of the last ping, or how long the next one has been waiting if that is longer.
    pub round_trip: Option<Duration>,
}

/// One lane, both ways. Counters begin with the peer and never go down.
#[derive(Clone, Debug)]
pub struct LaneStatus {
    /// Which.
    pub lane: Lane,
    /// The connection we dial.
    pub link: Link,
    /// Why the last attempt failed or the last connection ended.
    pub failure: Option<Failure>,
    /// What waits for it.
    pub queued_messages: usize,
    /// Their size.
    pub queued_bytes: usize,
    /// What was handed to the transport.
    pub sent_messages: u64,
    /// Their size.
    pub sent_bytes: u64,
    /// What was dropped: no connection, a full queue, too large.
    pub dropped_messages: u64,
    /// The connection that the peer dialled.
    pub incoming: IncomingStatus,
}

/// The connection to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// There is none; the next attempt comes by itself.
    Down,
    /// It is being made.
    Dialling,
    /// It is there.
    Up {
        /// Since when.
        since: SystemTime,
        /// What was agreed on.
        agreed: Agreed,
    },
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub at: SystemTime,
    /// What.
    pub error: LinkError,
}

/// What a peer dialled.
#[derive(Clone, Debug, Default)]
pub struct IncomingStatus {
    /// The stream that is open.
    pub open: Option<OpenStream>,
    /// Why the last stream was refused or ended by us.
    pub refusal: Option<Refusal>,
    /// Streams that a later one of the same node and lane replaced.
    pub superseded: u64,
    /// What came, including what was skipped.
    pub received_messages: u64,
    /// Size of the frames that came.
    pub received_bytes: u64,
    /// Messages of a kind that only a newer version knows.
    pub skipped_messages: u64,
}

/// A stream that a peer opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenStream {
    /// Its address, where the listener knows it.
    pub from: Option<SocketAddr>,
    /// Since when.
    pub since: SystemTime,
    /// What was agreed on.
    pub agreed: Agreed,
}
