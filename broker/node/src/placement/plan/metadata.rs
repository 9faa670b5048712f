//! Where the replicas of the metadata shard belong: on every node, because everybody has to know
//! the catalogue. A cordoned node keeps its own as long as it has others.

use std::cmp::Reverse;

use millrace_engine::catalogue::{Replicas, Role, Roster, Wish};
use millrace_types::{NodeId, ShardId};

use super::draft::{Draft, Drafts, zone_of};
use super::{Fate, open_nodes, stuck, voters_there};

/// Voters of the metadata shard at most: a majority of more is slow and makes nothing safer.
const VOTERS_MAX: usize = 5;

/// Adds replicas where there are none, and lets as many vote as there should.
pub(super) fn plan(roster: &Roster, drafts: &mut Drafts) {
    let shard = ShardId::METADATA;
    let Some((replicas, draft)) = roster.shard(shard).zip(drafts.get_mut(shard)) else {
        return;
    };
    let sketch = Sketch {
        roster,
        replicas,
        draft,
    };
    if replicas.is_converged() {
        sketch.settle();
    } else {
        sketch.go_on();
    }
}

struct Sketch<'a> {
    roster: &'a Roster,
    replicas: &'a Replicas,
    draft: &'a mut Draft,
}

impl Sketch<'_> {
    /// It is on its way: what can never arrive is given up, who has none yet gets one.
    fn go_on(self) {
        let stuck = stuck(self.roster, ShardId::METADATA, &self.draft.wishes);
        let wishes = &mut self.draft.wishes;
        wishes.retain(|wish| !stuck.contains(&wish.node));
        if self.draft.voters().count() == 0 {
            // Those that were to leave have the state.
            let there: Vec<Wish> = voters_there(self.replicas).collect();
            let wishes = &mut self.draft.wishes;
            wishes.retain(|wish| there.iter().all(|it| it.node != wish.node));
            wishes.extend(there);
        }
        let is_new = |node: &NodeId| !self.replicas.nodes().any(|other| other == *node);
        let new: Vec<NodeId> = self.missing().filter(is_new).collect();
        self.draft.wishes.extend(new.into_iter().map(learner));
    }

    /// It has what it should have: what else should it have?
    fn settle(self) {
        let voters = self.draft.voters().count();
        let wanted = odd(open_nodes(self.roster).min(VOTERS_MAX));
        let mut unsound: Vec<Wish> = self
            .draft
            .voters()
            .filter(|wish| !self.is_sound(wish))
            .copied()
            .collect();
        unsound.sort_by_key(|wish| Reverse(self.fate(wish)));
        let lone = voters == 1 && unsound.iter().any(|wish| self.fate(wish) == Fate::Dead);
        if lone {
            // Nobody else has what it had.
            return;
        }
        let at_once = (voters.saturating_sub(1) / 2)
            .max(1)
            .max(voters.saturating_sub(wanted));
        let wait: Vec<NodeId> = unsound.iter().skip(at_once).map(|w| w.node).collect();
        let before = self.draft.wishes.clone();
        let (roster, replicas) = (self.roster, self.replicas);
        let mut next = Vec::new();
        for mut wish in before {
            if !self.is_sound(&wish) && !wait.contains(&wish.node) {
                if !self.keeps_view(&wish) {
                    continue;
                }
                wish.role = Role::Learner;
            }
            next.push(wish);
        }
        let before = std::mem::replace(&mut self.draft.wishes, next);
        let missing: Vec<NodeId> = self.missing().collect();
        self.draft.wishes.extend(missing.into_iter().map(learner));
        let mut sketch = Sketch {
            roster,
            replicas,
            draft: self.draft,
        };
        sketch.vote(wanted);
        if sketch.draft.voters().count() == 0 {
            sketch.draft.wishes = before;
        }
    }

    /// Makes so many vote, spread over zones.
    fn vote(&mut self, wanted: usize) {
        while self.draft.voters().count() < wanted {
            let Some(node) = self.best_learner() else {
                break;
            };
            self.set(node, Role::Voter);
        }
        while self.draft.voters().count() > wanted {
            let Some(node) = self.worst_voter() else {
                return;
            };
            self.set(node, Role::Learner);
        }
        if let Some((voter, learner)) = self.worst_voter().zip(self.best_learner()) {
            let crowd = |node| {
                let zone = zone_of(self.roster, node);
                self.draft.voters_in(self.roster, zone)
            };
            if crowd(voter) > crowd(learner) + 1 {
                self.set(voter, Role::Learner);
                self.set(learner, Role::Voter);
            }
        }
    }

    fn set(&mut self, node: NodeId, role: Role) {
        let mut wishes = self.draft.wishes.iter_mut();
        if let Some(wish) = wishes.find(|wish| wish.node == node) {
            wish.role = role;
        }
    }

    /// Who should vote next: in the emptiest zone; rather one that is there than a new one.
    fn best_learner(&self) -> Option<NodeId> {
        let learners = self
            .draft
            .wishes
            .iter()
            .filter(|wish| wish.role == Role::Learner && self.is_sound(wish));
        let best = learners.min_by_key(|wish| {
            let zone = zone_of(self.roster, wish.node);
            let crowd = self.draft.voters_in(self.roster, zone);
            (crowd, wish.replica.is_none(), wish.node)
        });
        best.map(|wish| wish.node)
    }

    /// Of those who may vote, one of the fullest zone.
    fn worst_voter(&self) -> Option<NodeId> {
        let voters = self.draft.voters().filter(|wish| self.is_sound(wish));
        let worst = voters.max_by_key(|wish| {
            let zone = zone_of(self.roster, wish.node);
            let crowd = self.draft.voters_in(self.roster, zone);
            (crowd, wish.replica.is_none(), wish.node)
        });
        worst.map(|wish| wish.node)
    }

    /// Nodes that should have one and have none.
    fn missing(&self) -> impl Iterator<Item = NodeId> {
        let nodes = self.roster.nodes();
        let able = nodes.filter(|(id, node)| node.takes_replicas() && !self.draft.is_on(*id));
        able.map(|(id, _)| id)
    }

    fn fate(&self, wish: &Wish) -> Fate {
        Fate::of(self.roster, ShardId::METADATA, wish)
    }

    fn is_sound(&self, wish: &Wish) -> bool {
        self.fate(wish) == Fate::Stays
    }

    /// Whether a node that is to lose everything still has other replicas.
    fn keeps_view(&self, wish: &Wish) -> bool {
        let data = self.roster.shards();
        let data = data.filter(|(id, _)| *id != ShardId::METADATA);
        let mut data = data.map(|(_, replicas)| replicas);
        self.fate(wish) == Fate::Leaves && data.any(|it| it.nodes().any(|node| node == wish.node))
    }
}

const fn learner(node: NodeId) -> Wish {
    Wish {
        node,
        role: Role::Learner,
        replica: None,
    }
}

/// The largest odd number up to one that is at least 1.
const fn odd(number: usize) -> usize {
    if number.is_multiple_of(2) {
        number.saturating_sub(1)
    } else {
        number
    }
}
