//! Nodes on loopback, what they received, and waiting for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_peers::{
    Body, Credential, Identity, Inbound, Lane, LaneStatus, Link, Next, Options, PROTOCOL_VERSIONS,
    Peers, ShardMessage, SnapshotAck, SnapshotChunk,
};
use millrace_replica::{Message, Payload};
use millrace_types::{NodeId, ReplicaId, ShardId, Term};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

/// Far longer than anything takes on a machine that is merely busy.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) const CLUSTER: &str = "c1";

/// A node with its peer port.
pub(crate) struct Node {
    pub(crate) peers: Peers,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
    stop: CancellationToken,
}

/// What a node received and was told.
pub(crate) struct Inbox {
    got: Mutex<Got>,
    /// Lanes whose messages are not taken.
    shut: watch::Sender<Vec<Lane>>,
}

#[derive(Default)]
struct Got {
    messages: Vec<(NodeId, Lane, ShardMessage)>,
    frames: Vec<usize>,
    unreachable: BTreeMap<(NodeId, Lane), usize>,
}

/// A token that tests can change.
pub(crate) struct Secret(pub(crate) Mutex<Option<Vec<u8>>>);

impl Credential for Secret {
    fn token(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }

    fn accepts(&self, token: Option<&[u8]>) -> bool {
        let ours = self.0.lock().unwrap();
        ours.is_none() || ours.as_deref() == token
    }
}

impl Secret {
    pub(crate) fn new(token: &str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(token.as_bytes().to_vec()))))
    }

    pub(crate) fn change(&self, token: &str) {
        *self.0.lock().unwrap() = Some(token.as_bytes().to_vec());
    }
}

impl Inbound for Inbox {
    fn received(
        &self,
        from: NodeId,
        lane: Lane,
        messages: Vec<ShardMessage>,
    ) -> BoxFuture<'static, ()> {
        let mut got = self.got.lock().unwrap();
        got.frames.push(messages.len());
        let messages = messages.into_iter().map(|message| (from, lane, message));
        got.messages.extend(messages);
        let mut shut = self.shut.subscribe();
        async move {
            let _open = shut.wait_for(|shut| !shut.contains(&lane)).await;
        }
        .boxed()
    }

    /// What was asked, behind who did.
    fn asked(&self, from: NodeId, question: Bytes) -> BoxFuture<'static, Bytes> {
        let mut shut = self.shut.subscribe();
        async move {
            let _open = shut.wait_for(Vec::is_empty).await;
            Bytes::from([from.to_string().as_bytes(), b" asks ", &question].concat())
        }
        .boxed()
    }

    fn unreachable(&self, node: NodeId, lane: Lane) {
        let mut got = self.got.lock().unwrap();
        *got.unreachable.entry((node, lane)).or_default() += 1;
    }
}

impl Inbox {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            got: Mutex::default(),
            shut: watch::Sender::new(Vec::new()),
        })
    }

    /// Takes no more messages of a lane, after the next ones.
    pub(crate) fn shut(&self, lane: Lane) {
        self.shut.send_modify(|shut| shut.push(lane));
    }

    /// Takes everything again.
    pub(crate) fn open(&self) {
        self.shut.send_modify(Vec::clear);
    }

    pub(crate) fn count(&self, lane: Lane) -> usize {
        let got = self.got.lock().unwrap();
        got.messages.iter().filter(|one| one.1 == lane).count()
    }

    /// What came in a lane, in order.
    pub(crate) fn messages(&self, lane: Lane) -> Vec<(NodeId, ShardMessage)> {
        let got = self.got.lock().unwrap();
        let of_lane = got.messages.iter().filter(|one| one.1 == lane);
        of_lane.map(|one| (one.0, one.2.clone())).collect()
    }

    /// How many messages each frame had.
    pub(crate) fn frames(&self) -> Vec<usize> {
        self.got.lock().unwrap().frames.clone()
    }

    pub(crate) fn unreachable(&self, node: u64, lane: Lane) -> usize {
        let got = self.got.lock().unwrap();
        let told = got.unreachable.get(&(NodeId::new(node), lane));
        told.copied().unwrap_or_default()
    }
}

impl Node {
    pub(crate) async fn start(node: u64) -> Self {
        Self::with(options(node), Secret::new("s3cret")).await
    }

    pub(crate) async fn with(options: Options, secret: Arc<Secret>) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), options, secret).await
    }

    pub(crate) async fn at(address: SocketAddr, options: Options, secret: Arc<Secret>) -> Self {
        let inbox = Inbox::new();
        let peers = Peers::new(options, Arc::clone(&inbox) as Arc<dyn Inbound>, secret);
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = peers
            .router()
            .serve_with_incoming_shutdown(incoming, stopped);
        let serving = tokio::spawn(async move { serving.await.unwrap() });
        Self {
            peers,
            inbox,
            address,
            serving,
            stop,
        }
    }

    /// Ends the node as a server would.
    pub(crate) async fn stop(self) -> SocketAddr {
        self.stop.cancel();
        timeout(LIMIT, self.peers.shutdown()).await.unwrap();
        timeout(LIMIT, self.serving).await.unwrap().unwrap();
        self.address
    }

    pub(crate) fn knows(&self, node: u64, other: &Self) {
        let address = other.address.to_string();
        self.peers.set_address(NodeId::new(node), address).unwrap();
    }

    /// Waits until every lane to a peer is connected.
    pub(crate) async fn connected(&self, node: u64) {
        until("all lanes are connected", || {
            Lane::ALL.into_iter().all(|lane| self.is_up(node, lane))
        })
        .await;
    }

    pub(crate) fn is_up(&self, node: u64, lane: Lane) -> bool {
        matches!(self.lane(node, lane).link, Link::Up { .. })
    }

    pub(crate) fn lane(&self, node: u64, lane: Lane) -> LaneStatus {
        let status = self.peers.status();
        let peer = status.iter().find(|peer| peer.node == NodeId::new(node));
        peer.unwrap().lanes[lane.index()].clone()
    }

    /// Why the last connection of a lane failed, in words.
    pub(crate) fn failure(&self, node: u64, lane: Lane) -> String {
        let failure = self.lane(node, lane).failure;
        failure
            .map(|failure| failure.error.to_string())
            .unwrap_or_default()
    }

    pub(crate) fn send(&self, node: u64, lane: Lane, messages: Vec<ShardMessage>) -> usize {
        self.peers.send(NodeId::new(node), lane, messages)
    }
}

pub(crate) fn identity(node: u64) -> Identity {
    Identity {
        cluster_id: CLUSTER.to_owned(),
        node: NodeId::new(node),
        versions: PROTOCOL_VERSIONS,
        feature_level: 3,
        build: "0.1.0-test".to_owned(),
    }
}

/// Quick to try again.
pub(crate) fn options(node: u64) -> Options {
    let mut options = Options::new(identity(node));
    options.timing.backoff_first = Duration::from_millis(5);
    options.timing.backoff_longest = Duration::from_millis(50);
    options.timing.refused_retry = Duration::from_millis(50);
    options.timing.ping_every = Duration::from_millis(5);
    options.timing.call_within = Duration::from_millis(500);
    options
}

const FROM: ReplicaId = ReplicaId::new(11);
const TO: ReplicaId = ReplicaId::new(12);

/// A small message; `number` tells it from others.
pub(crate) fn ack(shard: u32, number: u64) -> ShardMessage {
    let ack = SnapshotAck {
        from: FROM,
        to: TO,
        id: 1,
        next: Next::From(number),
    };
    ShardMessage {
        shard: ShardId::new(shard),
        body: Body::Ack(ack),
    }
}

/// A large message.
pub(crate) fn chunk(shard: u32, bytes: usize) -> ShardMessage {
    let chunk = SnapshotChunk {
        from: FROM,
        to: TO,
        id: 1,
        offset: 0,
        total: bytes as u64,
        data: Bytes::from(vec![7; bytes]),
    };
    ShardMessage {
        shard: ShardId::new(shard),
        body: Body::Chunk(chunk),
    }
}

/// A message of Raft's.
pub(crate) fn raft(shard: u32, payload: Payload) -> ShardMessage {
    let message = Message {
        from: FROM,
        to: TO,
        term: Term::new(u64::MAX),
        payload,
    };
    ShardMessage {
        shard: ShardId::new(shard),
        body: Body::Raft(message),
    }
}

/// The number of a message made by [`ack`].
pub(crate) fn number(message: &ShardMessage) -> u64 {
    match message.body {
        Body::Ack(SnapshotAck {
            next: Next::From(number),
            ..
        }) => number,
        ref other => panic!("{other:?}"),
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut look = interval(Duration::from_millis(2));
    let wait = async {
        while !holds() {
            look.tick().await;
        }
    };
    assert!(timeout(LIMIT, wait).await.is_ok(), "never: {what}");
}
