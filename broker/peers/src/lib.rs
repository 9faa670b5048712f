//! The streams between the nodes of a cluster. They carry what replicas say to each other and know
//! nothing of its meaning.
//!
//! Every node dials every other one, once for each [`Lane`], and sends on what it dialled; what it
//! is sent comes in on what others dialled. So no two nodes ever have to agree on whose connection
//! counts, and a heartbeat never waits behind an entry. Nothing here waits for a peer: what does
//! not fit its queue, or finds no connection, is dropped, counted and told, because Raft sends
//! again. Besides the lanes there are questions, each with an answer that may be lost.

mod backoff;
mod caller;
mod convert;
mod dialer;
mod error;
mod frames;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fuzz;
mod handshake;
mod inbound;
mod incoming;
mod limits;
mod line;
mod options;
mod peers;
mod queue;
mod repeats;
mod service;
mod session;
mod shared;
mod status;
mod transport;

pub use error::{AddressRefused, CallError, LinkError, Reason, Refusal, Side};
pub use handshake::{Agreed, Identity, PROTOCOL_VERSIONS};
pub use inbound::{Credential, Inbound};
pub use limits::{CONNECTIONS_MAX, FRAME_BYTES_MAX, MESSAGE_BYTES_MAX, PEERS_MAX};
/// What the streams carry.
pub use millrace_replica::{
    Body, CHUNK_BYTES_MAX, Lane, Next, ShardMessage, SnapshotAck, SnapshotChunk,
};
pub use options::{Options, QueueLimits, Timing};
pub use peers::Peers;
pub use service::{Service, limited};
pub use status::{Failure, IncomingStatus, LaneStatus, Link, OpenStream, PeerStatus};
pub use transport::server;
