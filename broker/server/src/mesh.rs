//! This node's end of what nodes say to each other: gives the broker the streams and questions of
//! `millrace-peers`, and those the broker.
//!
//! There from the first moment, as the peer port is: until the broker runs, whoever calls is told
//! to come back, and what is sent is dropped. Promises: `reach` only adds; who is to be no peer any
//! more has to be forgotten.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_node::{Broker, Network, Unreachable};
use millrace_peers::{
    CallError, Identity, Inbound, Lane, Options, PROTOCOL_VERSIONS, PeerStatus, Peers, Service,
    ShardMessage,
};
use millrace_proto::peer::v1::PeerFrame;
use millrace_proto::peer::v1::peer_server::Peer;
use millrace_types::{FEATURE_LEVEL, Founding, NodeId};
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;

use crate::tasks::Stop;
use crate::token::Guard;

/// The way to the other nodes. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Mesh(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    guard: Arc<Guard>,
    /// `None` before the broker runs, and after its end.
    peers: RwLock<Option<Peers>>,
}

/// What peers give the broker.
struct ToBroker(Broker);

impl Mesh {
    /// One without a broker; peers show and are shown the guard's token.
    pub(crate) fn new(guard: Arc<Guard>) -> Self {
        let peers = RwLock::default();
        Self(Arc::new(Inner { guard, peers }))
    }

    /// Connects a broker with the others of its cluster, as soon as `reach` says where they are.
    pub(crate) fn open(&self, broker: &Broker, cluster_id: &str) {
        let identity = Identity {
            cluster_id: cluster_id.to_owned(),
            node: broker.node_id(),
            versions: PROTOCOL_VERSIONS,
            feature_level: FEATURE_LEVEL,
            build: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let inbound = Arc::new(ToBroker(broker.clone()));
        let credential = Arc::clone(&self.0.guard) as Arc<_>;
        let peers = Peers::new(Options::new(identity), inbound, credential);
        *self.write() = Some(peers);
    }

    /// Says where nodes are, `HOST:PORT`; this node among them is passed over.
    pub(crate) fn reach(&self, nodes: &[(NodeId, String)]) {
        let Some(peers) = self.peers() else {
            return;
        };
        for (node, address) in nodes {
            if *node == peers.node() || address.is_empty() {
                continue;
            }
            if let Err(error) = peers.set_address(*node, address.as_str()) {
                warn!(%node, address, %error, "a node is not connected to");
            }
        }
    }

    /// A node is no peer any more.
    pub(crate) fn forget(&self, node: NodeId) {
        if let Some(peers) = self.peers() {
            peers.forget(node);
        }
    }

    /// Keeps to what the broker's catalogue says of nodes, until the stop.
    pub(crate) async fn follow(self, broker: Broker, stop: Stop) -> Result<(), Infallible> {
        let founding = broker.cluster().ok().and_then(|cluster| cluster.founding);
        let founders = founding.iter().flat_map(Founding::founders);
        let mut known: Vec<(NodeId, String)> = founders
            .map(|founder| (founder.node, founder.peer.clone()))
            .collect();
        self.reach(&known);
        let mut views = broker.catalogue();
        // A view without nodes says nothing about them.
        let mut was_founded = false;
        loop {
            let view = views.borrow_and_update().clone();
            let roster = view.roster();
            if roster.is_founded() {
                let nodes = roster.nodes();
                let now: Vec<(NodeId, String)> = nodes
                    .map(|(node, known)| (node, known.facts.peer_address.clone()))
                    .collect();
                if now != known || !was_founded {
                    let is_gone = |node: &NodeId| !now.iter().any(|(now, _)| now == node);
                    let before = known.iter().map(|(node, _)| *node);
                    before.filter(is_gone).for_each(|node| self.forget(node));
                    self.reach(&now);
                    known = now;
                    was_founded = true;
                }
            }
            tokio::select! {
                biased;
                () = stop.ended() => return Ok(()),
                changed = views.changed() => if changed.is_err() {
                    return Ok(());
                },
            }
        }
    }

    /// Every peer, for metrics.
    pub(crate) fn status(&self) -> Vec<PeerStatus> {
        self.peers().map(|peers| peers.status()).unwrap_or_default()
    }

    /// Ends all streams. Lets go of the broker.
    pub(crate) async fn close(&self) {
        let peers = self.write().take();
        if let Some(peers) = peers {
            peers.shutdown().await;
        }
    }

    fn peers(&self) -> Option<Peers> {
        let peers = self.0.peers.read();
        peers.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Peers>> {
        // It is replaced whole.
        self.0.peers.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn service(&self) -> Result<Service, Status> {
        let peers = self.peers();
        let closed = || Status::unavailable("this node has not started yet, or goes down");
        peers.map(|peers| peers.service()).ok_or_else(closed)
    }
}

impl Network for Mesh {
    fn send(&self, to: NodeId, lane: Lane, messages: Vec<ShardMessage>) {
        if let Some(peers) = self.peers() {
            // Those that are dropped are counted there, and told.
            peers.send(to, lane, messages);
        }
    }

    fn call(&self, node: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, Unreachable>> {
        let peers = self.peers();
        async move {
            let Some(peers) = peers else {
                let why = "this node is not connected".to_owned();
                return Err(Unreachable::NotSent { node, why });
            };
            peers
                .call(node, request)
                .await
                .map_err(|error| match error {
                    CallError::NotSent { text: why } => Unreachable::NotSent { node, why },
                    CallError::NoAnswer { text: why } => Unreachable::NoAnswer { node, why },
                })
        }
        .boxed()
    }
}

impl Inbound for ToBroker {
    fn received(
        &self,
        from: NodeId,
        lane: Lane,
        messages: Vec<ShardMessage>,
    ) -> BoxFuture<'static, ()> {
        self.0.received(from, lane, messages)
    }

    fn asked(&self, from: NodeId, question: Bytes) -> BoxFuture<'static, Bytes> {
        self.0.answer(from, question)
    }

    fn unreachable(&self, node: NodeId, lane: Lane) {
        self.0.unreachable(node, lane);
    }
}

#[tonic::async_trait]
impl Peer for Mesh {
    type ExchangeStream = <Service as Peer>::ExchangeStream;

    async fn exchange(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        self.service()?.exchange(request).await
    }

    async fn call(&self, request: Request<PeerFrame>) -> Result<Response<PeerFrame>, Status> {
        self.service()?.call(request).await
    }
}
