//! The nodes of the cluster, and of each shard the replicas it should have and those it has. What
//! can be asked is here; `roster/command.rs` says what can be proposed, `roster/change.rs` what
//! that does.
//!
//! Promises: a replica id is minted once, and what is neither wanted nor there never returns; a
//! report about a shard never replaces a later one. Decides nothing about where replicas belong:
//! the planner proposes, this records.

mod change;
mod command;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use millrace_types::{LogIndex, NodeId, ReplicaId, SHARDS_MAX, ShardId};
use serde::{Deserialize, Serialize};

pub use command::{Founded, Registration, RosterCommand, Wish};

use super::class::ShardClass;

/// Nodes of a cluster: each has a replica of the metadata shard, and its leader speaks to all.
pub const NODES_MAX: usize = 32;
/// Voters of a data shard: a majority of more is slow and makes nothing safer.
pub const REPLICATION_MAX: u32 = 5;
/// Replicas of a shard in a target or a report: one on each node, and as many on their way out.
pub const REPLICAS_MAX: usize = 2 * NODES_MAX;
/// An address of a node, in bytes: a DNS name, a port, and what is between them.
pub(super) const NODE_ADDRESS_BYTES_MAX: usize = 262;
/// A zone, in bytes: the value of a Kubernetes label.
pub(super) const ZONE_BYTES_MAX: usize = 63;
/// A version, in bytes: it is for people.
pub(super) const VERSION_BYTES_MAX: usize = 64;
/// Former replicas of one shard that are remembered, so that the nodes which had them let go of
/// them: replacements are rare. A node that was away for longer finds that its id was minted and
/// that nobody names it.
pub(super) const GONE_MAX: usize = 64;

/// How a replica counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// It votes.
    Voter,
    /// It gets everything and counts for nothing.
    Learner,
}

/// One replica and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Assigned {
    /// Which.
    pub replica: ReplicaId,
    /// Where.
    pub node: NodeId,
    /// How it counts.
    pub role: Role,
}

/// The replicas that a shard should have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub(super) revision: u64,
    pub(super) replicas: Vec<Assigned>,
    pub(super) leader: Option<NodeId>,
}

/// The replicas that a shard has, as its leader said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub(super) index: LogIndex,
    pub(super) members: Vec<Assigned>,
}

/// One shard's replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// As they should be.
    pub(super) target: Target,
    /// As they are.
    pub(super) actual: Report,
    /// Former ones, the latest at the end.
    pub(super) gone: VecDeque<ReplicaId>,
    /// What was asked of the shard.
    pub(super) class: ShardClass,
    /// The first ones of a shard that came after the cluster was founded: each of them begins with
    /// all of these as voters. Founders know theirs from the record of the founding.
    pub(super) born: Vec<Assigned>,
}

/// Whether a node may have replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hosting {
    /// It may.
    Open,
    /// It gets no new ones and loses those it has.
    Cordoned,
    /// Another node has its address: this one's disk is gone, its replicas are replaced.
    Replaced {
        /// Which.
        by: NodeId,
    },
}

/// Whether a node may lead shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leading {
    /// It may.
    Allowed,
    /// It hands over what it leads and is handed nothing.
    Drained,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Where other nodes find it.
    pub peer_address: String,
    /// Where clients find it; empty until it has registered.
    pub client_address: String,
    /// What fails together with it; empty when nobody said.
    pub zone: String,
    /// Of its build, for people.
    pub version: String,
    /// What its engine can do; 0 until it has registered.
    pub feature_level: u32,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownNode {
    /// What it said last.
    pub facts: NodeFacts,
    /// Whether it may have replicas.
    pub hosting: Hosting,
    /// Whether it may lead.
    pub leading: Leading,
    /// Replicas on it that lost something and must be replaced under other ids.
    pub lost: BTreeMap<ShardId, ReplicaId>,
}

/// Nodes and replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    revision: u64,
    feature_level: u32,
    /// Voters of a data shard when there are nodes enough.
    replication: u32,
    /// The last replica id that was minted.
    minted: u64,
    nodes: BTreeMap<NodeId, KnownNode>,
    /// Empty before `Found`.
    shards: BTreeMap<ShardId, Replicas>,
}

impl Target {
    /// Goes up by one with each new target of the shard.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// In order of their ids.
    #[must_use]
    pub fn replicas(&self) -> &[Assigned] {
        &self.replicas
    }

    /// The node that should lead.
    #[must_use]
    pub const fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// One of them.
    #[must_use]
    pub fn find(&self, replica: ReplicaId) -> Option<Assigned> {
        find(&self.replicas, replica)
    }
}

impl Report {
    /// The log index at which it was so; 0 is the founding.
    #[must_use]
    pub const fn index(&self) -> LogIndex {
        self.index
    }

    /// In order of their ids.
    #[must_use]
    pub fn members(&self) -> &[Assigned] {
        &self.members
    }

    /// One of them.
    #[must_use]
    pub fn find(&self, replica: ReplicaId) -> Option<Assigned> {
        find(&self.members, replica)
    }
}

fn find(among: &[Assigned], replica: ReplicaId) -> Option<Assigned> {
    among.iter().copied().find(|it| it.replica == replica)
}

impl Replicas {
    /// As they should be.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// As they are.
    #[must_use]
    pub const fn actual(&self) -> &Report {
        &self.actual
    }

    /// What was asked of the shard.
    #[must_use]
    pub const fn class(&self) -> ShardClass {
        self.class
    }

    /// The members that a replica begins with which is one of the shard's first; `None` for one
    /// that came later, or of a shard that the cluster was founded with.
    #[must_use]
    pub fn born(&self, replica: ReplicaId) -> Option<&[Assigned]> {
        find(&self.born, replica).map(|_| &*self.born)
    }

    /// Whether it has still to be given its first replicas.
    #[must_use]
    pub fn is_unborn(&self) -> bool {
        self.target.replicas.is_empty() && self.actual.members.is_empty()
    }

    /// Whether the shard has the replicas it should have.
    #[must_use]
    pub fn is_converged(&self) -> bool {
        self.target.replicas == self.actual.members
    }

    /// Whether a replica is wanted or there.
    #[must_use]
    pub fn names(&self, replica: ReplicaId) -> bool {
        self.target.find(replica).is_some() || self.actual.find(replica).is_some()
    }

    /// Nodes with a replica, wanted or there; some twice.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        let both = self.target.replicas.iter().chain(&self.actual.members);
        both.map(|it| it.node)
    }
}

impl KnownNode {
    /// Whether new replicas may be put on it.
    #[must_use]
    pub fn takes_replicas(&self) -> bool {
        self.hosting == Hosting::Open && self.facts.feature_level > 0
    }

    /// Whether it may be asked to lead.
    #[must_use]
    pub fn may_lead(&self) -> bool {
        self.hosting == Hosting::Open && self.leading == Leading::Allowed
    }
}

impl Roster {
    /// Goes up with each change.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// What every node can do; never goes down.
    #[must_use]
    pub const fn feature_level(&self) -> u32 {
        self.feature_level
    }

    /// Voters of a data shard when there are nodes enough.
    #[must_use]
    pub const fn replication(&self) -> u32 {
        self.replication
    }

    /// Whether it is known where the shards began.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        !self.shards.is_empty()
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &KnownNode)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// One node.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<&KnownNode> {
        self.nodes.get(&node)
    }

    /// All shards, the metadata shard first.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &Replicas)> {
        self.shards.iter().map(|(id, replicas)| (*id, replicas))
    }

    /// One shard.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> Option<&Replicas> {
        self.shards.get(&shard)
    }

    /// What was asked of a shard; nothing of one that is not known.
    pub(super) fn class_of(&self, shard: ShardId) -> ShardClass {
        let replicas = self.shards.get(&shard);
        replicas.map(Replicas::class).unwrap_or_default()
    }

    /// A shard that came after the founding; its first replicas come with its first target.
    pub(super) fn add_shard(&mut self, shard: ShardId, class: ShardClass) {
        let replicas = Replicas {
            class,
            ..Replicas::default()
        };
        self.shards.insert(shard, replicas);
        self.revision = self.revision.saturating_add(1);
    }

    /// The replica of a shard that a node should have.
    #[must_use]
    pub fn wanted(&self, shard: ShardId, node: NodeId) -> Option<ReplicaId> {
        let target = &self.shards.get(&shard)?.target;
        let here = target.replicas.iter().find(|it| it.node == node);
        here.map(|it| it.replica)
    }

    /// Whether a replica was part of the shard, or was to be, and will never be again. "No" also
    /// when this roster is older than the replica.
    #[must_use]
    pub fn is_gone(&self, shard: ShardId, replica: ReplicaId) -> bool {
        let Some(replicas) = self.shards.get(&shard) else {
            return false;
        };
        let was_there = replicas.gone.contains(&replica) || replica.get() <= self.minted;
        was_there && !replicas.names(replica)
    }

    /// Whether a node has, or is to have, a replica of any shard.
    #[must_use]
    pub fn is_in_use(&self, node: NodeId) -> bool {
        let mut shards = self.shards.values();
        shards.any(|replicas| replicas.nodes().any(|other| other == node))
    }

    /// Whether one that was read makes sense.
    ///
    /// # Errors
    /// How it contradicts itself.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.nodes.len() > NODES_MAX {
            return Err("there are too many nodes");
        }
        let highest = self.shards.keys().next_back();
        if highest.is_some_and(|shard| shard.get() > SHARDS_MAX) {
            return Err("there are too many shards");
        }
        for replicas in self.shards.values() {
            let replication = replicas.class.replication;
            if replication.is_some_and(|it| !(1..=REPLICATION_MAX).contains(&it)) {
                return Err("a shard has a class that there is not");
            }
            let (target, actual) = (&replicas.target.replicas, &replicas.actual.members);
            for all in [target, actual, &replicas.born] {
                if all.len() > REPLICAS_MAX || !all.is_sorted_by(|a, b| a.replica < b.replica) {
                    return Err("a shard's replicas are not in order");
                }
            }
            if replicas.gone.len() > GONE_MAX {
                return Err("a shard has too many former replicas");
            }
            if !replicas.nodes().all(|node| self.nodes.contains_key(&node)) {
                return Err("a replica is on an unknown node");
            }
        }
        Ok(())
    }
}
