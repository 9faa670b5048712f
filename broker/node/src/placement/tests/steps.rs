//! Single steps of a leader, as a table.

use super::*;
use millrace_engine::catalogue::{Replicas, Wish};

/// A leader's view: members as `id seat` and target as ids, on nodes of the same number.
struct Table {
    world: World,
    members: Vec<Member>,
    behind: BTreeSet<u64>,
    silent: BTreeSet<u64>,
    /// Came back with everything, and nothing has happened since.
    back: BTreeSet<u64>,
}

const SHARD: ShardId = ShardId::new(1);

/// The last entry of its log.
const LAST: u64 = 10_000;

impl Table {
    /// Members 1 (ids minted from there on) to `count`, all voters, all wanted.
    fn of(count: u64) -> Self {
        let world = World::of(1, count, |_| String::new());
        let members = world.shards[&SHARD].members.clone();
        Self {
            world,
            members,
            behind: BTreeSet::new(),
            silent: BTreeSet::new(),
            back: BTreeSet::new(),
        }
    }

    fn replicas(&self) -> &Replicas {
        self.world.roster().shard(SHARD).unwrap()
    }

    /// The replica on a node, as a member or as wanted.
    fn on(&self, n: u64) -> ReplicaId {
        let member = self.members.iter().find(|m| m.node == node(n));
        let wanted = || self.world.roster().wanted(SHARD, node(n));
        member.map(|m| m.replica).or_else(wanted).unwrap()
    }

    /// Wants voters on these nodes from here on.
    fn want(&mut self, nodes: &[u64]) {
        let target = self.replicas().target().clone();
        let wish = |n: &u64| Wish {
            node: node(*n),
            role: Role::Voter,
            replica: self.world.roster().wanted(SHARD, node(*n)),
        };
        let replicas = nodes.iter().map(wish).collect();
        self.world.apply(RosterCommand::Place {
            shard: SHARD,
            revision: target.revision(),
            replicas,
            leader: None,
        });
    }

    fn join(&mut self, n: u64) {
        let (replica, node) = (self.on(n), node(n));
        self.members.push(Member {
            replica,
            node,
            seat: Seat::Learner,
        });
    }

    fn progress(&self, member: &Member) -> Progress {
        let node = member.node.get();
        let matched = match () {
            () if self.behind.contains(&node) => 10,
            () if self.back.contains(&node) => LAST,
            () => LAST - 500,
        };
        Progress {
            replica: member.replica,
            matched: LogIndex::new(matched),
            has: LogIndex::new(0),
            flow: match self.back.contains(&node) {
                true => Flow::Probing,
                false => Flow::Replicating,
            },
            active: !self.silent.contains(&node),
        }
    }

    fn see<T>(&self, leader: u64, what: impl FnOnce(&Scene<'_>) -> T) -> T {
        let members = self.members.iter();
        let progress: Vec<Progress> = members.map(|member| self.progress(member)).collect();
        what(&Scene {
            own: self.on(leader),
            members: &self.members,
            replicas: self.replicas(),
            progress: &progress,
            last: LogIndex::new(LAST),
        })
    }

    fn next(&self, leader: u64) -> Step {
        self.see(leader, |scene| scene.next_change())
    }
}

#[test]
fn a_leader_that_must_go_hands_over_to_who_came_back_to_an_idle_shard_with_everything() {
    let mut table = Table::of(3);
    table.back.extend([2, 3]);
    table.silent.insert(3);

    let heir = table.see(1, |scene| scene.heir(|other| other != node(1)));

    assert_eq!(heir, Some(table.on(2)));
}

#[test]
fn a_replacement_is_added_catches_up_and_takes_the_place_in_one_change() {
    let mut table = Table::of(3);
    table.world.register(4, 4, "");
    table.want(&[1, 2, 4]);
    let (gone, new) = (table.on(3), table.on(4));
    let add = Change::Add {
        replica: new,
        node: node(4),
    };
    assert_eq!(table.next(1), Step::Change(vec![add]));
    table.join(4);
    table.behind.insert(4);
    assert_eq!(table.next(1), Step::Rest);
    table.behind.clear();
    let both = vec![
        Change::Promote { replica: new },
        Change::Remove { replica: gone },
    ];
    assert_eq!(table.next(1), Step::Change(both));
    let heir = match table.next(3) {
        Step::HandOver(heir) => heir,
        other => panic!("{other:?}"),
    };
    assert!([table.on(1), table.on(2)].contains(&heir));
}

#[test]
fn a_learner_with_everything_of_a_shard_where_nothing_happens_comes_to_vote() {
    let mut table = Table::of(1);
    table.world.register(2, 2, "");
    table.want(&[1, 2]);
    table.join(2);
    table.back.insert(2);
    let promote = Change::Promote {
        replica: table.on(2),
    };
    assert_eq!(table.next(1), Step::Change(vec![promote]));
}

#[test]
fn the_second_and_third_voter_come_together() {
    let mut table = Table::of(1);
    for n in [2, 3] {
        table.world.register(n, n, "");
    }
    table.want(&[1, 2, 3]);
    table.join(2);
    table.join(3);
    table.behind.insert(3);
    assert_eq!(table.next(1), Step::Rest);
    table.behind.clear();
    let promote = |n| Change::Promote {
        replica: table.on(n),
    };
    let Step::Change(changes) = table.next(1) else {
        panic!();
    };
    assert_eq!(changes.len(), 2);
    assert!([2, 3].iter().all(|n| changes.contains(&promote(*n))));
}

#[test]
fn whom_the_catalogue_has_not_named_as_a_member_is_not_removed() {
    let mut table = Table::of(3);
    // Another leader has added it, by a target that this one has not heard of.
    table.members.push(Member {
        replica: ReplicaId::new(77),
        node: node(4),
        seat: Seat::Voter,
    });
    assert_eq!(table.next(1), Step::Rest);
    table.members[3].seat = Seat::Learner;
    assert_eq!(table.next(1), Step::Rest);
}

#[test]
fn no_change_is_made_that_leaves_a_majority_out_of_reach() {
    let mut table = Table::of(3);
    table.want(&[1, 2]);
    let gone = table.on(3);
    let remove = Step::Change(vec![Change::Remove { replica: gone }]);
    assert_eq!(table.next(1), remove);
    table.silent.insert(2);
    assert_eq!(table.next(1), Step::Rest);
    table.silent.clear();
    // Who is silent may go.
    table.silent.insert(3);
    assert_eq!(table.next(1), remove);
}

#[test]
fn the_only_voter_moves_to_another_node_by_handing_over() {
    let mut table = Table::of(1);
    table.world.register(2, 2, "");
    table.want(&[2]);
    table.join(2);
    let (old, new) = (table.on(1), table.on(2));
    assert_eq!(
        table.next(1),
        Step::Change(vec![Change::Promote { replica: new }])
    );
    table.members[1].seat = Seat::Voter;
    assert_eq!(table.next(1), Step::HandOver(new));
    let remove = Change::Remove { replica: old };
    assert_eq!(table.next(2), Step::Change(vec![remove]));
}
