//! A few seeds in every test run: the long runs are `cargo xtask sim`.

use millrace_sim::campaign;

/// Seeds that once failed.
const FAILED: &str = include_str!("../seeds.txt");

fn failed() -> impl Iterator<Item = u64> {
    let lines = FAILED.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.trim().parse().expect("a seed is a number"))
}

#[test]
fn a_seed_that_once_failed_does_not_fail_again() {
    for seed in failed() {
        let report = campaign::one(seed, false);
        assert_eq!(report.violation, None, "cargo xtask sim --seed {seed}");
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    for seed in 0..6 {
        let report = campaign::one(seed, true);
        assert_eq!(report.violation, None, "cargo xtask sim --seed {seed}");
    }
}
