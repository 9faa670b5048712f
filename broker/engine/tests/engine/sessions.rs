//! Stories of sessions: windows, fairness, lost connections, leaders that start.

use millrace_engine::command::{Command, Settle, Window};
use millrace_engine::outcome::{Effect, MessageState, Outcome};
use millrace_engine::{DETACHED_MAX, Queue};
use millrace_types::{Elapsed, ErrorCode, LogId, SessionId};

use crate::support::{
    Bench, QUEUE, at, batch, configure, delivered, held, queue_spec, refused, retry, window,
};

#[test]
fn a_publish_hands_messages_to_waiting_sessions_in_turn() {
    let mut bench = Bench::new(queue_spec());
    for session in [3, 1, 2] {
        bench.open(session, window(10));
    }
    let applied = bench.publish(7);
    assert_eq!(delivered(&applied, 1), [(0, 1), (3, 1), (6, 1)]);
    assert_eq!(delivered(&applied, 2), [(1, 1), (4, 1)]);
    assert_eq!(delivered(&applied, 3), [(2, 1), (5, 1)]);
    let applied = bench.publish(1);
    assert_eq!(delivered(&applied, 2), [(7, 1)]);
}

#[test]
fn a_window_bounds_messages_and_a_settlement_frees_its_slot() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(5);
    let applied = bench.open(1, window(2));
    assert_eq!(delivered(&applied, 1), [(0, 1), (1, 1)]);
    let applied = bench.settled(1, held(0, 1), Settle::Accept);
    assert_eq!(delivered(&applied, 1), [(2, 1)]);
    let applied = bench.apply(Command::SetWindow {
        session: SessionId::new(1),
        window: window(0),
    });
    assert_eq!(applied.outcome, Outcome::Done);
    let applied = bench.settled(1, held(1, 1), Settle::Accept);
    assert_eq!(delivered(&applied, 1), []);
    assert!(applied.effects.contains(&Effect::Available {
        queue: QUEUE,
        ready: 2
    }));
}

#[test]
fn a_window_bounds_bytes_but_one_message_always_fits() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(5);
    let narrow = |bytes| Window {
        messages: 10,
        bytes,
    };
    assert_eq!(delivered(&bench.open(1, narrow(10)), 1), [(0, 1)]);
    assert_eq!(delivered(&bench.open(2, narrow(250)), 2), [(1, 1), (2, 1)]);
}

#[test]
fn the_queue_bounds_what_all_consumers_hold_together() {
    let mut bench = Bench::new(millrace_engine::spec::QueueSpec {
        in_flight_max: 3,
        ..queue_spec()
    });
    bench.publish(5);
    assert_eq!(bench.acquire(9, 2).len(), 2);
    assert_eq!(delivered(&bench.open(1, window(5)), 1), [(2, 1)]);
    assert!(bench.acquire(9, 1).is_empty());
    let applied = bench.settled(9, held(0, 1), Settle::Accept);
    assert_eq!(delivered(&applied, 1), [(3, 1)]);
}

#[test]
fn a_client_that_comes_back_gets_what_it_does_not_claim_under_the_same_tag() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(3);
    bench.open(1, window(3));
    bench.sent(1, vec![held(0, 1), held(1, 1), held(2, 1)]);
    bench.detach(1, 1);
    bench.settled(1, held(2, 1), Settle::Accept);

    let applied = bench.attach(1, window(3), vec![held(0, 1), held(2, 1)]);
    let lost = vec![held(2, 1)];
    assert_eq!(applied.outcome, Outcome::Session { epoch: 2, lost });
    assert_eq!(delivered(&applied, 1), [(1, 1)]);
    bench.settled(1, held(1, 1), Settle::Accept);
    bench.settled(1, held(0, 1), Settle::Accept);
}

#[test]
fn a_detached_session_keeps_its_leases_until_its_time_to_live_is_over() {
    let mut bench = Bench::new(millrace_engine::spec::QueueSpec {
        lease_ms: 100_000,
        ..queue_spec()
    });
    bench.publish(1);
    bench.open(1, window(1));
    bench.sent(1, vec![held(0, 1)]);
    bench.detach(1, 1);
    assert_eq!(delivered(&bench.publish(1), 1), []);

    bench.pass(59_999);
    assert_eq!(bench.queue().stats().in_flight, 1);
    let applied = bench.pass(1);
    let session = SessionId::new(1);
    assert!(applied.effects.contains(&Effect::SessionClosed { session }));
    let view = bench.queue().state_of(at(0)).unwrap();
    assert_eq!((view.state, view.attempts), (MessageState::Ready, 0));
    let gone = bench.attach(1, window(1), Vec::new());
    assert_eq!(refused(&gone), ErrorCode::SessionExpired);
}

#[test]
fn a_detached_session_gives_back_at_once_what_it_was_not_sent() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(2);
    bench.open(1, window(2));
    bench.open(2, window(2));
    bench.sent(1, vec![held(0, 1)]);
    let applied = bench.detach(1, 1);
    assert_eq!(delivered(&applied, 2), [(1, 2)]);
    let view = bench.queue().state_of(at(1)).unwrap();
    assert_eq!(view.attempts, 0);
    bench.pass(30_000);
    assert_eq!(bench.queue().state_of(at(0)).unwrap().attempts, 1);
}

#[test]
fn what_a_lost_leader_had_sent_is_what_clients_claim() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(2);
    bench.open(1, window(2));
    bench.apply(Command::Lead);
    bench.pass(20_000);
    bench.attach(1, window(2), vec![held(0, 1)]);
    bench.pass(10_000);
    let attempts =
        |bench: &Bench| [0, 1].map(|offset| bench.queue().state_of(at(offset)).unwrap().attempts);
    assert_eq!(attempts(&bench), [1, 0]);
    bench.pass(20_000);
    assert_eq!(attempts(&bench), [1, 0]);
}

#[test]
fn a_connection_of_the_past_cannot_say_what_was_sent() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(1);
    bench.open(1, window(1));
    bench.attach(1, window(1), Vec::new());
    bench.sent(1, vec![held(0, 1)]);
    bench.pass(30_000);
    assert_eq!(bench.queue().state_of(at(0)).unwrap().attempts, 0);
}

#[test]
fn a_connection_of_the_past_cannot_detach_its_successor() {
    let mut bench = Bench::new(queue_spec());
    bench.open(1, window(1));
    bench.attach(1, window(1), Vec::new());
    assert_eq!(bench.detach(1, 1).outcome, Outcome::Done);
    assert_eq!(delivered(&bench.publish(1), 1), [(0, 1)]);
}

#[test]
fn a_closed_session_hands_its_messages_to_the_others() {
    let mut bench = Bench::new(queue_spec());
    bench.open(1, window(5));
    bench.publish(2);
    bench.open(2, window(5));
    let applied = bench.close(1);
    assert_eq!(delivered(&applied, 2), [(0, 2), (1, 2)]);
    assert_eq!(refused(&bench.close(1)), ErrorCode::SessionExpired);
}

#[test]
fn a_message_that_fails_at_one_session_may_go_to_the_next() {
    let mut bench = Bench::new(queue_spec());
    bench.open(1, window(1));
    bench.open(2, window(1));
    bench.publish(1);
    bench.settled(1, held(0, 1), retry());
    let applied = bench.pass(2000);
    assert_eq!(delivered(&applied, 2), [(0, 2)]);
}

#[test]
fn a_new_leader_detaches_everybody_and_names_what_is_outstanding() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(4);
    bench.open(1, window(1));
    bench.kill_one();
    let applied = bench.apply(Command::Lead);
    assert_eq!(applied.effects, []);
    assert_eq!(
        bench.outstanding(),
        [
            Effect::Available {
                queue: QUEUE,
                ready: 2
            },
            Effect::DeadLettersDue { queue: QUEUE },
        ]
    );
    let session = bench.queue().sessions().next().unwrap();
    assert!(!session.attached);
    let applied = bench.attach(1, window(1), Vec::new());
    assert_eq!(delivered(&applied, 1), [(0, 1)]);
}

/// Its sessions take turns with those of the others.
fn many_queues(bench: &mut Bench, queues: u64, sessions: u64) -> Vec<LogId> {
    let logs: Vec<LogId> = (0..queues).map(|n| LogId::new(100 + n)).collect();
    for log in &logs {
        let name = format!("queue/test/q{log}");
        bench.apply(configure(*log, &name, 1, queue_spec()));
    }
    for (session, log) in (1..=sessions).zip(logs.iter().cycle()) {
        bench.apply(Command::OpenSession {
            session: SessionId::new(session),
            queue: *log,
            consumer: "c".into(),
            window: window(1),
            ttl_ms: 1_000,
        });
    }
    logs
}

#[test]
fn a_new_leader_detaches_some_sessions_with_each_entry_and_first_where_something_happens() {
    let mut bench = Bench::new(queue_spec());
    let count = 3 * DETACHED_MAX as u64;
    let logs = many_queues(&mut bench, count, count);
    let attached = |bench: &Bench| {
        let sessions = bench.shard.queues().flat_map(Queue::sessions);
        sessions.filter(|session| session.attached).count()
    };
    assert_eq!(attached(&bench), 3 * DETACHED_MAX);
    bench.apply(Command::Lead);
    assert_eq!(attached(&bench), 2 * DETACHED_MAX);
    assert_eq!(bench.shard.next_deadline(), Some(Elapsed::default()));

    // Nobody is there to take it, though its session was not looked at yet.
    let last = *logs.last().unwrap();
    let publish = Command::Publish {
        log: last,
        batch: batch(1),
        dedup: None,
    };
    let applied = bench.apply(publish);
    assert_eq!(
        applied.effects.last(),
        Some(&Effect::Available {
            queue: last,
            ready: 1
        })
    );
    assert_eq!(attached(&bench), DETACHED_MAX - 1);
    // Who comes back meanwhile is not detached again.
    bench.attach(count - 1, window(1), Vec::new());
    while bench.shard.next_deadline() == Some(Elapsed::default()) {
        bench.apply(Command::Tick);
    }
    assert_eq!(attached(&bench), 1);
    bench.pass(1_000);
    let left: Vec<_> = bench.shard.queues().flat_map(Queue::sessions).collect();
    assert_eq!(left.len(), 1);
}

#[test]
fn sessions_of_one_queue_are_limited() {
    let mut bench = Bench::new(queue_spec());
    for session in 0..millrace_engine::SESSIONS_MAX as u64 {
        bench.open(session, window(0));
    }
    let applied = bench.open(u64::MAX, window(0));
    assert_eq!(refused(&applied), ErrorCode::LimitReached);
    let again = bench.open(0, window(0));
    assert_eq!(refused(&again), ErrorCode::InvalidArgument);
}

#[test]
fn receive_takes_what_fits_but_at_least_one() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(4);
    let mut take = |bytes_max, lease_ms| {
        let applied = bench.apply(Command::Acquire {
            queue: QUEUE,
            owner: SessionId::new(9),
            messages_max: 10,
            bytes_max,
            lease_ms,
        });
        match applied.outcome {
            Outcome::Acquired(got) => (got.len(), got[0].lease_ms),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(take(1, None), (1, 30_000));
    assert_eq!(take(250, Some(1)), (2, 1000));
    assert_eq!(take(250, Some(u64::MAX)), (1, millrace_types::DELAY_MS_MAX));
}
