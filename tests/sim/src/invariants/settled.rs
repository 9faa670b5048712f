//! Settled stays settled: a message whose acceptance or rejection was confirmed is never handed out
//! or shown again, and a lease ends once.

use std::collections::BTreeMap;

use millrace_types::LogId;

use super::Invariant;
use crate::event::{Answer, Event};
use crate::facts::Facts;
use crate::plan::End;

/// See above.
#[derive(Default)]
pub(super) struct Settled {
    /// The lease that ended a message, how, and when that was confirmed.
    over: BTreeMap<(LogId, u64), (u32, End, u64)>,
}

impl Invariant for Settled {
    fn name(&self) -> &'static str {
        "settled"
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Delivered(delivered) => {
                let place = (delivered.log, delivered.offset);
                match self.over.get(&place) {
                    Some((last, end, _)) if delivered.acquired > *last => Err(format!(
                        "offset {} of log {} was handed out as number {} after lease {last} had \
                         ended with {end:?}",
                        place.1, place.0, delivered.acquired
                    )),
                    _ => Ok(()),
                }
            }
            Event::Settled {
                lease,
                end,
                answer: Answer::Done(()),
                asked,
                ..
            } => self.done(facts, *lease, *end, *asked),
            Event::Peeked {
                log,
                asked_ms,
                messages,
            } => {
                messages
                    .iter()
                    .try_for_each(|(offset, _)| match self.over.get(&(*log, *offset)) {
                        Some((_, End::Accept, at)) if at < asked_ms => Err(format!(
                            "offset {offset} of log {log} is shown though it was accepted"
                        )),
                        _ => Ok(()),
                    })
            }
            _ => Ok(()),
        }
    }
}

impl Settled {
    fn done(&mut self, facts: &Facts, lease: usize, end: End, asked: u64) -> Result<(), String> {
        let lease = &facts.leases[lease];
        let place = (lease.log, lease.offset);
        // Of two that were asked at the same time, the extension may have come first.
        let after = end != End::Extend || lease.done_at <= asked;
        if let Some(before) = lease.done
            && after
        {
            return Err(format!(
                "lease {} of offset {} of log {} ended with {before:?} and again with {end:?}",
                lease.acquired, lease.offset, lease.log
            ));
        }
        if let Some((last, before, _)) = self.over.get(&place)
            && *last < lease.acquired
            && after
        {
            return Err(format!(
                "offset {} of log {} ended with {before:?} of lease {last} and {end:?} of lease {}",
                lease.offset, lease.log, lease.acquired
            ));
        }
        if matches!(end, End::Accept | End::Reject) {
            self.over.insert(place, (lease.acquired, end, facts.now_ms));
        }
        Ok(())
    }
}
