//! Every limit of a data shard, reached.

use millrace_engine::command::{BatchHeader, Command, Settle, Settlement};
use millrace_engine::outcome::{Applied, Outcome, Room};
use millrace_engine::spec::QueueSpec;
use millrace_engine::{
    ACQUIRE_MESSAGES_MAX, DELIVERIES_MAX, SESSIONS_MAX, SETTLEMENTS_MAX, SOURCES_MAX, Shard,
};
use millrace_types::{
    BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, ErrorCode, LogId, NOTE_BYTES_MAX, Refusal, SessionId,
    TEXT_BYTES_MAX,
};

use crate::support::{
    Bench, DEAD, PARTITION, QUEUE, at, batch, bound, delivered, held, queue_spec, refused, window,
};

fn refusal(applied: Applied) -> Refusal {
    match applied.outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_queue_names_itself_and_its_limit() {
    for (messages_max, bytes_max, limit) in [
        (Some(3), None, "3 messages"),
        (None, Some(350), "350 bytes"),
    ] {
        let mut bench = Bench::new(QueueSpec {
            messages_max,
            bytes_max,
            ..queue_spec()
        });
        bench.publish(2);
        let room = Room {
            messages: messages_max.map_or(u64::MAX, |max| max - 2),
            bytes: bytes_max.map_or(u64::MAX, |max| max - 200),
            awaited: false,
        };
        assert_eq!(bench.queue().room(), room);
        let refusal = refusal(bench.publish(2));
        assert_eq!(refusal.code, ErrorCode::QueueFull);
        assert_eq!(refusal.metadata["address"], "queue/test/jobs");
        assert_eq!(refusal.metadata["limit"], limit);
        assert!(refusal.retry_after_ms.is_some());
        assert_eq!(bench.publish(1).outcome, Outcome::Appended(at(2)..at(3)));
    }
}

#[test]
fn a_batch_is_neither_empty_nor_boundless() {
    let mut bench = Bench::new(QueueSpec {
        bindings: vec![bound(&[PARTITION])],
        ..queue_spec()
    });
    let bad = [
        (0, 0),
        (BATCH_MESSAGES_MAX + 1, 1),
        (u32::MAX, u64::MAX),
        (1, u64::from(BATCH_BYTES_MAX) + 1),
    ];
    for (count, bytes) in bad {
        let batch = BatchHeader { count, bytes };
        let (from, to) = (at(0), at(u64::MAX));
        for command in [
            Command::Publish {
                log: QUEUE,
                batch: batch.clone(),
                dedup: None,
            },
            Command::Publish {
                log: PARTITION,
                batch: batch.clone(),
                dedup: None,
            },
            Command::AcceptDead {
                queue: QUEUE,
                source: LogId::new(9),
                number: 0,
                batch: batch.clone(),
            },
            Command::Transfer {
                queue: QUEUE,
                revision: 1,
                partition: PARTITION,
                from,
                to,
                batch: Some(batch),
            },
        ] {
            let refusal = refusal(bench.apply(command));
            assert_eq!(refusal.code, ErrorCode::InvalidArgument, "{refusal}");
        }
    }
    assert_eq!(bench.queue().cursor(PARTITION), Some(at(0)));
}

#[test]
fn what_is_not_there_is_refused_by_kind() {
    let mut bench = Bench::new(queue_spec());
    let log = LogId::new(404);
    let session = SessionId::new(404);
    let cases = [
        (
            Command::Publish {
                log,
                batch: batch(1),
                dedup: None,
            },
            ErrorCode::NoSuchQueue,
        ),
        (
            Command::ConfirmDead {
                queue: log,
                number: 0,
            },
            ErrorCode::NoSuchQueue,
        ),
        (
            Command::Settle {
                queue: PARTITION,
                settlements: Vec::new(),
            },
            ErrorCode::NoSuchQueue,
        ),
        (
            Command::Trim {
                partition: QUEUE,
                first: at(0),
            },
            ErrorCode::NoSuchPartition,
        ),
        (
            Command::SetWindow {
                session,
                window: window(1),
            },
            ErrorCode::SessionExpired,
        ),
    ];
    for (command, code) in cases {
        assert_eq!(refused(&bench.apply(command)), code);
    }
}

#[test]
fn one_command_settles_and_takes_only_so_much() {
    let mut bench = Bench::new(QueueSpec {
        in_flight_max: 100_000,
        ..queue_spec()
    });
    bench.publish(5000);
    assert_eq!(
        bench.acquire(1, u32::MAX).len(),
        ACQUIRE_MESSAGES_MAX as usize
    );
    let one = Settlement {
        owner: SessionId::new(1),
        held: held(0, 1),
        settle: Settle::Accept,
    };
    let applied = bench.apply(Command::Settle {
        queue: QUEUE,
        settlements: vec![one; SETTLEMENTS_MAX + 1],
    });
    assert_eq!(refused(&applied), ErrorCode::InvalidArgument);
    assert_eq!(bench.queue().stats().in_flight, 1000);
}

#[test]
fn long_texts_are_refused_and_the_lease_goes_on() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(1);
    bench.acquire(7, 1);
    let note = "x".repeat(NOTE_BYTES_MAX + 1);
    let applied = bench.settle(7, held(0, 1), Settle::Reject { note });
    assert_eq!(refused(&applied), ErrorCode::InvalidArgument);
    bench.settled(7, held(0, 1), Settle::Accept);
    let applied = bench.apply(Command::OpenSession {
        session: SessionId::new(1),
        queue: QUEUE,
        consumer: "x".repeat(TEXT_BYTES_MAX + 1),
        window: window(1),
        ttl_ms: u64::MAX,
    });
    assert_eq!(refused(&applied), ErrorCode::InvalidArgument);
}

#[test]
fn one_command_hands_out_only_so_much_and_the_rest_follows_at_once() {
    let mut bench = Bench::new(QueueSpec {
        in_flight_max: 100_000,
        ..queue_spec()
    });
    for _ in 0..3 {
        bench.publish(9_000);
    }
    bench.pass(5);
    let first = bench.open(1, window(25_000));
    let mut handed = delivered(&first, 1).len();
    assert_eq!(handed, DELIVERIES_MAX as usize);
    while handed < 25_000 {
        let due = bench.shard.next_deadline().unwrap();
        assert!(due <= bench.shard.elapsed());
        let bytes = bench.shard.snapshot();
        assert_eq!(Shard::restore(&bytes).as_ref(), Ok(&bench.shard));
        let more = delivered(&bench.pass(0), 1).len();
        assert!(0 < more && more <= DELIVERIES_MAX as usize);
        handed += more;
    }
    assert_eq!(handed, 25_000);
    assert!(bench.shard.next_deadline().unwrap() > bench.shard.elapsed());
}

#[test]
fn a_queue_has_only_so_many_sessions() {
    let mut bench = Bench::new(queue_spec());
    for session in 0..SESSIONS_MAX as u64 {
        bench.open(session + 1, window(0));
    }
    let refusal = refusal(bench.open(u64::MAX, window(1)));
    assert_eq!(refusal.code, ErrorCode::LimitReached);
    assert_eq!(refusal.metadata["limit"], SESSIONS_MAX.to_string());
    bench.close(1);
    let opened = bench.open(u64::MAX, window(1)).outcome;
    assert!(matches!(opened, Outcome::Session { .. }));
}

#[test]
fn a_dead_letter_queue_has_only_so_many_sources() {
    let mut bench = Bench::new(queue_spec());
    let mut accept = |source: u64| {
        bench.apply(Command::AcceptDead {
            queue: DEAD,
            source: LogId::new(source),
            number: 0,
            batch: batch(1),
        })
    };
    for source in 0..SOURCES_MAX as u64 {
        accept(source + 10);
    }
    assert_eq!(refused(&accept(5)), ErrorCode::LimitReached);
    assert_eq!(accept(10).outcome, Outcome::Numbered(1));
}

#[test]
fn a_routed_message_larger_than_its_queue_is_let_in_alone() {
    let mut bench = Bench::new(QueueSpec {
        bindings: vec![bound(&[PARTITION])],
        bytes_max: Some(500),
        ..queue_spec()
    });
    let large = BatchHeader {
        count: 1,
        bytes: 900,
    };
    let transfer = |from: u64| Command::Transfer {
        queue: QUEUE,
        revision: 1,
        partition: PARTITION,
        from: at(from),
        to: at(from + 1),
        batch: Some(large.clone()),
    };
    let (log, batch) = (QUEUE, large.clone());
    let published = bench.apply(Command::Publish {
        log,
        batch,
        dedup: None,
    });
    assert_eq!(refused(&published), ErrorCode::QueueFull);
    let taken = bench.apply(transfer(0)).outcome;
    assert_eq!(taken, Outcome::Appended(at(0)..at(1)));
    assert_eq!(refused(&bench.apply(transfer(1))), ErrorCode::QueueFull);
    bench.acquire(7, 1);
    bench.settled(7, held(0, 1), Settle::Accept);
    let taken = bench.apply(transfer(1)).outcome;
    assert_eq!(taken, Outcome::Appended(at(1)..at(2)));
}
