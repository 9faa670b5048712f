//! The disk of a simulated node: the in-memory model, above it faults that nobody is told of, then
//! those that are, and above all a counter that ends the process inside the n-th operation.
//!
//! What survives a crash is the model's business. Does not know what is stored.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_storage::{
    Crash, Disk, DiskFile, Fault, FaultyDisk, Lock, MemoryDisk, OpenMode, Operation, inspect,
};

use crate::random::Random;

/// What all lives of a node's disk share.
pub(crate) struct Medium {
    memory: MemoryDisk,
    operations: Arc<AtomicU64>,
    /// Operations that returned an error nobody but a fault explains.
    failed: AtomicU64,
    /// The first of them, in this life, after which nothing may be acknowledged any more.
    fatal: Mutex<Option<String>>,
    /// The operation at which the process ends, and whether that one is still carried out.
    ends_at: Mutex<Option<(u64, bool)>>,
    ended: AtomicBool,
    /// What it did behind everybody's back, not looked at yet.
    struck: Mutex<Vec<Struck>>,
    /// What it says is synced and is not.
    lies: Mutex<BTreeSet<PathBuf>>,
}

/// Flips of a hundred that are aimed at what a file begins with,
const HEADER_PERCENT: u64 = 15;
/// which is about so long.
const HEADER_BYTES: usize = 40;

/// A bit of a file.
pub(crate) struct Place {
    /// The file.
    pub path: PathBuf,
    /// The byte.
    pub at: usize,
    /// The bit in it.
    pub mask: u8,
}

/// Something that nobody was told of.
#[derive(Clone, Debug)]
pub(crate) enum Struck {
    /// What was read is not what is there.
    Read(PathBuf),
    /// What was written is not there, or not so; where, and what it would have been.
    Write(PathBuf, u64, Vec<u8>),
    /// A sync did nothing.
    Sync(PathBuf),
}

/// Of what is written, this much is kept to see what it was: a batch's header fits.
const STRUCK_BYTES_MAX: usize = 2 << 10;

impl Medium {
    /// An empty disk.
    #[must_use]
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryDisk::new(),
            operations: Arc::default(),
            failed: AtomicU64::new(0),
            fatal: Mutex::default(),
            ends_at: Mutex::default(),
            ended: AtomicBool::new(false),
            struck: Mutex::default(),
            lies: Mutex::default(),
        })
    }

    /// Counts operations.
    #[must_use]
    pub(crate) fn operations(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.operations)
    }

    /// How many operations failed on purpose.
    #[must_use]
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// The first write or sync of this life that failed for another reason than a full disk.
    #[must_use]
    pub(crate) fn fatal(&self) -> Option<String> {
        lock(&self.fatal).clone()
    }

    /// The process does not end inside an operation after all.
    pub(crate) fn stay(&self) {
        *self.ends() = None;
    }

    /// The process ends inside the operation that comes after so many.
    pub(crate) fn end_after(&self, operations: u64, carried_out: bool) {
        let at = self.operations.load(Ordering::Relaxed) + operations;
        *self.ends() = Some((at, carried_out));
    }

    /// Whether it has ended so.
    #[must_use]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The process is gone; this is what is left of what it wrote. Whether that is less than the
    /// disk had said.
    pub(crate) fn crash(&self, crash: Crash) -> bool {
        *self.ends() = None;
        self.memory.crash(crash);
        self.ended.store(false, Ordering::Relaxed);
        let lied = !std::mem::take(&mut *lock(&self.lies)).is_empty();
        lied && crash != Crash::KeepAll
    }

    /// What it did behind everybody's back since this was asked last.
    pub(crate) fn take_struck(&self) -> Vec<Struck> {
        std::mem::take(&mut lock(&self.struck))
    }

    /// The batches in a journal's directory that can be read.
    #[must_use]
    pub(crate) fn batches(&self, directory: &Path) -> Vec<inspect::FoundBatch> {
        inspect::journal_batches(&self.memory, directory)
    }

    /// Whether the checkpoint that counts in a shard's directory is whole; also without one.
    #[must_use]
    pub(crate) fn is_checkpoint_sound(&self, directory: &Path) -> bool {
        let names = self.memory.list(directory).unwrap_or_default();
        let is_complete = |name: &&String| name.starts_with("checkpoint-") && !name.contains('.');
        let newest = names.iter().rfind(is_complete);
        newest.is_none_or(|name| inspect::is_checkpoint(&self.memory, &directory.join(name)))
    }

    /// The next process begins.
    pub(crate) fn begin(&self) {
        *lock(&self.fatal) = None;
    }

    /// How much fits, from now on.
    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.memory.set_capacity(bytes);
    }

    /// Bytes still free when the disk holds `capacity`; how much is used is told with `u64::MAX`.
    #[must_use]
    pub(crate) fn used_bytes(&self) -> u64 {
        self.memory.set_capacity(Some(u64::MAX));
        let free = self.memory.free_bytes(Path::new("/")).unwrap_or(u64::MAX);
        self.memory.set_capacity(None);
        u64::MAX - free
    }

    /// Chooses a bit of some file that a name matches.
    pub(crate) fn place(&self, random: &mut Random, part: &str) -> Option<Place> {
        let mut files = Vec::new();
        self.collect(Path::new("/"), &mut files);
        files.retain(|path| path.to_string_lossy().contains(part));
        if files.is_empty() {
            return None;
        }
        let path = random.pick(&files).clone();
        let content = self.memory.content(&path).ok()?;
        let used = content.iter().rposition(|byte| *byte != 0)? + 1;
        // What a file begins with is a small part of it, and all depends on it.
        let part = if random.percent(HEADER_PERCENT) {
            used.min(HEADER_BYTES)
        } else {
            used
        };
        let at = random.below(part);
        let mask = 1 << random.below(8);
        Some(Place { path, at, mask })
    }

    /// Flips it.
    pub(crate) fn flip(&self, place: &Place) {
        let Place { path, at, mask } = place;
        // It was found just now.
        self.memory.corrupt(path, *at, *mask).ok();
    }

    fn collect(&self, directory: &Path, files: &mut Vec<PathBuf>) {
        for name in self.memory.list(directory).unwrap_or_default() {
            let path = directory.join(name);
            if self.memory.content(&path).is_ok() {
                files.push(path);
            } else {
                self.collect(&path, files);
            }
        }
    }

    fn ends(&self) -> MutexGuard<'_, Option<(u64, bool)>> {
        lock(&self.ends_at)
    }
}

/// What one life of a node has of the disk.
#[derive(Clone)]
pub(crate) struct SimDisk {
    medium: Arc<Medium>,
    /// What goes wrong without a word.
    silent: FaultyDisk,
    faulty: FaultyDisk,
}

impl SimDisk {
    /// The disk as the next process finds it.
    #[must_use]
    pub(crate) fn new(medium: &Arc<Medium>) -> Self {
        let silent = FaultyDisk::new(Arc::new(medium.memory.clone()));
        Self {
            medium: Arc::clone(medium),
            faulty: FaultyDisk::new(Arc::new(silent.clone())),
            silent,
        }
    }

    /// One operation will go wrong, and nobody hear of it.
    pub(crate) fn deceive(&self, operation: Operation, fault: Fault, after: u64, part: &str) {
        self.silent.fail(operation, fault, after, part);
    }

    /// One operation will fail.
    pub(crate) fn fail(&self, operation: Operation, fault: Fault, after: u64, part: &str) {
        self.faulty.fail(operation, fault, after, part);
    }

    /// Runs one operation, unless the process ends at it.
    fn run<T>(&self, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let number = self.medium.operations.fetch_add(1, Ordering::Relaxed);
        if self.medium.has_ended() {
            return Err(io::Error::other("the process has ended"));
        }
        let ends = *self.medium.ends();
        match ends {
            Some((at, carried_out)) if at <= number => {
                self.medium.ended.store(true, Ordering::Relaxed);
                if carried_out {
                    // Nobody hears how it went.
                    operation().ok();
                }
                Err(io::Error::other("the process ends here"))
            }
            _ => operation().inspect_err(|error| {
                // A file that ends too early is damaged; the disk that says so works.
                let expected = [
                    io::ErrorKind::NotFound,
                    io::ErrorKind::AlreadyExists,
                    io::ErrorKind::UnexpectedEof,
                ];
                if !expected.contains(&error.kind()) {
                    self.medium.failed.fetch_add(1, Ordering::Relaxed);
                }
            }),
        }
    }

    /// Does what may go wrong without a word, and takes note if it did.
    fn watched<T>(
        &self,
        operation: impl FnOnce() -> io::Result<T>,
        struck: impl FnOnce() -> Struck,
    ) -> io::Result<T> {
        let before = self.silent.faults();
        let done = operation();
        // One that went astray may have failed besides, when a part was done.
        if self.silent.faults() > before {
            lock(&self.medium.struck).push(struck());
        }
        done
    }

    /// A sync of a file or directory, which may be a lie; a true one makes up for earlier ones.
    fn synced(&self, path: &Path, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let before = self.silent.faults();
        sync()?;
        if self.silent.faults() > before {
            lock(&self.medium.struck).push(Struck::Sync(path.into()));
            lock(&self.medium.lies).insert(path.into());
        } else {
            lock(&self.medium.lies).remove(path);
        }
        Ok(())
    }

    /// The same for one after whose failure nothing may be acknowledged.
    fn run_fatal<T>(
        &self,
        path: &Path,
        operation: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.run(operation).inspect_err(|error| {
            // What is not in use yet is made again.
            let in_use = path
                .extension()
                .is_none_or(|name| name != "new" && name != "spare");
            if in_use && error.kind() != io::ErrorKind::StorageFull {
                let what = || format!("{}: {error}", path.display());
                lock(&self.medium.fatal).get_or_insert_with(what);
            }
        })
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.run(|| self.faulty.open(path, mode))?;
        let disk = self.clone();
        let path = path.to_path_buf();
        Ok(Arc::new(SimFile { disk, path, inner }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.run(|| self.faulty.create_dir_all(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.run_fatal(path, || self.synced(path, || self.faulty.sync_dir(path)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.run(|| self.faulty.list(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(|| self.faulty.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(|| self.faulty.remove(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.run(|| self.faulty.remove_dir(path))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.run(|| self.faulty.free_bytes(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.run(|| self.faulty.lock(path))
    }
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inner: Arc<dyn DiskFile>,
}

impl DiskFile for SimFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.run(|| {
            let read = || self.inner.read_exact_at(buffer, offset);
            let struck = || Struck::Read(self.path.clone());
            self.disk.watched(read, struck)
        })
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.disk.run_fatal(&self.path, || {
            let write = || self.inner.write_at(buffers, offset);
            let struck = || {
                let bytes = buffers.iter().flat_map(|slice| slice.iter().copied());
                let start = bytes.take(STRUCK_BYTES_MAX).collect();
                Struck::Write(self.path.clone(), offset, start)
            };
            self.disk.watched(write, struck)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.run_fatal(&self.path, || {
            self.disk.synced(&self.path, || self.inner.sync_data())
        })
    }

    fn bytes(&self) -> io::Result<u64> {
        self.disk.run(|| self.inner.bytes())
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.disk.run(|| self.inner.set_bytes(bytes))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
