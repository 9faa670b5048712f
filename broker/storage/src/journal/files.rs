//! The files of the journal: names, making them, using them again.
//!
//! `NUMBER.journal` is in use and has a valid header; `NUMBER.spare` waits to be used again;
//! `NUMBER.new` is being filled with zeros. One file is always ready before it is needed, prepared
//! by a thread of its own: filling one takes as long as hundreds of syncs, and a full disk must
//! show before a record depends on it.

use std::io;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::format::{FILE_HEADER_BYTES, FileHeader};
use super::handle::NextFile;
use super::{JournalOptions, writer::ActiveFile};
use crate::data_dir::DataDir;
use crate::disk::{DiskFile, OpenMode};
use crate::error::{Action, DiskFailure, OpenError, failed};

/// How often a file is tried again while the disk is full.
const RETRY_EVERY: Duration = Duration::from_secs(1);

const JOURNAL: &str = "journal";
const SPARE: &str = "spare";
const NEW: &str = "new";

/// What is in the journal's directory.
pub(crate) struct Listing {
    /// In use, or prepared for it.
    pub(crate) journals: Vec<PathBuf>,
    /// Of the right size.
    pub(crate) spares: Vec<PathBuf>,
    /// Above every number in a name.
    pub(crate) number_next: u64,
}

impl Listing {
    /// Lists the directory, creating it if needed. Files that never came into use are removed.
    pub(crate) fn read(dir: &DataDir, options: JournalOptions) -> Result<Self, OpenError> {
        let (disk, directory) = (dir.disk(), dir.journal_path());
        disk.create_dir_all(&directory)
            .map_err(failed(Action::Create, &directory))?;
        let names = disk
            .list(&directory)
            .map_err(failed(Action::List, &directory))?;
        let mut listing = Self {
            journals: Vec::new(),
            spares: Vec::new(),
            number_next: 1,
        };
        for name in names {
            let path = directory.join(&name);
            let Some((number, extension)) = parse(&name) else {
                continue;
            };
            listing.number_next = listing.number_next.max(number.saturating_add(1));
            match extension {
                JOURNAL => listing.journals.push(path),
                SPARE if is_reusable(dir, &path, options)? => listing.spares.push(path),
                _ => disk.remove(&path).map_err(failed(Action::Remove, &path))?,
            }
        }
        Ok(listing)
    }
}

fn parse(name: &str) -> Option<(u64, &str)> {
    let (number, extension) = name.split_once('.')?;
    let known = [JOURNAL, SPARE, NEW].contains(&extension);
    let number = u64::from_str_radix(number, 16).ok()?;
    known.then_some((number, extension))
}

fn is_reusable(dir: &DataDir, path: &Path, options: JournalOptions) -> Result<bool, DiskFailure> {
    let file = dir
        .disk()
        .open(path, OpenMode::Read)
        .map_err(failed(Action::Open, path))?;
    Ok(file.bytes().map_err(failed(Action::Read, path))? == options.file_bytes)
}

fn path_of(dir: &DataDir, number: u64, extension: &str) -> PathBuf {
    dir.journal_path()
        .join(format!("{number:016x}.{extension}"))
}

/// Takes a file out of use. Returns it as a spare, or removes it when it is of another size.
pub(crate) fn retire(
    dir: &DataDir,
    path: &Path,
    bytes: u64,
    options: JournalOptions,
) -> Result<Option<PathBuf>, DiskFailure> {
    if bytes != options.file_bytes {
        dir.disk()
            .remove(path)
            .map_err(failed(Action::Remove, path))?;
        return Ok(None);
    }
    let spare = path.with_extension(SPARE);
    dir.disk()
        .rename(path, &spare)
        .map_err(failed(Action::Rename, path))?;
    Ok(Some(spare))
}

/// Makes a file ready for batches: from a spare, or a new one filled with zeros.
pub(crate) fn prepare(
    dir: &DataDir,
    spare: Option<&Path>,
    number: u64,
    file_bytes: u64,
) -> Result<ActiveFile, DiskFailure> {
    let (disk, directory) = (dir.disk(), dir.journal_path());
    // The spare's old name must be gone for good before its header says otherwise.
    disk.sync_dir(&directory)
        .map_err(failed(Action::Sync, &directory))?;
    let (raw, file) = match spare {
        Some(spare) => {
            let file = disk
                .open(spare, OpenMode::Write)
                .map_err(failed(Action::Open, spare))?;
            (spare.to_path_buf(), file)
        }
        None => create(dir, number, file_bytes)?,
    };
    let nonce = getrandom::u64().map_err(|error| failed(Action::Random, &raw)(error.into()))?;
    let header = FileHeader {
        number,
        nonce,
        file_bytes,
    };
    file.write_all_at(&[io::IoSlice::new(&header.encode())], 0)
        .map_err(failed(Action::Write, &raw))?;
    file.sync_data().map_err(failed(Action::Sync, &raw))?;
    let path = path_of(dir, number, JOURNAL);
    disk.rename(&raw, &path)
        .map_err(failed(Action::Rename, &raw))?;
    disk.sync_dir(&directory)
        .map_err(failed(Action::Sync, &directory))?;
    Ok(ActiveFile {
        file,
        path,
        nonce,
        file_bytes,
        at: FILE_HEADER_BYTES,
        ordinal: 0,
    })
}

fn create(
    dir: &DataDir,
    number: u64,
    file_bytes: u64,
) -> Result<(PathBuf, Arc<dyn DiskFile>), DiskFailure> {
    let (disk, path) = (dir.disk(), path_of(dir, number, NEW));
    let file = match disk.open(&path, OpenMode::CreateNew) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&path).map_err(failed(Action::Remove, &path))?;
            disk.open(&path, OpenMode::CreateNew)
        }
        opened => opened,
    }
    .map_err(failed(Action::Create, &path))?;
    let filled = file
        .fill_zeros(file_bytes)
        .map_err(failed(Action::Write, &path))
        .and_then(|()| file.sync_data().map_err(failed(Action::Sync, &path)));
    if let Err(failure) = filled {
        // Gives the room back; the next start would remove it too.
        drop(disk.remove(&path));
        return Err(failure);
    }
    Ok((path, file))
}

/// Keeps one file ready. Shared by the journal's thread and the one that prepares.
pub(crate) struct Supply {
    dir: DataDir,
    options: JournalOptions,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    next: Next,
    /// Files that hold nothing any more.
    retired: Vec<(PathBuf, u64)>,
    /// Those that could not be taken out of use; tried again before the next ones.
    held_up: Vec<(PathBuf, u64)>,
    spares: Vec<PathBuf>,
    number_next: u64,
    stopping: bool,
}

enum Next {
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
        let next = Next::Wanted;
        let state = State {
            next,
            retired: Vec::new(),
            held_up: Vec::new(),
            spares,
            number_next,
            stopping: false,
        };
        Arc::new(Self {
            dir,
            options,
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The next file of the usual size. Waits while it is being prepared; when that failed, tries
    /// once more, because room may have come back.
    pub(crate) fn take(&self) -> Result<ActiveFile, DiskFailure> {
        let mut state = self.lock();
        if matches!(state.next, Next::Failed(_)) {
            state.next = Next::Wanted;
            self.changed.notify_all();
        }
        loop {
            match std::mem::replace(&mut state.next, Next::Wanted) {
                Next::Ready(file) => {
                    self.changed.notify_all();
                    return Ok(file);
                }
                Next::Failed(failure) => return Err(failure),
                Next::Wanted => {}
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
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
        self.changed.notify_all();
    }

    /// Whether the next file is ready.
    pub(crate) fn next_file(&self) -> NextFile {
        match &self.lock().next {
            Next::Wanted => NextFile::Preparing,
            Next::Ready(_) => NextFile::Ready,
            Next::Failed(_) => NextFile::Refused,
        }
    }

    /// Ends `run`.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }

    /// Prepares files until stopped. Failures are kept for `take`, which decides.
    pub(crate) fn run(&self) {
        let mut state = self.lock();
        // Logged when it begins, not every second.
        let mut refused = false;
        while !state.stopping {
            if !state.retired.is_empty() {
                let retired = std::mem::take(&mut state.retired);
                drop(state);
                self.recycle(retired);
                state = self.lock();
            } else if matches!(state.next, Next::Wanted) {
                drop(state);
                let next = match self.make(self.options.file_bytes) {
                    Ok(file) => Next::Ready(file),
                    Err(failure) => {
                        if !refused {
                            let cause = &failure.source;
                            tracing::error!(%failure, %cause, "no next journal file");
                        }
                        Next::Failed(failure)
                    }
                };
                refused = matches!(next, Next::Failed(_));
                state = self.lock();
                state.next = next;
                self.changed.notify_all();
            } else if matches!(state.next, Next::Failed(_)) {
                let wait = self.changed.wait_timeout(state, RETRY_EVERY);
                let (after, timeout) = wait.unwrap_or_else(std::sync::PoisonError::into_inner);
                state = after;
                if timeout.timed_out() || !state.retired.is_empty() {
                    state.next = Next::Wanted;
                }
            } else {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        }
    }

    /// Takes files out of use, oldest first. Each must be gone for good before the next one goes,
    /// or a crash could bring it back with a gap behind it; so one that stays holds up all others.
    fn recycle(&self, retired: Vec<(PathBuf, u64)>) {
        let held_up = std::mem::take(&mut self.lock().held_up);
        let mut waiting = held_up.into_iter().chain(retired);
        while let Some((path, bytes)) = waiting.next() {
            match self.recycle_one(&path, bytes) {
                Ok(spare) => self.lock().spares.extend(spare),
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
