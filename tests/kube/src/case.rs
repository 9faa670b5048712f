//! Cases: named, run in order, counted. A case that fails does not stop the others, except when
//! they cannot do without it; those are then skipped, and say why.

use std::fmt;
use std::process::ExitCode;
use std::time::Instant;

use crate::world::World;

/// One thing that must hold, and how to see it.
pub(crate) struct Case {
    /// A sentence.
    pub(crate) name: &'static str,
    /// Whether the cases after it make sense when it failed.
    pub(crate) need: Need,
    /// Sees it.
    pub(crate) run: fn(&mut World) -> anyhow::Result<Verdict>,
}

/// What a case is to those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    None,
    /// Without it the rest cannot be tried.
    All,
}

/// How a case ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It holds.
    Holds,
    /// It could not be tried here, and why.
    Skipped(String),
}

/// What all cases came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Totals {
    /// Failure when a case failed.
    pub(crate) fn exit_code(self) -> ExitCode {
        if self.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(
            f,
            "cases: {passed} passed, {failed} failed, {skipped} skipped"
        )
    }
}

/// Runs the cases that were asked for, in order.
pub(crate) fn run_all(cases: &[&[Case]], world: &mut World) -> Totals {
    let mut totals = Totals::default();
    let mut missing: Option<&str> = None;
    for case in cases.iter().copied().flatten() {
        if !world.wants(case) {
            continue;
        }
        let start = Instant::now();
        let result = match missing {
            Some(name) => Ok(Verdict::Skipped(format!("`{name}` failed"))),
            None => (case.run)(world),
        };
        let seconds = start.elapsed().as_secs();
        match result {
            Ok(Verdict::Holds) => {
                totals.passed += 1;
                println!("ok {} ({seconds} s)", case.name);
            }
            Ok(Verdict::Skipped(why)) => {
                totals.skipped += 1;
                println!("SKIPPED {}: {why}", case.name);
            }
            Err(error) => {
                totals.failed += 1;
                println!("FAILED {} ({seconds} s): {error:#}", case.name);
                world.tell_state();
                if case.need == Need::All {
                    missing = Some(case.name);
                }
            }
        }
    }
    totals
}
