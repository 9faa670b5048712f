//! Writes checkpoints, one at a time for all shards of a node, as a routine of small steps.
//!
//! Promises: `done(Ok)` comes after the checkpoint and every body it lists are durable, and from
//! then on the journal may drop what precedes it; what the checkpoint made superfluous is removed
//! after that. A full disk fails one checkpoint and leaves the previous one in force; any other
//! failure ends the routine for good and is reported once. Does not decide when a checkpoint is
//! due.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use millrace_types::{LogIndex, Term};

use crate::error::{CheckpointError, DiskFailure};
use crate::routine::{Next, Routine, drive};
use crate::signal::Signal;
use crate::store::Store;
use crate::store::spill::Cut;

mod attempt;

use attempt::{Attempt, Failed, Progress};

/// Called with the index that is covered from now on.
pub type CheckpointDone = Box<dyn FnOnce(Result<LogIndex, CheckpointError>) + Send>;

/// Encodes the engine's snapshot. Called by the checkpointer, so that a worker does not wait for it.
pub type EncodeSnapshot = Box<dyn FnOnce() -> Bytes + Send>;

/// Called at most once, when the disk fails in another way than being full: the node has to stop.
type OnFailure = Box<dyn FnOnce(DiskFailure) + Send>;

/// The routine.
pub struct Checkpointer {
    shared: Arc<Shared>,
    under_way: Option<Attempt>,
    on_failure: Option<OnFailure>,
}

/// A way to a checkpointer. Clones speak to the same one; the last one that goes stops it.
#[derive(Clone)]
pub struct CheckpointerHandle(Arc<Connection>);

struct Connection {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
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
    index: LogIndex,
    term: Term,
    snapshot: EncodeSnapshot,
    done: CheckpointDone,
}

impl Checkpointer {
    /// A checkpointer for all shards of a node, and the way to it. Somebody has to run it.
    #[must_use]
    pub fn new(on_failure: Box<dyn FnOnce(DiskFailure) + Send>) -> (Self, CheckpointerHandle) {
        let shared = Arc::<Shared>::default();
        let handle = CheckpointerHandle(Arc::new(Connection {
            shared: Arc::clone(&shared),
            thread: Mutex::default(),
        }));
        let routine = Self {
            shared,
            under_way: None,
            on_failure: Some(on_failure),
        };
        (routine, handle)
    }

    /// Starts one on a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        on_failure: Box<dyn FnOnce(DiskFailure) + Send>,
    ) -> io::Result<CheckpointerHandle> {
        let (routine, handle) = Self::new(on_failure);
        let thread = std::thread::Builder::new()
            .name("checkpointer".into())
            .spawn(move || drive(routine))?;
        *lock(&handle.0.thread) = Some(thread);
        Ok(handle)
    }

    fn fail(&mut self, failure: DiskFailure) -> Next {
        // Whoever waits, or comes later, is told as well.
        let waiting = {
            let mut inbox = self.shared.lock();
            inbox.phase = Phase::Closed;
            std::mem::take(&mut inbox.jobs)
        };
        for job in waiting {
            (job.done)(Err(CheckpointError::Stopped));
        }
        if let Some(on_failure) = self.on_failure.take() {
            on_failure(failure);
        }
        Next::Ended
    }
}

impl Routine for Checkpointer {
    fn step(&mut self, _now: Instant) -> Next {
        let Some(attempt) = &mut self.under_way else {
            let mut inbox = self.shared.lock();
            return match inbox.jobs.pop_front() {
                Some(job) => {
                    self.under_way = Some(Attempt::new(job));
                    Next::Now
                }
                None if inbox.phase == Phase::Open => Next::Wait(None),
                None => {
                    inbox.phase = Phase::Closed;
                    Next::Ended
                }
            };
        };
        match attempt.step() {
            Ok(Progress::More) => return Next::Now,
            Ok(Progress::Finished) => {}
            Err((done, Failed::Full(path))) => done(Err(CheckpointError::Full { path })),
            Err((done, Failed::Stop(failure))) => {
                self.under_way = None;
                done(Err(CheckpointError::Stopped));
                return self.fail(failure);
            }
        }
        self.under_way = None;
        Next::Now
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
    /// the snapshot of everything applied up to `index`, before it appends anything else to the
    /// store. `done` is called by the checkpointer, or here when that has stopped. At most one
    /// checkpoint of a shard may be under way.
    pub fn checkpoint(
        &self,
        store: &Arc<Store>,
        index: LogIndex,
        term: Term,
        snapshot: EncodeSnapshot,
        done: CheckpointDone,
    ) {
        let job = Job {
            store: Arc::clone(store),
            cut: store.cut(),
            index,
            term,
            snapshot,
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

    /// Stops it and waits for the thread that `Checkpointer::start` made. Must not be called from a
    /// `done`.
    pub fn shutdown(&self) {
        self.stop();
        let thread = lock(&self.0.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the checkpointer's thread panicked");
        }
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
