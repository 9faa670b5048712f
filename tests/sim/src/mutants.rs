//! Proof that the simulation bites: every known bug is switched on and has to be found within its
//! bound. A bug that is not found means that the simulation looks away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use millrace_types::mutant::{Mutant, switch_on};

use crate::campaign;
use crate::guard;
use crate::watch::Violation;

/// Seeds within which every bug has to be found.
const SEEDS_MAX: u64 = 400;
/// The same where it takes a bit that flips in a certain place, or a crash at a certain moment.
const SEEDS_MAX_RARE: u64 = 4_000;

const fn bound(mutant: Mutant) -> u64 {
    match mutant {
        Mutant::ChecksumSkipped | Mutant::DamageSpreads | Mutant::RecallSkipped => SEEDS_MAX_RARE,
        _ => SEEDS_MAX,
    }
}

/// Looks for each of them; whether all were found.
#[must_use]
pub fn run(jobs: usize) -> bool {
    guard::install();
    let mut missed = 0;
    for mutant in Mutant::ALL {
        let bound = bound(mutant);
        match find(mutant, bound, jobs) {
            Some((seeds, violation)) => {
                let Violation { invariant, what } = violation;
                println!("mutant {mutant:?}: found by {invariant} after {seeds} seeds ({what})");
            }
            None => {
                missed += 1;
                println!("mutant {mutant:?}: NOT FOUND within {bound} seeds");
            }
        }
    }
    let found = Mutant::ALL.len() - missed;
    println!("mutants: {found} found, {missed} missed");
    missed == 0
}

/// How many seeds it took, counting from the first, and what was violated.
fn find(mutant: Mutant, bound: u64, jobs: usize) -> Option<(u64, Violation)> {
    let (next, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let found: Mutex<Option<(u64, Violation)>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                switch_on(Some(mutant));
                while !done.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= bound {
                        return;
                    }
                    if let Some(violation) = campaign::one(seed, false).violation {
                        done.store(true, Ordering::Relaxed);
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        let earlier = found.as_ref().is_some_and(|(at, _)| *at <= seed);
                        if !earlier {
                            *found = Some((seed + 1, violation));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
