//! Stories of lives: configured, frozen, thawed, removed; and said twice.

use millrace_engine::command::{Command, Settle};
use millrace_engine::outcome::{BodyChange, Effect, Outcome};
use millrace_engine::spec::QueueSpec;
use millrace_types::{ErrorCode, SessionId};

use crate::support::{
    Bench, PARTITION, QUEUE, at, batch, configure, configure_partition, delivered, held,
    partition_spec, queue_spec, refused, retry, window,
};

fn freeze(bench: &mut Bench, log: millrace_types::LogId) {
    let applied = bench.apply(Command::Freeze { log, revision: 5 });
    assert_eq!(applied.effects, [Effect::Reconfigured { log }]);
}

fn thaw(bench: &mut Bench) -> millrace_engine::outcome::Applied {
    bench.apply(configure(QUEUE, "queue/test/jobs", 6, queue_spec()))
}

#[test]
fn an_orphan_takes_and_gives_nothing() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(2);
    freeze(&mut bench, QUEUE);
    for applied in [bench.publish(1), bench.open(1, window(1))] {
        assert_eq!(refused(&applied), ErrorCode::Orphaned);
    }
    let applied = bench.apply(Command::Acquire {
        queue: QUEUE,
        owner: SessionId::new(1),
        messages_max: 1,
        bytes_max: 0,
        lease_ms: None,
    });
    assert_eq!(refused(&applied), ErrorCode::Orphaned);
    assert_eq!(bench.queue().stats().ready, 2);
    assert!(bench.outstanding().is_empty());
}

#[test]
fn an_orphan_expires_nothing_and_its_leases_start_anew_when_it_returns() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(3);
    bench.open(1, window(2));
    bench.settled(1, held(0, 1), retry());
    freeze(&mut bench, QUEUE);
    assert_eq!(bench.shard.next_deadline(), None);
    bench.pass(1_000_000);
    let stats = bench.queue().stats();
    assert_eq!((stats.in_flight, stats.delayed), (2, 1));

    bench.settled(1, held(1, 1), Settle::Accept);
    let applied = thaw(&mut bench);
    assert_eq!(delivered(&applied, 1), []);
    assert_eq!(bench.queue().stats().in_flight, 1);
    let applied = bench.pass(0);
    assert_eq!(delivered(&applied, 1), [(0, 2)]);
    bench.pass(29_999);
    bench.settled(1, held(2, 1), Settle::Accept);
}

#[test]
fn an_orphaned_partition_is_neither_appended_nor_trimmed() {
    let mut bench = Bench::new(queue_spec());
    let publish = Command::Publish {
        log: PARTITION,
        batch: batch(1),
        dedup: None,
    };
    let trim = Command::Trim {
        partition: PARTITION,
        first: at(1),
    };
    bench.apply(publish.clone());
    freeze(&mut bench, PARTITION);
    for command in [publish.clone(), trim.clone()] {
        let applied = bench.apply(command);
        assert_eq!(refused(&applied), ErrorCode::Orphaned);
    }
    bench.apply(configure_partition(6, partition_spec()));
    assert_eq!(
        bench.apply(publish).outcome,
        Outcome::Appended(at(1)..at(2))
    );
    assert_eq!(bench.apply(trim).outcome, Outcome::Done);
}

#[test]
fn a_removed_queue_is_gone_with_its_sessions_and_bodies() {
    let mut bench = Bench::new(queue_spec());
    bench.open(1, window(1));
    bench.publish(2);
    let remove = Command::Remove {
        log: QUEUE,
        revision: 5,
    };
    let applied = bench.apply(remove.clone());
    assert_eq!(applied.bodies, [BodyChange::DiscardAll { log: QUEUE }]);
    let session = SessionId::new(1);
    assert!(applied.effects.contains(&Effect::SessionClosed { session }));
    assert_eq!(bench.shard.next_deadline(), None);
    assert_eq!(refused(&bench.publish(1)), ErrorCode::NoSuchQueue);
    assert_eq!(refused(&bench.close(1)), ErrorCode::SessionExpired);
    assert_eq!(bench.apply(remove).bodies, []);
}

#[test]
fn what_an_older_revision_says_is_ignored() {
    let mut bench = Bench::new(queue_spec());
    bench.apply(Command::Configured { revision: 5 });
    let newer = QueueSpec {
        lease_ms: 5000,
        ..queue_spec()
    };
    bench.apply(configure(QUEUE, "queue/test/jobs", 7, newer.clone()));
    bench.apply(configure(QUEUE, "queue/test/jobs", 6, queue_spec()));
    for command in [
        Command::Freeze {
            log: QUEUE,
            revision: 6,
        },
        Command::Remove {
            log: QUEUE,
            revision: 6,
        },
    ] {
        bench.apply(command);
    }
    assert_eq!(**bench.queue().spec(), newer);
    assert!(!bench.queue().is_frozen());

    bench.apply(Command::Remove {
        log: QUEUE,
        revision: 8,
    });
    bench.apply(Command::Configured { revision: 8 });
    bench.apply(configure(QUEUE, "queue/test/jobs", 7, newer));
    assert!(bench.shard.queue(QUEUE).is_none());
    bench.apply(Command::Configured { revision: 3 });
    assert_eq!(bench.shard.configured_revision(), 8);
}

#[test]
fn a_queue_cannot_become_a_partition() {
    let mut bench = Bench::new(queue_spec());
    let queue = configure(PARTITION, "queue/test/x", 9, queue_spec());
    assert_eq!(refused(&bench.apply(queue)), ErrorCode::InvalidArgument);
    let partition = Command::ConfigurePartition {
        log: QUEUE,
        address: crate::support::address("topic/test/x"),
        partition: 0,
        revision: 9,
        spec: partition_spec(),
    };
    assert_eq!(refused(&bench.apply(partition)), ErrorCode::InvalidArgument);
}
