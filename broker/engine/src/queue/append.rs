//! How messages come into a queue: published, copied by a binding, or dead elsewhere. Each checks
//! everything before it changes anything.

use millrace_types::{
    Address, BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, Elapsed, ErrorCode, LogId, Offset, Refusal, Stamp,
};

use super::arrivals::Held;
use super::{Arrivals, Queue};
use crate::command::{BatchHeader, Dedup};
use crate::dedup::{Attempt, Time};
use crate::limits::SOURCES_MAX;
use crate::outcome::{BodyChange, Effect, Outcome};
use crate::refusal::{self, Full};
use crate::shard::Changes;

/// A publish, as `Command::Publish` has it.
pub(crate) struct Publish<'a> {
    pub(crate) batch: &'a BatchHeader,
    pub(crate) dedup: Option<&'a Dedup>,
    /// Dedup ids that the whole shard has.
    pub(crate) of_shard: usize,
}

impl<'a> Publish<'a> {
    /// How a retry of it is told, if it is.
    pub(crate) fn attempt<'b>(&self, address: &'b Address, time: Time) -> Option<Attempt<'b>>
    where
        'a: 'b,
    {
        let (count, of_shard) = (self.batch.count, self.of_shard);
        self.dedup.map(|dedup| Attempt {
            address,
            dedup,
            count,
            of_shard,
            time,
        })
    }
}

/// A cursor's move, as `Command::Transfer` has it.
pub(crate) struct Move<'a> {
    pub(crate) revision: u64,
    pub(crate) partition: LogId,
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    pub(crate) batch: Option<&'a BatchHeader>,
}

/// Refuses what no honest proposer sends.
pub(crate) fn check_batch(batch: &BatchHeader) -> Result<(), Refusal> {
    if batch.count == 0 || batch.count > BATCH_MESSAGES_MAX {
        return Err(refusal::invalid(alloc::format!(
            "a batch has 1 to {BATCH_MESSAGES_MAX} messages, not {}",
            batch.count
        )));
    }
    if batch.bytes > u64::from(BATCH_BYTES_MAX) {
        return Err(refusal::invalid(alloc::format!(
            "a batch has at most {BATCH_BYTES_MAX} bytes, not {}",
            batch.bytes
        )));
    }
    Ok(())
}

impl Queue {
    pub(crate) fn publish(
        &mut self,
        publish: &Publish<'_>,
        stamp: Stamp,
        changes: &mut Changes,
    ) -> Outcome {
        // First: what is stored is acknowledged whatever has become of the queue since.
        let time = self.dedup_time(stamp);
        let attempt = publish.attempt(&self.address, time);
        match attempt.as_ref().map(|attempt| self.seen.look(attempt)) {
            Some(Ok(Some(offsets))) => return Outcome::Repeated(offsets),
            Some(Err(refusal)) => return Outcome::Refused(refusal),
            Some(Ok(None)) | None => {}
        }
        if let Err(refusal) = self.check_publish(publish.batch) {
            return Outcome::Refused(refusal);
        }
        if let Some(attempt) = &attempt {
            self.seen.note(attempt, self.ledger.end());
        }
        self.append(publish.batch, stamp, changes)
    }

    fn dedup_time(&self, stamp: Stamp) -> Time {
        Time {
            now: stamp.elapsed,
            window_ms: self.spec.dedup_ms,
        }
    }

    /// Forgets dedup ids that are over.
    pub(crate) fn forget(&mut self, stamp: Stamp, budget: &mut u32) {
        let time = self.dedup_time(stamp);
        self.seen.forget(time, budget);
    }

    /// When `forget` has something to do.
    pub(crate) fn forgets_at(&self) -> Option<Elapsed> {
        self.seen.next_deadline(self.spec.dedup_ms)
    }

    /// Dedup ids that are known.
    pub(crate) fn dedup_ids(&self) -> usize {
        self.seen.len()
    }

    pub(crate) fn transfer(
        &mut self,
        step: &Move<'_>,
        stamp: Stamp,
        changes: &mut Changes,
    ) -> Outcome {
        let Some(&cursor) = self.cursors.get(&step.partition) else {
            let (address, partition) = (&self.address, step.partition);
            let message = alloc::format!("{address} is not bound to the partition {partition}");
            return Outcome::Refused(Refusal::new(ErrorCode::NoSuchPartition, message));
        };
        // Other filters than the present ones would skip messages that are wanted now, for good.
        if cursor != step.from || step.revision != self.revision {
            return Outcome::Cursor(cursor);
        }
        let read = step.from.until(step.to);
        let matched = step.batch.map_or(0, |batch| u64::from(batch.count));
        if step.to < step.from || matched > read {
            return Outcome::Refused(refusal::invalid(alloc::format!(
                "{matched} messages cannot come from offsets {}..{}",
                step.from,
                step.to
            )));
        }
        let outcome = match step.batch {
            None if self.frozen => return Outcome::Refused(refusal::orphaned(&self.address)),
            None => Outcome::Done,
            Some(batch) => match self.check_or_starve(batch) {
                Ok(()) => self.append(batch, stamp, changes),
                Err(refusal) => return Outcome::Refused(refusal),
            },
        };
        self.cursors.insert(step.partition, step.to);
        outcome
    }

    pub(crate) fn accept_dead(
        &mut self,
        source: LogId,
        number: u64,
        batch: &BatchHeader,
        stamp: Stamp,
        changes: &mut Changes,
    ) -> Outcome {
        match self.arrivals.check(source, number) {
            Ok(()) => {}
            Err(Held::Before(_)) if millrace_types::mutant!(NumberNotChecked) => {}
            Err(Held::Before(arrived)) => return Outcome::Numbered(arrived),
            Err(Held::TooMany) => {
                let (what, limit) = ("queues that send their dead letters", SOURCES_MAX as u64);
                return Outcome::Refused(refusal::limit_reached(&self.address, what, limit));
            }
        }
        if let Err(refusal) = self.check_or_starve(batch) {
            return Outcome::Refused(refusal);
        }
        let next = number.saturating_add(u64::from(batch.count));
        self.arrivals.take(source, next);
        self.append(batch, stamp, changes)
    }

    pub(crate) fn recall_dead(&mut self, source: LogId, number: u64) -> Outcome {
        Outcome::Numbered(self.arrivals.recall(source, number))
    }

    pub(crate) fn forget_dead(&mut self, sources: &[LogId]) -> Outcome {
        for source in sources {
            self.arrivals.forget(*source);
        }
        Outcome::Done
    }

    /// What has arrived here, to be kept when the queue is removed.
    pub(crate) fn arrivals(&self) -> Arrivals {
        self.arrivals.clone()
    }

    fn append(&mut self, batch: &BatchHeader, stamp: Stamp, changes: &mut Changes) -> Outcome {
        let first = self.ledger.append(batch, stamp.wall);
        let (log, end) = (self.log, self.ledger.end());
        changes.bodies.push(BodyChange::Store {
            log,
            offsets: first..end,
        });
        changes.effects.push(Effect::Appended { log, end });
        self.notes().woken = true;
        Outcome::Appended(first..end)
    }

    /// What arrives here by routing or by death was taken by somebody already. One message that is
    /// larger than the whole queue may be is let in when it is alone: refused, it would hold up
    /// those after it for ever.
    fn check_or_starve(&mut self, batch: &BatchHeader) -> Result<(), Refusal> {
        let mut checked = self.check_publish(batch);
        if let Err(refusal) = &checked
            && refusal.code == ErrorCode::QueueFull
            && (batch.count, self.ledger.unsettled()) == (1, 0)
        {
            checked = Ok(());
        }
        if let Err(refusal) = &checked {
            self.starved |= matches!(refusal.code, ErrorCode::QueueFull | ErrorCode::Orphaned);
        }
        checked
    }

    /// Refuses what cannot be appended.
    pub(crate) fn check_publish(&self, batch: &BatchHeader) -> Result<(), Refusal> {
        check_batch(batch)?;
        if self.frozen {
            return Err(refusal::orphaned(&self.address));
        }
        let limits = [
            (
                "messages",
                self.spec.messages_max,
                self.ledger.unsettled(),
                u64::from(batch.count),
            ),
            (
                "bytes",
                self.spec.bytes_max,
                self.ledger.spans().bytes(),
                batch.bytes,
            ),
        ];
        for (unit, max, actual, more) in limits {
            if let Some(limit) = max
                && actual.saturating_add(more) > limit
            {
                return Err(refusal::queue_full(&Full {
                    address: &self.address,
                    unit,
                    limit,
                    actual,
                    batch,
                }));
            }
        }
        Ok(())
    }
}
