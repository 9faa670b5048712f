//! A disk that fails on purpose: at the n-th operation of a kind, in a chosen way.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Disk, DiskFile, Lock, OpenMode};

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `open` with `CreateNew`.
    Create,
    /// `read_exact_at`.
    Read,
    /// `write_all_at`.
    Write,
    /// `sync_data`.
    Sync,
    /// `sync_dir`.
    SyncDir,
    /// `rename`.
    Rename,
    /// `remove`.
    Remove,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device is broken.
    Broken,
    /// There is no room.
    Full,
    /// A write stops half way; other operations break.
    Short,
}

/// Another disk, with faults.
#[derive(Clone)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    plan: Arc<Mutex<Vec<Planned>>>,
}

struct Planned {
    operation: Operation,
    fault: Fault,
    /// Operations that still succeed.
    after: u64,
    path_part: String,
}

impl FaultyDisk {
    /// A disk without faults yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self {
            inner,
            plan: Arc::default(),
        }
    }

    /// Lets one operation fail, once `after` more of its kind have succeeded on paths that contain
    /// `path_part`.
    pub fn fail(&self, operation: Operation, fault: Fault, after: u64, path_part: &str) {
        let path_part = path_part.into();
        let planned = Planned {
            operation,
            fault,
            after,
            path_part,
        };
        self.plan
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(planned);
    }

    fn fault(&self, operation: Operation, path: &Path) -> Option<Fault> {
        let path = path.to_string_lossy();
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = None;
        plan.retain_mut(|planned| {
            if planned.operation != operation || !path.contains(&planned.path_part) {
                return true;
            }
            if planned.after > 0 {
                planned.after -= 1;
                return true;
            }
            due = Some(planned.fault);
            false
        });
        due
    }

    fn check(&self, operation: Operation, path: &Path) -> io::Result<()> {
        self.fault(operation, path)
            .map_or(Ok(()), |fault| Err(fault.error()))
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Broken => io::Error::other("injected fault"),
            Self::Full => io::ErrorKind::StorageFull.into(),
            Self::Short => io::ErrorKind::WriteZero.into(),
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::CreateNew {
            self.check(Operation::Create, path)?;
        }
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(FaultyFile {
            disk: self.clone(),
            path: path.into(),
            inner,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.check(Operation::SyncDir, path)?;
        self.inner.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Operation::Rename, to)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(Operation::Remove, path)?;
        self.inner.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.inner.lock(path)
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    path: std::path::PathBuf,
    inner: Arc<dyn DiskFile>,
}

impl DiskFile for FaultyFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.check(Operation::Read, &self.path)?;
        self.inner.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let Some(fault) = self.disk.fault(Operation::Write, &self.path) else {
            return self.inner.write_all_at(buffers, offset);
        };
        if fault == Fault::Short {
            let bytes: Vec<u8> = buffers
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .collect();
            self.inner
                .write_all_at(&[IoSlice::new(&bytes[..bytes.len() / 2])], offset)?;
        }
        Err(fault.error())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.check(Operation::Sync, &self.path)?;
        self.inner.sync_data()
    }

    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_bytes(bytes)
    }
}
