//! Stories of partitions: offsets, time, retention.

use millrace_engine::Partition;
use millrace_engine::command::{BatchHeader, Command};
use millrace_engine::outcome::{Effect, Outcome};
use millrace_engine::spec::PartitionSpec;
use millrace_types::{ErrorCode, Offset, Wall};

use crate::support::{
    Bench, EPOCH, PARTITION, at, batch, configure_partition, discarded, partition_spec, queue_spec,
    refused,
};

fn topic(spec: PartitionSpec) -> Bench {
    let mut bench = Bench::new(queue_spec());
    bench.apply(configure_partition(2, spec));
    bench
}

fn publish(bench: &mut Bench, batch: BatchHeader) -> millrace_engine::outcome::Applied {
    let log = PARTITION;
    bench.apply(Command::Publish {
        log,
        batch,
        dedup: None,
    })
}

fn partition(bench: &Bench) -> &Partition {
    bench.shard.partition(PARTITION).unwrap()
}

fn trim_point(bench: &Bench) -> Option<Offset> {
    partition(bench).trim_point(Wall::from_millis(EPOCH + bench.now))
}

fn trim(bench: &mut Bench, first: u64) -> millrace_engine::outcome::Applied {
    bench.apply(Command::Trim {
        partition: PARTITION,
        first: at(first),
    })
}

#[test]
fn a_partition_grows_at_its_end_and_is_trimmed_at_its_start() {
    let mut bench = topic(partition_spec());
    let applied = publish(&mut bench, batch(10));
    assert_eq!(applied.outcome, Outcome::Appended(at(0)..at(10)));
    let (log, end) = (PARTITION, at(10));
    assert_eq!(applied.effects, [Effect::Appended { log, end }]);

    assert_eq!(discarded(&trim(&mut bench, 4)), [(0, 4)]);
    assert_eq!(discarded(&trim(&mut bench, 4)), []);
    assert_eq!(discarded(&trim(&mut bench, 2)), []);
    let got = partition(&bench);
    assert_eq!((got.first(), got.end(), got.bytes()), (at(4), at(10), 600));
    assert_eq!(refused(&trim(&mut bench, 11)), ErrorCode::InvalidArgument);
    trim(&mut bench, 10);
    assert_eq!(partition(&bench).oldest(), None);
}

#[test]
fn retention_by_count_keeps_exactly_so_many() {
    let mut bench = topic(PartitionSpec {
        messages_max: Some(7),
        ..partition_spec()
    });
    publish(&mut bench, batch(7));
    assert_eq!(trim_point(&bench), None);
    publish(&mut bench, batch(3));
    assert_eq!(trim_point(&bench), Some(at(3)));
}

#[test]
fn retention_by_bytes_keeps_no_more_than_so_many() {
    let mut bench = topic(PartitionSpec {
        bytes_max: Some(1000),
        ..partition_spec()
    });
    let bytes = 5000;
    publish(&mut bench, batch(9));
    assert_eq!(trim_point(&bench), None);
    publish(&mut bench, batch(3));
    assert_eq!(trim_point(&bench), Some(at(2)));
    publish(&mut bench, BatchHeader { count: 10, bytes });
    assert_eq!(trim_point(&bench), Some(at(20)));
    trim(&mut bench, 20);
    assert_eq!(partition(&bench).bytes(), 1000);
    assert_eq!(trim_point(&bench), None);
    publish(&mut bench, BatchHeader { count: 1, bytes });
    assert_eq!(trim_point(&bench), Some(at(23)));
}

#[test]
fn retention_by_age_lets_go_of_what_is_wholly_too_old() {
    let mut bench = topic(PartitionSpec {
        age_ms_max: Some(10_000),
        ..partition_spec()
    });
    publish(&mut bench, batch(5));
    bench.pass(5000);
    publish(&mut bench, batch(5));
    bench.pass(5000);
    assert_eq!(trim_point(&bench), None);
    bench.pass(1);
    assert_eq!(trim_point(&bench), Some(at(5)));
    bench.pass(5000);
    assert_eq!(trim_point(&bench), Some(at(10)));
    trim(&mut bench, 10);
    bench.pass(50_000);
    assert_eq!(trim_point(&bench), None);
}

#[test]
fn a_time_leads_to_an_offset_not_after_its_first_message() {
    let mut bench = topic(partition_spec());
    for _ in 0..5 {
        publish(&mut bench, batch(2));
        bench.pass(700_000);
    }
    let offset = |after: u64| partition(&bench).offset_at(Wall::from_millis(EPOCH + after));
    assert_eq!(offset(0), at(0));
    assert_eq!(offset(1), at(2));
    assert_eq!(offset(700_000), at(2));
    assert_eq!(offset(2_100_001), at(8));
    assert_eq!(offset(9_000_000), at(10));
}

#[test]
fn retention_by_age_never_lets_go_of_what_is_young_enough() {
    let mut bench = topic(PartitionSpec {
        age_ms_max: Some(64_000),
        ..partition_spec()
    });
    publish(&mut bench, batch(5));
    bench.pass(800);
    publish(&mut bench, batch(5));
    bench.pass(63_300);
    assert_eq!(trim_point(&bench), None);
    bench.pass(701);
    assert_eq!(trim_point(&bench), Some(at(10)));
}
