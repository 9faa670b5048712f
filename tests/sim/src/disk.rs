//! The disk of a simulated node: the in-memory model, faults on purpose above it, and above both a
//! counter that ends the process inside the n-th operation.
//!
//! What survives a crash is the model's business. Does not know what is stored.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_storage::{
    Crash, Disk, DiskFile, Fault, FaultyDisk, Lock, MemoryDisk, OpenMode, Operation,
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
}

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

    /// The process is gone; this is what is left of what it wrote.
    pub(crate) fn crash(&self, crash: Crash) {
        *self.ends() = None;
        self.memory.crash(crash);
        self.ended.store(false, Ordering::Relaxed);
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

    /// Flips a bit of some file that a name matches; where it was.
    pub(crate) fn flip(&self, random: &mut Random, part: &str) -> Option<(PathBuf, usize)> {
        let mut files = Vec::new();
        self.collect(Path::new("/"), &mut files);
        files.retain(|path| path.to_string_lossy().contains(part));
        if files.is_empty() {
            return None;
        }
        let path = random.pick(&files).clone();
        let content = self.memory.content(&path).ok()?;
        let used = content.iter().rposition(|byte| *byte != 0)? + 1;
        let at = random.below(used);
        let mask = 1 << random.below(8);
        self.memory.corrupt(&path, at, mask).ok()?;
        Some((path, at))
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
    faulty: FaultyDisk,
}

impl SimDisk {
    /// The disk as the next process finds it.
    #[must_use]
    pub(crate) fn new(medium: &Arc<Medium>) -> Self {
        Self {
            medium: Arc::clone(medium),
            faulty: FaultyDisk::new(Arc::new(medium.memory.clone())),
        }
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
                let expected = [io::ErrorKind::NotFound, io::ErrorKind::AlreadyExists];
                if !expected.contains(&error.kind()) {
                    self.medium.failed.fetch_add(1, Ordering::Relaxed);
                }
            }),
        }
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
        self.run_fatal(path, || self.faulty.sync_dir(path))
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
        self.disk.run(|| self.inner.read_exact_at(buffer, offset))
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.disk
            .run_fatal(&self.path, || self.inner.write_at(buffers, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.run_fatal(&self.path, || self.inner.sync_data())
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
