//! Several brokers that form one cluster, each with a disk of its own and wires between them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use millrace_client::{Client, ClientOptions};
use millrace_proto::v1::routing_client::RoutingClient;
use millrace_proto::v1::{LocateRequest, RoutingRequest, TransferLeaderRequest};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::broker::{Broker, Launch, Node};
use crate::volume::Volume;
use crate::wait::until;
use crate::wires::Wires;

/// A cluster forms, or gets itself together again, within this, on a machine that is busy.
const WHOLE_LIMIT: Duration = Duration::from_secs(120);

/// What a node has applied of each shard.
const APPLIED: &str = "millrace_shard_applied_index";

/// The brokers and what is between them. Brokers that still run are killed when it is dropped.
#[derive(Debug)]
pub struct Nodes {
    disks: Vec<Node>,
    running: Vec<Option<Broker>>,
    wires: Wires,
    /// Under the disks of those that may be slow; unmounted after the brokers have ended.
    volumes: Vec<Volume>,
}

impl Nodes {
    /// Disks and wires for so many brokers; none runs yet.
    ///
    /// # Errors
    /// No directories or ports are to be had.
    pub async fn new(count: usize, topology: &str, options: &[[&str; 2]]) -> Result<Self> {
        let wires = Wires::new(count).await?;
        let addresses = (0..count).map(|node| wires.address(node).to_string());
        let peers = addresses.collect::<Vec<_>>().join(",");
        let mut disks = Vec::new();
        for node in 0..count {
            let port = free_port()?;
            wires.set_port(node, port);
            let mut disk = Node::new(topology)?
                .with(["--peer-listen", &port.to_string()])
                .with(["--peer-advertise", &wires.address(node).to_string()])
                .with(["--peers", &peers]);
            for option in options {
                disk = disk.with(*option);
            }
            disks.push(disk);
        }
        let running = disks.iter().map(|_| None).collect();
        Ok(Self {
            disks,
            running,
            wires,
            volumes: Vec::new(),
        })
    }

    /// Puts all disks on volumes that can be slowed down; before anything runs.
    ///
    /// # Errors
    /// The case is skipped where nothing can be mounted.
    pub fn mount(&mut self) -> Result<()> {
        for disk in &self.disks {
            let backing = disk.file("backing");
            self.volumes
                .push(Volume::mount(&disk.data_dir(), &backing)?);
        }
        Ok(())
    }

    /// How many there are, whether they run or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.disks.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.disks.is_empty()
    }

    /// Starts all of them, at the same time, and waits until they serve.
    ///
    /// # Errors
    /// One of them ended instead.
    pub async fn start_all(&mut self) -> Result<()> {
        let mut launches = Vec::new();
        for node in 0..self.len() {
            launches.push((node, self.launch(node)?));
        }
        for (node, launch) in launches {
            self.serves(node, launch).await?;
        }
        Ok(())
    }

    /// Starts one and waits until it serves.
    ///
    /// # Errors
    /// It ended instead.
    pub async fn start(&mut self, node: usize) -> Result<()> {
        let launch = self.launch(node)?;
        self.serves(node, launch).await
    }

    /// Starts one and does not wait.
    ///
    /// # Errors
    /// It cannot be started at all.
    pub fn launch(&mut self, node: usize) -> Result<Launch> {
        let launch = self.disks[node].launch()?;
        self.wires.set_process(node, Some(launch.pid()));
        Ok(launch)
    }

    /// Waits until one that was launched serves.
    ///
    /// # Errors
    /// It ended instead.
    pub async fn serves(&mut self, node: usize, launch: Launch) -> Result<()> {
        let broker = launch.broker().await;
        let broker = broker.with_context(|| format!("node {node}"))?;
        self.disks[node].set_address(broker.addresses().clients);
        self.running[node] = Some(broker);
        Ok(())
    }

    /// One that runs.
    ///
    /// # Errors
    /// It does not.
    pub fn broker(&self, node: usize) -> Result<&Broker> {
        let broker = self.running[node].as_ref();
        broker.with_context(|| format!("node {node} does not run"))
    }

    /// Kills one.
    pub fn kill(&mut self, node: usize) {
        if let Some(broker) = self.running[node].take() {
            broker.kill();
        }
        self.wires.set_process(node, None);
    }

    /// Lets one drain and end.
    ///
    /// # Errors
    /// It does not end well.
    pub async fn stop(&mut self, node: usize) -> Result<()> {
        if let Some(broker) = self.running[node].take() {
            let stopped = broker.stop().await;
            stopped.with_context(|| format!("node {node}"))?;
        }
        self.wires.set_process(node, None);
        Ok(())
    }

    /// Ends all that run.
    ///
    /// # Errors
    /// One does not end well.
    pub async fn stop_all(&mut self) -> Result<()> {
        for node in 0..self.len() {
            self.stop(node).await?;
        }
        Ok(())
    }

    /// Holds one where it is: it does nothing, and its connections stay open.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.broker(node)?.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self, node: usize) -> Result<()> {
        self.broker(node)?.signal(Signal::CONT)
    }

    /// Takes away the disk of one that does not run, and gives it an empty one.
    ///
    /// # Errors
    /// It runs.
    pub fn wipe(&mut self, node: usize) -> Result<()> {
        if self.running[node].is_some() {
            bail!("node {node} runs on its disk");
        }
        for entry in std::fs::read_dir(self.disks[node].data_dir())? {
            let path = entry?.path();
            if path.is_dir() {
                std::fs::remove_dir_all(path)?;
            } else {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Makes each sync of one's disk take this long; nothing for a fast one.
    ///
    /// # Errors
    /// The disks are on no volumes.
    pub fn slow_down(&self, node: usize, sync_takes: Duration) -> Result<()> {
        self.volume(node)?.slow_down(sync_takes);
        Ok(())
    }

    /// What one's disk is on.
    ///
    /// # Errors
    /// The disks are on no volumes.
    pub fn volume(&self, node: usize) -> Result<&Volume> {
        let volume = self.volumes.get(node);
        volume.context("the disks are on no volumes")
    }

    /// Makes sure that none of those that were started has ended by itself.
    ///
    /// # Errors
    /// One has.
    pub fn all_run(&mut self) -> Result<()> {
        for (node, running) in self.running.iter_mut().enumerate() {
            if let Some(broker) = running
                && broker.has_ended()?
            {
                let log = self.disks[node].last_log();
                bail!("node {node} has ended by itself:\n{log}");
            }
        }
        Ok(())
    }

    /// Has the node that leads the shard of a queue hand it over to another one, and waits until
    /// that leads.
    ///
    /// # Errors
    /// That takes too long.
    pub async fn transfer(&self, leader: usize, address: &str) -> Result<()> {
        let to = (leader + 1) % self.len();
        let (shard, node_id) = (self.shard_of(address).await?, self.id_of(to).await?);
        let control = self.broker(leader)?.control("")?;
        let asked = TransferLeaderRequest { shard, node_id };
        control.transfer_leader(asked).await?;
        let what = format!("node {to} to lead {address}");
        until(&what, WHOLE_LIMIT, async || {
            let leads = self.ask_leader(self.broker(to)?, address).await?;
            Ok((leads == Some(to)).then_some(()))
        })
        .await
    }

    async fn shard_of(&self, address: &str) -> Result<u32> {
        let broker = self.running.iter().flatten().next();
        let mut routing = routing(broker.context("none runs")?).await?;
        let addresses = vec![address.to_owned()];
        let located = routing.locate(LocateRequest { addresses }).await?;
        let located = located.into_inner().located;
        let shard = located.first().and_then(|found| found.shards.first());
        shard.copied().context("it lives nowhere")
    }

    async fn id_of(&self, node: usize) -> Result<String> {
        let mut routing = routing(self.broker(node)?).await?;
        Ok(routing
            .metadata(RoutingRequest {})
            .await?
            .into_inner()
            .node_id)
    }

    /// The wires.
    #[must_use]
    pub const fn wires(&self) -> &Wires {
        &self.wires
    }

    /// A node's disk and how it is started.
    pub fn disk(&mut self, node: usize) -> &mut Node {
        &mut self.disks[node]
    }

    /// A client that is given the addresses of all that run, beginning with this one.
    ///
    /// # Errors
    /// None runs.
    pub fn client(&self, first: usize) -> Result<Client> {
        let order = (0..self.len()).map(|n| (first + n) % self.len());
        let running = order.filter_map(|node| self.running[node].as_ref());
        let urls: Vec<String> = running.map(Broker::url).collect();
        Ok(Client::connect(ClientOptions::new(urls.join(",")))?)
    }

    /// Waits until this node has of every shard what the others have now.
    ///
    /// # Errors
    /// That takes too long.
    pub async fn caught_up(&self, node: usize) -> Result<()> {
        let others = (0..self.len()).filter(|other| *other != node);
        let mut wanted = BTreeMap::new();
        for other in others {
            for (shard, index) in self.gauge(other, APPLIED).await? {
                let most = wanted.entry(shard).or_insert(index);
                *most = index.max(*most);
            }
        }
        let what = format!("node {node} to catch up");
        until(&what, WHOLE_LIMIT, async || {
            let applied = self.gauge(node, APPLIED).await?;
            let has = |(shard, index)| applied.get(shard).is_some_and(|has| has >= index);
            Ok(wanted.iter().all(has).then_some(()))
        })
        .await
    }

    /// The node that leads the shard of a queue or of a topic's first partition, as some node sees
    /// it.
    ///
    /// # Errors
    /// Nobody leads it for too long.
    pub async fn leader_of(&self, address: &str) -> Result<usize> {
        let what = format!("a leader of {address}");
        until(&what, WHOLE_LIMIT, async || {
            let running = self.running.iter().flatten();
            for broker in running {
                // The next one may know.
                if let Ok(Some(leader)) = self.ask_leader(broker, address).await {
                    return Ok(Some(leader));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Waits until a node knows a queue or topic and who leads it: what one node was told of,
    /// others hear of a moment later.
    ///
    /// # Errors
    /// That takes too long.
    pub async fn knows(&self, node: usize, address: &str) -> Result<()> {
        let broker = self.broker(node)?;
        let what = format!("node {node} to know of {address}");
        until(&what, WHOLE_LIMIT, async || {
            let asked = self.ask_leader(broker, address).await;
            Ok(asked.ok().flatten().map(drop))
        })
        .await
    }

    async fn ask_leader(&self, broker: &Broker, address: &str) -> Result<Option<usize>> {
        let mut routing = routing(broker).await?;
        let addresses = vec![address.to_owned()];
        let located = routing.locate(LocateRequest { addresses }).await?;
        let located = located.into_inner().located;
        let shard = located.first().and_then(|found| found.shards.first());
        let state = routing.metadata(RoutingRequest {}).await?.into_inner();
        let leader = state.leaders.iter().find(|one| Some(&one.shard) == shard);
        let node = leader.and_then(|leader| {
            let mut nodes = state.nodes.iter();
            nodes.find(|node| node.node_id == leader.node_id)
        });
        let address = node.map(|node| node.client_address.as_str());
        Ok(self.running.iter().position(|broker| {
            let clients = broker.as_ref().map(|b| b.addresses().clients.to_string());
            clients.as_deref() == address && address.is_some()
        }))
    }

    /// A gauge of each shard of a node, by the shard's number.
    async fn gauge(&self, node: usize, name: &str) -> Result<BTreeMap<u32, u64>> {
        let metrics = self.broker(node)?.addresses().metrics;
        let mut stream = TcpStream::connect(metrics).await?;
        let request = "GET /metrics HTTP/1.1\r\nHost: millrace\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        let start = format!("{name}{{shard=\"");
        let values = page.lines().filter_map(|line| {
            let (shard, value) = line.strip_prefix(&start)?.split_once("\"} ")?;
            let (whole, _) = value.split_once('.').unwrap_or((value, ""));
            Some((shard.parse().ok()?, whole.parse().ok()?))
        });
        Ok(values.collect())
    }
}

async fn routing(broker: &Broker) -> Result<RoutingClient<Channel>> {
    let channel = Endpoint::from_shared(broker.url())?.connect().await?;
    Ok(RoutingClient::new(channel))
}

/// A port that nobody has at the moment.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
