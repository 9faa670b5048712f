//! The event loop: virtual time, a network that misbehaves, and faults, all from one seed.

mod faults;

use std::collections::{BTreeMap, BTreeSet};

use millrace_replica::{
    Load, Members, Message, Payload, Recovered, Replica, Role, Stage, Status, Verdict,
};
use millrace_types::{NodeId, ReplicaId};

use crate::chance::Chance;
use crate::disk::Disk;
use crate::judge::{Judge, Judged, Promises};
use crate::machine::Machine;
use crate::node::{Node, TICK};

/// With faults.
const TROUBLE: u64 = 2_500;
/// Without: everything has to come right within it.
const PEACE: u64 = 6_000;
/// How often it is looked whether it has.
const LOOK: u64 = 250;
/// Nodes ever, so that changes of members end.
const NODES_MAX: usize = 9;

/// What happens at some time.
enum Event {
    Tick(usize),
    Deliver {
        message: Message,
        machine: Option<Machine>,
    },
    Synced {
        node: usize,
        life: u64,
    },
    Load {
        node: usize,
        life: u64,
        load: Load,
    },
    Client,
    Fault,
    Restart(usize),
    Campaign(usize),
    Heal,
}

/// A run.
pub(crate) struct World {
    chance: Chance,
    now: u64,
    serial: u64,
    events: BTreeMap<(u64, u64), Event>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) judge: Judge,
    /// From node to node, one way.
    cut: BTreeSet<(usize, usize)>,
    operation: u64,
    drop_percent: u64,
}

impl World {
    pub(crate) fn new(seed: u64, promises: Promises) -> Self {
        let mut chance = Chance::new(seed);
        let count = [1, 3, 3, 3, 5][usize::try_from(chance.between(0, 4)).unwrap()];
        let founders = (1..=count).map(|n| (ReplicaId::new(n * 11), NodeId::new(n)));
        let members = Members::founders(founders.clone()).unwrap();
        let drop_percent = [0, 2, 10][usize::try_from(chance.between(0, 2)).unwrap()];
        let mut world = Self {
            chance,
            now: 0,
            serial: 0,
            events: BTreeMap::new(),
            nodes: Vec::new(),
            judge: Judge::new(promises),
            cut: BTreeSet::new(),
            operation: 0,
            drop_percent,
        };
        for (replica, _) in founders {
            let founding = Recovered::founding(members.clone()).unwrap();
            world.add_node(replica, Disk::founded(&founding));
        }
        world
    }

    /// Everything, from the founding to the end of peace.
    pub(crate) fn run(&mut self) -> Judged {
        for node in 0..self.nodes.len() {
            self.start(node)?;
        }
        self.at(1, Event::Client);
        self.at(50, Event::Fault);
        self.until(TROUBLE)?;
        self.make_peace()?;
        let before = self.judge.acknowledged_last;
        for look in 1..PEACE / LOOK {
            self.until(TROUBLE + look * LOOK)?;
            if self.check_peace(before).is_ok() {
                return Ok(());
            }
        }
        self.check_peace(before)
    }

    fn until(&mut self, end: u64) -> Judged {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end {
                break;
            }
            self.now = entry.key().0;
            self.judge.now = self.now;
            let event = entry.remove();
            self.happen(event)
                .map_err(|broken| format!("at {} ms: {broken}", self.now))?;
        }
        self.now = end;
        Ok(())
    }

    fn at(&mut self, after: u64, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + after, self.serial), event);
    }

    const fn is_trouble(&self) -> bool {
        self.now < TROUBLE
    }

    fn happen(&mut self, event: Event) -> Judged {
        match event {
            Event::Tick(node) => {
                if let Some(replica) = &mut self.nodes[node].replica {
                    replica.tick();
                    let tick = self.nodes[node].tick;
                    let after = self.chance.between(tick - 2, tick + 2);
                    self.at(after, Event::Tick(node));
                    if self.nodes[node].slow_apply {
                        let count = usize::try_from(self.chance.between(0, 5)).unwrap();
                        self.nodes[node].apply(count, &mut self.judge)?;
                    }
                    if self.chance.percent(2) {
                        self.checkpoint(node);
                    }
                    return self.pump(node);
                }
                Ok(())
            }
            Event::Deliver { message, machine } => self.deliver(message, machine),
            Event::Synced { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].replica.is_some() {
                    let only_last = self.chance.percent(50);
                    self.nodes[node].synced(only_last, &mut self.judge)?;
                    return self.pump(node);
                }
                Ok(())
            }
            Event::Load { node, life, load } => {
                if self.nodes[node].life == life {
                    let count = usize::try_from(self.chance.between(1, 10)).unwrap();
                    self.nodes[node].load(load, count);
                    return self.pump(node);
                }
                Ok(())
            }
            Event::Client => self.client(),
            Event::Fault => self.fault(),
            Event::Restart(node) => self.start(node),
            Event::Campaign(node) => self.campaign(node),
            Event::Heal => {
                self.cut.clear();
                Ok(())
            }
        }
    }

    fn add_node(&mut self, replica: ReplicaId, disk: Disk) -> usize {
        self.nodes.push(Node::new(replica, disk));
        self.nodes.len() - 1
    }

    fn start(&mut self, node: usize) -> Judged {
        if self.nodes[node].replica.is_some() || self.nodes[node].is_gone {
            return Ok(());
        }
        let seed = self.chance.next();
        self.nodes[node].start(seed)?;
        let Node {
            replica,
            replica_id,
            ..
        } = &self.nodes[node];
        self.judge
            .note(|| format!("replica {replica_id} starts: {replica:?}"));
        let after = self.chance.between(1, TICK);
        self.at(after, Event::Tick(node));
        self.pump(node)
    }

    /// Lets a node do what it has to, mostly.
    fn pump(&mut self, node: usize) -> Judged {
        if self.is_trouble() && self.chance.percent(15) {
            return Ok(());
        }
        let wants = self.nodes[node].pump(&mut self.judge)?;
        let life = self.nodes[node].life;
        if self.nodes[node].disk.begin_sync() {
            let takes = match (self.nodes[node].slow_disk, self.is_trouble()) {
                (true, true) => self.chance.between(20, 200),
                _ => self.chance.between(1, 8),
            };
            self.at(takes, Event::Synced { node, life });
        }
        for load in wants.loads {
            let takes = self.chance.between(1, 30);
            self.at(takes, Event::Load { node, life, load });
        }
        if wants.snapshot {
            self.checkpoint(node);
        }
        for message in wants.messages {
            let dies = self.dies_after(node, &message);
            self.send(node, message);
            if dies {
                self.crash(node, 8);
                return Ok(());
            }
        }
        Ok(())
    }

    /// The best moment for a crash is after a promise.
    fn dies_after(&mut self, node: usize, message: &Message) -> bool {
        let durable = self.nodes[node].disk.durable.hard_state.unwrap_or_default();
        let (of, times) = match &message.payload {
            // Never without a known bug.
            Payload::Append { .. } if durable.term < message.term => (2, 1),
            Payload::VoteAnswer {
                stage: Stage::Real,
                verdict: Verdict::Granted,
            } => (2, 1),
            Payload::Accepted { .. } | Payload::Append { .. } => (300, 1),
            _ => (1, 0),
        };
        self.is_trouble() && self.chance.between(1, of) <= times
    }

    fn campaign(&mut self, node: usize) -> Judged {
        if let Some(replica) = &mut self.nodes[node].replica {
            replica.campaign();
        }
        self.pump(node)
    }

    /// The leader dies for a moment, and several want to follow it at once.
    fn storm(&mut self) {
        if let Some(leader) = self.leader() {
            self.crash(leader, 60);
        }
        for node in 0..self.nodes.len() {
            let after = 90 + self.chance.between(0, 6);
            if self.chance.percent(66) {
                self.at(after, Event::Campaign(node));
            }
        }
    }

    fn checkpoint(&mut self, node: usize) {
        let keep = self.chance.between(0, 20);
        self.nodes[node].checkpoint(keep);
    }

    fn send(&mut self, node: usize, message: Message) {
        let copies = 1 + u64::from(self.is_trouble() && self.chance.percent(3));
        for _ in 0..copies {
            let is_snapshot = matches!(message.payload, Payload::Snapshot { .. });
            let machine = self.nodes[node].state_of(&message);
            let lost = (self.is_trouble() && self.chance.percent(self.drop_percent))
                || (is_snapshot && machine.is_none());
            if lost {
                if is_snapshot && let Some(replica) = &mut self.nodes[node].replica {
                    replica.snapshot_failed(message.to);
                }
                continue;
            }
            let mut takes = self.chance.between(1, 6);
            if is_snapshot || (self.is_trouble() && self.chance.percent(5)) {
                takes += self.chance.between(10, 150);
            }
            // Votes that cross each other.
            if self.is_trouble() && matches!(message.payload, Payload::Vote { .. }) {
                takes += self.chance.between(0, 12);
            }
            let message = message.clone();
            self.at(takes, Event::Deliver { message, machine });
        }
    }

    fn node_of(&self, replica: ReplicaId) -> Option<usize> {
        let mut nodes = self.nodes.iter();
        nodes.position(|node| node.replica_id == replica)
    }

    fn deliver(&mut self, message: Message, machine: Option<Machine>) -> Judged {
        let (Some(from), Some(to)) = (self.node_of(message.from), self.node_of(message.to)) else {
            return Ok(());
        };
        let arrives = !self.cut.contains(&(from, to)) && self.nodes[to].replica.is_some();
        if let Payload::Snapshot { point } = &message.payload {
            let target = message.to;
            if arrives && let Some(machine) = machine {
                self.nodes[to].incoming.insert(point.mark, machine);
            }
            if let Some(replica) = &mut self.nodes[from].replica {
                if arrives {
                    replica.snapshot_sent(target);
                } else {
                    replica.snapshot_failed(target);
                }
                self.pump(from)?;
            }
        } else if !arrives && self.chance.percent(20) {
            let target = message.to;
            if let Some(replica) = &mut self.nodes[from].replica {
                replica.unreachable(target);
            }
        }
        if arrives {
            self.nodes[to].receive(message);
            self.pump(to)?;
        }
        Ok(())
    }

    fn client(&mut self) -> Judged {
        // In peace with room for who is behind: loads take their time here.
        let calm = if self.is_trouble() { 0 } else { 30 };
        let after = calm + self.chance.between(3, 25);
        self.at(after, Event::Client);
        for node in 0..self.nodes.len() {
            let leads = self.status(node).is_some_and(|s| s.role == Role::Leader);
            if !leads && !self.chance.percent(3) {
                continue;
            }
            for _ in 0..self.chance.between(1, 4) {
                self.operation += 1;
                let bytes = self.chance.between(0, 400);
                let bytes = usize::try_from(bytes).unwrap();
                self.nodes[node].propose(self.operation, bytes);
            }
            if self.chance.percent(40) {
                self.operation += 1;
                self.nodes[node].read(self.operation, &self.judge);
            }
            self.pump(node)?;
        }
        Ok(())
    }

    pub(crate) fn status(&self, node: usize) -> Option<Status> {
        self.nodes[node].replica.as_ref().map(Replica::status)
    }

    /// The leader of the latest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |node: &usize| self.status(*node).is_some_and(|s| s.role == Role::Leader);
        let leaders = (0..self.nodes.len()).filter(leads);
        leaders.max_by_key(|node| self.status(*node).map(|status| status.term))
    }

    /// Faults end.
    fn make_peace(&mut self) -> Judged {
        self.cut.clear();
        for node in 0..self.nodes.len() {
            self.nodes[node].slow_disk = false;
            self.nodes[node].tick = TICK;
            self.nodes[node].slow_apply = false;
            self.start(node)?;
            self.nodes[node].apply(usize::MAX, &mut self.judge)?;
            self.pump(node)?;
        }
        Ok(())
    }

    /// There is a leader, everybody who belongs has everything, and what was acknowledged is there.
    fn check_peace(&self, before: u64) -> Judged {
        let leader = self.leader().ok_or("nobody leads")?;
        let (mut replicas, mut found) = (Vec::new(), BTreeMap::new());
        if let Some(replica) = &self.nodes[leader].replica {
            replicas.extend(replica.members().iter().map(|member| member.replica));
            found.clone_from(&self.nodes[leader].machine.operations);
            if replica.members().is_joint() {
                return Err("a change of members is still half done".into());
            }
        }
        for (operation, index) in &self.judge.acknowledged {
            if found.get(operation) != Some(index) {
                return Err(format!("operation {operation} at {index} is lost"));
            }
        }
        let upto = self.nodes[leader].machine.applied;
        let recent = self.judge.acknowledged_last;
        if recent <= before || recent + 40 < upto {
            return Err(format!("nothing is acknowledged after {recent} of {upto}"));
        }
        for id in replicas {
            let Some(node) = self.node_of(id).filter(|node| !self.nodes[*node].lost_log) else {
                continue;
            };
            let applied = self.nodes[node].machine.applied;
            if self.nodes[node].replica.is_some() && applied + 40 < upto {
                return Err(format!("replica {id} has {applied} of {upto}"));
            }
        }
        Ok(())
    }
}
