//! Stories of a large catalogue: a delta costs what it names, what shards are told step by step is
//! what they would be told at once, and each limit of the whole is a refusal that names it.

use std::collections::BTreeMap;

use millrace_engine::catalogue::{
    BOUND_QUEUES_MAX, DELTA_BYTES_MAX, DELTA_OBJECTS_MAX, Declared, DeclaredBinding, DeclaredSpec,
    LOGS_MAX, OBJECTS_MAX, Removed, Untold,
};
use millrace_engine::command::{Command, Entry};
use millrace_engine::spec::{Filter, HeaderCondition};
use millrace_engine::{
    CONFIGURE_BYTES_MAX, Catalogue, CatalogueApplied, CatalogueCommand, CatalogueEntry,
};
use millrace_types::{
    BINDINGS_MAX, CONDITION_VALUE_BYTES_MAX, CONDITIONS_MAX, ErrorCode, HEADER_NAME_BYTES_MAX,
    LogId, LogIndex, NAME_BYTES_MAX, NAMESPACE_BYTES_MAX, PARTITIONS_MAX, Refusal,
    SUBJECT_BYTES_MAX, ShardId, Stamp,
};
use proptest::prelude::*;

use crate::catalogue::{binding, bound_to, deleted, queue, queue_with, removed, topic};
use crate::support::address;

const SHARDS: u32 = 3;

/// A catalogue that is not written down at each step.
struct Large(Catalogue);

impl Large {
    fn new() -> Self {
        let mut large = Self(Catalogue::new());
        let data_shards = SHARDS;
        large.apply(CatalogueCommand::Init { data_shards });
        large
    }

    fn apply(&mut self, command: CatalogueCommand) -> CatalogueApplied {
        let stamp = Stamp::default();
        let index = self.0.applied().next();
        self.0.apply(index, &CatalogueEntry { stamp, command })
    }

    fn change(&mut self, upserts: Vec<Declared>, removals: Vec<Removed>) -> CatalogueApplied {
        let base_revision = self.0.revision();
        self.apply(CatalogueCommand::ApplyTopology {
            base_revision,
            upserts,
            removals,
        })
    }

    /// Everything, in pages.
    fn untold(&self, shard: ShardId, applied: u64) -> Vec<Untold> {
        const PAGE: usize = 7;
        let mut all: Vec<Untold> = Vec::new();
        loop {
            let after = all.last().map(Untold::log);
            let page = self.0.untold(shard, applied, after, PAGE);
            let is_last = page.len() < PAGE;
            all.extend(page);
            if is_last {
                assert_eq!(all, self.0.untold(shard, applied, None, usize::MAX));
                return all;
            }
        }
    }

    /// Page by page.
    fn declare(&mut self, count: usize, one: impl Fn(usize) -> Declared) -> Result<(), Refusal> {
        let all: Vec<usize> = (0..count).collect();
        for page in all.chunks(DELTA_OBJECTS_MAX) {
            let page = page.iter().map(|n| one(*n)).collect();
            self.change(page, Vec::new()).outcome?;
        }
        Ok(())
    }
}

#[track_caller]
fn is_limit(outcome: Result<u64, Refusal>, limit: usize) {
    let refusal = outcome.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::LimitReached, "{refusal}");
    assert_eq!(refusal.metadata["limit"], limit.to_string());
    assert_eq!(refusal.metadata["actual"], (limit + 1).to_string());
}

#[test]
fn a_delta_costs_what_it_names_however_much_is_declared() {
    let mut large = Large::new();
    large
        .declare(5_000, |n| queue(&format!("queue/t/q{n}")))
        .unwrap();
    large
        .change(vec![topic("topic/t/x", 2)], Vec::new())
        .outcome
        .unwrap();
    let one = large.change(vec![queue("queue/t/one-more")], Vec::new());
    assert_eq!(one.objects_looked_at, 1);
    let bound = vec![
        bound_to("queue/t/q7", "topic/t/x"),
        bound_to("queue/t/q8", "topic/t/x"),
    ];
    assert_eq!(large.change(bound, Vec::new()).objects_looked_at, 2);

    // The topic and those who are bound to it: only when its partitions change.
    let grown = large.change(vec![topic("topic/t/x", 3)], Vec::new());
    assert_eq!(grown.objects_looked_at, 3);
    let mut same = topic("topic/t/x", 3);
    same.generation = 9;
    let renamed = large.change(vec![same], Vec::new());
    assert_eq!((renamed.changed, renamed.objects_looked_at), (true, 1));
    let gone = large.change(Vec::new(), vec![removed("queue/t/q9")]);
    assert_eq!(gone.objects_looked_at, 1);
}

#[test]
fn a_shard_that_has_done_everything_is_told_what_a_delta_changed_and_nothing_else() {
    let mut large = Large::new();
    large
        .declare(3_000, |n| queue(&format!("queue/t/q{n}")))
        .unwrap();
    let revision = large.0.revision();
    for shard in (1..=SHARDS).map(ShardId::new) {
        assert_eq!(large.untold(shard, 0).len(), 2_000);
        large.apply(CatalogueCommand::ShardConfigured { shard, revision });
        assert!(large.untold(shard, revision).is_empty());
    }
    large.change(vec![queue("queue/t/one-more")], Vec::new());
    let untold = (1..=SHARDS).map(|shard| large.untold(ShardId::new(shard), revision).len());
    assert_eq!(untold.sum::<usize>(), 2);
}

#[test]
fn a_copy_of_the_topology_stays_as_it_was() {
    let mut large = Large::new();
    large
        .declare(1_000, |n| queue(&format!("queue/t/q{n:04}")))
        .unwrap();
    let (before, digest) = (large.0.topology().clone(), large.0.topology().digest());
    large.change(vec![queue("queue/t/new")], vec![removed("queue/t/q0500")]);
    assert_eq!((before.len(), before.digest()), (1_000, digest));
    assert!(!before.lookup(&address("queue/t/q0500")).unwrap().orphaned);
    assert_ne!(large.0.topology().digest(), digest);
    let from = address("queue/t/q0998");
    let after = large.0.topology().iter_after(&from);
    let names: Vec<String> = after.map(|(address, _)| address.to_string()).collect();
    assert_eq!(names, ["queue/t/q0999"]);
}

#[test]
fn a_delta_has_so_many_bytes_at_most() {
    let mut large = Large::new();
    let mut fat = queue("queue/t/a");
    fat.wire = vec![0; DELTA_BYTES_MAX + 1].into();
    let refusal = large.change(vec![fat], Vec::new()).outcome.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InvalidArgument);
    assert_eq!(refusal.metadata["limit"], DELTA_BYTES_MAX.to_string());
}

#[test]
fn objects_of_a_cluster_are_limited_and_a_removal_makes_room() {
    let mut large = Large::new();
    large
        .declare(OBJECTS_MAX, |n| deleted(topic(&format!("topic/t/x{n}"), 1)))
        .unwrap();
    let one_more = || vec![topic("topic/t/one-more", 1)];
    is_limit(large.change(one_more(), Vec::new()).outcome, OBJECTS_MAX);
    let changed = vec![topic("topic/t/x5", 1)];
    large.change(changed, Vec::new()).outcome.unwrap();
    let room = vec![removed("topic/t/x7")];
    large.change(one_more(), room).outcome.unwrap();
}

#[test]
fn queues_and_partitions_of_a_cluster_are_limited() {
    let mut large = Large::new();
    large
        .declare(LOGS_MAX / 250, |n| topic(&format!("topic/t/x{n}"), 250))
        .unwrap();
    let grown = large.change(vec![topic("topic/t/x0", 251)], Vec::new());
    is_limit(grown.outcome, LOGS_MAX);
}

#[test]
fn queues_bound_to_one_topic_are_limited() {
    let mut large = Large::new();
    large
        .declare(BOUND_QUEUES_MAX, |n| {
            bound_to(&format!("queue/t/q{n}"), "topic/t/x")
        })
        .unwrap();
    let one_more = vec![bound_to("queue/t/one-more", "topic/t/x")];
    is_limit(large.change(one_more, Vec::new()).outcome, BOUND_QUEUES_MAX);
    let again = vec![bound_to("queue/t/q0", "topic/t/x")];
    large.change(again, Vec::new()).outcome.unwrap();
}

/// A text of so many bytes.
fn longest(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// As many bindings as there may be, to topics of as many partitions, with the longest filters.
fn largest_queue(topic: impl Fn(usize) -> String) -> Declared {
    let condition = HeaderCondition {
        name: longest(HEADER_NAME_BYTES_MAX),
        value: Some(longest(CONDITION_VALUE_BYTES_MAX)),
    };
    let filter = Filter {
        pattern: longest(SUBJECT_BYTES_MAX),
        headers: vec![condition; CONDITIONS_MAX],
        any: true,
    };
    let name = |text: &str| format!("queue/{}/{text}", longest(NAMESPACE_BYTES_MAX));
    let declared = queue_with(&name(&longest(NAME_BYTES_MAX)), |queue| {
        queue.dead_letter.queue = Some(address(&name("other")));
        queue.bindings = (0..BINDINGS_MAX)
            .map(|n| DeclaredBinding {
                topic: address(&topic(n)),
                filter: filter.clone(),
            })
            .collect();
    });
    let uid = "uid".into();
    Declared { uid, ..declared }
}

#[test]
fn the_largest_queue_that_can_be_declared_fits_an_entry() {
    // All bindings of one topic, and each of another one.
    let names: [fn(usize) -> String; 2] = [
        |_| format!("topic/{}/x", longest(NAMESPACE_BYTES_MAX)),
        |n| format!("topic/{}/x{n}", longest(NAMESPACE_BYTES_MAX)),
    ];
    for name in names {
        let mut large = Large::new();
        let topics = (0..BINDINGS_MAX).map(|n| topic(&name(n), PARTITIONS_MAX));
        for topic in topics {
            large.change(vec![topic], Vec::new()).outcome.unwrap();
        }
        let queue = vec![largest_queue(name)];
        large.change(queue, Vec::new()).outcome.unwrap();
        let shards = (1..=SHARDS).map(ShardId::new);
        let commands = shards.flat_map(|shard| large.0.commands_for(shard, 0));
        let entries = commands.map(|command| Entry {
            stamp: Stamp::default(),
            command,
        });
        let longest = entries.map(|entry| entry.encode().len()).max().unwrap();
        assert!(longest <= CONFIGURE_BYTES_MAX, "{longest} bytes");
        assert!(longest > CONFIGURE_BYTES_MAX / 2, "{longest} bytes");
    }
}

/// What a shard knows of its logs.
type Known = BTreeMap<LogId, Command>;

fn log_of(command: &Command) -> Option<(LogId, u64)> {
    match command {
        Command::ConfigureQueue { log, revision, .. }
        | Command::ConfigurePartition { log, revision, .. }
        | Command::Freeze { log, revision }
        | Command::Remove { log, revision } => Some((*log, *revision)),
        _ => None,
    }
}

/// As a shard takes commands, revisions left out.
fn learn(known: &mut Known, command: Command) {
    let Some((log, _)) = log_of(&command) else {
        return;
    };
    let command = match command {
        Command::Remove { .. } => {
            known.remove(&log);
            return;
        }
        Command::Freeze { log, .. } => Command::Freeze { log, revision: 0 },
        Command::ConfigureQueue {
            log,
            address,
            spec,
            dead_letters,
            ..
        } => Command::ConfigureQueue {
            log,
            address,
            revision: 0,
            spec,
            dead_letters,
        },
        Command::ConfigurePartition {
            log,
            address,
            partition,
            spec,
            ..
        } => Command::ConfigurePartition {
            log,
            address,
            partition,
            revision: 0,
            spec,
        },
        other => other,
    };
    known.insert(log, command);
}

const NAMES: usize = 5;

fn objects() -> impl Strategy<Value = Declared> {
    let name = |kind: &'static str| (0..NAMES).prop_map(move |n| format!("{kind}/t/{n}"));
    let target = (0..NAMES * 2).prop_map(|n| match n {
        n if n < NAMES => format!("queue/t/{n}"),
        n => format!("queue/t/{}/dead", n - NAMES),
    });
    let queues = (
        name("queue"),
        prop::option::of(target),
        prop::collection::vec(name("topic"), 0..3),
        1_000..1_003_u64,
    );
    let queues = queues.prop_map(|(name, target, topics, lease_ms)| {
        queue_with(&name, |queue| {
            queue.dead_letter.queue = target.as_deref().map(address);
            queue.bindings = topics.iter().map(|topic| binding(topic, "#")).collect();
            queue.lease_ms = lease_ms;
        })
    });
    let topics = (name("topic"), 1..4_u32).prop_map(|(name, partitions)| topic(&name, partitions));
    (prop_oneof![queues, topics], any::<bool>(), 1..3_i64).prop_map(
        |(mut declared, delete, generation)| {
            declared.generation = generation;
            if delete { deleted(declared) } else { declared }
        },
    )
}

fn removals() -> impl Strategy<Value = Removed> {
    let names = (0..NAMES * 2).prop_map(|n| match n {
        n if n < NAMES => format!("queue/t/{n}"),
        n => format!("topic/t/{}", n - NAMES),
    });
    names.prop_map(|name| removed(&name))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_shards_are_told_step_by_step_is_what_they_would_be_told_at_once(
        deltas in prop::collection::vec(
            (
                prop::collection::vec(objects(), 0..4),
                prop::collection::vec(removals(), 0..3),
                // A shard that is not asked for a while catches up later.
                prop::collection::vec(any::<bool>(), SHARDS as usize),
            ),
            1..30,
        ),
    ) {
        let mut large = Large::new();
        let mut known: BTreeMap<ShardId, (u64, Known)> = BTreeMap::new();
        for (upserts, removals, asked) in deltas {
            large.change(upserts, removals);
            let revision = large.0.revision();
            for (shard, _) in (1..).map(ShardId::new).zip(asked).filter(|(_, asked)| *asked) {
                let (done, logs) = known.entry(shard).or_default();
                large.untold(shard, *done);
                large.untold(shard, 0);
                for command in large.0.commands_for(shard, *done) {
                    if let Some((_, told)) = log_of(&command) {
                        prop_assert!(told > *done && told <= revision);
                    }
                    learn(logs, command);
                }
                *done = revision;
                // From nothing: all that there is.
                let mut at_once = Known::new();
                for command in Catalogue::restore(&large.0.snapshot())
                    .unwrap()
                    .commands_for(shard, 0)
                {
                    learn(&mut at_once, command);
                }
                prop_assert_eq!(&*logs, &at_once);
                large.apply(CatalogueCommand::ShardConfigured { shard, revision });
            }
            prop_assert_eq!(Catalogue::restore(&large.0.snapshot()), Ok(large.0.clone()));
        }
    }
}

#[test]
fn who_sends_into_a_circle_hears_of_its_end_though_a_topic_on_the_way_appears_with_it() {
    let into = |name: &str, target: &str| {
        queue_with(name, |queue| {
            queue.dead_letter.queue = Some(address(target));
        })
    };
    let mut way = into("queue/t/way", "queue/t/a");
    if let DeclaredSpec::Queue(queue) = &mut way.spec {
        queue.bindings.push(binding("topic/t/x", "#"));
    }
    let mut large = Large::new();
    let declared = vec![
        into("queue/t/a", "queue/t/b"),
        into("queue/t/b", "queue/t/a"),
        way,
        into("queue/t/sender", "queue/t/way"),
    ];
    large.change(declared, Vec::new()).outcome.unwrap();
    let before = large.0.revision();
    let end = vec![queue("queue/t/b"), topic("topic/t/x", 1)];
    large.change(end, Vec::new()).outcome.unwrap();
    let sender = large.0.topology().lookup(&address("queue/t/sender"));
    let (shard, log) = sender.unwrap().queue().unwrap();
    let told = large.0.commands_for(shard, before);
    let told = told
        .iter()
        .any(|command| log_of(command).is_some_and(|(l, _)| l == log));
    assert!(told, "its dead letters wait for ever");
}

#[test]
fn an_object_is_deleted_with_everything_that_was_known_of_it() {
    let mut large = Large::new();
    let first = Catalogue::clone(&large.0);
    let all = || {
        vec![
            deleted(bound_to("queue/t/a", "topic/t/x")),
            deleted(topic("topic/t/x", 3)),
        ]
    };
    large.change(all(), Vec::new());
    large.change(Vec::new(), vec![removed("queue/t/a"), removed("topic/t/x")]);
    for shard in (1..=SHARDS).map(ShardId::new) {
        let revision = large.0.revision();
        large.apply(CatalogueCommand::ShardConfigured { shard, revision });
        assert_eq!(large.0.commands_for(shard, 0).len(), 1, "only Configured");
    }
    assert!(large.0.topology().is_empty());
    assert_eq!(large.0.topology().digest(), first.topology().digest());
    assert_eq!(large.0.applied(), LogIndex::new(6));
}
