//! Many seeds on all cores, and what is printed about them. Each seed runs in one thread.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::plan::generate;
use crate::watch::Violation;
use crate::world::{self, Report};
use crate::{guard, shrink};

/// Violations that are cut down and shown in full; of more, only the line is shown.
const SHOWN_MAX: usize = 3;
/// How often progress is told.
const PROGRESS_EVERY: u64 = 1_000;

/// What to run.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// These seeds,
    pub seeds: Range<u64>,
    /// on so many threads,
    pub jobs: usize,
    /// each twice, to see that both runs are the same,
    pub twice: bool,
    /// and without cutting down what fails.
    pub quick: bool,
    /// Only those that have several nodes.
    pub several: bool,
}

/// What it came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Seeds run.
    pub seeds: u64,
    /// What clients and the operator asked for.
    pub operations: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Faults of the disk.
    pub faults: u64,
    /// Seeds that violated something.
    pub violations: u64,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.operations += report.operations;
        self.crashes += report.crashes;
        self.faults += report.faults;
        self.violations += u64::from(report.violation.is_some());
    }

    /// The one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self {
            seeds,
            operations,
            crashes,
            faults,
            violations,
        } = self;
        format!(
            "sim: {seeds} seeds, {operations} operations, {crashes} crashes, {faults} faults, \
             {violations} violations"
        )
    }
}

/// Runs seeds and prints what fails, and how it went on the way.
#[must_use]
pub fn run(campaign: &Campaign) -> Totals {
    guard::install();
    let next = AtomicU64::new(campaign.seeds.start);
    let shown = AtomicUsize::new(0);
    let totals = Mutex::new(Totals::default());
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..campaign.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= campaign.seeds.end {
                        return;
                    }
                    if campaign.several && !generate::has_several_nodes(seed) {
                        continue;
                    }
                    let report = one(seed, campaign.twice);
                    if let Some(violation) = &report.violation {
                        let full =
                            !campaign.quick && shown.fetch_add(1, Ordering::Relaxed) < SHOWN_MAX;
                        tell(seed, violation, full);
                    }
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    totals.add(&report);
                    if totals.seeds.is_multiple_of(PROGRESS_EVERY) {
                        let seconds = start.elapsed().as_secs();
                        eprintln!("after {seconds} s: {}", totals.line());
                    }
                }
            });
        }
    });
    totals.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one seed.
#[must_use]
pub fn one(seed: u64, twice: bool) -> Report {
    let plan = generate::plan(seed);
    let mut report = world::run(&plan, false);
    if twice && report.violation.is_none() {
        let again = world::run(&plan, false);
        if again.trace != report.trace {
            report.violation = Some(Violation {
                invariant: "determinism",
                what: "two runs of the seed differ".into(),
            });
        }
    }
    report
}

/// Runs one seed and prints everything that happens; whether all is well.
#[must_use]
pub fn replay(seed: u64) -> bool {
    guard::install();
    let plan = generate::plan(seed);
    print!("{plan}");
    let report = world::run(&plan, true);
    match report.violation {
        None => true,
        Some(violation) => {
            tell(seed, &violation, true);
            false
        }
    }
}

fn tell(seed: u64, violation: &Violation, full: bool) {
    let Violation { invariant, what } = violation;
    let head = format!("VIOLATION seed {seed}: {invariant}: {what}");
    if !full {
        println!("{head}\n  cargo xtask sim --seed {seed}");
        return;
    }
    let plan = generate::plan(seed);
    let small = shrink::shrink(&plan, invariant);
    let report = world::run(&small, false);
    let what = report.violation.map(|violation| violation.what);
    println!(
        "{head}\n  cargo xtask sim --seed {seed}\n  cut down from {} to {} steps: {}\n{small}  \
         last events:\n    {}",
        plan.steps.len(),
        small.steps.len(),
        what.unwrap_or_default(),
        report.recent.join("\n    ")
    );
}
