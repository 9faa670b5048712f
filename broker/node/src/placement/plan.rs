//! Decides where the replicas of all shards belong: pure, from what the catalogue knows to changes
//! of it.
//!
//! Every node has a replica of the metadata shard, up to five of them vote. A data shard has as
//! many voters as its class or the cluster's replication says and there are nodes, spread over
//! zones first, then over nodes by how many they have; one that has none yet begins with all of
//! them. Leaders are spread alike.
//!
//! Promises: what needs no change gets none; a shard that is on its way to its target gets another
//! one only when it cannot get there; of a shard's voters no more than a minority, or one, is
//! replaced at a time; few shards move at a time; plans come to an end. Does not know who is alive:
//! a node that is gone for good is cordoned by somebody, or another one comes up at its address.

mod data;
mod draft;
mod metadata;

use millrace_engine::catalogue::{Hosting, KnownNode, Replicas, Role, Roster, RosterCommand, Wish};
use millrace_types::{NodeId, ShardId};

use draft::{Drafts, Load};

/// Data shards that move at a time: each may send its whole state over the network.
const MOVES_MAX: usize = 4;

/// What is to be changed; empty when everything is where it belongs, or on its way there.
pub(crate) fn plan(roster: &Roster) -> Vec<RosterCommand> {
    if !roster.is_founded() {
        return Vec::new();
    }
    let mut drafts = Drafts::of(roster);
    metadata::plan(roster, &mut drafts);
    data::plan(roster, &mut drafts);
    spread_leaders(roster, &mut drafts);
    let mut commands = drafts.commands();
    let is_over = |(id, node): &(NodeId, &KnownNode)| {
        matches!(node.hosting, Hosting::Replaced { .. }) && !roster.is_in_use(*id)
    };
    let over = roster.nodes().filter(is_over);
    commands.extend(over.map(|(node, _)| RosterCommand::ForgetNode { node }));
    commands
}

/// What becomes of a replica; the later, the sooner it is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// It may stay where it is.
    Stays,
    /// Its node is to have none.
    Leaves,
    /// It is damaged, or its node's disk is gone.
    Dead,
}

impl Fate {
    fn of(roster: &Roster, shard: ShardId, wish: &Wish) -> Self {
        let Some(known) = roster.node(wish.node) else {
            return Self::Dead;
        };
        let lost = known.lost.get(&shard).copied();
        if wish.replica.is_some() && lost == wish.replica {
            return Self::Dead;
        }
        match known.hosting {
            Hosting::Open => Self::Stays,
            Hosting::Cordoned => Self::Leaves,
            Hosting::Replaced { .. } => Self::Dead,
        }
    }
}

/// Of a shard on its way to its target, what can never be part of it: the nodes of replicas that
/// are dead, or have to leave before they have arrived. None when nobody has the shard's state.
fn stuck(roster: &Roster, shard: ShardId, wishes: &[Wish]) -> Vec<NodeId> {
    let Some(replicas) = roster.shard(shard) else {
        return Vec::new();
    };
    let is_there = |wish: &Wish| {
        let actual = wish.replica.and_then(|id| replicas.actual().find(id));
        actual.is_some_and(|it| it.role == wish.role)
    };
    let is_stuck = |wish: &&Wish| match Fate::of(roster, shard, wish) {
        Fate::Stays => false,
        Fate::Leaves => !is_there(wish),
        Fate::Dead => true,
    };
    let has_state = |wish: &Wish| Fate::of(roster, shard, wish) != Fate::Dead;
    if !voters_there(replicas).any(|wish| has_state(&wish)) {
        return Vec::new();
    }
    wishes.iter().filter(is_stuck).map(|w| w.node).collect()
}

/// The voters that a shard has.
fn voters_there(replicas: &Replicas) -> impl Iterator<Item = Wish> {
    let voters = replicas.actual().members().iter();
    let voters = voters.filter(|it| it.role == Role::Voter);
    voters.map(|it| Wish {
        node: it.node,
        role: it.role,
        replica: Some(it.replica),
    })
}

/// Nodes that may have replicas, or may keep those they have.
fn open_nodes(roster: &Roster) -> usize {
    let open = |(_, node): &(NodeId, &KnownNode)| node.hosting == Hosting::Open;
    roster.nodes().filter(open).count()
}

/// Gives each shard with several voters a leader, and takes some from nodes that lead more than
/// others could. A shard on its way keeps the one it has.
fn spread_leaders(roster: &Roster, drafts: &mut Drafts) {
    let mut leads = Load::default();
    for draft in drafts.iter() {
        leads.extend(draft.leader);
    }
    let shards: Vec<ShardId> = roster.shards().map(|(shard, _)| shard).collect();
    for shard in shards {
        let rests = roster.shard(shard).is_some_and(|it| it.is_converged());
        let Some(draft) = drafts.get_mut(shard) else {
            continue;
        };
        let voters = draft.voters().count();
        let stays = |wish: &&Wish| Fate::of(roster, shard, wish) == Fate::Stays;
        let fit: Vec<NodeId> = draft.voters().filter(stays).map(|w| w.node).collect();
        let fits = |node: &NodeId| voters > 1 && fit.contains(node);
        if let Some(former) = draft.leader.filter(|node| !fits(node)) {
            leads.remove(former);
            draft.lead(None);
        }
        if !rests && !draft.is_changed() {
            continue;
        }
        let best = fit.iter().copied().filter(fits);
        let Some(best) = best.min_by_key(|node| (leads.of(*node), *node)) else {
            continue;
        };
        match draft.leader {
            Some(leader) if leads.of(leader) < leads.of(best) + 2 => continue,
            Some(leader) => leads.remove(leader),
            None => {}
        }
        leads.add(best);
        draft.lead(Some(best));
    }
}
