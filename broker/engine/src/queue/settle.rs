//! How leases end: settled by their holder, or by time. Decides what becomes of the message.

use alloc::string::String;

use millrace_types::{DELAY_MS_MAX, Elapsed, LogId, NOTE_BYTES_MAX, Offset, Refusal, Stamp};

use super::Queue;
use super::backoff::backoff_ms;
use super::ledger::{Exception, Lease, Sent, State};
use super::outbox::Dead;
use crate::command::{Held, Settle, Settlement};
use crate::limits::SETTLEMENTS_MAX;
use crate::outcome::Outcome;
use crate::refusal;
use crate::spec::DeadLetters;

/// Why a message failed.
struct Failure<'a> {
    /// Wait so long, instead of the queue's backoff.
    delay_ms: Option<u64>,
    note: &'a str,
}

impl Queue {
    pub(crate) fn settle(&mut self, settlements: &[Settlement], stamp: Stamp) -> Outcome {
        if settlements.len() > SETTLEMENTS_MAX {
            return Outcome::Refused(refusal::invalid(alloc::format!(
                "at most {SETTLEMENTS_MAX} settlements at once, not {}",
                settlements.len()
            )));
        }
        let results = settlements.iter().map(|one| self.settle_one(one, stamp));
        Outcome::Settled(results.collect())
    }

    fn settle_one(&mut self, settlement: &Settlement, stamp: Stamp) -> Result<(), Refusal> {
        let Settlement {
            owner,
            held,
            settle,
        } = settlement;
        let exception = self.ledger.exception(held.offset).copied();
        let lease = exception.and_then(|exception| match exception.state {
            State::Leased(lease) if exception.acquired == held.acquired => {
                (lease.owner == *owner).then_some((exception, lease))
            }
            _ => None,
        });
        let Some((exception, lease)) = lease else {
            return Err(refusal::stale(&self.address, *held));
        };
        if let Settle::Retry { note, .. } | Settle::Reject { note } = settle
            && note.len() > NOTE_BYTES_MAX
        {
            return Err(refusal::invalid(alloc::format!(
                "a note has at most {NOTE_BYTES_MAX} bytes, not {}",
                note.len()
            )));
        }
        let offset = held.offset;
        match settle {
            Settle::Accept => {
                self.end_lease(offset, lease);
                self.finish(offset);
            }
            Settle::Release { delay_ms } => {
                self.end_lease(offset, lease);
                self.put_back(offset, exception, *delay_ms, stamp.elapsed);
            }
            Settle::Retry { delay_ms, note } => {
                self.end_lease(offset, lease);
                let failure = Failure {
                    delay_ms: *delay_ms,
                    note,
                };
                self.fail(offset, exception, &failure, stamp);
            }
            Settle::Reject { note } => {
                self.end_lease(offset, lease);
                self.reject(offset, exception, note, stamp);
            }
            Settle::Extend => {
                // Who names the lease was sent it.
                let sent = Sent::Yes;
                let lease = Lease { sent, ..lease };
                self.extend(offset, exception, lease, stamp.elapsed);
            }
        }
        Ok(())
    }

    /// Ends what is due, up to `budget` ends; those beyond stay due.
    pub(crate) fn expire(&mut self, stamp: Stamp, budget: &mut u32) {
        while *budget > 0 {
            let Some(session) = self.sessions.expired(stamp.elapsed) else {
                break;
            };
            *budget -= 1;
            self.close_session(session);
        }
        while *budget > 0 && !self.frozen {
            let Some(offset) = self.ledger.due(stamp.elapsed) else {
                break;
            };
            *budget -= 1;
            self.expire_one(offset, stamp);
        }
    }

    fn expire_one(&mut self, offset: Offset, stamp: Stamp) {
        let Some(exception) = self.ledger.exception(offset).copied() else {
            return;
        };
        match exception.state {
            State::Delayed { .. } => self.put_back(offset, exception, 0, stamp.elapsed),
            State::Leased(lease) => {
                self.end_lease(offset, lease);
                if self.sessions.get(lease.owner).is_some() {
                    let acquired = exception.acquired;
                    let lost = self.notes().lost.entry(lease.owner).or_default();
                    lost.push(Held { offset, acquired });
                }
                if lease.sent == Sent::No && !millrace_types::mutant!(UnsentCounted) {
                    self.put_back(offset, exception, 0, stamp.elapsed);
                    return;
                }
                let failure = Failure {
                    delay_ms: None,
                    note: "",
                };
                self.fail(offset, exception, &failure, stamp);
            }
            State::Returned | State::Dying => {}
        }
    }

    /// Gives a message back without counting a failure.
    pub(super) fn release(&mut self, offset: Offset) {
        if let Some(exception) = self.ledger.exception(offset).copied()
            && let State::Leased(lease) = exception.state
        {
            self.end_lease(offset, lease);
            self.put_back(offset, exception, 0, Elapsed::default());
        }
    }

    /// Starts every lease anew.
    pub(super) fn restart_leases(&mut self, now: Elapsed) {
        let leases: alloc::vec::Vec<_> = self
            .ledger
            .leases()
            .map(|(offset, exception, lease)| (offset, *exception, lease))
            .collect();
        for (offset, exception, lease) in leases {
            self.extend(offset, exception, lease, now);
        }
    }

    pub(super) fn extend(
        &mut self,
        offset: Offset,
        exception: Exception,
        lease: Lease,
        now: Elapsed,
    ) {
        let state = State::Leased(Lease {
            deadline: now.plus_millis(lease.lease_ms),
            ..lease
        });
        self.ledger.put(offset, Exception { state, ..exception });
    }

    /// Frees the holder's slot; the message's next state is put by the caller.
    fn end_lease(&mut self, offset: Offset, lease: Lease) {
        self.sessions.discharge(lease.owner, offset, lease.weight);
        self.notes().woken = true;
    }

    fn finish(&mut self, offset: Offset) {
        self.ledger.settle(offset);
        self.notes().settled.push(offset);
    }

    fn put_back(&mut self, offset: Offset, exception: Exception, delay_ms: u64, now: Elapsed) {
        let state = match delay_ms.min(DELAY_MS_MAX) {
            0 => State::Returned,
            delay_ms => State::Delayed {
                until: now.plus_millis(delay_ms),
            },
        };
        self.notes().woken = true;
        self.ledger.put(offset, Exception { state, ..exception });
    }

    fn fail(&mut self, offset: Offset, exception: Exception, why: &Failure<'_>, stamp: Stamp) {
        let failed = u32::from(!millrace_types::mutant!(AttemptsNotCounted));
        let attempts = exception.attempts.saturating_add(failed);
        let exception = Exception {
            attempts,
            ..exception
        };
        if self.dead_letters != DeadLetters::Dropped && attempts >= self.spec.deliveries_max {
            let rejected = false;
            self.die(offset, exception, rejected, why.note, stamp);
            return;
        }
        let delay_ms = why
            .delay_ms
            .unwrap_or_else(|| backoff_ms(&self.spec, self.log, offset, attempts));
        self.put_back(offset, exception, delay_ms, stamp.elapsed);
    }

    fn reject(&mut self, offset: Offset, exception: Exception, note: &str, stamp: Stamp) {
        if self.dead_letters == DeadLetters::Dropped {
            self.finish(offset);
            return;
        }
        let exception = Exception {
            attempts: exception.attempts.saturating_add(1),
            ..exception
        };
        let rejected = true;
        self.die(offset, exception, rejected, note, stamp);
    }

    fn die(
        &mut self,
        offset: Offset,
        exception: Exception,
        rejected: bool,
        note: &str,
        stamp: Stamp,
    ) {
        let state = State::Dying;
        self.ledger.put(offset, Exception { state, ..exception });
        let dead = Dead {
            offset,
            rejected,
            note: String::from(note),
            died_at: stamp.wall,
        };
        self.outbox.push(dead, self.dead_letters.target());
        self.notes().died = true;
    }

    /// Dead letters numbered below this have arrived.
    pub(crate) fn confirm_dead(&mut self, number: u64) -> Outcome {
        if let Err(refusal) = self.check_dead_letter(number) {
            return Outcome::Refused(refusal);
        }
        for dead in self.outbox.confirm(number, self.dead_letters.target()) {
            self.finish(dead.offset);
        }
        Outcome::Numbered(self.outbox.first())
    }

    /// The queue they were bound to takes none of them any more, and has those below `arrived`.
    pub(crate) fn redirect_dead(&mut self, from: LogId, first: u64, arrived: u64) -> Outcome {
        if let Err(refusal) = self.check_dead_letter(arrived) {
            return Outcome::Refused(refusal);
        }
        if self.outbox.target() == Some(from) && self.outbox.first() == first {
            for dead in self.outbox.confirm(arrived, Some(from)) {
                self.finish(dead.offset);
            }
            self.outbox.redirect(self.dead_letters.target());
            self.notes().died = self.outbox.len() > 0;
        }
        Outcome::Numbered(self.outbox.first())
    }

    fn check_dead_letter(&self, number: u64) -> Result<(), Refusal> {
        let (address, end) = (&self.address, self.outbox.end());
        if number > end {
            return Err(refusal::invalid(alloc::format!(
                "{address} has no dead letter {number} yet, the next one will be {end}"
            )));
        }
        Ok(())
    }
}
