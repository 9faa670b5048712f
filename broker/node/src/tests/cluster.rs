//! Three nodes in one process, on virtual time, over a network that can be cut.

mod apart;
mod catching_up;
mod classes;
mod current;
mod elsewhere;
mod failover;
mod full_disk;
mod joining;
mod load;
mod losses;
mod moves;
mod names;
mod snapshots;
mod steering;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_replica::{Lane, Role, ShardMessage, Status};
use millrace_storage::{Crash, DataDir, MemoryDisk};
use millrace_types::{Founder, Founding, FoundingDraft, LogIndex, NodeId, ShardId};
use tokio::sync::{mpsc, oneshot};

use super::host::TestHost;
use super::*;
use crate::input::Input;
use crate::leaders::Led;
use crate::{Host as _, Network, Unreachable};

/// Data shards of a test's cluster.
const SHARDS: u32 = 2;
/// What a message takes from node to node.
const HOP: Duration = Duration::from_millis(1);
/// What a call waits for an answer.
const CALL: Duration = Duration::from_secs(3);
/// Nothing takes longer that happens at all.
const SOON: Duration = Duration::from_secs(20);
/// An election, with the one that split the votes before it.
const ELECTION: Duration = Duration::from_millis(3_200);

/// Nodes that found a cluster together. Clones share it.
#[derive(Clone)]
struct Cluster {
    host: TestHost,
    net: Net,
    members: Arc<Mutex<Vec<Member>>>,
    founding: Founding,
    change: fn(&mut NodeOptions),
}

/// One node, dead or alive.
struct Member {
    id: NodeId,
    /// Where it says that it is.
    address: String,
    /// Nothing when it joined later.
    founding: Option<Founding>,
    disk: MemoryDisk,
    life: Option<TestHost>,
}

/// Runs a story on three nodes that have just founded a cluster.
fn live<F>(seed: u64, change: fn(&mut NodeOptions), story: impl FnOnce(Cluster) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    founded(seed, (3, change), story);
}

/// Runs a story on a node that has just founded a cluster alone.
fn alone<F>(seed: u64, story: impl FnOnce(Cluster) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    founded(seed, (1, |_| {}), story);
}

fn founded<F>(
    seed: u64,
    (founders, change): (usize, fn(&mut NodeOptions)),
    story: impl FnOnce(Cluster) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let host = TestHost::new(seed);
    let cluster = Cluster::new(&host, founders, change);
    for node in 0..founders {
        cluster.start(node);
    }
    host.run(story(cluster.clone()));
    let nodes = cluster.members().len();
    for node in 0..nodes {
        cluster.kill(node);
    }
    host.kill();
}

impl Member {
    /// A node without a cluster, until its directory is told of one.
    fn new(host: &TestHost, belong: impl FnOnce(&DataDir)) -> Self {
        let disk = MemoryDisk::new();
        let chance = host.clone();
        let random = Arc::new(move || chance.random());
        let dir = DataDir::open(Arc::new(disk.clone()), Path::new("data"), random).unwrap();
        belong(&dir);
        let (id, founding, life) = (dir.node(), None, None);
        Self {
            id,
            address: format!("{id}:1"),
            founding,
            disk,
            life,
        }
    }
}

impl Cluster {
    fn new(host: &TestHost, founders: usize, change: fn(&mut NodeOptions)) -> Self {
        let members = (0..founders).map(|_| Member::new(host, |_| {}));
        let mut members: Vec<Member> = members.collect();
        let founder = |member: &Member| Founder {
            node: member.id,
            peer: member.address.clone(),
        };
        let draft = FoundingDraft {
            cluster_id: "ours".into(),
            shards: SHARDS,
            replication: u32::try_from(founders).unwrap(),
            founders: members.iter().map(founder).collect(),
        };
        let founding: Founding = draft.try_into().unwrap();
        for member in &mut members {
            member.founding = Some(founding.clone());
        }
        Self {
            host: host.clone(),
            net: Net::new(host),
            members: Arc::new(Mutex::new(members)),
            founding,
            change,
        }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap()
    }

    fn id(&self, node: usize) -> NodeId {
        self.members()[node].id
    }

    fn disk(&self, node: usize) -> MemoryDisk {
        self.members()[node].disk.clone()
    }

    /// Begins another life of a node.
    fn start(&self, node: usize) {
        let (id, disk) = (self.id(node), self.disk(node));
        let life = self.host.life();
        self.members()[node].life = Some(life.clone());
        let mut options = options_at("data");
        options.founding = self.members()[node].founding.clone();
        options.advertised.peer_address = self.members()[node].address.clone();
        options.shards = SHARDS;
        (self.change)(&mut options);
        let network = Arc::new(Wires(id, self.net.clone()));
        let broker = Broker::start_on(Arc::new(disk), Arc::new(life), network, options).unwrap();
        self.net.state().brokers.insert(id, broker);
    }

    /// Ends the life of a node as a power cut does.
    fn kill(&self, node: usize) {
        let Some(life) = self.members()[node].life.take() else {
            return;
        };
        let broker = self.net.state().brokers.remove(&self.id(node));
        self.disk(node).crash(Crash::Random(7));
        life.kill();
        drop(broker);
    }

    fn broker(&self, node: usize) -> Broker {
        self.net.state().brokers[&self.id(node)].clone()
    }

    fn alive(&self) -> Vec<usize> {
        let members = self.members();
        (0..members.len())
            .filter(|node| members[*node].life.is_some())
            .collect()
    }

    /// Separates a node from the others.
    fn isolate(&self, node: usize) {
        let id = self.id(node);
        self.net.state().cut.insert(id);
    }

    /// And joins it again.
    fn join(&self, node: usize) {
        let id = self.id(node);
        self.net.state().cut.remove(&id);
    }

    /// What a node's replica of a shard says of itself.
    async fn status(&self, node: usize, shard: ShardId) -> Status {
        let (sender, answer) = oneshot::channel();
        let broker = self.broker(node);
        let ask = Box::new(move |replica: &mut millrace_replica::Replica| {
            sender.send(replica.status()).ok();
        });
        let slot = broker.node.slot_at_all(shard);
        slot.inbox.send(Input::Drive(shard, ask));
        answer.await.unwrap()
    }

    /// Waits a moment, while there is patience left.
    async fn wait(&self, since: Duration, what: &str) {
        assert!(self.host.elapsed() < since + SOON, "never: {what}");
        self.host.sleep(Duration::from_millis(10)).await;
    }

    /// Who leads a shard, of the nodes that are asked, as soon as one does.
    async fn leader(&self, shard: ShardId, of: &[usize]) -> usize {
        let since = self.host.elapsed();
        loop {
            let leads = |node: &&usize| self.broker(**node).node.leaders.get(shard) == Led::Here;
            if let Some(node) = of.iter().find(leads) {
                return *node;
            }
            self.wait(since, "somebody leads").await;
        }
    }

    /// Waits until a node follows somebody.
    async fn follows(&self, node: usize, shard: ShardId) {
        let since = self.host.elapsed();
        loop {
            let status = self.status(node, shard).await;
            if status.role == Role::Follower && status.leader.is_some() {
                return;
            }
            self.wait(since, "it follows").await;
        }
    }

    /// What a node has applied of a shard.
    async fn applied(&self, node: usize, shard: ShardId) -> LogIndex {
        self.broker(node).stats(0).await.shards[&shard].applied
    }

    /// Waits until a node has applied what another one has.
    async fn catches_up(&self, node: usize, with: usize, shard: ShardId) {
        let since = self.host.elapsed();
        while self.applied(node, shard).await < self.applied(with, shard).await {
            self.wait(since, "it catches up").await;
        }
    }

    /// Declares objects, and waits until all shards know them.
    async fn declare(&self, upserts: Vec<Declared>) {
        let leader = self.leader(ShardId::METADATA, &self.alive()).await;
        let delta = TopologyDelta {
            cluster_id: None,
            base_revision: 0,
            upserts,
            removals: Vec::new(),
        };
        let revision = self.broker(leader).apply_topology(delta).await.unwrap();
        for node in self.alive() {
            let mut view = self.broker(node).catalogue();
            let applied = view.wait_for(|view| view.applied_revision() >= revision);
            applied.await.unwrap();
        }
    }

    /// The shard of a queue.
    fn shard(&self, queue: &str) -> ShardId {
        let broker = self.broker(self.alive()[0]);
        let view = broker.node.view.borrow().clone();
        view.require_queue(&address(queue)).unwrap().0
    }

    /// One message to one node.
    async fn publish(&self, node: usize, to: &str, text: &str) -> Result<Acknowledged, Refusal> {
        let sent = vec![batch(&[message(text, "")])];
        self.broker(node)
            .publish(&address(to), sent)
            .await
            .remove(0)
    }

    /// Everything in a queue.
    async fn take(&self, node: usize, from: &str) -> Vec<String> {
        let all = receive(from, 1_000, Duration::from_secs(1));
        texts(&self.broker(node).receive(all).await.unwrap())
    }
}

/// The network between the nodes.
#[derive(Clone)]
struct Net(TestHost, Arc<Mutex<NetState>>);

#[derive(Default)]
struct NetState {
    brokers: BTreeMap<NodeId, Broker>,
    /// Nobody hears them, and they hear nobody.
    cut: BTreeSet<NodeId>,
    links: BTreeMap<(NodeId, NodeId, Lane), mpsc::UnboundedSender<Vec<ShardMessage>>>,
    /// Messages that were delivered.
    delivered: u64,
    /// Of those the ones with states on their way, to whom they went.
    states: Vec<(NodeId, ShardMessage)>,
}

/// One node's end of it.
struct Wires(NodeId, Net);

impl Net {
    fn new(host: &TestHost) -> Self {
        Self(host.clone(), Arc::default())
    }

    fn state(&self) -> MutexGuard<'_, NetState> {
        self.1.lock().unwrap()
    }

    /// Who answers at a node, if one can be reached from another.
    fn reach(&self, from: NodeId, to: NodeId) -> Option<Broker> {
        let state = self.state();
        let is_cut = state.cut.contains(&from) || state.cut.contains(&to);
        let found = state.brokers.get(&to).filter(|_| !is_cut);
        found.cloned()
    }

    /// Carries what is sent in a lane, one bundle after the other.
    fn link(
        &self,
        from: NodeId,
        to: NodeId,
        lane: Lane,
    ) -> mpsc::UnboundedSender<Vec<ShardMessage>> {
        let (sender, mut bundles) = mpsc::unbounded_channel::<Vec<ShardMessage>>();
        let net = self.clone();
        self.0.spawn(Box::pin(async move {
            while let Some(bundle) = bundles.recv().await {
                net.0.sleep(HOP).await;
                let count = bundle.len() as u64;
                match net.reach(from, to) {
                    Some(broker) => {
                        net.state().delivered += count;
                        if lane == Lane::Snapshots {
                            let bundle = bundle.iter().map(|message| (to, message.clone()));
                            net.state().states.extend(bundle);
                        }
                        broker.received(from, lane, bundle).await;
                    }
                    None => {
                        let sender = net.state().brokers.get(&from).cloned();
                        sender.inspect(|sender| sender.unreachable(to, lane));
                    }
                }
            }
        }));
        sender
    }
}

impl Network for Wires {
    fn send(&self, to: NodeId, lane: Lane, messages: Vec<ShardMessage>) {
        let (from, net) = (self.0, &self.1);
        let known = net.state().links.get(&(from, to, lane)).cloned();
        let link = known.unwrap_or_else(|| {
            let link = net.link(from, to, lane);
            net.state().links.insert((from, to, lane), link.clone());
            link
        });
        link.send(messages).unwrap();
    }

    fn call(&self, to: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, Unreachable>> {
        let (from, net) = (self.0, self.1.clone());
        async move {
            net.0.sleep(HOP).await;
            let Some(broker) = net.reach(from, to) else {
                let why = "there is no way".into();
                return Err(Unreachable::NotSent { node: to, why });
            };
            let answered = async {
                let answer = broker.answer(from, request).await;
                net.0.sleep(HOP).await;
                match net.reach(to, from) {
                    Some(_) => answer,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                answer = answered => Ok(answer),
                () = net.0.sleep(CALL) => {
                    let why = "no answer in time".into();
                    Err(Unreachable::NoAnswer { node: to, why })
                }
            }
        }
        .boxed()
    }
}
