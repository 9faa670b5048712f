//! What one node asks of another, and the answers.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_types::NodeId;

use super::node::Node;

/// Answers a question; with nothing when it is not understood.
pub(super) fn answer(node: &Arc<Node>, from: NodeId, request: Bytes) -> BoxFuture<'static, Bytes> {
    let own = node.data_dir.node();
    async move {
        tracing::debug!(%own, %from, bytes = request.len(), "a question is not understood");
        Bytes::new()
    }
    .boxed()
}
