//! A disk in memory that forgets like a real one.
//!
//! It knows of each file what is durable and which writes came after, and of each directory which
//! names are durable and which changes came after. `crash` keeps some of what was not synced: any
//! writes (each perhaps only in part, by sector), and of each directory some first changes. Clones
//! of the disk and files opened before a crash answer with errors, as if their process were gone:
//! a thread that lives on must not go on where the disk has gone back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, Lock, OpenMode};

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
}

#[derive(Default)]
struct Directory {
    now: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
    /// What led from `durable` to `now`.
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Link(String, Inode),
    Unlink(String),
    /// Both at once, as a rename within a directory is.
    Rename(String, String, Inode),
}

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// What led from `durable` to `now`.
    writes: Vec<Write>,
}

#[derive(Clone)]
enum Write {
    Bytes(usize, Vec<u8>),
    Length(usize),
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
        let mut state = self.state();
        let mut random = Random(match crash {
            Crash::Random(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            Crash::KeepAll | Crash::DropAll => 1,
        });
        state.life += 1;
        state.locked.clear();
        let mut kept: Vec<Inode> = Vec::new();
        for directory in state.directories.values_mut() {
            let changes = std::mem::take(&mut directory.changes);
            let keep = match crash {
                Crash::KeepAll => changes.len(),
                Crash::DropAll => 0,
                Crash::Random(_) => random.below(changes.len() + 1),
            };
            for change in changes.into_iter().take(keep) {
                change.apply(&mut directory.durable);
            }
            directory.now = directory.durable.clone();
            kept.extend(directory.durable.values().cloned());
        }
        for inode in kept {
            // A file with two names is visited twice; the second time nothing is unsynced.
            lock(&inode).crash(crash, &mut random);
        }
    }

    /// Changes a byte of a file behind everybody's back, as a bad disk would.
    ///
    /// # Errors
    /// When there is no such file or byte.
    pub fn corrupt(&self, path: &Path, at: usize, mask: u8) -> io::Result<()> {
        let inode = self.state().find(path)?;
        let mut content = lock(&inode);
        let content = &mut *content;
        for bytes in [&mut content.now, &mut content.durable] {
            let byte = bytes.get_mut(at).ok_or(io::ErrorKind::UnexpectedEof)?;
            *byte ^= mask;
        }
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
        for (path, directory) in &state.directories {
            let mut names = BTreeMap::new();
            for (name, inode) in &directory.now {
                let now = lock(inode).now.clone();
                let content = Content {
                    durable: now.clone(),
                    now,
                    writes: Vec::new(),
                };
                names.insert(name.clone(), Arc::new(Mutex::new(content)));
            }
            let (now, durable) = (names.clone(), names);
            let changes = Vec::new();
            copy.directories.insert(
                path.clone(),
                Directory {
                    now,
                    durable,
                    changes,
                },
            );
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
}

impl State {
    fn directory(&mut self, path: &Path) -> io::Result<&mut Directory> {
        Ok(self
            .directories
            .get_mut(path)
            .ok_or(io::ErrorKind::NotFound)?)
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

    fn used_bytes(&self) -> u64 {
        let files = self
            .directories
            .values()
            .flat_map(|directory| directory.now.values());
        files.map(|inode| lock(inode).now.len() as u64).sum()
    }
}

impl Directory {
    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.now);
        self.changes.push(change);
    }
}

impl Change {
    fn apply(self, names: &mut BTreeMap<String, Inode>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name, inode);
            }
            Self::Unlink(name) => {
                names.remove(&name);
            }
            Self::Rename(from, to, inode) => {
                names.remove(&from);
                names.insert(to, inode);
            }
        }
    }
}

impl Content {
    fn crash(&mut self, crash: Crash, random: &mut Random) {
        for write in std::mem::take(&mut self.writes) {
            let keep = match crash {
                Crash::KeepAll => Keep::All,
                Crash::DropAll => Keep::Nothing,
                Crash::Random(_) => match random.below(3) {
                    0 => Keep::All,
                    1 => Keep::Nothing,
                    _ => Keep::SomeSectors,
                },
            };
            write.apply_part(&mut self.durable, keep, random);
        }
        self.now.clone_from(&self.durable);
    }
}

#[derive(Clone, Copy)]
enum Keep {
    All,
    Nothing,
    SomeSectors,
}

impl Write {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Bytes(at, written) => {
                let end = at + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(written);
            }
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }

    fn apply_part(&self, bytes: &mut Vec<u8>, keep: Keep, random: &mut Random) {
        match (self, keep) {
            (_, Keep::Nothing) => {}
            (_, Keep::All) | (Self::Length(_), Keep::SomeSectors) => self.apply(bytes),
            (Self::Bytes(at, written), Keep::SomeSectors) => {
                let mut start = 0;
                while start < written.len() {
                    let sector_end = ((at + start) / SECTOR_BYTES + 1) * SECTOR_BYTES - at;
                    let end = sector_end.min(written.len());
                    if random.below(2) == 0 {
                        Self::Bytes(at + start, written[start..end].to_vec()).apply(bytes);
                    }
                    start = end;
                }
            }
        }
    }
}

/// Enough to choose what survives; not for anything else.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.alive()?;
        let inode = match (mode, state.find(path)) {
            (OpenMode::CreateNew, Ok(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::CreateNew, Err(_)) => {
                let (parent, name) = split(path)?;
                let inode = Inode::default();
                state
                    .directory(parent)?
                    .change(Change::Link(name, Arc::clone(&inode)));
                inode
            }
            (OpenMode::Read | OpenMode::Write, found) => found?,
        };
        let (disk, life) = (self.of_life(state.life), state.life);
        Ok(Arc::new(MemoryFile {
            disk,
            inode,
            life,
            writable: mode != OpenMode::Read,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        for path in path.ancestors() {
            state.directories.entry(path.into()).or_default();
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        let directory = state.directory(path)?;
        directory.durable = directory.now.clone();
        directory.changes.clear();
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.alive()?;
        let mut names: Vec<String> = state.directory(path)?.now.keys().cloned().collect();
        let children = state
            .directories
            .keys()
            .filter(|child| child.parent() == Some(path));
        names.extend(children.filter_map(|child| Some(split(child).ok()?.1)));
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        let inode = state.find(from)?;
        let ((from_parent, from), (to_parent, to)) = (split(from)?, split(to)?);
        if from_parent == to_parent {
            state
                .directory(from_parent)?
                .change(Change::Rename(from, to, inode));
        } else {
            state.directory(to_parent)?.change(Change::Link(to, inode));
            state.directory(from_parent)?.change(Change::Unlink(from));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        state.find(path)?;
        let (parent, name) = split(path)?;
        state.directory(parent)?.change(Change::Unlink(name));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.alive()?;
        if !state.directory(path)?.now.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        // Comes back when a crash undoes the removal of a file in it; emptied directories only.
        if state.directory(path)?.changes.is_empty() {
            state.directories.remove(path);
        }
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.alive()?;
        let capacity = state.capacity_bytes.unwrap_or(1 << 40);
        Ok(capacity.saturating_sub(state.used_bytes()))
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut state = self.alive()?;
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

    fn write(&self, write: Write) -> io::Result<()> {
        let state = self.state()?;
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let length_new = match &write {
            Write::Bytes(at, bytes) => at + bytes.len(),
            Write::Length(length) => *length,
        } as u64;
        if let Some(capacity) = state.capacity_bytes {
            let used = state.used_bytes();
            let length = lock(&self.inode).now.len() as u64;
            if length_new > length && used + (length_new - length) > capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let mut content = lock(&self.inode);
        write.apply(&mut content.now);
        content.writes.push(write);
        Ok(())
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

    fn write_all_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes = buffers
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        self.write(Write::Bytes(index(offset)?, bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        let _state = self.state()?;
        let mut content = lock(&self.inode);
        content.durable = content.now.clone();
        content.writes.clear();
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        let _state = self.state()?;
        Ok(lock(&self.inode).now.len() as u64)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.write(Write::Length(index(bytes)?))
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
