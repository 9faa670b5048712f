//! The thread that writes checkpoints, one at a time for all shards of a node.
//!
//! Promises: `done(Ok)` comes after the checkpoint and every body it lists are durable, and from
//! then on the journal may drop what precedes it. A full disk fails one checkpoint and leaves the
//! previous one in force; any other failure stops the thread for good and is reported once. Does
//! not decide when a checkpoint is due.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use millrace_types::{LogIndex, Term};

use crate::checkpoint;
use crate::error::{Action, CheckpointError, DiskFailure};
use crate::store::Store;
use crate::store::spill::Cut;

/// Called with the index that is covered from now on.
pub type CheckpointDone = Box<dyn FnOnce(Result<LogIndex, CheckpointError>) + Send>;

/// Starts the thread.
pub struct Checkpointer;

/// A running checkpointer. Clones speak to the same one.
#[derive(Clone)]
pub struct CheckpointerHandle(Arc<Shared>);

struct Shared {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Job {
    store: Arc<Store>,
    cut: Cut,
    index: LogIndex,
    term: Term,
    snapshot: Bytes,
    done: CheckpointDone,
}

impl Checkpointer {
    /// Starts the thread. `on_failure` is called on it, at most once, when the disk fails in
    /// another way than being full: the node has to stop.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        on_failure: Box<dyn FnOnce(DiskFailure) + Send>,
    ) -> io::Result<CheckpointerHandle> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new()
            .name("checkpointer".into())
            .spawn(move || {
                while let Ok(job) = waiting.recv() {
                    let (done, result) = run(job);
                    match result {
                        Ok(index) => done(Ok(index)),
                        Err(Failed::Full(path)) => done(Err(CheckpointError::Full { path })),
                        Err(Failed::Stop(failure)) => {
                            done(Err(CheckpointError::Stopped));
                            // Whoever waits, or comes later, is told as well.
                            while let Ok(job) = waiting.try_recv() {
                                (job.done)(Err(CheckpointError::Stopped));
                            }
                            drop(waiting);
                            on_failure(failure);
                            return;
                        }
                    }
                }
            })?;
        let (jobs, thread) = (Mutex::new(Some(jobs)), Mutex::new(Some(thread)));
        Ok(CheckpointerHandle(Arc::new(Shared { jobs, thread })))
    }
}

impl CheckpointerHandle {
    /// Writes a checkpoint of a shard as it is now: called by the worker that owns the shard, with
    /// the snapshot of everything applied up to `index`, before it appends anything else to the
    /// store. `done` is called on the checkpointer's thread, or here when that has stopped. At most
    /// one checkpoint of a shard may be under way.
    pub fn checkpoint(
        &self,
        store: &Arc<Store>,
        index: LogIndex,
        term: Term,
        snapshot: Bytes,
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
        let refused = {
            let jobs = self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            match &*jobs {
                Some(jobs) => jobs.send(job).err().map(|refused| refused.0),
                None => Some(job),
            }
        };
        if let Some(job) = refused {
            (job.done)(Err(CheckpointError::Stopped));
        }
    }

    /// Finishes what waits and ends the thread. Must not be called from a `done`.
    pub fn shutdown(&self) {
        drop(
            self.0
                .jobs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let thread = self
            .0
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the checkpointer's thread panicked");
        }
    }
}

/// Why there is no checkpoint.
enum Failed {
    /// Nothing has changed.
    Full(PathBuf),
    /// What is on disk is unknown.
    Stop(DiskFailure),
}

fn run(job: Job) -> (CheckpointDone, Result<LogIndex, Failed>) {
    let Job {
        store,
        cut,
        index,
        term,
        snapshot,
        done,
    } = job;
    (done, write(&store, cut, index, term, &snapshot))
}

fn write(
    store: &Store,
    cut: Cut,
    index: LogIndex,
    term: Term,
    snapshot: &[u8],
) -> Result<LogIndex, Failed> {
    let (mut spill, result) = store.spill(cut, index);
    let result = result.and_then(|()| {
        let manifest = store.manifest(&mut spill);
        checkpoint::write(&store.dir, store.shard, term, manifest, snapshot)
    });
    match result {
        Ok(()) => {}
        // A sync that failed for want of room is still a failed sync: after the one of the
        // directory, the new checkpoint may be in force.
        Err(failure) if failure.is_full() && failure.action != Action::Sync => {
            store.abandon(spill);
            return Err(Failed::Full(failure.path));
        }
        Err(failure) => return Err(Failed::Stop(failure)),
    }
    store.publish(spill).map_err(Failed::Stop)?;
    checkpoint::remove_older(&store.dir, store.shard, index).map_err(Failed::Stop)?;
    Ok(index)
}
