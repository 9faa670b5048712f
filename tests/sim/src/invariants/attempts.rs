//! Attempts never go down and count every failure: what a client was told has failed, and nothing
//! that was released or that no client has seen.

use super::Invariant;
use crate::event::{Delivered, Event};
use crate::facts::Facts;
use crate::plan::End;

/// See above.
pub(super) struct Attempts;

impl Invariant for Attempts {
    fn name(&self) -> &'static str {
        "attempts"
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Delivered(delivered) => judge(facts, delivered),
            _ => Ok(()),
        }
    }
}

fn judge(facts: &Facts, delivered: &Delivered) -> Result<(), String> {
    let Delivered {
        log,
        offset,
        acquired,
        attempts,
        ..
    } = *delivered;
    let (mut failed, mut released, mut kept) = (0, 0, 0);
    let seen = facts.seen.get(&(log, offset));
    let leases = seen.map(|seen| seen.leases.as_slice()).unwrap_or_default();
    for lease in leases.iter().map(|at| &facts.leases[*at]) {
        let down = (lease.acquired < acquired && lease.attempts > attempts)
            || (lease.acquired > acquired && lease.attempts < attempts);
        if down {
            return Err(format!(
                "offset {offset} of log {log} had failed {} times at hand-out {} and {attempts} \
                 times at {acquired}",
                lease.attempts, lease.acquired
            ));
        }
        if lease.acquired < acquired {
            failed += u32::from(lease.done == Some(End::Retry));
            released += u32::from(lease.done == Some(End::Release));
            kept += u32::from(lease.done != Some(End::Release));
        }
    }
    let most = acquired.saturating_sub(1 + released);
    let unseen = facts.unanswered.get(&log).copied().unwrap_or_default()
        + facts
            .unheard
            .get(&(log, offset))
            .copied()
            .unwrap_or_default();
    let most = most.min(kept + unseen);
    if acquired == 0 || attempts < failed || attempts > most {
        return Err(format!(
            "offset {offset} of log {log} at hand-out {acquired} has failed {attempts} times, not \
             {failed} to {most}"
        ));
    }
    Ok(())
}
