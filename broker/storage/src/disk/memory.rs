//! A disk in memory that forgets like a real one.
//!
//! It knows of each file what is durable and which writes came after, and of each directory which
//! names are durable and which changes came after. A crash keeps any of what was not synced that a
//! real disk might: of each file sectors as they were at different times (`memory/content.rs`), of
//! each directory some changes (`memory/names.rs`). It comes when `crash` is called, or at a chosen
//! operation. Clones of the disk and files opened before a crash answer with errors, as if their
//! process were gone: whoever lives on must not go on where the disk has gone back.
//!
//! Deterministic: the same calls and seeds lead to the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, Lock, OpenMode};

pub(crate) mod chance;
mod content;
mod names;

use chance::Chance;
use content::Content;
use names::{Change, Directory};

/// What a torn write is torn along.
const SECTOR_BYTES: usize = 512;

/// What survives of the things not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// All of it: a killed process.
    KeepAll,
    /// Nothing.
    DropAll,
    /// Some of it, chosen by this seed.
    Random(u64),
}

/// The disk. Clones share it; a clone is what one process has of it, until the next crash.
#[derive(Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    /// The life a clone belongs to; the disk that was made first belongs to none and outlives all.
    life: Option<u64>,
}

impl Clone for MemoryDisk {
    fn clone(&self) -> Self {
        self.of_life(self.state().life)
    }
}

type Inode = Arc<Mutex<Content>>;

#[derive(Default)]
struct State {
    directories: BTreeMap<PathBuf, Directory>,
    locked: BTreeSet<PathBuf>,
    /// Crashes so far: files opened before the last one are dead.
    life: u64,
    /// `None`: as much as there is memory.
    capacity_bytes: Option<u64>,
    operations: u64,
    /// At which operation it crashes, and how.
    crash_at: Option<(u64, Crash)>,
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on files together hold at most this much; writing beyond fails.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// Loses what was not synced, or part of it, and every lock.
    pub fn crash(&self, crash: Crash) {
        self.state().crash(crash);
    }

    /// Crashes at an operation, once this many more have succeeded. That one fails for its caller;
    /// whether it took place, and how much of it, is as open as for everything not synced.
    pub fn crash_after(&self, operations: u64, crash: Crash) {
        let mut state = self.state();
        state.crash_at = Some((state.operations + operations, crash));
    }

    /// Operations that changed something, so far: creating, writing, cutting, syncing, renaming and
    /// removing.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Crashes so far.
    #[must_use]
    pub fn crashes(&self) -> u64 {
        self.state().life
    }

    /// Changes a byte of a file behind everybody's back, as a bad disk would.
    ///
    /// # Errors
    /// When there is no such file or byte.
    pub fn corrupt(&self, path: &Path, at: usize, mask: u8) -> io::Result<()> {
        let inode = self.state().find(path)?;
        let mut content = lock(&inode);
        let byte = content.now.get_mut(at);
        *byte.ok_or(io::ErrorKind::UnexpectedEof)? ^= mask;
        Ok(())
    }

    /// What a file holds now.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inode = self.state().find(path)?;
        Ok(lock(&inode).now.clone())
    }

    /// Another disk with what is on this one now, all of it durable and nothing locked.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let state = self.state();
        let mut copy = State {
            capacity_bytes: state.capacity_bytes,
            ..State::default()
        };
        for (path, directory) in state.directories.iter().filter(|(_, d)| !d.is_gone) {
            let copied = directory.now.iter().map(|(name, inode)| {
                let content = Content::durable(lock(inode).now.clone());
                (name.clone(), Arc::new(Mutex::new(content)))
            });
            let directory = Directory::durable(copied.collect());
            copy.directories.insert(path.clone(), directory);
        }
        let state = Arc::new(Mutex::new(copy));
        Self { state, life: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn of_life(&self, life: u64) -> Self {
        let (state, life) = (Arc::clone(&self.state), Some(life));
        Self { state, life }
    }

    /// For what a process does: fails after the crash that ended it.
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        match self.life {
            Some(life) if life != state.life => Err(io::Error::other("cloned before the crash")),
            _ => Ok(state),
        }
    }

    /// Does an operation on names, and perhaps crashes on it.
    fn change<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.alive()?;
        let done = work(&mut state)?;
        state.count()?;
        Ok(done)
    }
}

impl State {
    /// Counts an operation that has just been done.
    fn count(&mut self) -> io::Result<()> {
        let due = self
            .crash_at
            .take_if(|(operation, _)| *operation <= self.operations);
        self.operations += 1;
        let Some((_, crash)) = due else {
            return Ok(());
        };
        self.crash(crash);
        Err(io::Error::other("the crash"))
    }

    fn crash(&mut self, crash: Crash) {
        let mut chance = Chance::new(match crash {
            Crash::Random(seed) => seed,
            Crash::KeepAll | Crash::DropAll => 0,
        });
        self.life += 1;
        self.crash_at = None;
        self.locked.clear();
        self.directories.retain(|_, directory| {
            directory.is_gone = directory.is_gone
                && match crash {
                    Crash::KeepAll => true,
                    Crash::DropAll => false,
                    Crash::Random(_) => chance.below(2) == 0,
                };
            !directory.is_gone
        });
        let mut kept: Vec<Inode> = Vec::new();
        for directory in self.directories.values_mut() {
            directory.crash(crash, &mut chance);
            kept.extend(directory.durable.values().cloned());
        }
        for inode in kept {
            // A file with two names is visited twice; the second time nothing is unsynced.
            lock(&inode).crash(crash, &mut chance);
        }
    }

    fn directory(&mut self, path: &Path) -> io::Result<&mut Directory> {
        let directory = self.directories.get_mut(path);
        let directory = directory.filter(|directory| !directory.is_gone);
        Ok(directory.ok_or(io::ErrorKind::NotFound)?)
    }

    fn find(&self, path: &Path) -> io::Result<Inode> {
        let (parent, name) = split(path)?;
        let directory = self
            .directories
            .get(parent)
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(directory
            .now
            .get(&name)
            .cloned()
            .ok_or(io::ErrorKind::NotFound)?)
    }

    fn has_child(&self, path: &Path) -> bool {
        self.directories
            .iter()
            .any(|(child, directory)| !directory.is_gone && child.parent() == Some(path))
    }

    fn used_bytes(&self) -> u64 {
        let files = self
            .directories
            .values()
            .flat_map(|directory| directory.now.values());
        files.map(|inode| lock(inode).now.len() as u64).sum()
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let (inode, life) = if mode == OpenMode::CreateNew {
            self.change(|state| {
                if state.find(path).is_ok() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                let (parent, name) = split(path)?;
                let inode = Inode::default();
                let link = Change::Link(name, Arc::clone(&inode));
                state.directory(parent)?.change(link);
                Ok((inode, state.life))
            })?
        } else {
            let state = self.alive()?;
            (state.find(path)?, state.life)
        };
        Ok(Arc::new(MemoryFile {
            disk: self.of_life(life),
            inode,
            life,
            writable: mode != OpenMode::Read,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        for path in path.ancestors() {
            let directory = state.directories.entry(path.into()).or_default();
            if directory.is_gone {
                *directory = Directory::default();
            }
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        state.directory(path)?;
        // Before it is done: a crash in a sync leaves as much as one before it.
        state.count()?;
        state.directory(path)?.sync();
        state
            .directories
            .retain(|child, directory| !directory.is_gone || child.parent() != Some(path));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.alive()?;
        let mut names: Vec<String> = state.directory(path)?.now.keys().cloned().collect();
        let children = state
            .directories
            .iter()
            .filter(|(child, directory)| !directory.is_gone && child.parent() == Some(path));
        names.extend(children.filter_map(|(child, _)| Some(split(child).ok()?.1)));
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            let inode = state.find(from)?;
            let ((from_parent, from), (to_parent, to)) = (split(from)?, split(to)?);
            if (from_parent, &from) == (to_parent, &to) {
                return Ok(());
            }
            if from_parent == to_parent {
                let rename = Change::Rename(from, to, inode);
                state.directory(from_parent)?.change(rename);
            } else {
                state.directory(to_parent)?.change(Change::Link(to, inode));
                state.directory(from_parent)?.change(Change::Unlink(from));
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            state.find(path)?;
            let (parent, name) = split(path)?;
            state.directory(parent)?.change(Change::Unlink(name));
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            let has_child = state.has_child(path);
            let directory = state.directory(path)?;
            if has_child || !directory.now.is_empty() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            directory.is_gone = true;
            Ok(())
        })
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.alive()?;
        let capacity = state.capacity_bytes.unwrap_or(1 << 40);
        Ok(capacity.saturating_sub(state.used_bytes()))
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut state = self.alive()?;
        if state.find(path).is_err() {
            let (parent, name) = split(path)?;
            let link = Change::Link(name, Inode::default());
            state.directory(parent)?.change(link);
        }
        if !state.locked.insert(path.into()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (disk, life) = (self.of_life(state.life), state.life);
        Ok(Box::new(MemoryLock {
            disk,
            path: path.into(),
            life,
        }))
    }
}

struct MemoryLock {
    disk: MemoryDisk,
    path: PathBuf,
    life: u64,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locked.remove(&self.path);
        }
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: Inode,
    life: u64,
    writable: bool,
}

impl MemoryFile {
    /// The disk stays locked while the file is worked on, so that a crash falls between calls.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.life == self.life {
            Ok(state)
        } else {
            Err(io::Error::other("opened before the crash"))
        }
    }

    /// For what changes the file.
    fn writable(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state()?;
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(state)
    }

    /// How long the file may become, with the room there is.
    fn length_max(&self, state: &State) -> usize {
        let Some(capacity) = state.capacity_bytes else {
            return usize::MAX;
        };
        let length = lock(&self.inode).now.len();
        let free = capacity.saturating_sub(state.used_bytes());
        length.saturating_add(usize::try_from(free).unwrap_or(usize::MAX))
    }
}

impl DiskFile for MemoryFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let _state = self.state()?;
        let content = lock(&self.inode);
        let offset = index(offset)?;
        let end = offset.saturating_add(buffer.len());
        let bytes = content
            .now
            .get(offset..end)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut bytes = Vec::with_capacity(buffers.iter().map(|slice| slice.len()).sum());
        buffers
            .iter()
            .for_each(|slice| bytes.extend_from_slice(slice));
        let at = index(offset)?;
        let mut state = self.writable()?;
        let end = at.saturating_add(bytes.len());
        if bytes.is_empty() {
            return Ok(0);
        }
        if end > lock(&self.inode).now.len() {
            // A full disk takes what fits and says so; the next write hears why.
            let fits = self.length_max(&state).min(end).saturating_sub(at);
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            bytes.truncate(fits);
        }
        let written = bytes.len();
        lock(&self.inode).write(at, bytes);
        state.count()?;
        Ok(written)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        // Before it is done: a crash in a sync leaves as much as one before it.
        state.count()?;
        lock(&self.inode).sync();
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        let _state = self.state()?;
        Ok(lock(&self.inode).now.len() as u64)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        let length = index(bytes)?;
        let mut state = self.writable()?;
        if length > lock(&self.inode).now.len() && length > self.length_max(&state) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        lock(&self.inode).set_length(length);
        state.count()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn split(path: &Path) -> io::Result<(&Path, String)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name.to_string_lossy().into_owned())),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests;
