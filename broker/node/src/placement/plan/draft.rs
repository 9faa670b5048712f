//! Targets in the making, and how much each node has by them.

use std::collections::BTreeMap;

use millrace_engine::catalogue::{Role, Roster, RosterCommand, Wish};
use millrace_types::{NodeId, ShardId};

/// The target of one shard in the making.
#[derive(Debug)]
pub(super) struct Draft {
    revision: u64,
    /// In the order of the present target, new ones at the end.
    pub(super) wishes: Vec<Wish>,
    /// The node that should lead.
    pub(super) leader: Option<NodeId>,
    before: (Vec<Wish>, Option<NodeId>),
}

impl Draft {
    /// Those who vote.
    pub(super) fn voters(&self) -> impl Iterator<Item = &Wish> {
        self.wishes.iter().filter(|wish| wish.role == Role::Voter)
    }

    /// Whether it has a replica on a node.
    pub(super) fn is_on(&self, node: NodeId) -> bool {
        self.wishes.iter().any(|wish| wish.node == node)
    }

    /// Says who should lead.
    pub(super) const fn lead(&mut self, leader: Option<NodeId>) {
        self.leader = leader;
    }

    /// Whether it differs from the present target.
    pub(super) fn is_changed(&self) -> bool {
        self.before.0 != self.wishes || self.before.1 != self.leader
    }

    /// How many voters are in a zone.
    pub(super) fn voters_in(&self, roster: &Roster, zone: &str) -> usize {
        let there = self.voters().filter(|w| zone_of(roster, w.node) == zone);
        there.count()
    }
}

/// The zone of a node; empty when nobody said.
pub(super) fn zone_of(roster: &Roster, node: NodeId) -> &str {
    roster.node(node).map_or("", |known| &known.facts.zone)
}

/// The targets of all shards in the making.
#[derive(Debug)]
pub(super) struct Drafts(BTreeMap<ShardId, Draft>);

impl Drafts {
    /// As they are.
    pub(super) fn of(roster: &Roster) -> Self {
        let drafts = roster.shards().map(|(shard, replicas)| {
            let target = replicas.target();
            let wishes = target.replicas().iter().map(|it| Wish {
                node: it.node,
                role: it.role,
                replica: Some(it.replica),
            });
            let wishes: Vec<Wish> = wishes.collect();
            let leader = target.leader();
            let draft = Draft {
                revision: target.revision(),
                before: (wishes.clone(), leader),
                wishes,
                leader,
            };
            (shard, draft)
        });
        Self(drafts.collect())
    }

    /// All of them, by shard.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Draft> {
        self.0.values()
    }

    /// One of them.
    pub(super) fn get_mut(&mut self, shard: ShardId) -> Option<&mut Draft> {
        self.0.get_mut(&shard)
    }

    /// Those of data shards.
    pub(super) fn data(&self) -> impl Iterator<Item = (ShardId, &Draft)> {
        let data = self.0.iter().filter(|(id, _)| **id != ShardId::METADATA);
        data.map(|(shard, draft)| (*shard, draft))
    }

    /// What makes them targets.
    pub(super) fn commands(self) -> Vec<RosterCommand> {
        let changed = self.0.into_iter().filter(|(_, draft)| draft.is_changed());
        let place = |(shard, draft): (ShardId, Draft)| RosterCommand::Place {
            shard,
            revision: draft.revision,
            replicas: draft.wishes,
            leader: draft.leader,
        };
        changed.map(place).collect()
    }
}

/// How many of something each node has.
#[derive(Debug, Default)]
pub(super) struct Load(BTreeMap<NodeId, usize>);

impl Load {
    pub(super) fn of(&self, node: NodeId) -> usize {
        self.0.get(&node).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, node: NodeId) {
        *self.0.entry(node).or_default() += 1;
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        if let Some(count) = self.0.get_mut(&node) {
            *count = count.saturating_sub(1);
        }
    }
}

impl Extend<NodeId> for Load {
    fn extend<T: IntoIterator<Item = NodeId>>(&mut self, nodes: T) {
        nodes.into_iter().for_each(|node| self.add(node));
    }
}
