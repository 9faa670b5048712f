//! Stories of single messages: handed out, settled, failed, expired.

use millrace_engine::command::{Command, Settle, Settlement};
use millrace_engine::outcome::{Effect, MessageState, Outcome};
use millrace_types::{Elapsed, ErrorCode, SessionId, Wall};

use crate::support::{
    Bench, EPOCH, QUEUE, at, delivered, discarded, held, queue_spec, refused, retry, window,
};

#[test]
fn an_accepted_message_is_gone_with_its_body() {
    let mut bench = Bench::new(queue_spec());
    assert_eq!(bench.publish(3).outcome, Outcome::Appended(at(0)..at(3)));
    let got = bench.acquire(7, 2);
    assert_eq!(
        got.iter().map(|d| d.offset.get()).collect::<Vec<_>>(),
        [0, 1]
    );

    let applied = bench.apply(Command::Settle {
        queue: QUEUE,
        settlements: [0, 1]
            .map(|offset| Settlement {
                owner: SessionId::new(7),
                held: held(offset, 1),
                settle: Settle::Accept,
            })
            .into(),
    });

    assert_eq!(discarded(&applied), [(0, 2)]);
    let stats = bench.queue().stats();
    assert_eq!((stats.ready, stats.in_flight, stats.bytes), (1, 0, 100));
    assert_eq!(bench.queue().state_of(at(0)), None);
    assert_eq!(bench.queue().head(), at(2));
}

#[test]
fn a_released_message_comes_back_first_and_counts_no_failure() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(5);
    bench.acquire(7, 3);
    for offset in [1, 0] {
        bench.settled(7, held(offset, 1), Settle::Release { delay_ms: 0 });
    }
    let got = bench.acquire(8, 3);
    let seen: Vec<_> = got
        .iter()
        .map(|d| (d.offset.get(), d.acquired, d.attempts))
        .collect();
    assert_eq!(seen, [(0, 2, 0), (1, 2, 0), (3, 1, 0)]);
}

#[test]
fn a_failed_message_comes_back_after_its_backoff() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(1);
    bench.acquire(7, 1);
    bench.settled(7, held(0, 1), retry());
    assert_eq!(bench.queue().stats().delayed, 1);

    let due = bench.shard.next_deadline().unwrap().as_millis();
    assert!((900..=1100).contains(&due), "{due}");
    bench.pass(due - 1);
    assert!(bench.acquire(7, 1).is_empty());
    let applied = bench.pass(1);
    assert!(applied.effects.contains(&Effect::Available {
        queue: QUEUE,
        ready: 1
    }));
    let got = bench.acquire(7, 1);
    assert_eq!((got[0].acquired, got[0].attempts), (2, 1));
}

#[test]
fn a_delay_asked_for_replaces_the_backoff() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(2);
    bench.acquire(7, 2);
    let note = String::new();
    let delay_ms = Some(5000);
    bench.settled(7, held(0, 1), Settle::Retry { delay_ms, note });
    bench.settled(7, held(1, 1), Settle::Release { delay_ms: 4000 });
    assert_eq!(
        bench.shard.next_deadline(),
        Some(Elapsed::from_millis(4000))
    );
    bench.pass(4000);
    assert_eq!(bench.acquire(7, 9)[0].offset, at(1));
    bench.pass(1000);
    assert_eq!(bench.acquire(7, 9)[0].offset, at(0));
}

#[test]
fn an_expired_lease_is_a_failure_and_its_holder_hears_of_it() {
    let mut bench = Bench::new(queue_spec());
    bench.open(5, window(1));
    bench.publish(1);
    bench.sent(5, vec![held(0, 1)]);
    bench.pass(29_999);
    assert_eq!(bench.queue().stats().in_flight, 1);

    let applied = bench.pass(1);
    assert_eq!(
        applied.effects,
        [Effect::LeasesLost {
            session: SessionId::new(5),
            queue: QUEUE,
            held: vec![held(0, 1)],
        }]
    );
    let view = bench.queue().state_of(at(0)).unwrap();
    assert_eq!((view.state, view.attempts), (MessageState::Delayed, 1));
    let stale = bench.settle(5, held(0, 1), Settle::Accept);
    assert_eq!(refused(&stale), ErrorCode::StaleDelivery);
}

#[test]
fn a_lease_that_runs_out_unsent_is_no_failure() {
    let mut bench = Bench::new(queue_spec());
    bench.open(5, window(1));
    bench.publish(1);
    for acquired in 2..9 {
        let applied = bench.pass(30_000);
        let lost = vec![held(0, acquired - 1)];
        assert!(applied.effects.contains(&Effect::LeasesLost {
            session: SessionId::new(5),
            queue: QUEUE,
            held: lost,
        }));
        assert_eq!(delivered(&applied, 5), [(0, acquired)]);
    }
    let view = bench.queue().state_of(at(0)).unwrap();
    assert_eq!((view.state, view.attempts), (MessageState::InFlight, 0));
}

#[test]
fn what_was_sent_counts_although_it_is_noted_when_it_is_due() {
    let mut bench = Bench::new(queue_spec());
    bench.open(5, window(2));
    bench.publish(2);
    bench.now += 30_000;
    let due = bench
        .shard
        .unsent_due(Elapsed::from_millis(0), Elapsed::from_millis(30_000), 9);
    assert_eq!(
        due,
        [0, 1].map(|offset| (SessionId::new(5), held(offset, 1)))
    );
    bench.sent(5, vec![held(1, 1)]);
    let attempts = [0, 1].map(|offset| bench.queue().state_of(at(offset)).unwrap().attempts);
    assert_eq!(attempts, [0, 1]);
}

#[test]
fn a_client_that_extends_a_lease_has_been_sent_it() {
    let mut bench = Bench::new(queue_spec());
    bench.open(5, window(1));
    bench.publish(1);
    bench.settled(5, held(0, 1), Settle::Extend);
    bench.pass(30_000);
    assert_eq!(bench.queue().state_of(at(0)).unwrap().attempts, 1);
}

#[test]
fn an_extended_lease_starts_anew() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(1);
    bench.acquire(7, 1);
    bench.pass(29_000);
    bench.settled(7, held(0, 1), Settle::Extend);
    bench.pass(29_000);
    bench.settled(7, held(0, 1), Settle::Accept);
}

#[test]
fn a_stale_settlement_spoils_no_other() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(2);
    bench.acquire(7, 2);
    let one = |owner, offset, acquired| Settlement {
        owner: SessionId::new(owner),
        held: held(offset, acquired),
        settle: Settle::Accept,
    };
    let settlements = vec![
        one(8, 0, 1),
        one(7, 0, 2),
        one(7, 9, 1),
        one(7, 0, 1),
        one(7, 0, 1),
        one(7, 1, 1),
    ];
    let applied = bench.apply(Command::Settle {
        queue: QUEUE,
        settlements,
    });
    let Outcome::Settled(results) = applied.outcome else {
        panic!("{:?}", applied.outcome);
    };
    let codes: Vec<_> = results.into_iter().map(|r| r.map_err(|e| e.code)).collect();
    let stale = Err(ErrorCode::StaleDelivery);
    assert_eq!(codes, [stale, stale, stale, Ok(()), stale, Ok(())]);
    assert_eq!(bench.queue().stats().bytes, 0);
}

#[test]
fn a_clock_that_goes_back_expires_nothing_and_stands_still() {
    let mut bench = Bench::new(queue_spec());
    bench.now = 50_000;
    bench.publish(1);
    bench.acquire(7, 1);
    bench.now = 10;
    bench.publish(1);
    assert_eq!(bench.shard.elapsed(), Elapsed::from_millis(50_000));
    assert_eq!(bench.shard.wall(), Wall::from_millis(EPOCH + 50_000));
    assert_eq!(bench.queue().stats().in_flight, 1);
}

#[test]
fn more_than_one_entry_ends_what_one_cannot() {
    let mut bench = Bench::new(millrace_engine::spec::QueueSpec {
        in_flight_max: 25_000,
        ..queue_spec()
    });
    bench.open(5, window(25_000));
    for _ in 0..3 {
        bench.publish(8_000);
    }
    assert_eq!(bench.queue().stats().in_flight, 24_000);
    bench.sent(5, (0..24_000).map(|offset| held(offset, 1)).collect());
    bench.pass(30_000);
    assert!(bench.queue().stats().in_flight > 0);
    assert!(bench.shard.next_deadline().unwrap() <= bench.shard.elapsed());
    bench.pass(0);
    bench.pass(0);
    assert_eq!(bench.queue().stats().in_flight, 0);
}

#[test]
fn an_untouched_backlog_costs_no_memory_for_each_message() {
    let mut bench = Bench::new(queue_spec());
    for _ in 0..1000 {
        bench.publish(10_000);
    }
    let stats = bench.queue().stats();
    assert_eq!((stats.ready, stats.bytes), (10_000_000, 1_000_000_000));
    assert!(bench.shard.snapshot().len() < 30_000);
    bench.open(5, window(1));
    let got = delivered(&bench.publish(1), 5);
    assert!(got.is_empty(), "{got:?}");
}
