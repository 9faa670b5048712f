//! Any order of publishes, retries, waits and restarts against the plain truth: a list of what was
//! stored when, under which id.

use millrace_engine::Shard;
use millrace_engine::command::{Dedup, DedupId};
use millrace_engine::outcome::Outcome;
use millrace_types::{ErrorCode, Offset};
use proptest::prelude::*;

use crate::dedup::key;
use crate::support::{Bench, PARTITION, QUEUE, queue_spec};

const WINDOW_MS: u64 = 120_000;

#[derive(Clone, Debug)]
enum Step {
    Message {
        id: u64,
        age_ms: u64,
    },
    Batch {
        producer: u64,
        sequence: u64,
        behind: u64,
        age_ms: u64,
    },
    Pass(u64),
    Restart,
}

/// What was stored under an id.
#[derive(Clone, Debug)]
struct Stored {
    id: (bool, u64, u64),
    first: u64,
    at: u64,
}

#[derive(Debug, Default)]
struct Naive {
    stored: Vec<Stored>,
    floors: Vec<(u64, u64)>,
    end: u64,
}

/// What is to happen.
#[derive(Debug, PartialEq)]
enum Expected {
    New(u64),
    Repeated(u64),
    TooLate,
}

impl Naive {
    /// A producer is known as long as any of its batches is young enough.
    fn is_known(&self, stored: &Stored, now: u64) -> bool {
        let (is_batch, producer, sequence) = stored.id;
        let heard = |other: &&Stored| other.id.0 == is_batch && other.id.1 == producer;
        let last = self.stored.iter().filter(heard).map(|other| other.at).max();
        let at = if is_batch { last.unwrap() } else { stored.at };
        now - at < WINDOW_MS && (!is_batch || sequence >= self.floor(producer))
    }

    fn floor(&self, producer: u64) -> u64 {
        let floors = self.floors.iter().filter(|(of, _)| *of == producer);
        floors.map(|(_, floor)| *floor).max().unwrap_or(0)
    }

    /// What is over is as if it had never been.
    fn forget(&mut self, now: u64) {
        let known: Vec<Stored> = self.stored.clone();
        let known = known
            .into_iter()
            .filter(|stored| self.is_known(stored, now));
        self.stored = known.collect();
        let stored = &self.stored;
        self.floors
            .retain(|(producer, _)| stored.iter().any(|s| s.id.0 && s.id.1 == *producer));
    }

    fn publish(&mut self, dedup: &Dedup, id: (bool, u64, u64), now: u64) -> Expected {
        self.forget(now);
        if let Some(stored) = self.stored.iter().find(|stored| stored.id == id) {
            return Expected::Repeated(stored.first);
        }
        if id.0 && id.2 < self.floor(id.1) || dedup.age_ms > WINDOW_MS / 2 {
            return Expected::TooLate;
        }
        let (first, at) = (self.end, now);
        self.end += 1;
        self.stored.push(Stored { id, first, at });
        if let DedupId::Batch { floor, .. } = dedup.id {
            self.floors.push((id.1, floor));
        }
        Expected::New(first)
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let age = || prop_oneof![4 => Just(0_u64), 1 => 0..WINDOW_MS];
    let batch = (0..3_u64, 0..20_u64, 0..6_u64, age());
    let step = prop_oneof![
        4 => (0..12_u64, age()).prop_map(|(id, age_ms)| Step::Message { id, age_ms }),
        6 => batch.prop_map(|(producer, sequence, behind, age_ms)| Step::Batch {
            producer, sequence, behind, age_ms
        }),
        2 => prop_oneof![0..50_000_u64, Just(WINDOW_MS)].prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..120)
}

fn answer(outcome: &Outcome) -> Expected {
    match outcome {
        Outcome::Appended(offsets) => Expected::New(offsets.start.get()),
        Outcome::Repeated(offsets) => Expected::Repeated(offsets.start.get()),
        Outcome::Refused(refusal) if refusal.code == ErrorCode::RetryTooLate => Expected::TooLate,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn ids_are_known_for_their_window_and_no_longer(steps in steps(), is_queue: bool) {
        let log = if is_queue { QUEUE } else { PARTITION };
        let mut bench = Bench::new(queue_spec());
        let mut naive = Naive::default();
        for step in steps {
            let (id, known_as, age_ms) = match step {
                Step::Message { id, age_ms } => {
                    (DedupId::Message(key(id)), (false, id, 0), age_ms)
                }
                Step::Batch { producer, sequence, behind, age_ms } => {
                    let floor = sequence.saturating_sub(behind);
                    let number = producer;
                    let producer = key(producer + 1_000);
                    let id = DedupId::Batch { producer, sequence, floor };
                    (id, (true, number, sequence), age_ms)
                }
                Step::Pass(millis) => {
                    bench.pass(millis);
                    continue;
                }
                Step::Restart => {
                    bench.shard = Shard::restore(&bench.shard.snapshot()).unwrap();
                    continue;
                }
            };
            let dedup = Dedup { id, age_ms };
            let expected = naive.publish(&dedup, known_as, bench.now);
            let outcome = bench.publish_once(log, 1, dedup);
            prop_assert_eq!(answer(&outcome), expected);
        }
        let end = match log {
            QUEUE => bench.queue().end(),
            _ => bench.shard.partition(PARTITION).unwrap().end(),
        };
        prop_assert_eq!(end, Offset::new(naive.end));
        prop_assert_eq!(bench.replayed().checksum(), bench.shard.checksum());
    }
}
