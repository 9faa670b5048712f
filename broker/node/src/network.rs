//! What a node asks of whatever connects it to the others of its cluster. A broker gives it streams
//! over TCP, a simulation a network that loses, delays and cuts.
//!
//! Nothing has to arrive: what is sent may be lost, come twice or in another order, and what is
//! asked may be lost before or after it was done. What comes in goes to `Broker::received`,
//! `Broker::unreachable` and `Broker::answer`.

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_replica::{Lane, ShardMessage};
use millrace_types::NodeId;

/// The way to the other nodes.
pub trait Network: Send + Sync + 'static {
    /// Sends messages to a node, in this order and behind those sent before in this lane. Never
    /// waits; what cannot be sent is dropped, and the node is told that the other is unreachable.
    fn send(&self, to: NodeId, lane: Lane, messages: Vec<ShardMessage>);

    /// Asks a node something and waits for its answer, for a bounded time.
    fn call(&self, to: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, Unreachable>>;
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// It did not leave this node.
    #[error("node {node} cannot be reached: {why}")]
    NotSent {
        /// Who was to be asked.
        node: NodeId,
        /// What is in the way.
        why: String,
    },
    /// It left; nobody knows whether it arrived.
    #[error("node {node} has not answered: {why}")]
    NoAnswer {
        /// Who was asked.
        node: NodeId,
        /// What happened.
        why: String,
    },
}

/// The network of a node that has no others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Network for Alone {
    fn send(&self, _: NodeId, _: Lane, _: Vec<ShardMessage>) {}

    fn call(&self, node: NodeId, _: Bytes) -> BoxFuture<'static, Result<Bytes, Unreachable>> {
        let why = "this node has no network".into();
        async move { Err(Unreachable::NotSent { node, why }) }.boxed()
    }
}
