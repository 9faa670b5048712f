//! Where the replicas of data shards belong.

use std::cmp::Reverse;

use millrace_engine::catalogue::{Replicas, Role, Roster, Wish};
use millrace_types::{NodeId, ShardId};

use super::draft::{Draft, Drafts, Load, zone_of};
use super::{Fate, MOVES_MAX, open_nodes, stuck, voters_there};

/// Brings each shard to its size, away from nodes that must not have it, and at last from where
/// there are many to where there are few.
pub(super) fn plan(roster: &Roster, drafts: &mut Drafts) {
    let mut load = Load::default();
    for (_, draft) in drafts.data() {
        load.extend(draft.wishes.iter().map(|wish| wish.node));
    }
    let data = || roster.shards().filter(|(id, _)| *id != ShardId::METADATA);
    let mut moving = data().filter(|(_, it)| !it.is_converged()).count();
    let mut changed = false;
    for (shard, replicas) in data() {
        let Some(draft) = drafts.get_mut(shard) else {
            continue;
        };
        let mut sketch = Sketch {
            roster,
            shard,
            draft,
            load: &mut load,
        };
        let size = size(roster, replicas);
        if !replicas.is_converged() {
            changed |= sketch.unstick(replicas, size);
        } else if moving < MOVES_MAX && sketch.repair(size) {
            changed = true;
            moving += 1;
        }
    }
    if moving == 0 && !changed {
        balance(roster, drafts, &mut load);
    }
}

/// Voters of a shard.
fn size(roster: &Roster, replicas: &Replicas) -> usize {
    let replication = replicas.class().replication;
    let replication = replication.unwrap_or_else(|| roster.replication());
    let replication = usize::try_from(replication).unwrap_or(1);
    replication.min(open_nodes(roster)).max(1)
}

/// One shard's target in the making.
struct Sketch<'a> {
    roster: &'a Roster,
    shard: ShardId,
    draft: &'a mut Draft,
    load: &'a mut Load,
}

impl Sketch<'_> {
    fn fate(&self, wish: &Wish) -> Fate {
        Fate::of(self.roster, self.shard, wish)
    }

    /// Gives up replicas that are still on their way and can never arrive.
    fn unstick(&mut self, replicas: &Replicas, size: usize) -> bool {
        let stuck = stuck(self.roster, self.shard, &self.draft.wishes);
        if stuck.is_empty() {
            return false;
        }
        for node in stuck {
            self.drop_from(node);
        }
        while self.draft.wishes.len() < size {
            // Where an old replica still is, a new one would have to wait: rather that one.
            let is_left =
                |wish: &Wish| self.fate(wish) == Fate::Stays && !self.draft.is_on(wish.node);
            if let Some(wish) = voters_there(replicas).find(is_left) {
                self.keep(wish);
                continue;
            }
            let others = |node: &NodeId| !replicas.nodes().any(|other| other == *node);
            let Some(node) = self.candidate(others) else {
                break;
            };
            self.put_on(node);
        }
        if self.draft.wishes.is_empty() {
            // All that is there has to leave, and nobody else can take it yet.
            voters_there(replicas).for_each(|wish| self.keep(wish));
        }
        true
    }

    /// Fewer or more replicas, and others for those that must go.
    fn repair(&mut self, size: usize) -> bool {
        let have = self.draft.wishes.len();
        if have > size {
            for _ in size..have {
                if let Some(node) = self.most_dispensable() {
                    self.drop_from(node);
                }
            }
            return true;
        }
        let wishes = self.draft.wishes.iter().copied();
        let mut unsound: Vec<Wish> = wishes.filter(|w| self.fate(w) != Fate::Stays).collect();
        unsound.sort_by_key(|wish| Reverse(self.fate(wish)));
        let mut changed = false;
        let minority = (have.saturating_sub(1) / 2).max(1);
        for wish in unsound.into_iter().take(minority) {
            if have == 1 && self.fate(&wish) == Fate::Dead {
                // Nobody else has what it had.
                break;
            }
            self.drop_from(wish.node);
            if let Some(node) = self.candidate(|_| true) {
                self.put_on(node);
                changed = true;
            } else {
                self.keep(wish);
            }
        }
        while self.draft.wishes.len() < size {
            let Some(node) = self.candidate(|_| true) else {
                break;
            };
            self.put_on(node);
            changed = true;
        }
        changed
    }

    /// The best node for one more.
    fn candidate(&self, suits: impl Fn(&NodeId) -> bool) -> Option<NodeId> {
        let nodes = self.roster.nodes();
        let able = nodes.filter(|(id, node)| node.takes_replicas() && !self.draft.is_on(*id));
        let able = able.map(|(id, _)| id).filter(suits);
        able.min_by_key(|node| {
            let zone = zone_of(self.roster, *node);
            let crowd = self.draft.voters_in(self.roster, zone);
            (crowd, self.load.of(*node), *node)
        })
    }

    /// The node that is to lose its replica first: one that must, or the one with most around it.
    fn most_dispensable(&self) -> Option<NodeId> {
        let worst = self.draft.wishes.iter().max_by_key(|wish| {
            let zone = zone_of(self.roster, wish.node);
            let crowd = self.draft.voters_in(self.roster, zone);
            let load = self.load.of(wish.node);
            (self.fate(wish), crowd, load, wish.node)
        });
        worst.map(|wish| wish.node)
    }

    fn put_on(&mut self, node: NodeId) {
        self.keep(Wish {
            node,
            role: Role::Voter,
            replica: None,
        });
    }

    fn keep(&mut self, wish: Wish) {
        self.load.add(wish.node);
        self.draft.wishes.push(wish);
        // Those that stay come in their old order, so that nothing changed looks like it.
        self.draft
            .wishes
            .sort_by_key(|wish| (wish.replica.is_none(), wish.replica));
    }

    fn drop_from(&mut self, node: NodeId) {
        self.load.remove(node);
        self.draft.wishes.retain(|wish| wish.node != node);
    }
}

/// One replica that goes to another node.
#[derive(Clone, Copy, Debug)]
struct Move {
    shard: ShardId,
    from: NodeId,
    to: NodeId,
}

/// Moves replicas from nodes that have many to those that have few, and out of crowded zones. Each
/// move makes the spread over zones better, or leaves it and makes that over nodes better: so they
/// come to an end.
fn balance(roster: &Roster, drafts: &mut Drafts, load: &mut Load) {
    for _ in 0..MOVES_MAX {
        let Some(best) = best_move(roster, drafts, load) else {
            return;
        };
        let Some(draft) = drafts.get_mut(best.shard) else {
            return;
        };
        let (shard, from, to) = (best.shard, best.from, best.to);
        let mut sketch = Sketch {
            roster,
            shard,
            draft,
            load,
        };
        sketch.drop_from(from);
        sketch.put_on(to);
    }
}

fn best_move(roster: &Roster, drafts: &Drafts, load: &Load) -> Option<Move> {
    let nodes: Vec<NodeId> = roster
        .nodes()
        .filter(|(_, node)| node.takes_replicas())
        .map(|(id, _)| id)
        .collect();
    let mut best: Option<((usize, usize), Move)> = None;
    for (shard, draft) in drafts.data().filter(|(_, draft)| !draft.is_changed()) {
        for from in draft.wishes.iter().map(|wish| wish.node) {
            for to in nodes.iter().copied().filter(|to| !draft.is_on(*to)) {
                let Some(gain) = gain(roster, draft, load, (from, to)) else {
                    continue;
                };
                if best.as_ref().is_none_or(|(other, _)| gain > *other) {
                    best = Some((gain, Move { shard, from, to }));
                }
            }
        }
    }
    best.map(|(_, best)| best)
}

/// What a move is worth, in zones first; `None` when it is not.
fn gain(
    roster: &Roster,
    draft: &Draft,
    load: &Load,
    (from, to): (NodeId, NodeId),
) -> Option<(usize, usize)> {
    let (old, new) = (zone_of(roster, from), zone_of(roster, to));
    let zones = if old == new {
        0
    } else {
        let crowd = |zone| draft.voters_in(roster, zone);
        crowd(old).checked_sub(crowd(new) + 1)?
    };
    let nodes = load.of(from).saturating_sub(load.of(to));
    (zones > 0 || nodes > 1).then_some((zones, nodes))
}
