//! Stories of the catalogue: what is declared, where it is put, what shards are told.

use millrace_engine::catalogue::{
    Declared, DeclaredBinding, DeclaredDeadLetter, DeclaredLimits, DeclaredQueue, DeclaredSpec,
    DeclaredTopic, DeletionPolicy, Object, ProblemKind, Removed, ShardClass,
};
use millrace_engine::command::Command;
use millrace_engine::spec::{DeadLetters, Filter, HeaderCondition};
use millrace_engine::{Catalogue, CatalogueApplied, CatalogueCommand, CatalogueEntry};
use millrace_types::{ErrorCode, LogId, LogIndex, Refusal, ShardId, Stamp};

use crate::support::{address, partition_spec};

pub(crate) struct Desk {
    pub(crate) catalogue: Catalogue,
    index: u64,
}

impl Desk {
    pub(crate) fn new(data_shards: u32) -> Self {
        let mut desk = Self {
            catalogue: Catalogue::new(),
            index: 0,
        };
        desk.apply(CatalogueCommand::Init { data_shards });
        desk
    }

    pub(crate) fn apply(&mut self, command: CatalogueCommand) -> CatalogueApplied {
        self.index += 1;
        let stamp = Stamp::default();
        let entry = CatalogueEntry { stamp, command };
        let entry = CatalogueEntry::decode(&entry.encode()).unwrap();
        let applied = self.catalogue.apply(LogIndex::new(self.index), &entry);
        let restored = Catalogue::restore(&self.catalogue.snapshot()).unwrap();
        assert_eq!(restored, self.catalogue);
        applied
    }

    pub(crate) fn change(
        &mut self,
        upserts: Vec<Declared>,
        removals: Vec<Removed>,
    ) -> Result<u64, Refusal> {
        let base_revision = self.catalogue.revision();
        let applied = self.apply(CatalogueCommand::ApplyTopology {
            base_revision,
            upserts,
            removals,
        });
        let after = self.catalogue.revision();
        assert_eq!(applied.changed, after != base_revision);
        applied.outcome
    }

    fn code(&mut self, upserts: Vec<Declared>) -> ErrorCode {
        let before = self.catalogue.snapshot();
        let code = self.change(upserts, Vec::new()).unwrap_err().code;
        assert_eq!(
            Catalogue::restore(&before).unwrap().topology().digest(),
            self.catalogue.topology().digest()
        );
        code
    }

    pub(crate) fn placed(&self, name: &str) -> Object<'_> {
        self.catalogue.topology().lookup(&address(name)).unwrap()
    }

    pub(crate) fn log(&self, name: &str) -> (ShardId, LogId) {
        self.placed(name).queue().unwrap()
    }

    pub(crate) fn problems(&self, name: &str) -> Vec<ProblemKind> {
        let problems = self.catalogue.topology().problems(&address(name));
        problems.into_iter().map(|problem| problem.kind).collect()
    }

    fn commands(&self, shard: u32, applied: u64) -> Vec<Command> {
        self.catalogue.commands_for(ShardId::new(shard), applied)
    }
}

fn limits() -> DeclaredLimits {
    DeclaredLimits {
        messages_max: None,
        bytes_max: None,
        message_bytes_max: 1 << 20,
    }
}

pub(crate) fn queue_with(name: &str, change: impl FnOnce(&mut DeclaredQueue)) -> Declared {
    let mut queue = DeclaredQueue {
        bindings: Vec::new(),
        lease_ms: 30_000,
        in_flight_max: 100,
        deliveries_max: 5,
        backoff_initial_ms: 1000,
        backoff_max_ms: 60_000,
        backoff_factor_milli: 2000,
        limits: limits(),
        dedup_ms: 120_000,
        dead_letter: DeclaredDeadLetter {
            queue: None,
            limits: limits(),
        },
        class: ShardClass::default(),
        deletion: DeletionPolicy::Orphan,
    };
    change(&mut queue);
    declared(name, DeclaredSpec::Queue(queue))
}

pub(crate) fn queue(name: &str) -> Declared {
    queue_with(name, |_| ())
}

fn dying_into(name: &str, target: &str) -> Declared {
    queue_with(name, |queue| {
        queue.dead_letter.queue = Some(address(target));
    })
}

pub(crate) fn bound_to(name: &str, topic: &str) -> Declared {
    queue_with(name, |queue| queue.bindings.push(binding(topic, "#")))
}

pub(crate) fn binding(topic: &str, pattern: &str) -> DeclaredBinding {
    DeclaredBinding {
        topic: address(topic),
        filter: Filter {
            pattern: pattern.into(),
            headers: Vec::new(),
            any: false,
        },
    }
}

pub(crate) fn topic(name: &str, partitions: u32) -> Declared {
    let topic = DeclaredTopic {
        partitions,
        partition: partition_spec(),
        class: ShardClass::default(),
        deletion: DeletionPolicy::Orphan,
    };
    declared(name, DeclaredSpec::Topic(topic))
}

fn declared(name: &str, spec: DeclaredSpec) -> Declared {
    Declared {
        address: address(name),
        uid: format!("uid of {name}"),
        generation: 1,
        wire: format!("{name} {spec:?}").into(),
        spec,
    }
}

pub(crate) fn deleted(mut declared: Declared) -> Declared {
    match &mut declared.spec {
        DeclaredSpec::Queue(queue) => queue.deletion = DeletionPolicy::Delete,
        DeclaredSpec::Topic(topic) => topic.deletion = DeletionPolicy::Delete,
    }
    declared
}

pub(crate) fn removed(name: &str) -> Removed {
    Removed {
        address: address(name),
        uid: format!("uid of {name}"),
    }
}

#[test]
fn logs_are_spread_evenly_and_a_dead_letter_queue_stays_with_its_queue() {
    let mut desk = Desk::new(3);
    desk.change(vec![topic("topic/t/a", 5)], Vec::new())
        .unwrap();
    let shards: Vec<_> = desk.placed("topic/t/a").partitions().to_vec();
    let shards: Vec<_> = shards.iter().map(|(shard, _)| shard.get()).collect();
    assert_eq!(shards, [1, 2, 3, 1, 2]);
    let queues = ["queue/t/a", "queue/t/b", "queue/t/c"];
    desk.change(queues.map(queue).into(), Vec::new()).unwrap();
    let homes = queues.map(|name| desk.log(name).0.get());
    assert_eq!(homes, [3, 1, 2]);
    for name in queues {
        let (home, log) = desk.log(name);
        let (dead_home, dead) = desk.log(&format!("{name}/dead"));
        assert_eq!(home, dead_home);
        assert_eq!(dead.get(), log.get() + 1);
    }
}

#[test]
fn a_shard_is_told_what_it_lacks_and_nothing_else() {
    let mut desk = Desk::new(2);
    desk.change(vec![queue("queue/t/a")], Vec::new()).unwrap();
    desk.change(vec![queue("queue/t/b")], Vec::new()).unwrap();
    let (home, log) = desk.log("queue/t/a");
    assert_eq!(home.get(), 1);

    let told = desk.commands(1, 0);
    assert_eq!(told.len(), 3);
    assert!(matches!(
        &told[0],
        Command::ConfigureQueue { log: l, revision: 1, dead_letters, .. }
            if *l == log && *dead_letters == DeadLetters::To(LogId::new(2))
    ));
    assert!(matches!(
        &told[1],
        Command::ConfigureQueue {
            dead_letters: DeadLetters::Dropped,
            ..
        }
    ));
    assert_eq!(told[2], Command::Configured { revision: 2 });
    assert_eq!(desk.commands(1, 1), [Command::Configured { revision: 2 }]);
    assert_eq!(desk.commands(1, 2), []);
}

#[test]
fn the_applied_revision_is_that_of_the_slowest_shard() {
    let mut desk = Desk::new(2);
    desk.change(vec![queue("queue/t/a")], Vec::new()).unwrap();
    let done = |shard, revision| CatalogueCommand::ShardConfigured {
        shard: ShardId::new(shard),
        revision,
    };
    assert!(desk.apply(done(1, 1)).changed);
    assert!(!desk.apply(done(1, 1)).changed);
    assert_eq!(desk.catalogue.topology().applied_revision(), 0);
    assert!(desk.catalogue.topology().is_applied(&address("queue/t/a")));
    desk.apply(done(2, 1));
    assert_eq!(desk.catalogue.topology().applied_revision(), 1);
    for wrong in [done(3, 1), done(0, 1), done(1, 2)] {
        assert!(desk.apply(wrong).outcome.is_err());
    }
}

#[test]
fn a_topic_that_appears_later_is_bound_then() {
    let mut desk = Desk::new(1);
    desk.change(vec![bound_to("queue/t/a", "topic/t/x")], Vec::new())
        .unwrap();
    assert_eq!(desk.problems("queue/t/a"), [ProblemKind::TopicNotFound]);
    desk.change(vec![topic("topic/t/x", 2)], Vec::new())
        .unwrap();
    assert_eq!(desk.problems("queue/t/a"), []);
    let told = desk.commands(1, 1);
    let bindings = told.iter().find_map(|command| match command {
        Command::ConfigureQueue { spec, .. } => Some(spec.partitions().count()),
        _ => None,
    });
    assert_eq!((told.len(), bindings), (4, Some(2)));
}

#[test]
fn partitions_only_grow() {
    let mut desk = Desk::new(2);
    desk.change(vec![topic("topic/t/x", 2)], Vec::new())
        .unwrap();
    desk.change(vec![topic("topic/t/x", 4)], Vec::new())
        .unwrap();
    assert_eq!(desk.placed("topic/t/x").partitions().len(), 4);
    let fewer = desk.change(vec![topic("topic/t/x", 3)], Vec::new());
    let refusal = fewer.unwrap_err();
    assert_eq!(refusal.metadata["field"], "partitions");
    assert_eq!(refusal.metadata["address"], "topic/t/x");
}

#[test]
fn an_orphan_is_frozen_and_adopted_with_its_logs_by_any_uid() {
    let mut desk = Desk::new(2);
    let both = vec![topic("topic/t/x", 2), bound_to("queue/t/a", "topic/t/x")];
    desk.change(both.clone(), Vec::new()).unwrap();
    let (_, log) = desk.log("queue/t/a");
    let gone = vec![removed("queue/t/a"), removed("topic/t/x")];
    assert_eq!(desk.change(Vec::new(), gone.clone()), Ok(2));
    for name in ["queue/t/a", "queue/t/a/dead", "topic/t/x"] {
        assert!(desk.placed(name).orphaned);
    }
    let told = [desk.commands(1, 1), desk.commands(2, 1)].concat();
    let is_freeze = |c: &&Command| matches!(c, Command::Freeze { revision: 2, .. });
    assert_eq!(told.iter().filter(is_freeze).count(), 4);
    assert_eq!(desk.change(Vec::new(), gone), Ok(2));

    let mut again = both[1].clone();
    again.uid = "another".into();
    assert_eq!(desk.change(vec![again], Vec::new()), Ok(3));
    assert_eq!(desk.log("queue/t/a").1, log);
    assert!(!desk.placed("queue/t/a").orphaned);
    assert_eq!(desk.problems("queue/t/a"), [ProblemKind::TopicNotFound]);
    let told = [desk.commands(1, 2), desk.commands(2, 2)].concat();
    let bindings: Vec<_> = told
        .iter()
        .filter_map(|command| match command {
            Command::ConfigureQueue { spec, .. } => Some(spec.partitions().count()),
            _ => None,
        })
        .collect();
    assert_eq!(bindings, [2, 0]);
}

#[test]
fn a_deleted_queue_takes_its_logs_with_it_and_its_successor_gets_others() {
    let mut desk = Desk::new(1);
    let a = deleted(queue("queue/t/a"));
    desk.change(vec![a.clone()], Vec::new()).unwrap();
    let (_, log) = desk.log("queue/t/a");
    let gone = vec![removed("queue/t/a")];
    assert_eq!(desk.change(vec![a], gone.clone()), Ok(2));
    assert!(desk.log("queue/t/a").1 > log);
    let told = desk.commands(1, 1);
    assert_eq!(told.len(), 5);
    assert_eq!(told[0], Command::Remove { log, revision: 2 });

    let shard = ShardId::new(1);
    let done = |revision| CatalogueCommand::ShardConfigured { shard, revision };
    desk.apply(done(2));
    assert_eq!(desk.commands(1, 0).len(), 3);
    desk.change(Vec::new(), gone).unwrap();
    assert!(
        desk.catalogue
            .topology()
            .lookup(&address("queue/t/a/dead"))
            .is_none()
    );
    assert_eq!(desk.change(Vec::new(), vec![removed("queue/t/a")]), Ok(3));
    let empty = Desk::new(1).catalogue.topology().digest();
    assert_eq!(desk.catalogue.topology().digest(), empty);
}

#[test]
fn a_removal_that_names_another_life_is_refused() {
    let mut desk = Desk::new(1);
    desk.change(vec![queue("queue/t/a")], Vec::new()).unwrap();
    let other = Removed {
        uid: "other".into(),
        ..removed("queue/t/a")
    };
    let refusal = desk.change(vec![queue("queue/t/b")], vec![other]);
    assert_eq!(refusal.unwrap_err().metadata["field"], "uid");
    assert!(
        desk.catalogue
            .topology()
            .lookup(&address("queue/t/b"))
            .is_none()
    );
    let implicit = vec![removed("queue/t/a/dead")];
    assert!(desk.change(Vec::new(), implicit).is_err());
}

#[test]
fn a_delta_against_another_revision_is_refused() {
    let mut desk = Desk::new(1);
    desk.change(vec![queue("queue/t/a")], Vec::new()).unwrap();
    let applied = desk.apply(CatalogueCommand::ApplyTopology {
        base_revision: 0,
        upserts: vec![queue("queue/t/b")],
        removals: Vec::new(),
    });
    let refusal = applied.outcome.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::RevisionConflict);
    assert_eq!(refusal.metadata["actual"], "1");
}

#[test]
fn the_same_again_changes_nothing_and_a_new_generation_tells_no_shard() {
    let mut desk = Desk::new(1);
    let mut a = queue("queue/t/a");
    assert_eq!(desk.change(vec![a.clone()], Vec::new()), Ok(1));
    assert_eq!(desk.change(vec![a.clone()], Vec::new()), Ok(1));
    a.generation = 2;
    assert_eq!(desk.change(vec![a], Vec::new()), Ok(2));
    assert_eq!(desk.commands(1, 1), [Command::Configured { revision: 2 }]);
    assert_eq!(desk.placed("queue/t/a").generation, 2);
}

#[test]
fn dead_letters_wait_for_a_queue_that_is_not_there_and_never_run_in_circles() {
    let mut desk = Desk::new(1);
    let target = |desk: &Desk, name: &str| {
        let log = desk.log(name).1;
        let told = desk.commands(1, 0);
        let found = told.into_iter().find_map(|command| match command {
            Command::ConfigureQueue {
                log: l,
                dead_letters,
                ..
            } if l == log => Some(dead_letters),
            _ => None,
        });
        found.unwrap().target()
    };
    desk.change(vec![dying_into("queue/t/a", "queue/t/b")], Vec::new())
        .unwrap();
    assert_eq!(
        desk.problems("queue/t/a"),
        [ProblemKind::DeadLetterQueueNotFound]
    );
    assert_eq!(target(&desk, "queue/t/a"), None);

    desk.change(vec![dying_into("queue/t/b", "queue/t/c")], Vec::new())
        .unwrap();
    assert_eq!(desk.problems("queue/t/a"), []);
    assert_eq!(target(&desk, "queue/t/a"), Some(desk.log("queue/t/b").1));

    desk.change(vec![dying_into("queue/t/c", "queue/t/a")], Vec::new())
        .unwrap();
    for name in ["queue/t/a", "queue/t/b", "queue/t/c"] {
        assert_eq!(desk.problems(name), [ProblemKind::DeadLetterCycle]);
        assert_eq!(target(&desk, name), None);
    }
    desk.change(vec![queue("queue/t/c")], Vec::new()).unwrap();
    for name in ["queue/t/a", "queue/t/b", "queue/t/c"] {
        assert_eq!(desk.problems(name), []);
        assert!(target(&desk, name).is_some());
    }
}

#[test]
fn a_queue_that_sends_into_a_circle_waits_too() {
    let mut desk = Desk::new(1);
    let circle = vec![
        dying_into("queue/t/a", "queue/t/b"),
        dying_into("queue/t/b", "queue/t/a"),
        dying_into("queue/t/self", "queue/t/self"),
        dying_into("queue/t/feeder", "queue/t/a"),
    ];
    desk.change(circle, Vec::new()).unwrap();
    for name in ["queue/t/a", "queue/t/b", "queue/t/self", "queue/t/feeder"] {
        assert_eq!(desk.problems(name), [ProblemKind::DeadLetterCycle]);
    }
}

#[test]
fn the_digest_depends_on_content_and_not_on_history() {
    let (a, b, x) = (
        queue("queue/t/a"),
        queue("queue/t-t/b"),
        topic("topic/t/x", 1),
    );
    let mut one = Desk::new(1);
    one.change(vec![a.clone(), b.clone(), x.clone()], Vec::new())
        .unwrap();
    let mut other = Desk::new(3);
    other
        .change(vec![x, queue("queue/t/z")], Vec::new())
        .unwrap();
    assert_ne!(
        one.catalogue.topology().digest(),
        other.catalogue.topology().digest()
    );
    other
        .change(vec![b.clone(), a.clone()], vec![removed("queue/t/z")])
        .unwrap();
    assert_eq!(
        one.catalogue.topology().digest(),
        other.catalogue.topology().digest()
    );

    use sha2::Digest;
    let wires = [b.wire, a.wire, topic("topic/t/x", 1).wire];
    let expected: [u8; 32] = sha2::Sha256::digest(wires.concat()).into();
    assert_eq!(one.catalogue.topology().digest(), expected);
}

#[test]
fn what_is_out_of_bounds_refuses_the_whole_delta_and_is_named() {
    type Change = fn(&mut DeclaredQueue);
    let changes: [(&str, Change); 13] = [
        ("lease", |q| q.lease_ms = 999),
        ("lease", |q| q.lease_ms = u64::MAX),
        ("in flight", |q| q.in_flight_max = 0),
        ("in flight", |q| q.in_flight_max = 100_001),
        ("deliveries", |q| q.deliveries_max = 0),
        ("backoff max", |q| q.backoff_max_ms = u64::MAX),
        ("backoff factor", |q| q.backoff_factor_milli = 999),
        ("message bytes", |q| q.limits.message_bytes_max = u32::MAX),
        ("message bytes", |q| {
            q.dead_letter.limits.message_bytes_max = 0
        }),
        ("dead letter", |q| {
            q.dead_letter.queue = Some(address("topic/t/x"))
        }),
        ("bindings", |q| {
            q.bindings = vec![binding("topic/t/x", "#"); 33]
        }),
        ("bindings", |q| q.bindings = vec![binding("queue/t/x", "#")]),
        ("bindings", |q| {
            q.bindings = vec![binding("topic/t/x", "a..b")]
        }),
    ];
    for (field, change) in changes {
        let mut desk = Desk::new(1);
        let delta = vec![queue("queue/t/good"), queue_with("queue/t/bad", change)];
        let refusal = desk.change(delta, Vec::new()).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidArgument);
        assert_eq!(refusal.metadata["address"], "queue/t/bad");
        assert_eq!(refusal.metadata["field"], field, "{refusal}");
        assert_eq!(desk.catalogue.revision(), 0);
        assert!(
            desk.catalogue
                .topology()
                .lookup(&address("queue/t/good"))
                .is_none()
        );
    }
}

#[test]
fn what_cannot_be_declared_is_refused() {
    let mut desk = Desk::new(1);
    let nameless_header = queue_with("queue/t/a", |queue| {
        let mut binding = binding("topic/t/x", "#");
        binding.filter.headers.push(HeaderCondition {
            name: String::new(),
            value: None,
        });
        queue.bindings.push(binding);
    });
    let mut no_uid = queue("queue/t/a");
    no_uid.uid.clear();
    let mut wrong_kind = queue("queue/t/a");
    wrong_kind.address = address("topic/t/a");
    let mut implicit = queue("queue/t/a");
    implicit.address = address("queue/t/a/dead");
    for delta in [
        vec![nameless_header],
        vec![no_uid],
        vec![wrong_kind],
        vec![implicit],
        vec![topic("topic/t/x", 0)],
        vec![topic("topic/t/x", 257)],
        vec![queue("queue/t/a"), queue("queue/t/a")],
        vec![queue("queue/t/a"); 1001],
    ] {
        assert_eq!(desk.code(delta), ErrorCode::InvalidArgument);
    }
}

#[test]
fn nothing_is_taken_before_the_shards_are_known_and_they_never_become_fewer() {
    let mut desk = Desk {
        catalogue: Catalogue::new(),
        index: 0,
    };
    assert_eq!(
        desk.code(vec![queue("queue/t/a")]),
        ErrorCode::ShardUnavailable
    );
    let mut init = |data_shards| desk.apply(CatalogueCommand::Init { data_shards });
    assert!(init(0).outcome.is_err());
    assert!(init(2).changed);
    assert!(!init(2).changed);
    assert!(init(1).outcome.is_err());
    assert!(init(3).changed);
    assert!(init(257).outcome.is_err());
}
