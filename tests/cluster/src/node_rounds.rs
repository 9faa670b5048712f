//! The run on several nodes: load on a cluster of which one node after the other is killed, paused,
//! cut off, wiped or slowed down; at the end everything is drained and the books are closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use millrace_client::{Client, ConsumerOptions, Message, PublisherOptions};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::chance::Chance;
use crate::fault::{Blow, Fault};
use crate::gaps::{Beats, Gaps};
use crate::history::{self, History};
use crate::ledger::Verdict;
use crate::load::Books;
use crate::nodes::Nodes;
use crate::rounds::{self, ROUND_MESSAGES};
use crate::wait::until;

/// What the run works on, beside what the run on one node does.
const TOPOLOGY: &str = include_str!("nodes.yaml");
/// The topic whose history is checked.
const LOG: &str = "topic/default/log";
/// The queue that tells how long nothing went through.
const PULSE: &str = "queue/default/pulse";
/// Under load, before anything happens.
const CALM_MS_MAX: u64 = 900;
/// Something must go through again within this.
const BACK_LIMIT: Duration = Duration::from_secs(60);
/// What a sync takes on a disk that is slow: far more than on the others, less than an election.
const SLOW_SYNC: Duration = Duration::from_millis(300);
/// What a publisher is told while a disk is full, and how soon it looks again.
const DISK_FULL: &str = "DISK_FULL";
const FULL_PAUSE: Duration = Duration::from_millis(50);
/// Small, so that checkpoints are made and snapshots are needed.
const OPTIONS: [[&str; 2]; 2] = [["--journal-file-size", "1Mi"], ["--memory-limit", "16Mi"]];

/// How long, on how many, and with which randomness.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes; 3 or 5.
    pub nodes: usize,
    /// How often one of them is hit.
    pub rounds: u32,
    /// Ways to hit it.
    pub faults: Vec<Fault>,
    /// Which of them.
    pub whom: Whom,
    /// Repeats the run's choices.
    pub seed: u64,
}

/// Which node is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The leader, and another one, in turn.
    InTurn,
    /// Always the leader.
    Leader,
}

/// How long nothing went through, around each blow of one kind to the leader.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    /// Of one who publishes one message after the other.
    pub published: Gaps,
    /// Of one who takes them.
    pub consumed: Gaps,
}

impl Waits {
    fn add(&mut self, (published, consumed): (&Beats, &Beats), since: Instant) {
        self.published.add(published.gap_after(since));
        self.consumed.add(consumed.gap_after(since));
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The books.
    pub verdict: Verdict,
    /// What the checker says of the log's history.
    pub history: Result<String>,
    /// How long a publisher and a consumer had to wait, by what was done.
    pub waits: BTreeMap<Fault, Waits>,
}

/// Runs, and closes the books.
///
/// # Errors
/// A node does not start, or the cluster does not get everything done in time.
pub async fn run(options: Options) -> Result<Outcome> {
    let mut chance = Chance::new(options.seed);
    let mut nodes = form(&options).await?;
    let clients = clients(&nodes)?;
    let books = Books::new(rounds::ledger());
    let budget = Arc::new(Semaphore::new(0));
    let (stop, stopped) = watch::channel(false);
    // Those that never rest stop first: without that the queues would never be seen empty.
    let (hush, hushed) = watch::channel(false);
    let mut publishers = rounds::publishers(&clients, &books, &budget);
    let mut consumers = rounds::consumers(&clients, &books, &stopped);
    let history = History::default();
    let (published, consumed) = (Beats::default(), Beats::default());
    let mut others = pulse(&clients, (&published, &hushed), (&consumed, &stopped));
    others.spawn({
        let (history, hushed) = (history.clone(), hushed.clone());
        let clients = clients.clone();
        async move { history::record(&clients, LOG, &history, &hushed).await }
    });

    let mut waits: BTreeMap<Fault, Waits> = BTreeMap::new();
    for round in 1..=options.rounds {
        budget.add_permits(ROUND_MESSAGES * publishers.len());
        let calm = Duration::from_millis(chance.below(CALM_MS_MAX));
        tokio::time::sleep(calm).await; // polls: this is when the node is hit
        let mut blow = Blow::choose(&mut chance, round, &options.faults, nodes.len());
        if options.whom == Whom::Leader {
            blow = blow.on_leader();
        }
        let acknowledged = books.open().acknowledged();
        let leader = nodes.leader_of(PULSE).await?;
        let victim = victim(&mut chance, blow, leader, nodes.len());
        let start = Instant::now();
        let hit = strike(&mut nodes, victim, blow).await;
        hit.with_context(|| format!("round {round}: node {victim} {blow}"))?;
        if let Some(ended) = others.try_join_next() {
            ended?.context("one of those who publish and read ended")?;
        }
        let now = Instant::now();
        for (beats, what) in [(&published, "published"), (&consumed, "consumed")] {
            let back = back(beats, what, now).await;
            back.with_context(|| format!("round {round}: node {victim} {blow}"))?;
        }
        if blow.hits_leader {
            let waits = waits.entry(blow.fault).or_default();
            waits.add((&published, &consumed), start);
        }
        let news = books.open().acknowledged() - acknowledged;
        let role = ["follower", "leader"][usize::from(victim == leader)];
        println!("round {round}: node {victim} ({role}) {blow}, {news} more acknowledged");
    }
    budget.close();
    hush.send(true)?;
    rounds::finished(&mut publishers).await?;
    rounds::drained(&clients[0]).await?;
    stop.send(true)?;
    rounds::finished(&mut consumers).await?;
    rounds::finished(&mut others).await?;
    rounds::replay(&clients[0], &books).await?;
    nodes.stop_all().await?;
    let verdict = books.open().verdict();
    Ok(Outcome {
        verdict,
        history: tokio::task::spawn_blocking(move || history.check()).await?,
        waits,
    })
}

/// A cluster of which every node knows what is declared.
async fn form(options: &Options) -> Result<Nodes> {
    let topology = format!("{}---\n{TOPOLOGY}", rounds::TOPOLOGY);
    let mut nodes = Nodes::new(options.nodes, &topology, &OPTIONS).await?;
    let needs_volume = |fault: &Fault| matches!(fault, Fault::Slow | Fault::Full);
    if options.faults.iter().any(needs_volume) {
        nodes.mount()?;
    }
    nodes.start_all().await?;
    for node in 0..nodes.len() {
        nodes.knows(node, PULSE).await?;
    }
    Ok(nodes)
}

/// The leader, or one of the others.
fn victim(chance: &mut Chance, blow: Blow, leader: usize, nodes: usize) -> usize {
    if blow.hits_leader {
        return leader;
    }
    let step = usize::try_from(chance.below(nodes as u64 - 1)).unwrap_or(0);
    (leader + 1 + step) % nodes
}

/// One for each node to begin with.
fn clients(nodes: &Nodes) -> Result<Vec<Client>> {
    (0..nodes.len()).map(|node| nodes.client(node)).collect()
}

/// Hits a node and lets it recover.
async fn strike(nodes: &mut Nodes, victim: usize, blow: Blow) -> Result<()> {
    match blow.fault {
        Fault::Kill => {
            nodes.kill(victim);
            tokio::time::sleep(blow.lasts).await; // polls: so long it is away
            nodes.start(victim).await
        }
        Fault::Wipe => {
            nodes.kill(victim);
            nodes.wipe(victim)?;
            tokio::time::sleep(blow.lasts).await; // polls: so long it is away
            nodes.start(victim).await?;
            nodes.caught_up(victim).await
        }
        Fault::Pause => {
            nodes.pause(victim)?;
            tokio::time::sleep(blow.lasts).await; // polls: so long it stands still
            nodes.resume(victim)
        }
        Fault::Cut => {
            for (from, to) in blow.ways(victim, nodes.len()) {
                nodes.wires().cut(from, to);
            }
            tokio::time::sleep(blow.lasts).await; // polls: so long it is cut off
            nodes.wires().heal();
            Ok(())
        }
        Fault::Slow => {
            nodes.slow_down(victim, SLOW_SYNC)?;
            tokio::time::sleep(blow.lasts).await; // polls: so long its disk is slow
            nodes.slow_down(victim, Duration::ZERO)
        }
        Fault::Full => {
            nodes.volume(victim)?.fill();
            tokio::time::sleep(blow.lasts).await; // polls: so long it is full
            nodes.volume(victim)?.free();
            nodes.all_run()
        }
        Fault::Transfer => nodes.transfer(victim, PULSE).await,
    }
}

/// Waits until something goes through again.
async fn back(beats: &Beats, what: &str, since: Instant) -> Result<()> {
    until(&format!("something to be {what}"), BACK_LIMIT, async || {
        Ok(beats.since(since).then_some(()))
    })
    .await
}

/// One message after the other through a queue of its own; each that goes through is a beat.
fn pulse(
    clients: &[Client],
    (published, hushed): (&Beats, &watch::Receiver<bool>),
    (consumed, stopped): (&Beats, &watch::Receiver<bool>),
) -> JoinSet<Result<()>> {
    let mut tasks = JoinSet::new();
    let publisher = clients[0].publisher(
        PULSE,
        PublisherOptions {
            retry_unknown: true,
            give_up_after: None,
            ..PublisherOptions::default()
        },
    );
    let (beats, stop) = (published.clone(), hushed.clone());
    tasks.spawn(async move {
        while !*stop.borrow() {
            match publisher.publish(Message::default()).await {
                Ok(_) => beats.beat(),
                // Room is made by somebody else: this is no failure of the cluster.
                Err(error) if error.reason == DISK_FULL => {
                    tokio::time::sleep(FULL_PAUSE).await; // polls: for room
                }
                Err(error) => return Err(error.into()),
            }
        }
        drop(publisher);
        Ok(())
    });
    let mut consumer = clients[clients.len() - 1].consumer(PULSE, ConsumerOptions::default());
    let (beats, mut stop) = (consumed.clone(), stopped.clone());
    tasks.spawn(async move {
        loop {
            let delivery = tokio::select! {
                delivery = consumer.next() => delivery,
                stopped = stop.wait_for(|stop| *stop) => stopped.map(|_| None)?,
            };
            let Some(delivery) = delivery else {
                break;
            };
            beats.beat();
            // What was not settled comes again.
            delivery?.accept().await.ok();
        }
        Ok(())
    });
    tasks
}
