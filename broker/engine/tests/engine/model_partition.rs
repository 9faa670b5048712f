//! Random appends, trims and pauses go to a partition and to a plain list of messages.

use millrace_engine::command::{BatchHeader, Command};
use millrace_engine::outcome::Outcome;
use millrace_engine::spec::PartitionSpec;
use millrace_engine::{Partition, Shard};
use millrace_types::Wall;
use proptest::prelude::*;

use crate::support::{
    Bench, EPOCH, PARTITION, at, configure_partition, partition_spec, queue_spec,
};

#[derive(Clone, Debug)]
enum Step {
    Publish { count: u32, each: u64 },
    Pass(u64),
    Trim(prop::sample::Index),
    Retain,
}

const AGE_MS: u64 = 64_000;
const BYTES: u64 = 5_000;
const MESSAGES: u64 = 60;

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..10_u32, prop_oneof![1..40_u64, 1..500_u64])
            .prop_map(|(count, each)| Step::Publish { count, each }),
        2 => prop_oneof![0..900_u64, 0..64_500_u64].prop_map(Step::Pass),
        1 => any::<prop::sample::Index>().prop_map(Step::Trim),
        2 => Just(Step::Retain),
    ]
}

/// Every message ever, as (wall, bytes).
#[derive(Default)]
struct Plain {
    all: Vec<(u64, u64)>,
    first: usize,
}

impl Plain {
    fn bytes(&self, from: usize) -> u64 {
        self.all[from..].iter().map(|(_, bytes)| bytes).sum()
    }
}

fn check(partition: &Partition, plain: &Plain) {
    assert_eq!(partition.first(), at(plain.first as u64));
    assert_eq!(partition.end(), at(plain.all.len() as u64));
    let kept = &plain.all[plain.first..];
    let exact = plain.bytes(plain.first);
    // Exact but for the one span that was cut, and a span mixes like sizes only.
    let about = partition.bytes() / 4..=partition.bytes().saturating_mul(4);
    assert!(about.contains(&exact), "{exact} is not {about:?}");
    if plain.first == 0 {
        assert_eq!(partition.bytes(), exact);
    }
    match (partition.oldest(), kept.first()) {
        (Some(oldest), Some((wall, _))) => assert!(oldest.as_millis() <= *wall),
        (None, None) => {}
        other => panic!("{other:?}"),
    }
    let walls = kept.iter().map(|(wall, _)| *wall);
    for wall in walls.chain([0, u64::MAX]) {
        let found = partition.offset_at(Wall::from_millis(wall)).get();
        let exact = plain
            .all
            .iter()
            .skip(plain.first)
            .position(|(w, _)| *w >= wall);
        let exact = exact.map_or(plain.all.len(), |n| n + plain.first);
        assert!(found <= exact as u64, "{found} is after {exact}");
        assert!(found >= plain.first as u64);
    }
}

/// What retention wants gone, held against every message.
fn check_point(point: usize, now: u64, plain: &Plain) {
    let left = (plain.all.len() - point) as u64;
    assert!(left <= MESSAGES, "{left} messages are left");
    let age = |n: usize| EPOCH + now - plain.all[n].0;
    let span_ms = AGE_MS / 64;
    for n in point..plain.all.len() {
        assert!(age(n) <= AGE_MS + span_ms, "{n} is too old");
    }
    if point > plain.first {
        let last = point - 1;
        // Bytes are those of spans, which mix like sizes.
        let needed = left + 1 > MESSAGES || age(last) > AGE_MS || plain.bytes(last) * 4 > BYTES;
        assert!(needed, "{last} could have stayed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_partition_does_what_a_list_does(steps in prop::collection::vec(steps(), 1..80)) {
        let mut bench = Bench::new(queue_spec());
        bench.apply(configure_partition(2, PartitionSpec {
            age_ms_max: Some(AGE_MS),
            bytes_max: Some(BYTES),
            messages_max: Some(MESSAGES),
            ..partition_spec()
        }));
        let mut plain = Plain::default();
        for step in steps {
            match step {
                Step::Publish { count, each } => {
                    let bytes = u64::from(count) * each;
                    let applied = bench.apply(Command::Publish {
                        log: PARTITION,
                        batch: BatchHeader { count, bytes }, dedup: None });
                    let first = plain.all.len() as u64;
                    let end = first + u64::from(count);
                    prop_assert_eq!(applied.outcome, Outcome::Appended(at(first)..at(end)));
                    for _ in 0..count {
                        plain.all.push((EPOCH + bench.now, each));
                    }
                }
                Step::Pass(millis) => {
                    bench.pass(millis);
                }
                Step::Trim(pick) => {
                    let first = pick.index(plain.all.len() + 1);
                    bench.apply(Command::Trim { partition: PARTITION, first: at(first as u64) });
                    plain.first = plain.first.max(first);
                }
                Step::Retain => {
                    let partition = bench.shard.partition(PARTITION).unwrap();
                    let wall = Wall::from_millis(EPOCH + bench.now);
                    let point = partition.trim_point(wall).unwrap_or(partition.first());
                    let point_ = usize::try_from(point.get()).unwrap();
                    check_point(point_, bench.now, &plain);
                    bench.apply(Command::Trim { partition: PARTITION, first: point });
                    plain.first = plain.first.max(point_);
                    let partition = bench.shard.partition(PARTITION).unwrap();
                    prop_assert!(partition.bytes() <= BYTES);
                    prop_assert_eq!(partition.trim_point(wall), None);
                }
            }
            check(bench.shard.partition(PARTITION).unwrap(), &plain);
            let restored = Shard::restore(&bench.shard.snapshot()).unwrap();
            prop_assert_eq!(restored.checksum(), bench.shard.checksum());
            bench.shard = restored;
        }
        prop_assert_eq!(bench.replayed().checksum(), bench.shard.checksum());
    }
}
