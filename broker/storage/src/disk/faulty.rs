//! A disk that fails on purpose: another one, with a plan of what goes wrong. Some faults are told
//! to the caller, as an honest disk does; others are not, as a broken one does.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, Lock, OpenMode};

/// How far from its place a misdirected read or write ends up.
const ASTRAY_BYTES: u64 = 512;

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `open` with `CreateNew`.
    Create,
    /// `read_exact_at`.
    Read,
    /// `write_at`.
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

/// How it fails. What makes no sense for an operation fails it like `Broken`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device is broken, and says so.
    Broken,
    /// There is no room, and the disk says so.
    Full,
    /// A write takes half of the bytes and says so; nothing keeps the rest from being written.
    Short,
    /// A write takes nothing and says so, without a reason.
    Nothing,
    /// Nothing is done, and nobody told: a lost write, sync or sync of a directory.
    Lost,
    /// A bit of what is read or written is another one, and nobody told.
    Flipped,
    /// The bytes of another place are read, or the bytes go to another place; nobody told.
    Misdirected,
}

/// Another disk, with faults.
#[derive(Clone)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    plan: Vec<Planned>,
    /// Bytes by which files may still grow; `None`: as far as the other disk lets them.
    room_bytes: Option<u64>,
    /// Faults so far.
    faults: u64,
}

struct Planned {
    operation: Operation,
    fault: Fault,
    /// Operations that still succeed.
    after: u64,
    is_once: bool,
    path_part: String,
}

impl FaultyDisk {
    /// A disk without faults yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        let state = Arc::default();
        Self { inner, state }
    }

    /// Lets one operation fail, once `after` more of its kind have succeeded on paths that contain
    /// `path_part`.
    pub fn fail(&self, operation: Operation, fault: Fault, after: u64, path_part: &str) {
        self.plan(operation, fault, after, path_part, true);
    }

    /// Lets every operation fail from now on, on paths that contain `path_part`.
    pub fn fail_always(&self, operation: Operation, fault: Fault, path_part: &str) {
        self.plan(operation, fault, 0, path_part, false);
    }

    fn plan(&self, operation: Operation, fault: Fault, after: u64, part: &str, is_once: bool) {
        let planned = Planned {
            operation,
            fault,
            after,
            is_once,
            path_part: part.into(),
        };
        self.state().plan.push(planned);
    }

    /// Forgets what was planned and has not happened.
    pub fn heal(&self) {
        self.state().plan.clear();
    }

    /// Faults so far.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.state().faults
    }

    /// From now on files may grow by this much together; what is cut or removed gives room back.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.state().room_bytes = bytes;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, operation: Operation, path: &Path) -> Option<Fault> {
        let path = path.to_string_lossy();
        let mut state = self.state();
        let mut due = None;
        state.plan.retain_mut(|planned| {
            let is_meant = planned.operation == operation && path.contains(&planned.path_part);
            if !is_meant || due.is_some() {
                return true;
            }
            if planned.after > 0 {
                planned.after -= 1;
                return true;
            }
            due = Some(planned.fault);
            !planned.is_once
        });
        state.faults += u64::from(due.is_some());
        due
    }

    /// For operations that are done, lost, or fail. Whether it is to be done.
    fn check(&self, operation: Operation, path: &Path) -> io::Result<bool> {
        match self.fault(operation, path) {
            None => Ok(true),
            Some(Fault::Lost) => Ok(false),
            Some(fault) => Err(fault.error()),
        }
    }

    /// Gives back what a file that goes away took.
    fn forget(&self, path: &Path) {
        if self.state().room_bytes.is_none() {
            return;
        }
        let file = self.inner.open(path, OpenMode::Read);
        let bytes = file.and_then(|file| file.bytes()).unwrap_or(0);
        self.give_back(bytes);
    }

    fn give_back(&self, bytes: u64) {
        if let Some(room) = &mut self.state().room_bytes {
            *room += bytes;
        }
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Full => io::ErrorKind::StorageFull.into(),
            _ => io::Error::other("injected fault"),
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::CreateNew
            && let Some(fault) = self.fault(Operation::Create, path)
        {
            return Err(fault.error());
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
        if self.check(Operation::SyncDir, path)? {
            self.inner.sync_dir(path)?;
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.check(Operation::Rename, to)? {
            if from != to {
                self.forget(to);
            }
            self.inner.rename(from, to)?;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.check(Operation::Remove, path)? {
            self.forget(path);
            self.inner.remove(path)?;
        }
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let free = self.inner.free_bytes(path)?;
        let room = self.state().room_bytes;
        Ok(room.map_or(free, |room| room.min(free)))
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.inner.lock(path)
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    path: PathBuf,
    inner: Arc<dyn DiskFile>,
}

impl FaultyFile {
    /// Takes room for what lies behind the end of the file. Returns how many of the bytes fit.
    fn take_room(&self, bytes: usize, offset: u64) -> io::Result<usize> {
        if bytes == 0 {
            return Ok(0);
        }
        let length = self.inner.bytes()?;
        let mut state = self.disk.state();
        let Some(room) = &mut state.room_bytes else {
            return Ok(bytes);
        };
        let end = offset + bytes as u64;
        let more = end.saturating_sub(length);
        let taken = more.min(*room);
        *room -= taken;
        let fits = (end - (more - taken)).saturating_sub(offset);
        match usize::try_from(fits) {
            // A full disk takes what fits and says so; the next write hears why.
            Ok(0) => Err(io::ErrorKind::StorageFull.into()),
            fits => Ok(fits.unwrap_or(bytes)),
        }
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let fits = self.take_room(bytes.len(), offset)?;
        self.inner
            .write_all_at(&[IoSlice::new(&bytes[..fits])], offset)?;
        Ok(fits)
    }
}

/// Where bytes end up that go astray: elsewhere in the same file.
const fn astray(offset: u64) -> u64 {
    match offset.checked_sub(ASTRAY_BYTES) {
        Some(before) => before,
        None => offset + ASTRAY_BYTES,
    }
}

impl DiskFile for FaultyFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.disk.fault(Operation::Read, &self.path) {
            None => self.inner.read_exact_at(buffer, offset),
            Some(Fault::Flipped) => {
                self.inner.read_exact_at(buffer, offset)?;
                flip(buffer);
                Ok(())
            }
            Some(Fault::Misdirected) => {
                // A read that ends elsewhere finds at least as many bytes, whatever they are.
                self.inner.read_exact_at(buffer, offset)?;
                drop(self.inner.read_exact_at(buffer, astray(offset)));
                Ok(())
            }
            Some(fault) => Err(fault.error()),
        }
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut bytes: Vec<u8> = Vec::new();
        buffers
            .iter()
            .for_each(|slice| bytes.extend_from_slice(slice));
        match self.disk.fault(Operation::Write, &self.path) {
            None => self.write(&bytes, offset),
            // Of a single byte there is no half.
            Some(Fault::Short) => self.write(&bytes[..bytes.len().div_ceil(2)], offset),
            Some(Fault::Nothing) => Ok(0),
            Some(Fault::Lost) => Ok(bytes.len()),
            Some(Fault::Flipped) => {
                flip(&mut bytes);
                self.write(&bytes, offset)
            }
            Some(Fault::Misdirected) => self.write(&bytes, astray(offset)),
            Some(fault) => Err(fault.error()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.disk.check(Operation::Sync, &self.path)? {
            self.inner.sync_data()?;
        }
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        let length = self.inner.bytes()?;
        let more = usize::try_from(bytes.saturating_sub(length)).unwrap_or(usize::MAX);
        let fits = self.take_room(more, length)?;
        if fits < more {
            self.disk.give_back(fits as u64);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.set_bytes(bytes)?;
        self.disk.give_back(length.saturating_sub(bytes));
        Ok(())
    }
}

/// Turns the bit in the middle.
fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x10;
    }
}

#[cfg(test)]
mod tests;
