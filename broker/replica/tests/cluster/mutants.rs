//! Proof that the simulation bites: every known bug of replication is switched on and has to be
//! found within its bound, by what becomes of the log and of what clients were told.

use millrace_types::mutant::{Mutant, switch_on};

use crate::judge::Promises;
use crate::simulation::run;

/// Seeds within which each has to be found.
const SEEDS_MAX: u64 = 4_000;

/// `MILLRACE_REPLICA_MUTANT=NAME` chooses one.
fn is_wanted(mutant: &Mutant) -> bool {
    let wanted = std::env::var("MILLRACE_REPLICA_MUTANT").ok();
    wanted.is_none_or(|name| name == format!("{mutant:?}"))
}

#[test]
fn every_known_bug_is_found() {
    let mut missed = Vec::new();
    for mutant in Mutant::REPLICA.into_iter().filter(is_wanted) {
        switch_on(Some(mutant));
        let broken = |seed| run(seed, Promises::Ignored).1.map(|broken| (seed, broken));
        match (0..SEEDS_MAX).find_map(broken) {
            Some((seed, broken)) => println!("{mutant:?}: found by seed {seed}: {broken}"),
            None => missed.push(mutant),
        }
        switch_on(None);
    }
    assert!(
        missed.is_empty(),
        "not found within {SEEDS_MAX} seeds: {missed:?}"
    );
}
