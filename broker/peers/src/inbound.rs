//! What the owner of the streams gives them: where messages go, and the secret peers share.

use bytes::Bytes;
use futures::future::BoxFuture;
use millrace_replica::{Lane, ShardMessage};
use millrace_types::NodeId;

/// Takes what peers send. Called on the runtime's threads; none of it may block.
pub trait Inbound: Send + Sync + 'static {
    /// Takes the messages of one frame, in the order they were sent. The stream's next frame is
    /// read when the future is ready: one that waits holds back that lane of that peer and nothing
    /// else. It may be dropped before it is ready, when the stream ends.
    fn received(
        &self,
        from: NodeId,
        lane: Lane,
        messages: Vec<ShardMessage>,
    ) -> BoxFuture<'static, ()>;

    /// Answers a node's question. The future may be dropped before it is ready, when the node does
    /// not wait any longer.
    fn asked(&self, from: NodeId, question: Bytes) -> BoxFuture<'static, Bytes>;

    /// Messages to this node were dropped, or may have been lost with their connection. Told once
    /// for each attempt that failed and connection that ended, and for a full queue at most ten
    /// times a second.
    fn unreachable(&self, node: NodeId, lane: Lane);
}

/// The secret that all nodes of a cluster have.
pub trait Credential: Send + Sync + 'static {
    /// What to show to a peer; nothing when the cluster has no secret. Asked anew for each
    /// connection, so that a changed secret is used from the next one on.
    fn token(&self) -> Option<Vec<u8>>;

    /// Whether a caller that shows this may go on. Must take as long for a token that is nearly
    /// right as for one that is not.
    fn accepts(&self, token: Option<&[u8]>) -> bool;
}
