//! Three processes become one cluster: in any order, with one that comes late, and once only,
//! whatever becomes of a disk.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use millrace_client::{Client, ReceiveOptions};
use millrace_cluster_tests::broker::{Broker, Launch, Node};
use millrace_cluster_tests::wait::until;
use millrace_proto::membership::v1::identify_response::State;
use millrace_proto::membership::v1::membership_client::MembershipClient;
use millrace_proto::membership::v1::{
    BootstrapRequest, Founder, Founding, IdentifyRequest, IdentifyResponse,
};
use millrace_proto::v1::cluster_client::ClusterClient;
use millrace_proto::v1::{NodeRequest, NodesRequest};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::given::{self, SOON, assert_has};

const QUEUE: &str = "queue/default/orders";
/// An election on a busy machine.
const ELECTED: Duration = SOON;
/// Copies of a few small shards move, one step after the other.
const MOVED: Duration = Duration::from_secs(60);

/// Three nodes on addresses of their own.
struct Three {
    net: [u8; 3],
    nodes: Vec<Node>,
}

impl Three {
    /// Empty disks; each is told of all, by this option.
    fn new(option: &str) -> Result<Self> {
        static NETS: AtomicU8 = AtomicU8::new(1);
        // Loopback has addresses enough that no two tests, nor two runs of them, share one.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let third = NETS.fetch_add(3, Ordering::Relaxed);
        let net = [127, 64 | (high & 63), low ^ third];
        let mut three = Self {
            net,
            nodes: Vec::new(),
        };
        let all: Vec<String> = (0..3).map(|place| three.peer(place).to_string()).collect();
        for place in 0..3 {
            let peer = three.peer(place).to_string();
            let mut node = Node::new(given::TOPOLOGY)?
                .with(["--peer-listen", &peer])
                .with([option, &all.join(",")]);
            node.set_address(three.address(place, 7070));
            three.nodes.push(node);
        }
        Ok(three)
    }

    fn address(&self, place: u8, port: u16) -> SocketAddr {
        let [a, b, c] = self.net;
        SocketAddr::from(([a, b, c, place + 1], port))
    }

    fn peer(&self, place: u8) -> SocketAddr {
        self.address(place, 7073)
    }

    fn launch(&mut self, place: u8) -> Result<Launch> {
        self.nodes[usize::from(place)].launch()
    }

    /// Starts them in this order, and waits until all serve.
    async fn start(&mut self, order: [u8; 3]) -> Result<Vec<Broker>> {
        let mut launched = Vec::new();
        for place in order {
            launched.push(self.launch(place)?);
        }
        let mut running = Vec::new();
        for launch in launched {
            running.push(launch.broker().await?);
        }
        Ok(running)
    }

    async fn membership(&self, place: u8) -> Result<MembershipClient<Channel>> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.peer(place)))?;
        Ok(MembershipClient::new(endpoint.connect().await?))
    }

    /// What a node says it is, once it listens.
    async fn identify(&self, place: u8) -> Result<IdentifyResponse> {
        until("a node to say who it is", SOON, async || {
            let Ok(mut client) = self.membership(place).await else {
                return Ok(None);
            };
            Ok(Some(
                client.identify(IdentifyRequest {}).await?.into_inner(),
            ))
        })
        .await
    }

    async fn bootstrap(&self, place: u8, founding: &Founding) -> Result<Result<u64, Status>> {
        let founding = Some(founding.clone());
        let mut client = self.membership(place).await?;
        let answer = client.bootstrap(BootstrapRequest { founding }).await;
        Ok(answer.map(|answer| answer.into_inner().node_id))
    }

    /// The one record that all three have.
    async fn record(&self) -> Result<Founding> {
        let first = self.identify(0).await?;
        let record = first.founding.context("a record")?;
        for place in 0..3 {
            let node = self.identify(place).await?;
            assert_eq!(node.state(), State::Member);
            assert_eq!(node.cluster_id, record.cluster_id);
            assert_eq!(node.founding.as_ref(), Some(&record));
        }
        assert_eq!(record.founders.len(), 3);
        Ok(record)
    }

    fn client(&self, place: u8) -> Result<Client> {
        let url = format!("http://{}", self.address(place, 7070));
        Ok(Client::connect(url)?)
    }

    /// A message goes in at one of them and comes out at one of them.
    async fn carries(&self, payload: &str) -> Result<()> {
        until("a message to be taken", ELECTED, async || {
            for place in 0..3 {
                let client = self.client(place)?;
                if given::try_publish(&client, QUEUE, payload).await.is_ok() {
                    return Ok(Some(()));
                }
            }
            Ok(None)
        })
        .await?;
        until("the message to come", ELECTED, async || {
            for place in 0..3 {
                let client = self.client(place)?;
                let received = client.receive(QUEUE, ReceiveOptions::default()).await;
                let received = received.unwrap_or_default();
                if received.iter().any(|one| one.message.payload == payload) {
                    return Ok(Some(()));
                }
            }
            Ok(None)
        })
        .await
    }
}

pub(crate) async fn three_nodes_found_one_cluster_in_any_order() -> Result<()> {
    let mut three = Three::new("--peers")?;
    let last = three.launch(2)?;
    let first = three.launch(0)?;
    let node = three.identify(0).await?;
    assert_eq!(node.state(), State::Empty);
    assert_eq!(node.peers.len(), 3);
    // Nobody founds without all the others, and clients are told to come back.
    let refused = until("the client port to answer", SOON, async || {
        let client = three.client(0)?;
        Ok(given::try_publish(&client, QUEUE, "early").await.err())
    });
    let refused = refused.await?;
    assert_eq!(refused.reason, "SHARD_UNAVAILABLE");
    assert_has(&refused.message, "does not belong to a cluster yet");
    assert_eq!(three.identify(2).await?.state(), State::Empty);

    let late = three.launch(1)?;
    let mut running = Vec::new();
    for launch in [last, first, late] {
        running.push(launch.broker().await?);
    }
    let record = three.record().await?;
    three.carries("first").await?;

    // They come back as who they are, in another order.
    running.into_iter().for_each(Broker::kill);
    let running = three.start([1, 2, 0]).await?;
    assert_eq!(three.record().await?, record);
    three.carries("second").await?;
    drop(running);
    Ok(())
}

pub(crate) async fn a_node_whose_disk_is_lost_founds_nothing_again() -> Result<()> {
    let mut three = Three::new("--peers")?;
    let mut running = three.start([0, 1, 2]).await?;
    let record = three.record().await?;
    running.remove(0).kill();
    fs::remove_dir_all(three.nodes[0].data_dir())?;

    // It serves when it has a copy of the catalogue.
    running.push(three.launch(0)?.broker().await?);
    let node = three.identify(0).await?;
    assert_eq!(node.cluster_id, record.cluster_id);
    assert_eq!(node.founding.as_ref(), Some(&record));
    let is_it = |one: &Founder| one.node_id == node.node_id;
    assert!(!record.founders.iter().any(is_it));
    assert_eq!(three.record().await?, record);
    three.carries("with it").await
}

pub(crate) async fn a_node_that_was_struck_off_comes_back_with_its_old_disk() -> Result<()> {
    let mut three = Three::new("--peers")?;
    let mut running = three.start([0, 1, 2]).await?;
    let last = running.pop().context("three of them")?;
    let gone = format!("{:016x}", three.identify(2).await?.node_id);
    let control = format!("http://{}", running[0].addresses().control);
    let channel = Endpoint::from_shared(control)?.connect().await?;
    let mut control = ClusterClient::new(channel);
    let about = || NodeRequest {
        node_id: gone.clone(),
    };
    control.cordon_node(about()).await?;
    until("the node to hold nothing", MOVED, async || {
        let nodes = control.clone().nodes(NodesRequest {}).await?.into_inner();
        let node = nodes.nodes.into_iter().find(|it| it.node_id == gone);
        Ok((node.context("it is known")?.replicas == 0).then_some(()))
    })
    .await?;
    last.stop().await?;
    control.forget_node(about()).await?;

    running.push(three.launch(2)?.broker().await?);
    until("the node to have replicas again", MOVED, async || {
        let missing = control.clone().caught_up(about()).await;
        let nodes = control.clone().nodes(NodesRequest {}).await?.into_inner();
        let mut nodes = nodes.nodes.into_iter();
        let has_all = nodes.any(|it| it.node_id == gone && it.replicas > 1);
        let is_whole = missing.is_ok_and(|it| it.into_inner().blockers.is_empty());
        Ok((has_all && is_whole).then_some(()))
    })
    .await?;
    three.carries("with it").await
}

pub(crate) async fn a_record_that_was_sent_to_some_reaches_those_who_come_later() -> Result<()> {
    let mut three = Three::new("--join")?;
    let mut launched = Vec::new();
    for place in 0..3 {
        launched.push(three.launch(place)?);
    }
    let mut founders = Vec::new();
    for place in 0..3 {
        let node = three.identify(place).await?;
        assert_eq!(node.state(), State::Joining);
        founders.push(Founder {
            node_id: node.node_id,
            peer_address: node.peer_address,
        });
    }
    founders.sort_by_key(|founder| founder.node_id);
    let record = Founding {
        cluster_id: "ours".into(),
        shards: 4,
        replication: 3,
        founders,
    };
    // It goes away, and its disk stays.
    launched.remove(2).kill();

    let mut without = record.clone();
    let own = three.identify(0).await?.node_id;
    without.founders.retain(|founder| founder.node_id != own);
    let refused = three
        .bootstrap(0, &without)
        .await?
        .expect_err("it is not in it");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_has(refused.message(), "is not among the founders");
    assert_eq!(three.identify(0).await?.state(), State::Joining);
    assert_eq!(three.bootstrap(0, &record).await??, own);

    // The second one takes it from the first; sent again, it is answered the same.
    let mut running = Vec::new();
    for launch in launched {
        running.push(launch.broker().await?);
    }
    assert_eq!(three.bootstrap(0, &record).await??, own);
    let mut other = record.clone();
    other.cluster_id = "theirs".into();
    let refused = three
        .bootstrap(1, &other)
        .await?
        .expect_err("it has another one");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_has(refused.message(), "belongs to cluster ours already");
    three.carries("two of three").await?;

    running.push(three.launch(2)?.broker().await?);
    assert_eq!(three.record().await?, record);
    Ok(())
}
