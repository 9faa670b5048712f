//! The journal's routine: takes what waits, writes it as one batch, syncs it, answers.
//!
//! Group commit without a timer. A batch is everything that arrived while the one before was
//! written and synced, so an idle journal writes a lone record at once, and batches grow with the
//! time a sync takes, up to `batch_records_max` and `batch_bytes_max`; what is beyond goes in the
//! next one. Writing, syncing and answering are a step each: how long a sync took is told by the
//! times of two steps, and a simulation may crash between them.
//!
//! The last batch is sealed when nothing follows it for a second, and at the end: a batch without
//! records that says that the one before was synced.
//!
//! A batch that finds no room in the file waits, with everything behind it, until the next file is
//! ready; releases go on meanwhile, because they are what gives a full disk room again. A failed
//! write or sync is not tried again: nothing is answered any more and `on_failure` is called.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::JournalRecord;
use super::handle::Shared;
use super::inbox::{Batch, Done, Taken};
use super::writer::{Room, Writer};
use crate::error::{Action, DiskFailure, failed};
use crate::routine::{Next, Routine};

/// How long nothing is written before the last batch is sealed: rare enough to cost nothing.
const SEAL_AFTER: Duration = Duration::from_secs(1);

/// Called once, when the journal can no longer write.
pub(crate) type OnFailure = Box<dyn FnOnce(DiskFailure) + Send>;

pub(crate) struct Committer {
    writer: Writer,
    shared: Arc<Shared>,
    phase: Phase,
    seal: Seal,
    /// Hard states that have to be written again.
    carry: Vec<JournalRecord>,
    /// Some have been: files may be free.
    carried: bool,
    /// Until it is called, or the end is in order: nothing is done any more then.
    on_failure: Option<OnFailure>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Idle,
    /// There is no file for it yet.
    Held(Batch, Option<Instant>),
    Written(Answer),
    Syncing(Answer, Instant),
}

/// Whether the last batch is known to have been synced.
#[derive(Clone, Copy)]
enum Seal {
    Wanted,
    /// At this time, if nothing is written until then.
    Due(Instant),
    Done,
}

/// Whom to tell of a batch, and its size.
struct Answer {
    dones: Vec<Done>,
    records: u64,
    bytes: u64,
}

impl Committer {
    pub(crate) fn new(writer: Writer, shared: Arc<Shared>, on_failure: OnFailure) -> Self {
        Self {
            writer,
            shared,
            phase: Phase::Idle,
            seal: Seal::Wanted,
            carry: Vec::new(),
            carried: false,
            on_failure: Some(on_failure),
        }
    }

    fn go_on(&mut self, now: Instant) -> Result<Next, DiskFailure> {
        let supply = Arc::clone(&self.writer.supply);
        supply.check()?;
        // Between a write and its sync nothing may go that the write replaces.
        if matches!(self.phase, Phase::Idle | Phase::Held(..)) {
            self.release();
        }
        match std::mem::take(&mut self.phase) {
            Phase::Idle => match self.shared.inbox.take() {
                Taken::Batch(batch) => self.write(batch, now),
                Taken::Nothing if !self.carry.is_empty() => self.write(Batch::default(), now),
                Taken::Nothing => self.idle(now),
                Taken::Drained => {
                    self.writer.seal()?;
                    Ok(Next::Ended)
                }
            },
            // Trying costs operations of the disk, so it is not done before its time; whoever
            // drains wants to know now.
            Phase::Held(batch, Some(at)) if at > now && self.shared.inbox.is_open() => {
                self.phase = Phase::Held(batch, Some(at));
                Ok(Next::Wait(Some(at)))
            }
            Phase::Held(batch, _) => self.write(batch, now),
            Phase::Written(answer) => {
                self.writer.sync()?;
                self.phase = Phase::Syncing(answer, now);
                Ok(Next::Now)
            }
            Phase::Syncing(answer, since) => {
                let took = now.saturating_duration_since(since);
                self.shared.count(answer.records, answer.bytes, took);
                answer.dones.into_iter().for_each(|done| done());
                Ok(Next::Now)
            }
        }
    }

    fn release(&mut self) {
        let (restarted, released) = self.shared.inbox.take_released();
        self.writer.live().restart(&restarted);
        if released.is_empty() && !std::mem::take(&mut self.carried) {
            return;
        }
        let mut live = self.writer.live();
        let free = live.release(released);
        self.carry = live.carry();
        drop(live);
        for file in free {
            self.writer.supply.retire(file.path, file.bytes);
        }
    }

    /// Seals the last batch when nothing has followed it for a while.
    fn idle(&mut self, now: Instant) -> Result<Next, DiskFailure> {
        let due = match self.seal {
            Seal::Done => return Ok(Next::Wait(None)),
            Seal::Wanted => now + SEAL_AFTER,
            Seal::Due(at) => at,
        };
        if due > now {
            self.seal = Seal::Due(due);
            return Ok(Next::Wait(Some(due)));
        }
        self.writer.seal()?;
        self.seal = Seal::Done;
        Ok(Next::Wait(None))
    }

    fn write(&mut self, mut batch: Batch, now: Instant) -> Result<Next, DiskFailure> {
        // First: one that waits in the batch is newer.
        let carry = std::mem::take(&mut self.carry);
        self.carried |= !carry.is_empty();
        batch.records.splice(..0, carry);
        if batch.records.is_empty() {
            batch.dones.into_iter().for_each(|done| done());
            return Ok(Next::Now);
        }
        match self.writer.make_room(&batch.records, now)? {
            Room::Made => {}
            // Whoever drains has nobody left who could make room.
            Room::Awaited(_) if !self.shared.inbox.is_open() => return Ok(Next::Ended),
            Room::Awaited(deadline) => {
                self.phase = Phase::Held(batch, deadline);
                return Ok(Next::Wait(deadline));
            }
        }
        let bytes = self.writer.write(&batch.records)?;
        self.seal = Seal::Wanted;
        let (dones, records) = (batch.dones, batch.records.len() as u64);
        self.phase = Phase::Written(Answer {
            dones,
            records,
            bytes,
        });
        Ok(Next::Now)
    }

    fn stop(&self) {
        self.shared.inbox.stop();
        self.writer.supply.stop();
    }
}

impl Routine for Committer {
    fn step(&mut self, now: Instant) -> Next {
        if self.on_failure.is_none() {
            return Next::Ended;
        }
        let next = match self.go_on(now) {
            Ok(next) => next,
            Err(failure) => {
                self.stop();
                if let Some(on_failure) = self.on_failure.take() {
                    on_failure(failure);
                }
                Next::Ended
            }
        };
        if next == Next::Ended {
            self.on_failure = None;
            self.stop();
        }
        next
    }

    fn wait(&mut self, deadline: Option<Instant>) {
        self.shared.signal.wait(deadline);
    }
}

impl Drop for Committer {
    /// Also when a callback panics: nobody may wait for a routine that is gone.
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking()
            && let Some(on_failure) = self.on_failure.take()
        {
            let source = std::io::Error::other("the journal's routine panicked");
            on_failure(failed(Action::Write, &self.writer.dir.journal_path())(
                source,
            ));
        }
    }
}
