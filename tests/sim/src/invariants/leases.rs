//! One lease at a time per message: while one is certain to run nobody else is handed the message,
//! and its holder can end it. No two leases have one number.

use super::Invariant;
use crate::event::{Answer, Delivered, Event};
use crate::facts::{Facts, Lease};

/// See above.
pub(super) struct Leases;

impl Invariant for Leases {
    fn name(&self) -> &'static str {
        "leases"
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Delivered(delivered) => handed_out(facts, delivered),
            Event::Lost { tag } => match facts.tags.get(tag).map(|at| &facts.leases[*at]) {
                Some(lease) if facts.runs(lease) => Err(format!(
                    "the holder of offset {} of log {} was told that it lost a lease that runs \
                     until {} ms at least",
                    lease.offset, lease.log, lease.until_ms
                )),
                _ => Ok(()),
            },
            Event::Settled {
                lease,
                answer: Answer::Refused(why),
                ..
            } if why == "STALE_DELIVERY" => refused(facts, &facts.leases[*lease]),
            _ => Ok(()),
        }
    }
}

fn handed_out(facts: &Facts, delivered: &Delivered) -> Result<(), String> {
    let Delivered {
        log,
        offset,
        acquired,
        ..
    } = *delivered;
    if let Some(known) = facts.tags.get(&delivered.tag) {
        let known = &facts.leases[*known];
        let same = (known.log, known.offset, known.acquired) == (log, offset, acquired);
        if same && known.session == delivered.session && known.session.is_some() {
            return Ok(());
        }
        return Err(format!(
            "the lease {acquired} of {offset} of log {log} was handed out twice"
        ));
    }
    let Some(seen) = facts.seen.get(&(log, offset)) else {
        return Ok(());
    };
    for lease in seen.leases.iter().map(|at| &facts.leases[*at]) {
        if lease.acquired == acquired {
            return Err(format!(
                "offset {offset} of log {log} was handed out twice as number {acquired}"
            ));
        }
        if lease.acquired < acquired && facts.runs(lease) {
            return Err(format!(
                "offset {offset} of log {log} was handed out as number {acquired} while lease {} \
                 ran, until {} ms at least",
                lease.acquired, lease.until_ms
            ));
        }
    }
    Ok(())
}

fn refused(facts: &Facts, lease: &Lease) -> Result<(), String> {
    let alone = Lease {
        asked: Vec::new(),
        ..lease.clone()
    };
    if lease.asked.len() == 1 && facts.runs(&alone) {
        return Err(format!(
            "lease {} of offset {} of log {} was refused as over; it runs until {} ms at least",
            lease.acquired, lease.offset, lease.log, lease.until_ms
        ));
    }
    Ok(())
}
