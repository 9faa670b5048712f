//! Whole runs. `MILLRACE_REPLICA_SEEDS=FROM..TO` chooses others; a seed that fails is printed, and
//! the same seed fails the same way.

use std::ops::Range;

use crate::judge::Promises;
use crate::world::World;

/// What a test run has time for, unoptimised.
const SEEDS: Range<u64> = 0..150;

pub(crate) fn seeds() -> Range<u64> {
    let chosen = std::env::var("MILLRACE_REPLICA_SEEDS").ok();
    let parsed = chosen.as_deref().and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    parsed.unwrap_or(SEEDS)
}

/// A run of one seed; what it broke, also when it panicked.
pub(crate) fn run(seed: u64, promises: Promises) -> (World, Option<String>) {
    let mut world = World::new(seed, promises);
    let run = std::panic::AssertUnwindSafe(|| world.run());
    let broken = match std::panic::catch_unwind(run) {
        Ok(result) => result.err(),
        Err(panic) => {
            let owned = panic.downcast_ref::<String>().cloned();
            let text = owned.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Some(text.unwrap_or_else(|| "a panic".to_owned()))
        }
    };
    (world, broken)
}

#[test]
fn no_acknowledged_entry_is_lost_and_all_replicas_agree() {
    let (mut elections, mut acknowledged, mut reads, mut installs) = (0, 0, 0, 0);
    let mut failed = Vec::new();
    for seed in seeds() {
        let (world, broken) = run(seed, Promises::Judged);
        failed.extend(broken.map(|broken| format!("seed {seed}: {broken}")));
        elections += world.judge.elections.len();
        acknowledged += world.judge.acknowledged.len();
        reads += world.judge.reads;
        installs += world.judge.installs;
    }
    println!(
        "{elections} elections, {acknowledged} acknowledged, {reads} reads, {installs} installs"
    );
    assert!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(elections > 0 && acknowledged > 0 && reads > 0 && installs > 0);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| {
        let (world, broken) = run(seed, Promises::Judged);
        assert_eq!(broken, None);
        let digests: Vec<_> = world.nodes.iter().map(|node| node.machine.digest).collect();
        (
            world.judge.elections,
            world.judge.acknowledged,
            world.judge.reads,
            digests,
        )
    };
    for seed in 0..10 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
}
