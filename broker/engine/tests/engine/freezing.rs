//! A frozen state is what the shard was, and is cheap to make whatever is in it.

use std::time::{Duration, Instant};

use millrace_engine::Shard;
use millrace_engine::command::Command;
use millrace_engine::spec::QueueSpec;
use millrace_types::LogId;

use crate::support::{Bench, QUEUE, batch, configure, held, queue_spec, retry};

#[test]
fn a_frozen_state_stays_while_its_shard_goes_on() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(600);
    bench.acquire(7, 100);
    let (frozen, then) = (bench.shard.freeze(), bench.shard.clone());
    let (bytes, checksum) = (bench.shard.snapshot(), bench.shard.checksum());
    bench.publish(5);
    for offset in 0..50 {
        bench.settled(7, held(offset, 1), retry());
    }
    bench.apply(Command::Remove {
        log: QUEUE,
        revision: 9,
    });
    assert_eq!((frozen.encode(), frozen.checksum()), (bytes, checksum));
    assert_eq!(frozen.applied(), then.applied());
    assert_eq!(Shard::restore(&frozen.encode()), Ok(then));
    assert_ne!(bench.shard.checksum(), checksum);
}

/// `cargo test -p millrace-engine --release --test engine freezing -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn how_long_a_worker_is_held_up() {
    let mut many = Bench::new(queue_spec());
    for log in 10..100_010 {
        let name = format!("queue/test/q{log}");
        many.apply(configure(LogId::new(log), &name, 2, queue_spec()));
    }
    measure("100 000 queues", &mut many, |bench, n| {
        bench.apply(Command::Publish {
            log: LogId::new(10 + n * 97),
            batch: batch(1),
            dedup: None,
        });
    });

    let mut deep = Bench::new(QueueSpec {
        in_flight_max: u32::MAX,
        ..queue_spec()
    });
    for n in 0..1_000 {
        deep.publish(1_000);
        assert_eq!(deep.acquire(n, 1_000).len(), 1_000);
    }
    deep.publish(1_000_000 / 100);
    measure("1 000 000 leases in one queue", &mut deep, |bench, n| {
        bench.settled(n, held(n * 1_000, 1), retry());
    });
}

fn measure(what: &str, bench: &mut Bench, mut touch: impl FnMut(&mut Bench, u64)) {
    let (mut freezing, mut touching, mut calm) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut encoding = Duration::ZERO;
    for n in 0..20 {
        let start = Instant::now();
        let frozen = bench.shard.freeze();
        freezing = freezing.max(start.elapsed());
        let start = Instant::now();
        touch(bench, 2 * n);
        touching = touching.max(start.elapsed());
        let start = Instant::now();
        touch(bench, 2 * n + 1);
        calm = calm.max(start.elapsed());
        if n == 0 {
            let start = Instant::now();
            assert!(!frozen.encode().is_empty());
            encoding = start.elapsed();
        }
    }
    println!(
        "{what}: freezing {freezing:?}, first command after it {touching:?}, next {calm:?} \
         (worst of 20); encoding elsewhere {encoding:?}"
    );
}
