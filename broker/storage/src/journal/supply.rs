//! Keeps one journal file ready before it is needed: filling one takes as long as hundreds of
//! syncs, and a full disk must show before a record depends on it.
//!
//! Decides when a file is prepared or taken out of use. A file that the disk has no room for is
//! tried again every second and whenever an old one comes free; that it failed is what `room`
//! reports, and no reason to stop. Any other failure is handed to the journal when it needs the
//! file. A failed sync stops the journal at once: what else was to become durable with it is
//! unknown. So does the end of the routine, should it panic.

use std::iter;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::JournalOptions;
use super::files::{prepare, retire};
use super::handle::NextFile;
use super::writer::ActiveFile;
use crate::data_dir::DataDir;
use crate::error::{Action, DiskFailure, failed};
use crate::routine::{Next, Routine};
use crate::signal::Signal;

/// How often a file is tried again while there is no room for it.
pub(crate) const RETRY_EVERY: Duration = Duration::from_secs(1);

/// The next file, and those that wait for another use.
pub(crate) struct Supply {
    dir: DataDir,
    options: JournalOptions,
    state: Mutex<State>,
    /// Wakes the routine that prepares.
    signal: Signal,
    /// Wakes the journal's routine.
    journal: Arc<Signal>,
}

struct State {
    next: Prepared,
    /// Files that hold nothing any more.
    retired: Vec<(PathBuf, u64)>,
    /// Those that could not be taken out of use; tried again before the next ones.
    held_up: Vec<(PathBuf, u64)>,
    spares: Vec<PathBuf>,
    number_next: u64,
    stopping: bool,
    /// Why the journal has to stop.
    broken: Option<DiskFailure>,
}

enum Prepared {
    Wanted,
    Ready(ActiveFile),
    /// To be tried again.
    Failed(DiskFailure),
}

impl Supply {
    pub(crate) fn new(
        dir: DataDir,
        options: JournalOptions,
        spares: Vec<PathBuf>,
        number_next: u64,
    ) -> Arc<Self> {
        let state = State {
            next: Prepared::Wanted,
            retired: Vec::new(),
            held_up: Vec::new(),
            spares,
            number_next,
            stopping: false,
            broken: None,
        };
        Arc::new(Self {
            dir,
            options,
            state: Mutex::new(state),
            signal: Signal::default(),
            journal: Arc::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What wakes the journal's routine.
    pub(crate) fn journal_signal(&self) -> Arc<Signal> {
        Arc::clone(&self.journal)
    }

    /// The next file of the usual size. `None` while it is being prepared, and while the disk has
    /// no room for it.
    pub(crate) fn take(&self) -> Result<Option<ActiveFile>, DiskFailure> {
        let mut state = self.lock();
        match std::mem::replace(&mut state.next, Prepared::Wanted) {
            Prepared::Ready(file) => {
                drop(state);
                self.signal.ring();
                Ok(Some(file))
            }
            Prepared::Failed(failure) if !failure.is_full() => Err(failure),
            waiting => {
                state.next = waiting;
                Ok(None)
            }
        }
    }

    /// Prepares a file here and now: the first one, and one for a record larger than a file.
    pub(crate) fn make(&self, file_bytes: u64) -> Result<ActiveFile, DiskFailure> {
        let (number, spare) = {
            let mut state = self.lock();
            let usual = file_bytes == self.options.file_bytes;
            let spare = if usual { state.spares.pop() } else { None };
            state.number_next += 1;
            (state.number_next - 1, spare)
        };
        prepare(&self.dir, spare.as_deref(), number, file_bytes)
    }

    /// Hands in a file that holds nothing any more.
    pub(crate) fn retire(&self, path: PathBuf, bytes: u64) {
        self.lock().retired.push((path, bytes));
        self.signal.ring();
    }

    /// Whether the next file is ready.
    pub(crate) fn next_file(&self) -> NextFile {
        match &self.lock().next {
            Prepared::Wanted => NextFile::Preparing,
            Prepared::Ready(_) => NextFile::Ready,
            Prepared::Failed(_) => NextFile::Refused,
        }
    }

    /// Fails when files cannot be prepared any more.
    pub(crate) fn check(&self) -> Result<(), DiskFailure> {
        self.lock().broken.take().map_or(Ok(()), Err)
    }

    fn fail(&self, failure: DiskFailure) {
        self.lock().broken.get_or_insert(failure);
        self.journal.ring();
    }

    /// Whether the journal must not go on. A new file that has no room is removed, and nothing
    /// else was to become durable with it.
    fn is_fatal(&self, failure: &DiskFailure) -> bool {
        let is_new_file = failure.path != self.dir.journal_path();
        failure.action == Action::Sync && !(is_new_file && failure.is_full())
    }

    /// Ends the routine.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.signal.ring();
    }

    /// Takes files out of use, oldest first. Each must be gone for good before the next one goes,
    /// or a crash could bring it back with a gap behind it; so one that stays holds up all others.
    fn recycle(&self, retired: Vec<(PathBuf, u64)>) {
        let held_up = std::mem::take(&mut self.lock().held_up);
        let mut waiting = held_up.into_iter().chain(retired);
        while let Some((path, bytes)) = waiting.next() {
            match self.recycle_one(&path, bytes) {
                Ok(spare) => self.lock().spares.extend(spare),
                Err(failure) if self.is_fatal(&failure) => return self.fail(failure),
                Err(failure) => {
                    tracing::warn!(%failure, "journal file is not recycled");
                    self.lock().held_up = iter::once((path, bytes)).chain(waiting).collect();
                    return;
                }
            }
        }
    }

    fn recycle_one(&self, path: &Path, bytes: u64) -> Result<Option<PathBuf>, DiskFailure> {
        let directory = self.dir.journal_path();
        self.dir
            .disk()
            .sync_dir(&directory)
            .map_err(failed(Action::Sync, &directory))?;
        let kept = self.lock().spares.len() < self.options.spare_files_max;
        retire(&self.dir, path, if kept { bytes } else { 0 }, self.options)
    }
}

/// The routine that prepares.
pub(crate) struct Preparer {
    supply: Arc<Supply>,
    /// While files are refused: when the next one is tried.
    retry_at: Option<Instant>,
    ended: bool,
}

impl Preparer {
    pub(crate) const fn new(supply: Arc<Supply>) -> Self {
        let (retry_at, ended) = (None, false);
        Self {
            supply,
            retry_at,
            ended,
        }
    }

    fn prepare(&mut self, now: Instant) -> Next {
        let next = match self.supply.make(self.supply.options.file_bytes) {
            Ok(file) => {
                self.retry_at = None;
                Prepared::Ready(file)
            }
            Err(failure) if self.supply.is_fatal(&failure) => {
                self.supply.fail(failure);
                self.ended = true;
                return Next::Ended;
            }
            Err(failure) => {
                // Logged when it begins, not every second.
                if self.retry_at.is_none() {
                    let cause = &failure.source;
                    tracing::warn!(%failure, %cause, "no next journal file");
                }
                self.retry_at = Some(now + RETRY_EVERY);
                Prepared::Failed(failure)
            }
        };
        self.supply.lock().next = next;
        self.supply.journal.ring();
        Next::Now
    }
}

impl Routine for Preparer {
    fn step(&mut self, now: Instant) -> Next {
        let mut state = self.supply.lock();
        if state.stopping || self.ended {
            drop(state);
            self.ended = true;
            return Next::Ended;
        }
        if !state.retired.is_empty() {
            let retired = std::mem::take(&mut state.retired);
            drop(state);
            self.supply.recycle(retired);
            // Perhaps there is room now.
            self.retry_at = self.retry_at.map(|_| now);
            return Next::Now;
        }
        let is_due = match state.next {
            Prepared::Wanted => true,
            Prepared::Failed(_) => self.retry_at.is_none_or(|at| at <= now),
            Prepared::Ready(_) => false,
        };
        drop(state);
        if is_due {
            return self.prepare(now);
        }
        Next::Wait(self.retry_at)
    }

    fn wait(&mut self, deadline: Option<Instant>) {
        self.supply.signal.wait(deadline);
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        if !self.ended {
            let source = std::io::Error::other("the routine that prepares files is gone");
            let path = self.supply.dir.journal_path();
            self.supply.fail(failed(Action::Create, &path)(source));
        }
    }
}
