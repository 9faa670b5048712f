//! Cuts a plan that violates something down to few steps that still do.

use std::time::{Duration, Instant};

use crate::plan::{Plan, Step};
use crate::world;

/// How long one plan is worked on: a report that comes at once is worth more than one step less.
const TIME_MAX: Duration = Duration::from_secs(40);

/// A smaller plan that violates the same invariant.
#[must_use]
pub(crate) fn shrink(plan: &Plan, invariant: &str) -> Plan {
    let until = Instant::now() + TIME_MAX;
    let mut best = plan.clone();
    let mut size = best.steps.len().div_ceil(2);
    while size > 0 && Instant::now() < until {
        let mut at = 0;
        let mut cut = false;
        while at < best.steps.len() && Instant::now() < until {
            let candidate = without(&best, at, size);
            if violates(&candidate, invariant) {
                best = candidate;
                cut = true;
            } else {
                at += size;
            }
        }
        // A pass that found something may have made more possible.
        if !(cut && size == 1) {
            size /= 2;
        }
    }
    best
}

fn without(plan: &Plan, at: usize, count: usize) -> Plan {
    let kept = |(place, _): &(usize, &Step)| !(at..at + count).contains(place);
    let steps = plan.steps.iter().enumerate().filter(kept);
    Plan {
        steps: steps.map(|(_, step)| step.clone()).collect(),
        ..plan.clone()
    }
}

fn violates(plan: &Plan, invariant: &str) -> bool {
    let report = world::run(plan, false);
    report
        .violation
        .is_some_and(|violation| violation.invariant == invariant)
}
