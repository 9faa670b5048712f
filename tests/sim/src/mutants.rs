//! Proof that the simulation bites: every known bug is switched on and has to be found within its
//! bound. A bug that is not found means that the simulation looks away.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use millrace_types::mutant::{Mutant, switch_on};

use crate::campaign;
use crate::guard;
use crate::plan::generate;
use crate::watch::Violation;

/// Seeds within which every bug has to be found.
const SEEDS_MAX: u64 = 400;
/// The same where it takes a bit that flips in a certain place, or a crash at a certain moment.
const SEEDS_MAX_RARE: u64 = 4_000;

/// Seeds among which those are that a bug is looked for in.
const SEEDS_LOOKED_AT: u64 = 100_000;

const fn bound(mutant: Mutant) -> u64 {
    match mutant {
        Mutant::ChecksumSkipped | Mutant::DamageSpreads | Mutant::RecallSkipped => SEEDS_MAX_RARE,
        _ => SEEDS_MAX,
    }
}

/// Among which seeds a bug of several nodes is looked for: not where nothing provokes it.
const fn seeds(mutant: Mutant) -> fn(u64) -> bool {
    match mutant {
        Mutant::IdUsedAgain => generate::loses_a_disk,
        Mutant::QuarantinedVotes => generate::loses_a_replica,
        _ => generate::has_several_nodes,
    }
}

/// Looks for each of them, or only for those that take several nodes; whether all were found.
#[must_use]
pub fn run(jobs: usize, only_several: bool) -> bool {
    guard::install();
    let one: fn(u64) -> bool = |seed| !generate::has_several_nodes(seed);
    let alone = Mutant::ALL.iter().filter(|_| !only_several);
    let alone = alone.map(|mutant| (*mutant, one));
    let several = Mutant::CLUSTER.iter();
    let several = several.map(|mutant| (*mutant, seeds(*mutant)));
    let (mut found, mut missed, mut skipped) = (0, 0, 0);
    for (mutant, seeds) in alone.chain(several) {
        if !(0..SEEDS_LOOKED_AT).any(seeds) {
            skipped += 1;
            println!("mutant {mutant:?}: SKIPPED, no seed has the nodes that it takes");
            continue;
        }
        let bound = bound(mutant);
        match find(mutant, bound, jobs, seeds) {
            Some((seeds, violation)) => {
                found += 1;
                let Violation { invariant, what } = violation;
                println!("mutant {mutant:?}: found by {invariant} after {seeds} seeds ({what})");
            }
            None => {
                missed += 1;
                println!("mutant {mutant:?}: NOT FOUND within {bound} seeds");
            }
        }
    }
    println!("mutants: {found} found, {missed} missed, {skipped} skipped");
    missed == 0
}

/// How many seeds of those it took, counting from the first, and what was violated.
fn find(
    mutant: Mutant,
    bound: u64,
    jobs: usize,
    seeds: fn(u64) -> bool,
) -> Option<(u64, Violation)> {
    let bound = usize::try_from(bound).unwrap_or(usize::MAX);
    let seeds: Vec<u64> = (0..SEEDS_LOOKED_AT)
        .filter(|seed| seeds(*seed))
        .take(bound)
        .collect();
    let (next, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let found: Mutex<Option<(u64, Violation)>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                switch_on(Some(mutant));
                while !done.load(Ordering::Relaxed) {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(seed) = seeds.get(place).copied() else {
                        return;
                    };
                    if let Some(violation) = campaign::one(seed, false).violation {
                        done.store(true, Ordering::Relaxed);
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        let earlier = found.as_ref().is_some_and(|(at, _)| *at <= place as u64);
                        if !earlier {
                            *found = Some((place as u64 + 1, violation));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
