//! Dedup ids: a retry is stored once, and answered with the place of the first attempt.

use millrace_engine::command::{Command, Dedup, DedupId, Settle, Settlement};
use millrace_engine::outcome::Outcome;
use millrace_engine::spec::{PartitionSpec, QueueSpec};
use millrace_engine::{DEDUP_IDS_MAX, PRODUCER_BATCHES_MAX, Shard};
use millrace_types::{Applied, DedupKey, Elapsed, ErrorCode, LogId, Offset, Refusal, SessionId};

use crate::support::{
    Bench, DEAD, PARTITION, QUEUE, at, batch, configure, configure_partition, held, partition_spec,
    queue_spec,
};

const WINDOW_MS: u64 = 120_000;

pub(crate) fn key(id: u64) -> DedupKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    DedupKey::new(bytes)
}

pub(crate) const fn once(id: DedupId) -> Dedup {
    Dedup { id, age_ms: 0 }
}

fn message(id: u64) -> Dedup {
    once(DedupId::Message(key(id)))
}

fn sequence(sequence: u64, floor: u64) -> Dedup {
    let producer = key(1 << 40);
    once(DedupId::Batch {
        producer,
        sequence,
        floor,
    })
}

impl Bench {
    pub(crate) fn publish_once(&mut self, log: LogId, count: u32, dedup: Dedup) -> Outcome {
        let (batch, dedup) = (batch(count), Some(dedup));
        self.apply(Command::Publish { log, batch, dedup }).outcome
    }
}

fn new(first: u64, count: u64) -> Outcome {
    Outcome::Appended(at(first)..at(first + count))
}

fn repeated(first: u64, count: u64) -> Outcome {
    Outcome::Repeated(at(first)..at(first + count))
}

fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_retry_is_stored_once_and_answered_with_the_place_of_the_first_attempt() {
    for log in [QUEUE, PARTITION] {
        let mut bench = Bench::new(queue_spec());
        assert_eq!(bench.publish_once(log, 1, message(7)), new(0, 1));
        assert_eq!(bench.publish_once(log, 3, sequence(0, 0)), new(1, 3));
        assert_eq!(bench.publish_once(log, 1, message(8)), new(4, 1));
        for _ in 0..2 {
            assert_eq!(bench.publish_once(log, 1, message(7)), repeated(0, 1));
            assert_eq!(bench.publish_once(log, 3, sequence(0, 0)), repeated(1, 3));
        }
        assert_eq!(bench.publish_once(log, 1, message(9)), new(5, 1));
    }
}

#[test]
fn the_same_id_elsewhere_is_another_message() {
    let mut bench = Bench::new(queue_spec());
    for log in [QUEUE, PARTITION, DEAD] {
        assert_eq!(bench.publish_once(log, 1, message(7)), new(0, 1));
        assert_eq!(bench.publish_once(log, 1, sequence(4, 0)), new(1, 1));
    }
}

#[test]
fn a_retry_is_known_when_the_message_is_gone_or_the_queue_takes_nothing() {
    let mut bench = Bench::new(QueueSpec {
        messages_max: Some(1),
        ..queue_spec()
    });
    bench.publish_once(QUEUE, 1, message(7));
    assert_eq!(bench.publish_once(QUEUE, 1, message(7)), repeated(0, 1));
    let full = refusal(bench.publish_once(QUEUE, 1, message(8)));
    assert_eq!(full.code, ErrorCode::QueueFull);

    let owner = SessionId::new(3);
    bench.apply(Command::Acquire {
        queue: QUEUE,
        owner,
        messages_max: 1,
        bytes_max: 1,
        lease_ms: None,
    });
    let settlement = Settlement {
        owner,
        held: held(0, 1),
        settle: Settle::Accept,
    };
    bench.apply(Command::Settle {
        queue: QUEUE,
        settlements: vec![settlement],
    });
    assert_eq!(bench.publish_once(QUEUE, 1, message(7)), repeated(0, 1));
    let (log, revision) = (QUEUE, 2);
    bench.apply(Command::Freeze { log, revision });
    assert_eq!(bench.publish_once(QUEUE, 1, message(7)), repeated(0, 1));
    // What was refused is not known: it may be tried again.
    bench.apply(configure(QUEUE, "queue/test/jobs", 3, queue_spec()));
    assert_eq!(bench.publish_once(QUEUE, 1, message(8)), new(1, 1));
}

#[test]
fn an_id_is_forgotten_when_its_window_is_over_and_no_sooner() {
    let mut bench = Bench::new(queue_spec());
    bench.publish_once(QUEUE, 1, message(7));
    bench.publish_once(QUEUE, 1, sequence(0, 0));
    bench.now += WINDOW_MS - 1;
    assert_eq!(bench.publish_once(QUEUE, 1, message(7)), repeated(0, 1));
    assert_eq!(bench.publish_once(QUEUE, 1, sequence(0, 0)), repeated(1, 1));
    bench.now += 1;
    // A repetition does not make the window longer.
    assert_eq!(bench.publish_once(QUEUE, 1, message(7)), new(2, 1));
    assert_eq!(bench.publish_once(QUEUE, 1, sequence(0, 0)), new(3, 1));
}

#[test]
fn what_is_over_leaves_the_memory_without_anybody_publishing() {
    let mut bench = Bench::new(queue_spec());
    for id in 0..2_500 {
        bench.publish_once(QUEUE, 1, message(id));
        bench.publish_once(PARTITION, 1, sequence(id, id));
    }
    assert_eq!(bench.shard.dedup_ids_of(QUEUE), 2_500);
    assert_eq!(bench.shard.dedup_ids_of(PARTITION), 1);
    let mut ticks = 0;
    while let Some(deadline) = bench.shard.next_deadline() {
        bench.now = bench.now.max(deadline.as_millis());
        bench.pass(0);
        ticks += 1;
    }
    // A thousand with each: what one entry does is bounded.
    assert_eq!(ticks, 3);
    assert!(bench.now >= WINDOW_MS && bench.now <= WINDOW_MS + WINDOW_MS / 8);
    assert_eq!(bench.shard.dedup_ids_of(QUEUE), 0);
    assert_eq!(bench.shard.dedup_ids_of(PARTITION), 0);
}

#[test]
fn an_idle_shard_is_woken_eight_times_in_a_window_at_most() {
    let mut bench = Bench::new(queue_spec());
    for id in 0..1_000 {
        bench.now += 120;
        bench.publish_once(QUEUE, 1, message(id));
    }
    let mut deadlines: Vec<Elapsed> = Vec::new();
    while let Some(deadline) = bench.shard.next_deadline() {
        bench.now = bench.now.max(deadline.as_millis());
        bench.pass(0);
        deadlines.push(deadline);
    }
    assert!(deadlines.len() <= 8, "{deadlines:?}");
}

#[test]
fn a_producer_costs_what_it_has_undecided_however_much_it_publishes() {
    let mut bench = Bench::new(queue_spec());
    for number in 0..1_000 {
        bench.publish_once(QUEUE, 1, sequence(number, u64::saturating_sub(number, 9)));
    }
    assert_eq!(bench.shard.dedup_ids_of(QUEUE), 10);
    // One of the undecided ones is a retry, in any order and with gaps.
    assert_eq!(
        bench.publish_once(QUEUE, 1, sequence(990, 0)),
        repeated(990, 1)
    );
    assert_eq!(
        bench.publish_once(QUEUE, 1, sequence(1_007, 995)),
        new(1_000, 1)
    );
    assert_eq!(
        bench.publish_once(QUEUE, 1, sequence(1_003, 0)),
        new(1_001, 1)
    );
    assert_eq!(
        bench.publish_once(QUEUE, 1, sequence(1_007, 0)),
        repeated(1_000, 1)
    );
    // One that the producer has done with is late, and not stored.
    let late = refusal(bench.publish_once(QUEUE, 1, sequence(994, 0)));
    assert_eq!(
        (late.code, late.applied),
        (ErrorCode::RetryTooLate, Applied::Unknown)
    );
}

#[test]
fn a_retry_that_comes_too_late_to_be_known_is_not_stored() {
    let mut bench = Bench::new(queue_spec());
    let aged = |id, age_ms| Dedup { id, age_ms };
    let DedupId::Batch { .. } = sequence(0, 0).id else {
        panic!("a batch");
    };
    for id in [message(7).id, sequence(0, 0).id] {
        let late = refusal(bench.publish_once(QUEUE, 1, aged(id, WINDOW_MS / 2 + 1)));
        assert_eq!(
            (late.code, late.applied),
            (ErrorCode::RetryTooLate, Applied::Unknown)
        );
        let stored = bench.publish_once(QUEUE, 1, aged(id, WINDOW_MS / 2));
        assert!(matches!(stored, Outcome::Appended(_)));
        // What is known is answered, however late.
        let again = bench.publish_once(QUEUE, 1, aged(id, WINDOW_MS));
        assert!(matches!(again, Outcome::Repeated(_)));
    }
}

#[test]
fn another_batch_under_the_number_of_one_is_refused() {
    let mut bench = Bench::new(queue_spec());
    bench.publish_once(QUEUE, 3, sequence(0, 0));
    let other = refusal(bench.publish_once(QUEUE, 2, sequence(0, 0)));
    assert_eq!(other.code, ErrorCode::InvalidArgument);
    bench.publish_once(QUEUE, 1, message(5));
    let both = once(DedupId::Batch {
        producer: key(5),
        sequence: 0,
        floor: 0,
    });
    let both = refusal(bench.publish_once(QUEUE, 1, both));
    assert_eq!(both.code, ErrorCode::InvalidArgument);
}

#[test]
fn ids_beyond_their_limit_are_refused_until_others_are_forgotten() {
    let mut bench = Bench::new(queue_spec());
    for id in 0..DEDUP_IDS_MAX as u64 {
        bench.publish_once(PARTITION, 1, message(id));
    }
    let refused = refusal(bench.publish_once(PARTITION, 1, message(u64::MAX)));
    assert_eq!(refused.code, ErrorCode::LimitReached);
    assert!(refused.retry_after_ms.is_some());
    // Neither retries, nor other queues, nor those without an id are held up.
    assert_eq!(bench.publish_once(PARTITION, 1, message(3)), repeated(3, 1));
    assert_eq!(bench.publish_once(QUEUE, 1, message(3)), new(0, 1));
    let (log, dedup) = (PARTITION, None);
    let batch = batch(1);
    let plain = bench.apply(Command::Publish { log, batch, dedup }).outcome;
    assert!(matches!(plain, Outcome::Appended(_)));
    bench.now += WINDOW_MS + WINDOW_MS / 8;
    bench.pass(0);
    let taken = bench.publish_once(PARTITION, 1, message(u64::MAX));
    assert!(matches!(taken, Outcome::Appended(_)));
}

#[test]
fn a_producer_with_too_much_undecided_is_refused() {
    let mut bench = Bench::new(queue_spec());
    for number in 0..PRODUCER_BATCHES_MAX as u64 {
        bench.publish_once(PARTITION, 1, sequence(number, 0));
    }
    let number = PRODUCER_BATCHES_MAX as u64;
    let refused = refusal(bench.publish_once(PARTITION, 1, sequence(number, 0)));
    assert_eq!(refused.code, ErrorCode::LimitReached);
}

#[test]
fn a_shorter_window_is_over_sooner() {
    let mut bench = Bench::new(queue_spec());
    bench.publish_once(QUEUE, 1, message(7));
    bench.publish_once(PARTITION, 1, message(7));
    let dedup_ms = 10_000;
    let queue = QueueSpec {
        dedup_ms,
        ..queue_spec()
    };
    let partition = PartitionSpec {
        dedup_ms,
        ..partition_spec()
    };
    bench.apply(configure(QUEUE, "queue/test/jobs", 2, queue));
    bench.apply(configure_partition(2, partition));
    assert!(bench.shard.next_deadline().unwrap().as_millis() <= 12_000);
    bench.now += 10_000;
    assert_eq!(bench.publish_once(QUEUE, 1, message(7)), new(1, 1));
    assert_eq!(bench.publish_once(PARTITION, 1, message(7)), new(1, 1));
}

#[test]
fn ids_survive_snapshots_and_go_with_their_queue() {
    let mut bench = Bench::new(queue_spec());
    for log in [QUEUE, PARTITION] {
        bench.publish_once(log, 1, message(7));
        bench.publish_once(log, 2, sequence(3, 3));
    }
    bench.shard = Shard::restore(&bench.shard.snapshot()).unwrap();
    for log in [QUEUE, PARTITION] {
        assert_eq!(bench.shard.dedup_ids_of(log), 2);
        assert_eq!(bench.publish_once(log, 1, message(7)), repeated(0, 1));
        assert_eq!(bench.publish_once(log, 2, sequence(3, 3)), repeated(1, 2));
        let revision = 9;
        bench.apply(Command::Remove { log, revision });
        assert_eq!(bench.shard.dedup_ids_of(log), 0);
    }
    assert_eq!(bench.shard.next_deadline(), None);
}

#[test]
fn what_is_routed_or_dies_is_not_looked_up() {
    let mut bench = Bench::new(queue_spec());
    bench.publish_once(DEAD, 1, message(7));
    for number in 0..2 {
        let accepted = bench.apply(Command::AcceptDead {
            queue: DEAD,
            source: QUEUE,
            number,
            batch: batch(1),
        });
        assert!(matches!(accepted.outcome, Outcome::Appended(_)));
    }
    assert_eq!(bench.shard.queue(DEAD).unwrap().end(), Offset::new(3));
}
