//! What goes wrong: crashes, cuts, slow disks and clocks, changes of members, lost disks.

use millrace_replica::{Change, Recovered, Replica, Seat};
use millrace_types::{NodeId, ReplicaId};

use super::{Event, NODES_MAX, World};
use crate::disk::Disk;
use crate::judge::Judged;
use crate::node::{Node, TICK};

impl World {
    pub(super) fn fault(&mut self) -> Judged {
        if !self.is_trouble() {
            return Ok(());
        }
        let after = self.chance.between(20, 250);
        self.at(after, Event::Fault);
        let count = self.nodes.len() as u64;
        let node = usize::try_from(self.chance.between(0, count - 1)).unwrap();
        match self.chance.between(0, 16) {
            0 | 1 => self.crash(node, 400),
            2 => self.storm(),
            3 => {
                if let Some(leader) = self.leader() {
                    self.crash(leader, 400);
                }
            }
            4 | 5 => self.cut_off(node),
            6 => {
                let other = usize::try_from(self.chance.between(0, count - 1)).unwrap();
                self.cut.insert((node, other));
                self.heal_later();
            }
            7 => self.nodes[node].slow_disk = !self.nodes[node].slow_disk,
            8 => self.nodes[node].slow_apply = !self.nodes[node].slow_apply,
            9 => {
                let to = self.nodes[node].replica_id;
                if let Some(leader) = self.leader() {
                    if let Some(replica) = &mut self.nodes[leader].replica {
                        replica.transfer_to(to).ok();
                    }
                    return self.pump(leader);
                }
            }
            10 => return self.campaign(node),
            13 | 14 => self.nodes[node].tick = self.chance.between(TICK / 2, TICK * 4),
            15 => {
                // It does not notice for a while that others lead.
                if let Some(leader) = self.leader() {
                    self.nodes[leader].tick = TICK * 4;
                    self.cut_off(leader);
                }
            }
            11 | 12 => return self.change_members(),
            _ => return self.wipe(node),
        }
        Ok(())
    }

    fn heal_later(&mut self) {
        let after = self.chance.between(50, 600);
        self.at(after, Event::Heal);
    }

    fn cut_off(&mut self, node: usize) {
        let id = self.nodes[node].replica_id;
        self.judge.note(|| format!("replica {id} is cut off"));
        let way = self.chance.between(0, 2);
        for other in 0..self.nodes.len() {
            if way != 0 {
                self.cut.insert((node, other));
            }
            if way != 1 {
                self.cut.insert((other, node));
            }
        }
        self.heal_later();
    }

    /// Ends a node, for so long at most.
    pub(super) fn crash(&mut self, node: usize, most: u64) {
        if self.nodes[node].replica.is_none() {
            return;
        }
        let id = self.nodes[node].replica_id;
        self.judge.note(|| format!("replica {id} crashes"));
        self.nodes[node].stop();
        let chance = &mut self.chance;
        self.nodes[node].disk.crash(chance);
        let after = self.chance.between(1, most);
        self.at(after, Event::Restart(node));
    }

    /// One step of some change, as the leader sees the members.
    fn change_members(&mut self) -> Judged {
        let Some(leader) = self.leader() else {
            return Ok(());
        };
        let Some(members) = self.nodes[leader].replica.as_ref().map(Replica::members) else {
            return Ok(());
        };
        let with = |seat: Seat| -> Vec<ReplicaId> {
            let members = members.iter().filter(|member| member.seat == seat);
            members.map(|member| member.replica).collect()
        };
        let gone = self
            .nodes
            .iter()
            .filter(|node| node.is_gone)
            .map(|node| node.replica_id);
        let gone: Vec<ReplicaId> = gone.filter(|id| members.find(*id).is_some()).collect();
        let (voters, learners) = (with(Seat::Voter), with(Seat::Learner));
        let voter = self.chance.one_of(&voters).copied();
        let learner = self.chance.one_of(&learners).copied();
        let promote = |replica| Change::Promote { replica };
        let demote = |replica| Change::Demote { replica };
        let remove = |replica| Change::Remove { replica };
        let changes: Vec<Change> = match self.chance.between(0, 7) {
            // Who is gone counts as one who never answers: it has to go first.
            _ if !gone.is_empty() => gone.into_iter().map(remove).collect(),
            0..=2 if self.nodes.len() < NODES_MAX && learners.len() < 2 => {
                let (replica, node) = self.new_node()?;
                vec![Change::Add { replica, node }]
            }
            3 => voter.into_iter().map(remove).collect(),
            4 => {
                let both = learner.map(promote).into_iter().chain(voter.map(demote));
                both.collect()
            }
            5 if learners.len() == 2 => learners.into_iter().map(promote).collect(),
            6 => {
                let both = learner.map(promote).into_iter().chain(voter.map(remove));
                both.collect()
            }
            _ => learner.into_iter().map(promote).collect(),
        };
        if let Some(replica) = &mut self.nodes[leader].replica {
            let taken = replica.change_members(&changes);
            self.judge.note(|| format!("{changes:?}: {taken:?}"));
        }
        self.pump(leader)
    }

    /// An empty node.
    fn new_node(&mut self) -> Result<(ReplicaId, NodeId), String> {
        let number = self.nodes.len() as u64 + 1;
        let (replica, id) = (ReplicaId::new(number * 11), NodeId::new(number));
        let node = self.add_node(replica, Disk::default());
        self.start(node)?;
        Ok((replica, id))
    }

    /// A disk is lost. The replica never comes back, unless a known bug brings it back.
    fn wipe(&mut self, node: usize) -> Judged {
        let Some(leader) = self.leader().filter(|leader| *leader != node) else {
            return Ok(());
        };
        let id = self.nodes[node].replica_id;
        // One at a time: what is committed is on a majority, not everywhere.
        let has_gone = self.nodes.iter().any(|node| self.is_member_gone(node));
        let Some(replica) = &mut self.nodes[leader].replica else {
            return Ok(());
        };
        let voters = replica.members().iter().filter(|m| m.seat == Seat::Voter);
        if voters.count() < 3 || replica.members().is_joint() || has_gone {
            return Ok(());
        }
        if millrace_types::mutant!(IdUsedAgain) {
            let members = self.nodes[node].disk.durable.point.members.clone();
            if members.is_empty() {
                return Ok(());
            }
            self.crash(node, 400);
            let founding = Recovered::founding(members).map_err(|error| error.to_string())?;
            self.nodes[node].disk = Disk::founded(&founding);
            return Ok(());
        }
        if replica
            .change_members(&[Change::Remove { replica: id }])
            .is_ok()
        {
            self.judge.note(|| format!("replica {id} is gone"));
            self.nodes[node].is_gone = true;
            self.nodes[node].stop();
            self.nodes[node].disk = Disk::default();
            self.nodes[node].life += 1;
        }
        self.pump(leader)
    }

    /// Whether somebody still counts on a disk that is lost.
    fn is_member_gone(&self, node: &Node) -> bool {
        let knows = |other: &Node| {
            let stored = other.disk.durable.point.members.find(node.replica_id);
            let replica = other.replica.as_ref();
            let running = replica.and_then(|r| r.members().find(node.replica_id));
            !other.is_gone && (stored.is_some() || running.is_some())
        };
        node.is_gone && self.nodes.iter().any(knows)
    }
}
