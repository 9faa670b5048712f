//! Planner and leaders together, without a log or a network: what they decide is carried out at
//! once, what is to catch up has caught up one step later.

mod plans;
mod property;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use millrace_engine::catalogue::{
    Assigned, Founded, Hosting, KnownNode, NodeFacts, Registration, Role, Roster, RosterCommand,
};
use millrace_engine::{Catalogue, CatalogueCommand, CatalogueEntry};
use millrace_replica::{Change, Flow, Member, Progress, Seat};
use millrace_types::{LogIndex, NodeId, ReplicaId, ShardId, Stamp};

use super::plan::plan;
use super::steer::{Scene, Step, role};

/// Rounds after which everything must have come to rest.
const ROUNDS_MAX: usize = 400;

/// A cluster of which only the catalogue and the members are real.
struct World {
    catalogue: Catalogue,
    shards: BTreeMap<ShardId, Group>,
    /// Nodes that do not answer.
    down: BTreeSet<NodeId>,
    index: u64,
}

/// The members of a shard and who leads them.
#[derive(Clone, Debug)]
struct Group {
    members: Vec<Member>,
    leader: ReplicaId,
    /// Added in this round: not caught up.
    young: BTreeSet<ReplicaId>,
    index: u64,
}

fn node(n: u64) -> NodeId {
    NodeId::new(n)
}

fn facts(at: u64, zone: &str) -> NodeFacts {
    NodeFacts {
        peer_address: format!("host-{at}:7073"),
        client_address: format!("host-{at}:7070"),
        zone: zone.into(),
        version: "1".into(),
        feature_level: 1,
    }
}

impl World {
    /// Node 1, alone, with so many data shards.
    fn alone(shards: u32) -> Self {
        let mut world = Self {
            catalogue: Catalogue::new(),
            shards: BTreeMap::new(),
            down: BTreeSet::new(),
            index: 0,
        };
        let members = |shard: u32| vec![(ReplicaId::new(1 << 40 | u64::from(shard)), node(1))];
        world.apply(RosterCommand::Found(Founded {
            replication: 3,
            nodes: vec![(node(1), "host-1:7073".into())],
            shards: (0..=shards).map(members).collect(),
        }));
        let data_shards = shards;
        world.order(CatalogueCommand::Init { data_shards });
        world.bear();
        world.register(1, 1, "");
        world
    }

    /// Shards that have their first members begin with them.
    fn bear(&mut self) {
        for (shard, replicas) in self.catalogue.roster().shards() {
            if self.shards.contains_key(&shard) || replicas.is_unborn() {
                continue;
            }
            let member = |it: &Assigned| Member {
                replica: it.replica,
                node: it.node,
                seat: Seat::Voter,
            };
            let members: Vec<Member> = replicas.target().replicas().iter().map(member).collect();
            let group = Group {
                leader: members[0].replica,
                members,
                young: BTreeSet::new(),
                index: 1,
            };
            self.shards.insert(shard, group);
        }
    }

    /// Somebody declares a queue that asks for so many replicas.
    fn ask(&mut self, replication: u32) {
        let name = format!("queue/test/q{}", self.index);
        let declared = crate::tests::queue_with(&name, |queue| {
            queue.class.replication = Some(replication);
        });
        self.order(CatalogueCommand::ApplyTopology {
            base_revision: self.catalogue.revision(),
            upserts: vec![declared],
            removals: Vec::new(),
        });
    }

    fn order(&mut self, command: CatalogueCommand) {
        self.index += 1;
        let stamp = Stamp::default();
        let entry = CatalogueEntry { stamp, command };
        let applied = self.catalogue.apply(LogIndex::new(self.index), &entry);
        applied.outcome.unwrap();
    }

    /// So many nodes, each in the zone that `zone` gives it, at rest.
    fn of(shards: u32, nodes: u64, zone: impl Fn(u64) -> String) -> Self {
        let mut world = Self::alone(shards);
        for n in 1..=nodes {
            world.register(n, n, &zone(n));
        }
        world.settle();
        world
    }

    fn roster(&self) -> &Roster {
        self.catalogue.roster()
    }

    fn apply(&mut self, command: RosterCommand) -> bool {
        self.index += 1;
        let entry = CatalogueEntry {
            stamp: Stamp::default(),
            command: command.clone().into(),
        };
        let applied = self.catalogue.apply(LogIndex::new(self.index), &entry);
        if let Err(refusal) = &applied.outcome {
            let by_us = matches!(
                command,
                RosterCommand::Place { .. } | RosterCommand::ReportMembers { .. }
            );
            assert!(!by_us, "{refusal}: {command:?}");
        }
        applied.changed
    }

    fn register(&mut self, n: u64, at: u64, zone: &str) {
        self.apply(RosterCommand::RegisterNode(Registration {
            node: node(n),
            facts: facts(at, zone),
            lost: Vec::new(),
        }));
    }

    /// A node finds that replicas on its disk are damaged; those that led do not any more.
    fn lose(&mut self, n: u64, shard: ShardId) {
        let Some(replica) = self.roster().wanted(shard, node(n)) else {
            return;
        };
        let facts = self.roster().node(node(n)).unwrap().facts.clone();
        self.apply(RosterCommand::RegisterNode(Registration {
            node: node(n),
            facts,
            lost: vec![(shard, replica)],
        }));
    }

    /// One plan, carried out. Says whether it was empty.
    fn plan(&mut self) -> bool {
        let commands = plan(self.roster());
        for command in &commands {
            self.check_place(command);
            assert!(self.apply(command.clone()), "does nothing: {command:?}");
        }
        self.bear();
        commands.is_empty()
    }

    /// A target that is still to be reached is changed only where it cannot be.
    fn check_place(&self, command: &RosterCommand) {
        let RosterCommand::Place {
            shard, replicas, ..
        } = command
        else {
            return;
        };
        let now = self.roster().shard(*shard).unwrap();
        if now.is_converged() {
            return;
        }
        for old in now.target().replicas() {
            let stays = replicas
                .iter()
                .any(|wish| wish.replica == Some(old.replica));
            let is_there = now.actual().find(old.replica).map(|it| it.role) == Some(old.role);
            let is_dead = self.roster().node(old.node).is_none_or(|known| {
                let lost = known.lost.get(shard) == Some(&old.replica);
                lost || matches!(known.hosting, Hosting::Replaced { .. })
            });
            assert!(stays || is_dead || !is_there, "{command:?} while {now:?}");
        }
    }

    /// One step of each shard's leader. Says whether all rested.
    fn steer(&mut self) -> bool {
        let mut rested = true;
        let roster = self.roster().clone();
        let shards: Vec<ShardId> = self.shards.keys().copied().collect();
        for shard in shards {
            let mut group = self.shards.remove(&shard).unwrap();
            let is_up = |node: NodeId| !self.down.contains(&node);
            let led = group.elect(&roster, shard, is_up);
            if led {
                rested &= !group.step(&roster, shard, is_up);
            }
            let report = RosterCommand::ReportMembers {
                shard,
                index: LogIndex::new(group.index),
                members: group.report(),
            };
            self.shards.insert(shard, group);
            if led {
                rested &= !self.apply(report);
            }
        }
        rested
    }

    /// Lets everything come to rest.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let planned = self.plan();
            if self.steer() && planned {
                return;
            }
        }
        panic!("no rest after {ROUNDS_MAX} rounds: {:?}", self.roster());
    }

    /// Nodes with a replica of a shard, and how it counts.
    fn places(&self, shard: u32) -> BTreeMap<u64, Role> {
        let group = &self.shards[&ShardId::new(shard)];
        let place = |m: &Member| (m.node.get(), role(m.seat).unwrap());
        group.members.iter().map(place).collect()
    }

    fn voters(&self, shard: u32) -> Vec<u64> {
        let places = self.places(shard).into_iter();
        let voters = places.filter(|(_, role)| *role == Role::Voter);
        voters.map(|(node, _)| node).collect()
    }

    fn leader(&self, shard: u32) -> u64 {
        let group = &self.shards[&ShardId::new(shard)];
        group.find(group.leader).unwrap().node.get()
    }

    fn data(&self) -> Vec<u32> {
        let shards = self.shards.keys().map(|shard| shard.get());
        shards.filter(|shard| *shard > 0).collect()
    }

    /// How many replicas of data shards each node has.
    fn loads(&self) -> BTreeMap<u64, usize> {
        let mut loads = BTreeMap::new();
        for shard in self.data() {
            for node in self.voters(shard) {
                *loads.entry(node).or_default() += 1;
            }
        }
        loads
    }
}

impl Group {
    fn find(&self, replica: ReplicaId) -> Option<&Member> {
        self.members.iter().find(|m| m.replica == replica)
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| m.seat == Seat::Voter)
    }

    fn report(&self) -> Vec<Assigned> {
        let assigned = |m: &Member| Assigned {
            replica: m.replica,
            node: m.node,
            role: role(m.seat).unwrap(),
        };
        self.members.iter().map(assigned).collect()
    }

    /// Whether somebody leads; if need be, another one.
    fn elect(&mut self, roster: &Roster, shard: ShardId, is_up: impl Fn(NodeId) -> bool) -> bool {
        let works = |m: &&Member| {
            let known: Option<&KnownNode> = roster.node(m.node);
            let lost = known.and_then(|known| known.lost.get(&shard));
            is_up(m.node) && lost != Some(&m.replica) && !self.young.contains(&m.replica)
        };
        let able: Vec<ReplicaId> = self.voters().filter(works).map(|m| m.replica).collect();
        let led = able.len() > self.voters().count() / 2;
        if led && !able.contains(&self.leader) {
            self.leader = able[0];
        }
        led
    }

    /// Carries out what the leader decides. Says whether it decided anything.
    fn step(&mut self, roster: &Roster, shard: ShardId, is_up: impl Fn(NodeId) -> bool) -> bool {
        let young = std::mem::take(&mut self.young);
        let grown = !young.is_empty();
        let progress = |m: &Member| Progress {
            replica: m.replica,
            matched: LogIndex::new(if young.contains(&m.replica) { 0 } else { 9_000 }),
            has: LogIndex::new(0),
            flow: Flow::Replicating,
            active: is_up(m.node)
                && roster.node(m.node).and_then(|n| n.lost.get(&shard)) != Some(&m.replica),
        };
        let progress: Vec<Progress> = self.members.iter().map(progress).collect();
        let scene = Scene {
            own: self.leader,
            members: &self.members,
            replicas: roster.shard(shard).unwrap(),
            progress: &progress,
            last: LogIndex::new(9_000),
        };
        let may_lead = |node: NodeId| roster.node(node).is_some_and(KnownNode::may_lead);
        match scene.next_change() {
            Step::Change(changes) => self.change(&changes, &progress),
            Step::HandOver(to) => self.lead(to),
            Step::Rest => match scene.heir(may_lead) {
                Some(heir) => self.lead(heir),
                None => return grown,
            },
        }
        true
    }

    fn lead(&mut self, to: ReplicaId) {
        assert_ne!(to, self.leader);
        assert_eq!(self.find(to).map(|m| m.seat), Some(Seat::Voter));
        self.leader = to;
    }

    fn change(&mut self, changes: &[Change], progress: &[Progress]) {
        self.index += 1;
        for change in changes {
            let replica = change.replica();
            match change {
                Change::Add { node, .. } => {
                    assert!(self.members.iter().all(|m| m.node != *node));
                    assert!(self.find(replica).is_none());
                    self.young.insert(replica);
                    self.members.push(Member {
                        replica,
                        node: *node,
                        seat: Seat::Learner,
                    });
                }
                Change::Promote { .. } => self.seat(replica, Seat::Voter),
                Change::Demote { .. } => self.seat(replica, Seat::Learner),
                Change::Remove { .. } => {
                    assert_ne!(replica, self.leader, "a leader hands over first");
                    self.members.retain(|m| m.replica != replica);
                }
            }
        }
        self.members.sort_by_key(|m| m.replica);
        let is_ready = |replica| {
            let mut all = progress.iter();
            all.any(|it| it.replica == replica && it.active && it.matched.get() > 0)
        };
        let ready = self.voters().filter(|m| is_ready(m.replica)).count();
        assert!(ready > self.voters().count() / 2, "{changes:?}: {self:?}");
    }

    fn seat(&mut self, replica: ReplicaId, seat: Seat) {
        let mut members = self.members.iter_mut();
        let member = members.find(|m| m.replica == replica).unwrap();
        assert_ne!(member.seat, seat);
        member.seat = seat;
    }
}
