//! Stories of bindings: cursors that move exactly once.

use millrace_engine::command::Command;
use millrace_engine::outcome::{Applied, Effect, Outcome};
use millrace_engine::spec::QueueSpec;
use millrace_types::{ErrorCode, LogId};

use crate::support::{
    Bench, PARTITION, QUEUE, at, batch, bound, configure, delivered, queue_spec, refused, window,
};

fn bound_spec() -> QueueSpec {
    QueueSpec {
        bindings: vec![bound(&[PARTITION])],
        messages_max: Some(5),
        ..queue_spec()
    }
}

fn transfer(bench: &mut Bench, from: u64, to: u64, matched: Option<u32>) -> Applied {
    let revision = bench.queue().revision();
    bench.apply(Command::Transfer {
        queue: QUEUE,
        revision,
        partition: PARTITION,
        from: at(from),
        to: at(to),
        batch: matched.map(batch),
    })
}

#[test]
fn a_transfer_appends_what_matched_and_moves_the_cursor() {
    let mut bench = Bench::new(bound_spec());
    bench.open(1, window(9));
    assert_eq!(bench.queue().cursor(PARTITION), Some(at(0)));
    let applied = transfer(&mut bench, 0, 10, Some(2));
    assert_eq!(applied.outcome, Outcome::Appended(at(0)..at(2)));
    assert_eq!(delivered(&applied, 1), [(0, 1), (1, 1)]);
    assert_eq!(transfer(&mut bench, 10, 20, None).outcome, Outcome::Done);
    assert_eq!(bench.queue().cursor(PARTITION), Some(at(20)));
}

#[test]
fn a_transfer_from_elsewhere_changes_nothing_and_says_where_the_cursor_is() {
    let mut bench = Bench::new(bound_spec());
    transfer(&mut bench, 0, 10, Some(2));
    for from in [0, 5, 11] {
        let applied = transfer(&mut bench, from, 20, Some(1));
        assert_eq!(applied.outcome, Outcome::Cursor(at(10)));
        assert!(applied.bodies.is_empty());
    }
}

#[test]
fn what_older_filters_chose_is_not_taken() {
    let mut bench = Bench::new(bound_spec());
    let chosen = Command::Transfer {
        queue: QUEUE,
        revision: bench.queue().revision(),
        partition: PARTITION,
        from: at(0),
        to: at(10),
        batch: Some(batch(2)),
    };
    bench.apply(configure(QUEUE, "queue/test/jobs", 2, bound_spec()));
    let applied = bench.apply(chosen);
    assert_eq!(applied.outcome, Outcome::Cursor(at(0)));
    assert!(applied.bodies.is_empty());
    assert_eq!(bench.queue().cursor(PARTITION), Some(at(0)));
}

#[test]
fn a_full_queue_keeps_its_cursor_and_asks_again_when_it_has_room() {
    let mut bench = Bench::new(bound_spec());
    transfer(&mut bench, 0, 5, Some(5));
    let full = transfer(&mut bench, 5, 6, Some(1));
    assert_eq!(refused(&full), ErrorCode::QueueFull);
    assert_eq!(bench.queue().cursor(PARTITION), Some(at(5)));
    assert_eq!(transfer(&mut bench, 5, 6, None).outcome, Outcome::Done);

    bench.acquire(7, 1);
    let accept = millrace_engine::command::Settle::Accept;
    let applied = bench.settled(7, crate::support::held(0, 1), accept);
    let due = Effect::TransferDue { queue: QUEUE };
    assert!(applied.effects.contains(&due));
}

#[test]
fn nonsense_is_refused() {
    let mut bench = Bench::new(bound_spec());
    let backwards = transfer(&mut bench, 0, 0, Some(1));
    assert_eq!(refused(&backwards), ErrorCode::InvalidArgument);
    transfer(&mut bench, 0, 4, None);
    let backwards = transfer(&mut bench, 4, 3, None);
    assert_eq!(refused(&backwards), ErrorCode::InvalidArgument);
    let unbound = bench.apply(Command::Transfer {
        queue: QUEUE,
        revision: 1,
        partition: LogId::new(44),
        from: at(0),
        to: at(1),
        batch: None,
    });
    assert_eq!(refused(&unbound), ErrorCode::NoSuchPartition);
}

#[test]
fn a_binding_that_stays_keeps_its_cursor_and_one_that_vanishes_loses_it() {
    let mut bench = Bench::new(bound_spec());
    transfer(&mut bench, 0, 10, None);
    let grown = QueueSpec {
        bindings: vec![bound(&[PARTITION, LogId::new(8)])],
        ..bound_spec()
    };
    let applied = bench.apply(configure(QUEUE, "queue/test/jobs", 2, grown));
    let due = Effect::TransferDue { queue: QUEUE };
    assert!(applied.effects.contains(&due));
    assert_eq!(bench.queue().cursor(PARTITION), Some(at(10)));
    assert_eq!(bench.queue().cursor(LogId::new(8)), Some(at(0)));

    bench.apply(configure(QUEUE, "queue/test/jobs", 3, queue_spec()));
    assert_eq!(bench.queue().cursor(PARTITION), None);
    bench.apply(configure(QUEUE, "queue/test/jobs", 4, bound_spec()));
    assert_eq!(bench.queue().cursor(PARTITION), Some(at(0)));
}

#[test]
fn what_is_outstanding_is_found_in_bounded_steps() {
    let mut bench = Bench::new(QueueSpec {
        bindings: vec![bound(&[PARTITION])],
        ..queue_spec()
    });
    bench.publish(1);
    let (mut found, mut after) = (Vec::new(), None);
    for _ in 0..3 {
        let (effects, last) = bench.shard.outstanding(after, 1);
        found.push(effects);
        after = last;
    }
    assert_eq!(found.len(), 3);
    assert_eq!(
        found.concat(),
        [
            Effect::Available {
                queue: QUEUE,
                ready: 1
            },
            Effect::TransferDue { queue: QUEUE },
            Effect::Appended {
                log: PARTITION,
                end: at(0)
            },
        ]
    );
    let (effects, last) = bench.shard.outstanding(after, 1);
    assert_eq!((effects, last), (Vec::new(), None));
    let (all, last) = bench.shard.outstanding(None, 10);
    assert_eq!((all, last), (found.concat(), None));
}
