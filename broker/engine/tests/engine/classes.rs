//! Queues and topics that ask for a replication of their own: which shards they are put on, when
//! such shards come, and how those begin.

use millrace_engine::Catalogue;
use millrace_engine::catalogue::{
    CLASS_SHARDS_MAX, Declared, DeclaredSpec, Founded, NodeFacts, ProblemKind, Registration,
    Replicas, Role, RosterCommand, ShardClass, Wish,
};
use millrace_types::{ErrorCode, NodeId, ReplicaId, ShardId};

use crate::catalogue::{Desk, queue, topic};

const A: NodeId = NodeId::new(101);
const B: NodeId = NodeId::new(102);

fn with(replication: u32, mut declared: Declared) -> Declared {
    let replication = Some(replication);
    match &mut declared.spec {
        DeclaredSpec::Queue(queue) => queue.class = ShardClass { replication },
        DeclaredSpec::Topic(topic) => topic.class = ShardClass { replication },
    }
    declared.wire = format!("{} {replication:?}", declared.address).into();
    declared
}

/// Two ordinary data shards on node A; B has registered.
fn founded() -> Desk {
    let mut desk = Desk::new(2);
    let founded = Founded {
        replication: 1,
        nodes: vec![(A, "a:7073".into()), (B, "b:7073".into())],
        shards: [10, 11, 12].map(|id| vec![(ReplicaId::new(id), A)]).into(),
    };
    desk.apply(RosterCommand::Found(founded).into());
    for (node, address) in [(A, "a:7073"), (B, "b:7073")] {
        let facts = NodeFacts {
            peer_address: address.into(),
            feature_level: 1,
            ..NodeFacts::default()
        };
        let lost = Vec::new();
        desk.apply(RosterCommand::RegisterNode(Registration { node, facts, lost }).into());
    }
    desk
}

fn shard_of(desk: &Desk, queue: &str) -> u32 {
    desk.log(queue).0.get()
}

fn replicas(desk: &Desk, shard: u32) -> &Replicas {
    desk.catalogue.roster().shard(ShardId::new(shard)).unwrap()
}

fn place(shard: u32, nodes: &[NodeId], role: Role) -> RosterCommand {
    let wish = |node: &NodeId| Wish {
        node: *node,
        role,
        replica: None,
    };
    RosterCommand::Place {
        shard: ShardId::new(shard),
        revision: 0,
        replicas: nodes.iter().map(wish).collect(),
        leader: None,
    }
}

#[test]
fn what_asks_for_a_replication_lives_on_shards_of_its_class_and_nothing_else_does() {
    let mut desk = founded();
    let upserts = vec![queue("queue/t/a"), with(2, queue("queue/t/b"))];
    desk.change(upserts, Vec::new()).unwrap();
    assert_eq!(desk.catalogue.topology().data_shards(), 3);
    assert_eq!(shard_of(&desk, "queue/t/a"), 1);
    assert_eq!(shard_of(&desk, "queue/t/b"), 3);
    assert_eq!(shard_of(&desk, "queue/t/b/dead"), 3);
    let class = replicas(&desk, 3).class();
    assert_eq!(class.replication, Some(2));
    assert!(replicas(&desk, 1).class().is_ordinary());

    let upserts = (0..9).map(|n| queue(&format!("queue/t/c{n}")));
    desk.change(upserts.collect(), Vec::new()).unwrap();
    for n in 0..9 {
        assert!(shard_of(&desk, &format!("queue/t/c{n}")) <= 2);
    }
    let upserts = vec![with(1, queue("queue/t/one"))];
    desk.change(upserts, Vec::new()).unwrap();
    assert_eq!(shard_of(&desk, "queue/t/one"), 4);
    assert_eq!(
        Catalogue::restore(&desk.catalogue.snapshot()).as_ref(),
        Ok(&desk.catalogue)
    );
}

#[test]
fn a_class_gets_another_shard_until_it_has_enough_and_then_they_fill_evenly() {
    let mut desk = founded();
    let upserts = vec![with(2, topic("topic/t/x", 9))];
    desk.change(upserts, Vec::new()).unwrap();
    let shards = desk.catalogue.topology().data_shards() as usize;
    assert_eq!(shards, 2 + CLASS_SHARDS_MAX);
    let object = desk.placed("topic/t/x");
    let mut counts = vec![0; shards + 1];
    let millrace_engine::catalogue::ObjectKind::Topic { partitions } = object.kind else {
        panic!("it is a topic");
    };
    for (shard, _) in partitions {
        counts[shard.get() as usize] += 1;
    }
    assert_eq!(counts, [0, 0, 0, 3, 2, 2, 2]);
    let upserts = vec![with(2, queue("queue/t/a"))];
    desk.change(upserts, Vec::new()).unwrap();
    assert_eq!(desk.catalogue.topology().data_shards() as usize, shards);
    assert_eq!(shard_of(&desk, "queue/t/a"), 4);
}

#[test]
fn what_is_declared_with_another_replication_later_stays_and_says_so() {
    let mut desk = founded();
    desk.change(vec![with(2, queue("queue/t/a"))], Vec::new())
        .unwrap();
    assert_eq!(desk.problems("queue/t/a"), []);
    for other in [with(1, queue("queue/t/a")), queue("queue/t/a")] {
        desk.change(vec![other], Vec::new()).unwrap();
        assert_eq!(shard_of(&desk, "queue/t/a"), 3);
        let problems = desk.problems("queue/t/a");
        assert_eq!(problems, [ProblemKind::ReplicationUnchanged]);
    }
    desk.change(vec![with(2, queue("queue/t/a"))], Vec::new())
        .unwrap();
    assert_eq!(desk.problems("queue/t/a"), []);
    assert_eq!(desk.catalogue.topology().data_shards(), 3);
}

#[test]
fn a_replication_that_is_none_is_refused_and_so_is_one_before_the_founding() {
    let mut desk = founded();
    for replication in [0, 6] {
        let wrong = vec![with(replication, queue("queue/t/a"))];
        let refusal = desk.change(wrong, Vec::new()).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidArgument);
    }
    let mut early = Desk::new(2);
    let upserts = vec![with(2, queue("queue/t/a"))];
    let refusal = early.change(upserts, Vec::new()).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::ShardUnavailable);
    assert!(refusal.retry_after_ms.is_some());
}

#[test]
fn a_shard_begins_with_the_replicas_of_its_first_target_as_voters() {
    let mut desk = founded();
    desk.change(vec![with(2, queue("queue/t/a"))], Vec::new())
        .unwrap();
    assert!(replicas(&desk, 3).is_unborn());
    let learner = place(3, &[A], Role::Learner);
    assert!(desk.apply(learner.into()).outcome.is_err());

    desk.apply(place(3, &[A, B], Role::Voter).into())
        .outcome
        .unwrap();
    let born = replicas(&desk, 3);
    assert!(!born.is_unborn() && born.is_converged());
    let ids: Vec<ReplicaId> = born
        .target()
        .replicas()
        .iter()
        .map(|it| it.replica)
        .collect();
    for id in &ids {
        assert_eq!(born.born(*id), Some(born.target().replicas()));
    }
    assert_eq!(born.born(ReplicaId::new(999)), None);
    assert_eq!(replicas(&desk, 1).born(ReplicaId::new(11)), None);

    // Who comes later is nobody's beginning.
    let kept = Wish {
        node: A,
        role: Role::Voter,
        replica: Some(ids[0]),
    };
    let place = RosterCommand::Place {
        shard: ShardId::new(3),
        revision: 1,
        replicas: vec![kept],
        leader: None,
    };
    desk.apply(place.into()).outcome.unwrap();
    let shrunk = replicas(&desk, 3);
    assert!(!shrunk.is_converged());
    assert_eq!(shrunk.born(ids[1]).map(<[_]>::len), Some(2));
}
