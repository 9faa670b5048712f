//! Tells the catalogue who this node is, and how the cluster began.

use std::sync::{Arc, Weak};
use std::time::Duration;

use millrace_engine::catalogue::{
    Founded, Hosting, NodeFacts, Registration, Roster, RosterCommand,
};
use millrace_storage::DataDir;
use millrace_types::{FEATURE_LEVEL, NodeId, ReplicaId, ShardId};

use crate::node::Node;
use crate::pumps::Pumps;

/// A registration that is not in the catalogue after this long is made again.
const AGAIN: Duration = Duration::from_secs(1);
/// Voters of a data shard, as soon as there are nodes enough, in a cluster that one node founded.
const REPLICATION_DEFAULT: u32 = 3;

/// When the catalogue is told of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// When it has something else.
    AsItIs,
    /// In any case.
    Again,
}

/// Sees to it, from here on, that the catalogue knows this node as it is.
pub(crate) fn start(node: &Arc<Node>) {
    Pumps::errand(node, register(Arc::downgrade(node)));
}

/// Does not keep the node alive while it waits.
async fn register(weak: Weak<Node>) {
    let Some(node) = weak.upgrade() else {
        return;
    };
    let (mut view, lost_more) = (node.view.subscribe(), Arc::clone(&node.lost_more));
    drop(node);
    // Who was replaced and is back says so once: two that are started in turn at one address
    // replace each other no more often than they are started.
    let mut is_back = false;
    while let Some(node) = weak.upgrade() {
        let lost = lost_more.notified();
        let roster = Arc::clone(view.borrow_and_update().roster());
        let told = match !is_back && is_replaced(&node, &roster) {
            true => Told::Again,
            false => Told::AsItIs,
        };
        let Some(registration) = registration(&node, &roster, told) else {
            drop(node);
            tokio::select! {
                biased;
                changed = view.changed() => if changed.is_err() { return },
                () = lost => {}
            }
            continue;
        };
        let command = RosterCommand::RegisterNode(registration);
        match node.order_catalogue(command.into()).await {
            Ok(_) => is_back = true,
            Err(refusal) => tracing::debug!(%refusal, "this node is not registered yet"),
        }
        if is_known(&node, view.borrow().roster()) {
            continue;
        }
        let again = node.host.sleep(AGAIN);
        drop(node);
        tokio::select! {
            biased;
            changed = view.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}

fn is_known(node: &Node, roster: &Roster) -> bool {
    registration(node, roster, Told::AsItIs).is_none()
}

/// Whether another node has this one's address, as the catalogue has it.
fn is_replaced(node: &Node, roster: &Roster) -> bool {
    let known = roster.node(node.data_dir.node());
    known.is_some_and(|known| matches!(known.hosting, Hosting::Replaced { .. }))
}

/// What the catalogue has to be told, if there is anything.
fn registration(node: &Node, roster: &Roster, told: Told) -> Option<Registration> {
    if !roster.is_founded() {
        return None;
    }
    let own = node.data_dir.node();
    let facts = facts(node, roster);
    let lost = lost(node, roster);
    let known = roster.node(own).is_some_and(|known| {
        let is_told = |(shard, id): &(ShardId, ReplicaId)| known.lost.get(shard) == Some(id);
        known.facts == facts && lost.iter().all(is_told)
    });
    (!known || told == Told::Again).then_some(Registration {
        node: own,
        facts,
        lost,
    })
}

/// What this node says of itself. What it was not told stays as somebody else has said it: the
/// record of the founding, or whoever knows its addresses.
fn facts(node: &Node, roster: &Roster) -> NodeFacts {
    let advertised = &node.options.advertised;
    let known = roster.node(node.data_dir.node());
    let known = known.map(|known| known.facts.clone()).unwrap_or_default();
    let or = |given: &str, known: String| match given {
        "" => known,
        given => given.into(),
    };
    NodeFacts {
        peer_address: or(&advertised.peer_address, known.peer_address),
        client_address: or(&advertised.client_address, known.client_address),
        zone: or(&advertised.zone, known.zone),
        version: env!("CARGO_PKG_VERSION").into(),
        feature_level: FEATURE_LEVEL,
    }
}

/// Replicas that somebody misses here, of each shard one: damaged, or given up, be it before
/// another one was that came later.
fn lost(node: &Node, roster: &Roster) -> Vec<(ShardId, ReplicaId)> {
    let dir = &node.data_dir;
    let is_lost = |shard, id| match dir.replica(shard) {
        Some(held) if held == id => node.slot_at_all(shard).damage().is_some(),
        _ => !dir.may_hold(shard, id),
    };
    let lost = |shard| {
        let replicas = roster.shard(shard)?;
        let (target, actual) = (replicas.target().replicas(), replicas.actual().members());
        let mut here = target
            .iter()
            .chain(actual)
            .filter(|it| it.node == dir.node());
        let lost = here.find(|it| is_lost(shard, it.replica))?;
        Some((shard, lost.replica))
    };
    DataDir::shards().filter_map(lost).collect()
}

/// How the cluster began, as far as this node was there.
pub(crate) fn founded(dir: &DataDir) -> Option<Founded> {
    let founding = dir.cluster()?.founding?;
    let founders = founding.founders();
    let members = |shard| -> Vec<(ReplicaId, NodeId)> {
        // Who founded alone before there were records brought other ids.
        let here = dir.founding_members(shard);
        here.unwrap_or_else(|| founding.members(shard))
    };
    Some(Founded {
        replication: match founders {
            [_] => REPLICATION_DEFAULT,
            _ => founding.replication(),
        },
        nodes: founders
            .iter()
            .map(|it| (it.node, it.peer.clone()))
            .collect(),
        shards: (0..=dir.data_shards())
            .map(|shard| members(ShardId::new(shard)))
            .collect(),
    })
}
