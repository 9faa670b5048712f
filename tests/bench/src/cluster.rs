//! Several brokers that form one cluster on this machine, or one that is alone: each with a
//! directory of its own, reaching the others over loopback without anything in between.
//!
//! They share disk and processors: what they cost each other is in every figure.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use millrace_client::{Client, ClientOptions, Control};
use tokio::task::JoinSet;

use crate::broker::{Broker, Node, Served};
use crate::options::Options;
use crate::process::Usage;
use crate::scrape::Scrape;

/// Every shard has all its replicas after this, unless something is wrong.
const WHOLE_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at that.
const LOOK: Duration = Duration::from_millis(50);

/// The brokers, all of which run unless one was killed.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    brokers: Vec<Option<Broker>>,
}

/// What the brokers together have used and done since they started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// On the processor.
    pub cpu: Duration,
    /// Syncs of their journals.
    pub fsyncs: u64,
    /// Handed to connections that are still there; `None` where the system does not tell.
    pub sent_bytes: Option<u64>,
    /// Messages of replicas to each other.
    pub peer_messages: u64,
}

impl Used {
    /// What was used since an earlier look.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let sent = self.sent_bytes.zip(before.sent_bytes);
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            fsyncs: self.fsyncs.saturating_sub(before.fsyncs),
            sent_bytes: sent.map(|(after, before)| after.saturating_sub(before)),
            peer_messages: self.peer_messages.saturating_sub(before.peer_messages),
        }
    }

    fn add(&mut self, usage: Usage, scrape: &Scrape, sent_bytes: Option<u64>) {
        self.cpu += usage.cpu;
        self.fsyncs += scrape.total("millrace_journal_fsyncs_total");
        let sum = self.sent_bytes.zip(sent_bytes);
        self.sent_bytes = sum.map(|(sum, more)| sum + more);
        self.peer_messages += scrape.total("millrace_peer_sent_messages_total");
    }
}

impl Served for Cluster {
    fn client(&self) -> Result<Client> {
        let urls: Vec<String> = self.running().map(Broker::url).collect();
        Ok(Client::connect(ClientOptions::new(urls.join(",")))?)
    }
}

impl Cluster {
    /// Starts so many brokers with so many data shards, and waits until every shard has a leader
    /// where it should be, and all its replicas.
    ///
    /// # Errors
    /// One ends instead, or that takes too long.
    pub async fn start(
        options: &Options,
        count: usize,
        shards: u32,
        topology: &str,
    ) -> Result<Self> {
        let peers: Vec<SocketAddr> = (0..count).map(|_| free_port()).collect::<Result<_>>()?;
        let list: Vec<String> = peers.iter().map(ToString::to_string).collect();
        let mut nodes = Vec::new();
        for peer in &peers {
            let node = Node::new(options, topology)?.with("--shards", shards);
            nodes.push(if count == 1 {
                node
            } else {
                node.with("--peer-listen", peer)
                    .with("--peers", list.join(","))
            });
        }
        let mut starting = JoinSet::new();
        for (place, node) in nodes.into_iter().enumerate() {
            starting.spawn(async move { (place, node.start().await, node) });
        }
        let mut started = starting.join_all().await;
        started.sort_by_key(|(place, ..)| *place);
        let (mut nodes, mut brokers) = (Vec::new(), Vec::new());
        for (_, broker, node) in started {
            brokers.push(Some(broker?));
            nodes.push(node);
        }
        let cluster = Self { nodes, brokers };
        cluster.whole().await?;
        Ok(cluster)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// One that runs.
    ///
    /// # Errors
    /// It was killed.
    pub fn broker(&self, place: usize) -> Result<&Broker> {
        let broker = self.brokers.get(place).and_then(Option::as_ref);
        broker.with_context(|| format!("node {place} does not run"))
    }

    /// A client of the control port of one that runs.
    ///
    /// # Errors
    /// None does.
    pub fn control(&self) -> Result<Control> {
        self.running().next().context("no node runs")?.control()
    }

    /// Where the data of one is.
    #[must_use]
    pub fn node(&self, place: usize) -> &Node {
        &self.nodes[place]
    }

    /// Kills one and takes away its disk.
    ///
    /// # Errors
    /// The disk cannot be emptied.
    pub fn lose(&mut self, place: usize) -> Result<()> {
        if let Some(broker) = self.brokers[place].take() {
            broker.kill();
        }
        self.nodes[place].wipe()
    }

    /// Starts one again that was lost, and waits until it serves.
    ///
    /// # Errors
    /// It ends instead.
    pub async fn restart(&mut self, place: usize) -> Result<()> {
        self.brokers[place] = Some(self.nodes[place].start().await?);
        Ok(())
    }

    /// What all that run have used.
    ///
    /// # Errors
    /// One is gone, or does not answer.
    pub async fn used(&self) -> Result<Used> {
        let mut used = Used {
            sent_bytes: Some(0),
            ..Used::default()
        };
        for broker in self.running() {
            let scrape = broker.scrape().await?;
            used.add(broker.usage()?, &scrape, broker.sent_bytes());
        }
        Ok(used)
    }

    /// Waits until every shard has a leader and as many voters as there are nodes, all of whom get
    /// entries as they come, and every node leads its part.
    ///
    /// # Errors
    /// That takes too long.
    pub async fn whole(&self) -> Result<()> {
        let end = Instant::now() + WHOLE_LIMIT;
        let control = self.control()?;
        while !self.is_whole(&control).await {
            if Instant::now() > end {
                let state = control.shards().await?;
                bail!("the cluster is not whole after {WHOLE_LIMIT:?}: {state:?}");
            }
            tokio::time::sleep(LOOK).await; // polls
        }
        Ok(())
    }

    /// An answer that does not come is asked for again: nodes get to know each other.
    async fn is_whole(&self, control: &Control) -> bool {
        if self.len() == 1 {
            return true;
        }
        let (Ok(state), Ok(nodes)) = (control.shards().await, control.nodes().await) else {
            return false;
        };
        let settled = state.shards.iter().all(|shard| {
            let voters = shard.members.iter().filter(|member| member.votes);
            let there = voters.filter(|member| member.active && member.lag == 0);
            !shard.leader.is_empty() && !shard.changing && there.count() == self.len()
        });
        let leads: Vec<u32> = nodes.nodes.iter().map(|node| node.leads).collect();
        let most = leads.iter().copied().max().unwrap_or_default();
        let least = leads.iter().copied().min().unwrap_or_default();
        // One more for what is left over, one for the metadata shard.
        settled && !state.shards.is_empty() && most <= least + 2
    }

    fn running(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.iter().flatten()
    }
}

/// A port that nobody has at the moment.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
