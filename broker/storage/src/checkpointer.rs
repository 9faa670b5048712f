//! Writes checkpoints, one at a time for all shards of a node, as a routine of small steps.
//!
//! Promises: `done(Ok)` comes after the checkpoint and every body it lists are durable, and from
//! then on the journal may drop what precedes it; what the checkpoint made superfluous is removed
//! after that. On a full disk a checkpoint is tried again with the reserve's room and without
//! rewriting anything; if that fails, the previous one stays in force. Any other failure ends the
//! routine for good and is reported once. Does not decide when a checkpoint is due.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use millrace_types::LogIndex;

use crate::checkpoint::Covered;
use crate::data_dir::DataDir;
use crate::error::{CheckpointError, DiskFailure};
use crate::routine::{Next, Routine};
use crate::signal::Signal;
use crate::store::Store;
use crate::store::spill::{Cut, Effort};

mod attempt;
mod reserve;

use attempt::{Attempt, Failed, Progress};
use reserve::{Pending, Reserve};

/// Called with the index that is covered from now on.
pub type CheckpointDone = Box<dyn FnOnce(Result<LogIndex, CheckpointError>) + Send>;

/// Encodes the engine's snapshot. Called by the checkpointer: no worker waits for it.
pub type EncodeSnapshot = Box<dyn FnOnce() -> Bytes + Send>;

/// Called at most once, when the disk fails in another way than being full: the node has to stop.
type OnFailure = Box<dyn FnOnce(DiskFailure) + Send>;

/// The routine.
pub struct Checkpointer {
    shared: Arc<Shared>,
    under_way: Option<Attempt>,
    reserve: Option<Reserve>,
    on_failure: Option<OnFailure>,
}

/// A way to a checkpointer. Clones speak to the same one; the last one that goes stops it.
#[derive(Clone)]
pub struct CheckpointerHandle(Arc<Connection>);

struct Connection {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    signal: Signal,
}

#[derive(Default)]
struct Inbox {
    jobs: VecDeque<Job>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// What waits is finished, nothing new is taken.
    Closing,
    /// Ended or failed.
    Closed,
}

/// A checkpoint that was asked for.
struct Job {
    store: Arc<Store>,
    cut: Cut,
    covered: Covered,
    snapshot: Snapshot,
    done: CheckpointDone,
}

enum Snapshot {
    ToEncode(EncodeSnapshot),
    Encoded(Bytes),
}

impl Checkpointer {
    /// A checkpointer for all shards of a node, and the way to it. Somebody has to run it.
    #[must_use]
    pub fn new(on_failure: Box<dyn FnOnce(DiskFailure) + Send>) -> (Self, CheckpointerHandle) {
        let shared = Arc::<Shared>::default();
        let handle = CheckpointerHandle(Arc::new(Connection {
            shared: Arc::clone(&shared),
        }));
        let routine = Self {
            shared,
            under_way: None,
            reserve: None,
            on_failure: Some(on_failure),
        };
        (routine, handle)
    }

    /// Keeps this many bytes of the disk for checkpoints that would not fit otherwise: what one
    /// writes at most, in bodies and snapshot. 0 gives back what an earlier run kept.
    #[must_use]
    pub fn with_reserve(mut self, dir: &DataDir, bytes: u64) -> Self {
        self.reserve = Some(Reserve::new(dir, bytes));
        self
    }

    /// One step of the checkpoint that is being made.
    fn advance(&mut self, mut attempt: Attempt) -> Next {
        let path = match attempt.step() {
            Ok(Progress::More) => {
                self.under_way = Some(attempt);
                return Next::Now;
            }
            Ok(Progress::Finished) => return Next::Now,
            Err(Failed::Full(path)) => path,
            Err(Failed::Stop(failure)) => return self.fail(failure, attempt.into_job()),
        };
        let released = match self.reserve.as_mut().map(Reserve::release) {
            Some(Ok(released)) => released,
            Some(Err(failure)) => return self.fail(failure, attempt.into_job()),
            None => false,
        };
        let again = released || attempt.effort() == Effort::Full;
        if let Some(job) = attempt.into_job() {
            if again {
                self.under_way = Some(Attempt::new(job, Effort::Least));
            } else {
                (job.done)(Err(CheckpointError::Full { path }));
            }
        }
        Next::Now
    }

    /// With no checkpoint to make, the reserve is looked after.
    fn idle(&mut self, now: Instant) -> Next {
        let Some(reserve) = &mut self.reserve else {
            return Next::Wait(None);
        };
        match reserve.pending(now) {
            Pending::Nothing => Next::Wait(None),
            Pending::Look(at) => Next::Wait(Some(at)),
            Pending::Step => match reserve.step(now) {
                Ok(()) => Next::Now,
                Err(failure) => self.fail(failure, None),
            },
        }
    }

    fn fail(&mut self, failure: DiskFailure, job: Option<Job>) -> Next {
        // Whoever waits, or comes later, is told as well.
        let waiting = {
            let mut inbox = self.shared.lock();
            inbox.phase = Phase::Closed;
            std::mem::take(&mut inbox.jobs)
        };
        for job in job.into_iter().chain(waiting) {
            (job.done)(Err(CheckpointError::Stopped));
        }
        if let Some(on_failure) = self.on_failure.take() {
            on_failure(failure);
        }
        Next::Ended
    }
}

impl Routine for Checkpointer {
    fn step(&mut self, now: Instant) -> Next {
        if let Some(attempt) = self.under_way.take() {
            return self.advance(attempt);
        }
        let mut inbox = self.shared.lock();
        match (inbox.jobs.pop_front(), inbox.phase) {
            (Some(job), _) => {
                self.under_way = Some(Attempt::new(job, Effort::Full));
                Next::Now
            }
            (None, Phase::Open) => {
                drop(inbox);
                self.idle(now)
            }
            (None, Phase::Closing | Phase::Closed) => {
                inbox.phase = Phase::Closed;
                Next::Ended
            }
        }
    }

    fn wait(&mut self, deadline: Option<Instant>) {
        self.shared.signal.wait(deadline);
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.shared.lock().phase = Phase::Closed;
    }
}

impl CheckpointerHandle {
    /// Writes a checkpoint of a shard as it is now: called by the worker that owns the shard, with
    /// the snapshot of everything applied up to `covered`, before it appends anything else to the
    /// store. `done` is called by the checkpointer, or here when that has stopped. At most one
    /// checkpoint of a shard may be under way.
    pub fn checkpoint(
        &self,
        store: &Arc<Store>,
        covered: Covered,
        snapshot: EncodeSnapshot,
        done: CheckpointDone,
    ) {
        let job = Job {
            store: Arc::clone(store),
            cut: store.cut(),
            covered,
            snapshot: Snapshot::ToEncode(snapshot),
            done,
        };
        let shared = &self.0.shared;
        let mut inbox = shared.lock();
        if inbox.phase == Phase::Open {
            inbox.jobs.push_back(job);
            drop(inbox);
            shared.signal.ring();
        } else {
            drop(inbox);
            (job.done)(Err(CheckpointError::Stopped));
        }
    }

    /// Lets the routine end when it has finished what waits. Does not wait for that.
    pub fn stop(&self) {
        self.0.shared.stop();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Shared {
    fn stop(&self) {
        let mut inbox = self.lock();
        if inbox.phase == Phase::Open {
            inbox.phase = Phase::Closing;
        }
        drop(inbox);
        self.signal.ring();
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
