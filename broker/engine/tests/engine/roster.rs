//! Stories of nodes and replicas: who is known, where replicas should be and are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millrace_engine::Catalogue;
use millrace_engine::catalogue::{
    Assigned, Founded, Hosting, Leading, NODES_MAX, NodeFacts, Registration, Role, Roster,
    RosterCommand, Wish,
};
use millrace_types::{ErrorCode, LogIndex, NodeId, Refusal, ReplicaId, ShardId};
use proptest::prelude::*;

use crate::catalogue::Desk;

const A: NodeId = NodeId::new(101);
const B: NodeId = NodeId::new(102);
const C: NodeId = NodeId::new(103);
const SHARD: ShardId = ShardId::new(1);

/// One change of every kind, in the order of the enum; each does something.
pub(crate) fn commands() -> Vec<RosterCommand> {
    let node = B;
    vec![
        RosterCommand::Found(founded()),
        registration(B, "b:7073", 1),
        RosterCommand::CordonNode { node: A },
        RosterCommand::UncordonNode { node: A },
        RosterCommand::DrainNode { node },
        RosterCommand::UndrainNode { node },
        RosterCommand::ForgetNode { node: C },
        RosterCommand::SetReplication { replication: 3 },
        RosterCommand::Place {
            shard: SHARD,
            revision: 0,
            replicas: vec![kept(A, 11), new(B)],
            leader: Some(A),
        },
        report(9, &[(11, A, Role::Voter), (1, B, Role::Learner)]),
    ]
}

/// Two shards on node A, and two empty nodes.
fn founded() -> Founded {
    let nodes = [(A, "a:7073"), (B, "b:7073"), (C, "c:7073")];
    Founded {
        replication: 1,
        nodes: nodes.map(|(id, address)| (id, address.into())).into(),
        shards: [10, 11].map(|id| vec![(ReplicaId::new(id), A)]).into(),
    }
}

fn registration(node: NodeId, peer_address: &str, feature_level: u32) -> RosterCommand {
    RosterCommand::RegisterNode(Registration {
        node,
        facts: NodeFacts {
            peer_address: peer_address.into(),
            client_address: "client".into(),
            zone: "z".into(),
            version: "1.2.3".into(),
            feature_level,
        },
        lost: Vec::new(),
    })
}

fn kept(node: NodeId, replica: u64) -> Wish {
    Wish {
        node,
        role: Role::Voter,
        replica: Some(ReplicaId::new(replica)),
    }
}

fn new(node: NodeId) -> Wish {
    Wish {
        node,
        role: Role::Voter,
        replica: None,
    }
}

fn report(index: u64, members: &[(u64, NodeId, Role)]) -> RosterCommand {
    let assigned = |(replica, node, role): &(u64, NodeId, Role)| Assigned {
        replica: ReplicaId::new(*replica),
        node: *node,
        role: *role,
    };
    RosterCommand::ReportMembers {
        shard: SHARD,
        index: LogIndex::new(index),
        members: members.iter().map(assigned).collect(),
    }
}

/// A founded cluster whose nodes have all registered.
struct Town(Desk);

impl Town {
    fn new() -> Self {
        let mut town = Self(Desk::new(1));
        town.make(RosterCommand::Found(founded()));
        for (node, at) in [(A, "a:7073"), (B, "b:7073"), (C, "c:7073")] {
            town.make(registration(node, at, 1));
        }
        town
    }

    fn apply(&mut self, command: RosterCommand) -> Result<bool, Refusal> {
        let before = Arc::clone(self.roster());
        let applied = self.0.apply(command.into());
        let after = self.roster();
        assert_eq!(applied.changed, before != *after);
        assert_eq!(applied.changed, before.revision() != after.revision());
        applied.outcome.map(|_| applied.changed)
    }

    #[track_caller]
    fn make(&mut self, command: RosterCommand) {
        assert_eq!(self.apply(command), Ok(true));
    }

    #[track_caller]
    fn refuse(&mut self, command: RosterCommand) -> ErrorCode {
        self.apply(command).unwrap_err().code
    }

    fn place(&mut self, replicas: &[Wish], leader: Option<NodeId>) -> Result<bool, Refusal> {
        let revision = self.roster().shard(SHARD).unwrap().target().revision();
        self.apply(RosterCommand::Place {
            shard: SHARD,
            revision,
            replicas: replicas.into(),
            leader,
        })
    }

    fn roster(&self) -> &Arc<Roster> {
        self.0.catalogue.roster()
    }

    fn wanted(&self, node: NodeId) -> Option<u64> {
        self.roster().wanted(SHARD, node).map(ReplicaId::get)
    }

    fn hosting(&self, node: NodeId) -> Hosting {
        self.roster().node(node).unwrap().hosting
    }
}

#[test]
fn a_cluster_is_founded_once() {
    let mut town = Town::new();
    let mut again = founded();
    again.nodes.push((NodeId::new(9), "elsewhere".into()));
    assert_eq!(town.apply(RosterCommand::Found(again)), Ok(false));
    let shard = town.roster().shard(SHARD).unwrap();
    assert!(shard.is_converged());
    assert_eq!(town.wanted(A), Some(11));
    assert_eq!(town.wanted(B), None);
}

#[test]
fn who_registers_before_the_founding_is_told_to_wait() {
    let mut town = Town(Desk::new(1));
    let refusal = town.apply(registration(A, "a:7073", 1)).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::ShardUnavailable);
    assert!(refusal.retry_after_ms.is_some());
}

#[test]
fn a_founding_that_makes_no_sense_is_refused() {
    let mut town = Town(Desk::new(1));
    let broken: [fn(&mut Founded); 6] = [
        |founded| founded.replication = 0,
        |founded| founded.nodes.clear(),
        |founded| founded.nodes.push((A, "a again".into())),
        |founded| founded.shards.clear(),
        |founded| founded.shards[0].clear(),
        |founded| founded.shards[1][0].1 = NodeId::new(77),
    ];
    for change in broken {
        let mut founding = founded();
        change(&mut founding);
        town.refuse(RosterCommand::Found(founding));
        assert!(!town.roster().is_founded());
    }
}

#[test]
fn the_cluster_can_do_what_every_node_can_and_never_less_than_before() {
    let mut town = Town::new();
    assert_eq!(town.roster().feature_level(), 1);
    town.make(registration(A, "a:7073", 3));
    town.make(registration(B, "b:7073", 2));
    assert_eq!(town.roster().feature_level(), 1);
    town.make(registration(C, "c:7073", 2));
    assert_eq!(town.roster().feature_level(), 2);
    let older = town.refuse(registration(B, "b:7073", 1));
    assert_eq!(older, ErrorCode::InvalidArgument);
    assert_eq!(town.roster().feature_level(), 2);
}

#[test]
fn a_new_node_at_an_address_replaces_the_one_that_had_it() {
    let mut town = Town::new();
    let wiped = NodeId::new(203);
    town.make(registration(wiped, "c:7073", 1));
    assert_eq!(town.hosting(C), Hosting::Replaced { by: wiped });
    assert_eq!(town.hosting(wiped), Hosting::Open);
    let refusal = town.place(&[kept(A, 11), new(C)], None).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::NodeInUse);
    // It lives after all, somewhere else.
    town.make(registration(C, "d:7073", 1));
    assert_eq!(town.hosting(C), Hosting::Open);
    assert_eq!(town.hosting(wiped), Hosting::Open);
}

#[test]
fn nodes_without_an_address_do_not_replace_each_other() {
    let mut town = Town::new();
    town.make(registration(A, "", 1));
    town.make(registration(B, "", 1));
    assert_eq!(town.hosting(A), Hosting::Open);
}

#[test]
fn a_cordoned_node_gets_no_new_replicas_and_somebody_must_be_left() {
    let mut town = Town::new();
    for node in [B, C] {
        town.make(RosterCommand::CordonNode { node });
    }
    let last = town.refuse(RosterCommand::CordonNode { node: A });
    assert_eq!(last, ErrorCode::NodeInUse);
    let refusal = town.place(&[kept(A, 11), new(B)], None).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::NodeInUse);
    town.make(RosterCommand::UncordonNode { node: B });
    assert_eq!(town.place(&[kept(A, 11), new(B)], None), Ok(true));
}

#[test]
fn draining_is_said_once_and_cordons_are_another_matter() {
    let mut town = Town::new();
    town.make(RosterCommand::CordonNode { node: B });
    town.make(RosterCommand::DrainNode { node: B });
    assert_eq!(town.apply(RosterCommand::DrainNode { node: B }), Ok(false));
    assert_eq!(town.roster().node(B).unwrap().leading, Leading::Drained);
    town.make(RosterCommand::UndrainNode { node: B });
    assert_eq!(town.hosting(B), Hosting::Cordoned);
    let unknown = RosterCommand::DrainNode {
        node: NodeId::new(1),
    };
    assert_eq!(town.refuse(unknown), ErrorCode::NoSuchNode);
}

#[test]
fn who_has_replicas_is_not_forgotten_before_they_are_gone() {
    let mut town = Town::new();
    town.place(&[kept(A, 11), new(B)], None).unwrap();
    let forget = RosterCommand::ForgetNode { node: B };
    assert_eq!(town.refuse(forget.clone()), ErrorCode::NodeInUse);
    town.make(report(5, &[(11, A, Role::Voter), (1, B, Role::Learner)]));
    town.place(&[kept(A, 11)], None).unwrap();
    // It is still there.
    assert_eq!(town.refuse(forget.clone()), ErrorCode::NodeInUse);
    assert!(!town.roster().is_gone(SHARD, ReplicaId::new(1)));
    town.make(report(6, &[(11, A, Role::Voter)]));
    assert!(town.roster().is_gone(SHARD, ReplicaId::new(1)));
    town.make(forget);
    town.make(registration(B, "b:7073", 1));
}

#[test]
fn a_target_is_made_against_the_one_before() {
    let mut town = Town::new();
    assert_eq!(town.place(&[kept(A, 11), new(B)], Some(B)), Ok(true));
    let late = RosterCommand::Place {
        shard: SHARD,
        revision: 0,
        replicas: vec![kept(A, 11)],
        leader: None,
    };
    assert_eq!(town.refuse(late), ErrorCode::RevisionConflict);
    assert_eq!(town.wanted(B), Some(1));
    assert_eq!(town.place(&[kept(A, 11), kept(B, 1)], Some(B)), Ok(false));
}

#[test]
fn a_target_that_makes_no_sense_is_refused() {
    let mut town = Town::new();
    let learner = Wish {
        role: Role::Learner,
        ..kept(A, 11)
    };
    let broken = [
        vec![],
        vec![learner],
        vec![kept(A, 11), new(A)],
        vec![kept(B, 11)],
        vec![kept(A, 12)],
        vec![kept(A, 11), new(NodeId::new(7))],
    ];
    for wishes in broken {
        town.place(&wishes, None).unwrap_err();
    }
    town.place(&[kept(A, 11), new(B)], Some(C)).unwrap_err();
}

#[test]
fn an_id_is_minted_once() {
    let mut town = Town::new();
    town.place(&[kept(A, 11), new(B)], None).unwrap();
    town.place(&[kept(A, 11)], None).unwrap();
    assert!(town.roster().is_gone(SHARD, ReplicaId::new(1)));
    town.place(&[kept(A, 11), kept(B, 1)], None).unwrap_err();
    town.place(&[kept(A, 11), new(B)], None).unwrap();
    assert_eq!(town.wanted(B), Some(2));
    // Founders brought 10 and 11.
    for _ in 0..10 {
        town.place(&[kept(A, 11)], None).unwrap();
        town.place(&[kept(A, 11), new(B)], None).unwrap();
        assert!(![Some(10), Some(11)].contains(&town.wanted(B)));
    }
}

#[test]
fn a_wanted_replica_that_was_removed_all_the_same_is_lost() {
    let mut town = Town::new();
    let both = [(11, A, Role::Voter), (1, B, Role::Learner)];
    town.place(&[kept(A, 11), new(B)], None).unwrap();
    town.make(report(5, &both));
    // It was to go, and is there still: it may stay.
    town.place(&[kept(A, 11)], None).unwrap();
    town.place(&[kept(A, 11), kept(B, 1)], None).unwrap();
    assert_eq!(town.wanted(B), Some(1));
    // A leader that knows only of the first.
    town.make(report(6, &both[..1]));
    let lost = &town.roster().node(B).unwrap().lost;
    assert_eq!(lost[&SHARD], ReplicaId::new(1));
}

#[test]
fn an_older_report_does_not_replace_a_later_one() {
    let mut town = Town::new();
    let both = [(11, A, Role::Voter), (1, B, Role::Learner)];
    town.place(&[kept(A, 11), new(B)], None).unwrap();
    town.make(report(9, &both));
    assert_eq!(town.apply(report(8, &both[..1])), Ok(false));
    assert_eq!(town.apply(report(9, &both[..1])), Ok(false));
    let actual = town.roster().shard(SHARD).unwrap().actual();
    assert_eq!(actual.members().len(), 2);
    let unknown = [(11, A, Role::Voter), (12, NodeId::new(7), Role::Voter)];
    assert_eq!(town.refuse(report(10, &unknown)), ErrorCode::NoSuchNode);
}

#[test]
fn what_a_node_has_lost_is_kept_until_nobody_misses_it() {
    let mut town = Town::new();
    let lose = |replica| {
        let RosterCommand::RegisterNode(mut said) = registration(A, "a:7073", 1) else {
            unreachable!()
        };
        said.lost = vec![(SHARD, ReplicaId::new(replica)), (ShardId::new(9), A11)];
        RosterCommand::RegisterNode(said)
    };
    const A11: ReplicaId = ReplicaId::new(11);
    assert_eq!(town.apply(lose(99)), Ok(false));
    town.make(lose(11));
    let lost = |town: &Town| town.roster().node(A).unwrap().lost.clone();
    assert_eq!(lost(&town), BTreeMap::from([(SHARD, A11)]));
    town.place(&[new(A), new(B)], None).unwrap();
    assert_eq!(lost(&town).len(), 1);
    town.make(report(4, &[(1, A, Role::Voter), (2, B, Role::Voter)]));
    assert!(lost(&town).is_empty());
}

#[test]
fn there_are_only_so_many_nodes() {
    let mut town = Town::new();
    for n in 3..NODES_MAX as u64 {
        town.make(registration(NodeId::new(n), &format!("n{n}"), 1));
    }
    let more = registration(NodeId::new(99), "n99", 1);
    assert_eq!(town.refuse(more), ErrorCode::LimitReached);
    let long = "x".repeat(300);
    let refused = town.refuse(registration(A, &long, 1));
    assert_eq!(refused, ErrorCode::InvalidArgument);
}

fn any_node() -> impl Strategy<Value = NodeId> {
    (100_u64..106).prop_map(NodeId::new)
}

fn any_role() -> impl Strategy<Value = Role> {
    prop_oneof![3 => Just(Role::Voter), 1 => Just(Role::Learner)]
}

fn any_command() -> impl Strategy<Value = RosterCommand> {
    let wish = (any_node(), any_role(), prop::option::of(1_u64..20));
    let wish = wish.prop_map(|(node, role, replica)| Wish {
        node,
        role,
        replica: replica.map(ReplicaId::new),
    });
    let member = (1_u64..20, any_node(), any_role());
    prop_oneof![
        (any_node(), 0_u64..5, 0_u32..4, 1_u64..20).prop_map(|(node, at, level, lost)| {
            let RosterCommand::RegisterNode(mut said) =
                registration(node, &format!("n{at}"), level)
            else {
                unreachable!()
            };
            said.lost = vec![(SHARD, ReplicaId::new(lost))];
            RosterCommand::RegisterNode(said)
        }),
        any_node().prop_map(|node| RosterCommand::CordonNode { node }),
        any_node().prop_map(|node| RosterCommand::UncordonNode { node }),
        any_node().prop_map(|node| RosterCommand::ForgetNode { node }),
        (0_u32..7).prop_map(|replication| RosterCommand::SetReplication { replication }),
        (0_u64..30, prop::collection::vec(member, 0..4))
            .prop_map(|(index, members)| report(index, &members)),
        (
            0_u64..4,
            prop::collection::vec(wish, 0..4),
            prop::option::of(any_node())
        )
            .prop_map(|(revision, replicas, leader)| RosterCommand::Place {
                shard: SHARD,
                revision,
                replicas,
                leader,
            }),
    ]
}

/// Replicas that the shard should have or has.
fn named(roster: &Roster) -> BTreeSet<ReplicaId> {
    let shard = roster.shard(SHARD).unwrap();
    let both = shard.target().replicas().iter();
    let both = both.chain(shard.actual().members());
    both.map(|it| it.replica).collect()
}

fn targeted(roster: &Roster) -> BTreeSet<ReplicaId> {
    let target = roster.shard(SHARD).unwrap().target();
    target.replicas().iter().map(|it| it.replica).collect()
}

proptest! {
    #[test]
    fn what_is_neither_wanted_nor_there_never_returns_to_a_target(
        commands in prop::collection::vec(any_command(), 1..80),
    ) {
        let mut town = Town::new();
        let mut dropped: BTreeSet<ReplicaId> = BTreeSet::new();
        for mut command in commands {
            if let RosterCommand::Place { revision, .. } = &mut command
                && *revision > 0
            {
                *revision = town.roster().shard(SHARD).unwrap().target().revision();
            }
            let before = Arc::clone(town.roster());
            drop(town.apply(command));
            let after = Arc::clone(town.roster());
            let now = targeted(&after);
            // What a leader reports is there, whatever was thought before.
            let shard = after.shard(SHARD).unwrap();
            dropped.retain(|id| shard.actual().find(*id).is_none());
            dropped.extend(named(&before).difference(&named(&after)));
            prop_assert!(dropped.is_disjoint(&now), "{dropped:?} {now:?}");
            prop_assert!(after.feature_level() >= before.feature_level());
            prop_assert!(shard.actual().index() >= before.shard(SHARD).unwrap().actual().index());
            prop_assert!(shard.nodes().all(|node| after.node(node).is_some()));
            prop_assert!(dropped.iter().all(|id| shard.names(*id) || after.is_gone(SHARD, *id)));
            let bytes = town.0.catalogue.snapshot();
            let restored = Catalogue::restore(&bytes).unwrap();
            prop_assert_eq!(restored.roster(), &after);
        }
    }
}
