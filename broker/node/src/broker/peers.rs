//! What comes from other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_replica::{Lane, ShardMessage};
use millrace_types::NodeId;

use super::Broker;
use crate::input::Input;
use crate::start::worker_of;

impl Broker {
    /// Takes what a node sent in a lane, in this order. Ready when there is room for it: until
    /// then nothing more of that lane is to be read from that node. Of one that is dropped before,
    /// some may have been taken.
    #[must_use]
    pub fn received(
        &self,
        from: NodeId,
        lane: Lane,
        messages: Vec<ShardMessage>,
    ) -> BoxFuture<'static, ()> {
        let node = Arc::clone(&self.node);
        async move {
            let mut bundles: BTreeMap<usize, Vec<ShardMessage>> = BTreeMap::new();
            for message in messages {
                let worker = worker_of(message.shard, node.inlets.len());
                bundles.entry(worker).or_default().push(message);
            }
            for (worker, messages) in bundles {
                node.inlets[worker].enter(from, lane, messages).await;
            }
        }
        .boxed()
    }

    /// Says that what was sent to a node in a lane was probably lost.
    pub fn unreachable(&self, node: NodeId, lane: Lane) {
        self.tell_workers(|| Input::Unreachable(node, lane));
    }

    /// Answers what a node asks.
    #[must_use]
    pub fn answer(&self, from: NodeId, request: Bytes) -> BoxFuture<'static, Bytes> {
        crate::calls::answer(&self.node, from, request)
    }
}
