//! The handle to all streams of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use millrace_replica::{Lane, ShardMessage};
use millrace_types::NodeId;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Router;

use crate::convert::Packed;
use crate::dialer::Dialer;
use crate::error::{AddressRefused, CallError, Reason, Refusal};
use crate::inbound::{Credential, Inbound};
use crate::incoming::Incoming;
use crate::limits::{PEERS_MAX, QUESTIONS_MAX, SESSIONS_MAX};
use crate::line::Line;
use crate::options::Options;
use crate::service::{Service, limited};
use crate::shared::{Peer, Shared};
use crate::status::{LaneStatus, Link, PeerStatus};
use crate::transport;

/// All streams of a node to and from its peers. Cheap to clone. They live until
/// [`Peers::shutdown`].
#[derive(Clone, Debug)]
pub struct Peers(Arc<Shared>);

impl Peers {
    /// Streams without any peer yet. What comes is given to `inbound`; `credential` is shown to
    /// peers and asked about callers.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which runs the streams.
    #[must_use]
    pub fn new(
        options: Options,
        inbound: Arc<dyn Inbound>,
        credential: Arc<dyn Credential>,
    ) -> Self {
        Self(Arc::new(Shared {
            identity: options.identity,
            queues: options.queues,
            timing: options.timing,
            inbound,
            credential,
            incoming: Incoming::default(),
            places: Arc::new(Semaphore::new(SESSIONS_MAX)),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            peers: Mutex::new(BTreeMap::new()),
        }))
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.identity.node
    }

    /// What to serve on the peer port, with the transport's limits. The listener sets TCP_NODELAY
    /// and takes at most [`crate::CONNECTIONS_MAX`] connections.
    #[must_use]
    pub fn router(&self) -> Router {
        transport::server(&self.0.timing).add_service(limited(self.service()))
    }

    /// What the router serves, for one that serves more.
    #[must_use]
    pub fn service(&self) -> Service {
        Service(Arc::clone(&self.0))
    }

    /// Asks a node something and waits for its answer, as long as `Timing::call_within`.
    ///
    /// # Errors
    /// Why there is no answer, and whether the question can have arrived.
    pub async fn call(&self, node: NodeId, question: Bytes) -> Result<Bytes, CallError> {
        let peer = self.0.peers().get(&node).map(|peer| {
            let address = peer.address.borrow().clone();
            (Arc::clone(&peer.caller), address)
        });
        let Some((caller, address)) = peer else {
            let text = format!("nobody knows where node {node} is");
            return Err(CallError::NotSent { text });
        };
        caller.ask(&self.0, node, &address, question).await
    }

    /// Says where a node is, `HOST:PORT`, and keeps connected to it from now on. A new address
    /// ends the connections to the old one.
    ///
    /// # Errors
    /// When it is this node, or there are too many.
    pub fn set_address(
        &self,
        node: NodeId,
        address: impl Into<String>,
    ) -> Result<(), AddressRefused> {
        if node == self.0.identity.node {
            return Err(AddressRefused::Itself { node });
        }
        let address = address.into();
        let mut peers = self.0.peers();
        if let Some(peer) = peers.get(&node) {
            peer.address.send_if_modified(|known| {
                let is_new = *known != address;
                *known = address;
                is_new
            });
            return Ok(());
        }
        if peers.len() >= PEERS_MAX {
            let peers_max = PEERS_MAX;
            return Err(AddressRefused::TooMany { peers_max });
        }
        peers.insert(node, self.start(node, address));
        Ok(())
    }

    /// Ends the connections to and from a node; what waits for it is dropped.
    pub fn forget(&self, node: NodeId) {
        if let Some(peer) = self.0.peers().remove(&node) {
            peer.stop.cancel();
        }
        let us = self.0.identity.node;
        let text = format!("node {us} has forgotten node {node}");
        let refusal = Refusal::new(Reason::Closing, text);
        self.0.incoming.end(node, &refusal);
    }

    /// Sends messages, in this order among themselves and behind those sent before in this lane.
    /// Never waits. Returns how many were dropped at once, because there is no connection or no
    /// room, or because they are too large; [`Inbound::unreachable`] is told as well, unless the
    /// node is not known at all.
    pub fn send(&self, node: NodeId, lane: Lane, messages: Vec<ShardMessage>) -> usize {
        let line = self
            .0
            .peers()
            .get(&node)
            .map(|peer| Arc::clone(&peer.lines[lane.index()]));
        match line {
            Some(line) => {
                let packed: Vec<Packed> = messages.into_iter().map(Packed::from).collect();
                line.queue.push(packed)
            }
            None => messages.len(),
        }
    }

    /// Every peer, by node: those that we dial and those that called.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        let peers = self.0.peers();
        let mut nodes: BTreeSet<NodeId> = peers.keys().copied().collect();
        nodes.extend(self.0.incoming.nodes());
        nodes
            .into_iter()
            .map(|node| self.peer_status(node, peers.get(&node)))
            .collect()
    }

    /// Ends every stream and waits until all have ended: less than two seconds, however peers
    /// behave. Nothing connects afterwards.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn start(&self, node: NodeId, address: String) -> Peer {
        let stop = self.0.stop.child_token();
        let (address, _) = watch::channel(address);
        let line = |lane: Lane| Arc::new(Line::new(node, lane, self.0.queues[lane.index()]));
        let lines = Lane::ALL.map(line);
        for line in &lines {
            let dialer = Dialer {
                shared: Arc::clone(&self.0),
                line: Arc::clone(line),
                address: address.subscribe(),
                stop: stop.clone(),
            };
            self.0.tasks.spawn_on(dialer.run(), &self.0.runtime);
        }
        Peer {
            address,
            lines,
            caller: Arc::default(),
            stop,
        }
    }

    fn peer_status(&self, node: NodeId, peer: Option<&Peer>) -> PeerStatus {
        let line = |lane: Lane| peer.map(|peer| &peer.lines[lane.index()]);
        PeerStatus {
            node,
            address: peer.map(|peer| peer.address.borrow().clone()),
            lanes: Lane::ALL.map(|lane| self.lane_status(node, lane, line(lane))),
            round_trip: line(Lane::Votes).and_then(|line| line.round_trip()),
        }
    }

    fn lane_status(&self, node: NodeId, lane: Lane, line: Option<&Arc<Line>>) -> LaneStatus {
        let (link, failure) = line.map_or((Link::Down, None), |line| line.link());
        let counts = line.map(|line| line.queue.counts()).unwrap_or_default();
        LaneStatus {
            lane,
            link,
            failure,
            queued_messages: counts.queued_messages,
            queued_bytes: counts.queued_bytes,
            sent_messages: counts.sent_messages,
            sent_bytes: counts.sent_bytes,
            dropped_messages: counts.dropped_messages,
            incoming: self.0.incoming.status(node, lane),
        }
    }
}
