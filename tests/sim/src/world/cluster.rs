//! What makes several nodes a cluster: founding it, carrying what they say to each other, and what
//! goes wrong between and around them.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace_storage::DataDir;
use millrace_types::{Founder, Founding, FoundingDraft};

use super::life::DATA_DIR;
use super::{Over, World, joining};
use crate::client::Client;
use crate::disk::SimDisk;
use crate::event::{Event, ShardFigures};
use crate::network::{Link, Packet};
use crate::plan::{Between, Cut, Found, Loss, Who};

/// Replicas of a data shard.
pub(super) const REPLICATION: u32 = 3;
/// Looks until a cluster in peace has come to rest: elections take a few seconds,
const SETTLE_LOOKS_MAX: u32 = 120;
/// and this is the time between two.
const SETTLE_LOOK_MS: u64 = 500;

impl Who {
    /// The node that is meant now.
    pub(super) fn resolve(self, world: &World<'_>) -> usize {
        let count = world.nodes.len();
        match self {
            Self::Node(node) => node % count,
            Self::LeaderOf(shard) => {
                let shard = shard % (world.plan.node.shards + 1);
                world.net.leader(shard).unwrap_or(0)
            }
            Self::LeaderOfObject(object) => {
                let shard = world.shard_of_object(object);
                world.net.leader(shard).unwrap_or(0)
            }
            Self::FormerLeaderOfObject(object) => {
                let shard = world.shard_of_object(object);
                let former = world.net.former_leader(shard);
                former.or_else(|| world.net.leader(shard)).unwrap_or(0)
            }
        }
    }
}

impl World<'_> {
    /// Starts every node for the first time; several found a cluster.
    pub(super) fn found(&mut self) -> Result<(), Over> {
        if !self.is_alone() {
            let founding = self.founding().map_err(|error| {
                self.violated(
                    "founding",
                    format!("a cluster cannot be founded: {error:#}"),
                )
            })?;
            self.founding = Some(founding);
        }
        let found = self.plan.cluster.found.iter().copied();
        let mut found: Vec<(usize, Found)> = found.enumerate().collect();
        found.sort_by_key(|(_, found)| found.after_ms);
        for (node, found) in found {
            let late = found.after_ms.saturating_sub(self.time.millis());
            if late > 0 {
                self.wait(late)?;
            }
            if let Some(operations) = found.dies_after {
                let member = &mut self.nodes[node];
                member.loss = Loss::Some(operations);
                let carried_out = operations.is_multiple_of(2);
                member.medium.end_after(operations, carried_out);
            }
            self.start(node)?;
        }
        self.settle_down()
    }

    /// The shard of a queue, or of a topic's first partition.
    fn shard_of_object(&self, object: usize) -> u32 {
        let client = self.clients().next();
        let shard = client.and_then(|client| client.shard(&client.address(object), 0));
        shard.unwrap_or_default()
    }

    /// Mints the ids of all nodes, and says who they are.
    fn founding(&mut self) -> anyhow::Result<Founding> {
        let (mut founders, mut ids) = (Vec::new(), Vec::new());
        for node in 0..self.nodes.len() {
            let disk = SimDisk::new(&self.nodes[node].medium);
            let random = Mutex::new(self.random.fork());
            let random = move || {
                let mut random = random.lock().map_err(|_| io::Error::other("poisoned"))?;
                Ok(random.bits())
            };
            let dir = DataDir::open(Arc::new(disk), Path::new(DATA_DIR), Arc::new(random))?;
            ids.push(dir.node());
            founders.push(Founder {
                node: dir.node(),
                peer: joining::address(node),
            });
        }
        self.net.know(ids);
        let draft = FoundingDraft {
            cluster_id: "sim".into(),
            shards: self.plan.node.shards,
            replication: REPLICATION,
            founders,
        };
        Ok(Founding::try_from(draft)?)
    }

    /// What has arrived is taken.
    pub(super) fn deliver(&mut self, now: Duration) {
        while let Some(packet) = self.net.arrived(now) {
            self.take(packet);
        }
    }

    fn take(&self, packet: Packet) {
        let to = match &packet {
            Packet::Messages(link, ..) | Packet::Question(link, ..) => link.to,
            Packet::Unreachable(link, _) => link.from,
            Packet::Answer(..) => 0,
        };
        let client = self.client(to).cloned();
        match (packet, client) {
            (Packet::Answer(to, answer), _) => {
                // Who asked may be gone.
                to.send(answer).ok();
            }
            (packet, None) => self.net.nobody(packet),
            (Packet::Messages(Link { from, .. }, lane, messages), Some(client)) => {
                if let Some(from) = self.net.id(from) {
                    let broker = client.broker.clone();
                    client.run(async move { broker.received(from, lane, messages).await });
                }
            }
            (Packet::Question(Link { from, .. }, request, back), Some(client)) => {
                if let Some(from) = self.net.id(from) {
                    let broker = client.broker.clone();
                    client.run(async move { back.send(broker.answer(from, request).await) });
                }
            }
            (Packet::Unreachable(Link { to, .. }, lane), Some(client)) => {
                if let Some(to) = self.net.id(to) {
                    client.broker.unreachable(to, lane);
                }
            }
        }
    }

    /// Those that were switched off long enough are switched on.
    pub(super) fn come_up(&mut self, now: Duration) -> Result<(), Over> {
        for node in 0..self.nodes.len() {
            if self.nodes[node]
                .down_until
                .is_some_and(|until| until <= now)
            {
                self.start(node)?;
            }
        }
        Ok(())
    }

    /// A process stands still for a while.
    pub(super) fn pause(&mut self, node: usize, millis: u64) {
        let until = self.time.now() + Duration::from_millis(millis);
        self.nodes[node].pause(until);
        self.report.faults += 1;
        let what = format!("node {node} stands still for {millis} ms");
        self.lasting.watch.tell(&Event::Trouble { what });
    }

    /// Nothing gets through over some links.
    pub(super) fn cut(&mut self, cut: &Cut) {
        let between = match cut.between {
            Between::Around(who) => Between::Around(Who::Node(who.resolve(self))),
            between => between,
        };
        let cut = Cut { between, ..*cut };
        self.net.cut(&cut);
        self.report.faults += 1;
        let what = format!("{cut:?}");
        self.lasting.watch.tell(&Event::Trouble { what });
    }

    /// With nothing in the way, every shard soon has a leader, and everybody what it has.
    pub(super) fn settle_down(&mut self) -> Result<(), Over> {
        if self.is_alone() {
            return Ok(());
        }
        let mut unsettled = String::new();
        for _ in 0..SETTLE_LOOKS_MAX {
            self.clients().for_each(Client::look);
            let standing = self.ask_standing();
            self.wait(SETTLE_LOOK_MS)?;
            self.stop_at_violation()?;
            match self.unsettled().or_else(|| self.unsteady(&standing)) {
                None => return Ok(()),
                Some(what) => unsettled = what,
            }
        }
        Err(self.violated("replication", unsettled))
    }

    /// What is not as it has to be in peace, by what nodes said last.
    fn unsettled(&self) -> Option<String> {
        for shard in 0..=self.plan.node.shards {
            let replicas = self.lasting.watch.with(|state| {
                let figures = state.facts.figures.iter();
                let replicas = figures.filter(|((_, of), _)| *of == shard);
                replicas
                    .map(|((node, _), figures)| (*node, figures.clone()))
                    .collect()
            });
            let replicas: Vec<(usize, ShardFigures)> = replicas;
            let reach = |figures: &ShardFigures| (figures.term, figures.applied, figures.last);
            let first = replicas.first().map(|(_, figures)| reach(figures));
            let alike = replicas
                .iter()
                .all(|(_, figures)| Some(reach(figures)) == first);
            let done = first.is_some_and(|(_, applied, last)| applied == last);
            let led = self.net.leader(shard).is_some();
            if !alike || !done || !led {
                return Some(format!(
                    "shard {shard} is not the same everywhere: {}",
                    brief(&replicas)
                ));
            }
        }
        None
    }

    /// Everybody is up, and everything gets through.
    pub(super) fn heal(&mut self) -> Result<(), Over> {
        self.net.calm();
        for node in 0..self.nodes.len() {
            self.nodes[node].go_on();
            if self.nodes[node].life.is_none() {
                self.start(node)?;
            }
        }
        self.let_in()
    }
}

/// Replicas of a shard by their nodes, for people.
fn brief(replicas: &[(usize, ShardFigures)]) -> String {
    let one = |(node, figures): &(usize, ShardFigures)| {
        let ShardFigures {
            term,
            applied,
            committed,
            last,
            ..
        } = figures;
        format!("node {node} term {term} applied {applied} committed {committed} last {last}")
    };
    replicas.iter().map(one).collect::<Vec<_>>().join(", ")
}
