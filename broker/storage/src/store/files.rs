//! The segment files of a store: what there is, which still grows, and which are open.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_types::{LogId, ShardId};

use super::index::Block;
use super::segment::{self, SEGMENT_BYTES_MAX};
use crate::data_dir::DataDir;
use crate::disk::{DiskFile, OpenMode};
use crate::error::{Action, DiskFailure, failed};

/// Segments kept open for reading, by all stores of a node: far below the usual limit of 1024.
const OPEN_FILES_MAX: usize = 512;
/// Shards that may come after the founding, of those that one broker has in most clusters.
const LATER_SHARDS: usize = 8;
/// A store may keep this many in any case.
const OPEN_FILES_MIN: usize = 4;
/// Indexes kept in memory, for each store: at most 50 KiB each, for a full segment.
const INDEXES_MAX: usize = 64;

/// All of them.
pub(crate) struct Files {
    dir: DataDir,
    path: PathBuf,
    open_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    /// The next new file's number; never used before.
    pub(crate) next: u64,
    /// As of the last durable checkpoint, and left-overs of attempts, by number.
    pub(crate) known: BTreeMap<u64, Known>,
    /// Damaged: not rewritten, so that the damage is not copied and nothing of it is removed.
    pub(crate) damaged: BTreeSet<u64>,
    /// Those that somebody sends, and how many do.
    pins: BTreeMap<u64, u32>,
    /// Pinned, and needed by nobody else any more.
    doomed: BTreeSet<u64>,
    open: VecDeque<(u64, Arc<dyn DiskFile>)>,
    indexes: VecDeque<((u64, u32), Index)>,
}

/// A segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Valid bytes.
    pub(crate) bytes: u64,
    /// The log that has it for itself.
    pub(crate) owner: Option<LogId>,
    /// Nothing is added any more.
    pub(crate) closed: bool,
}

/// An index in memory.
#[derive(Clone)]
pub(crate) struct Index {
    pub(crate) blocks: Arc<[Block]>,
    /// Built from the frames, not read.
    pub(crate) built: bool,
}

impl Files {
    pub(crate) fn new(dir: &DataDir, shard: ShardId) -> Self {
        let shards = 1 + dir.data_shards() as usize + LATER_SHARDS;
        Self {
            dir: dir.clone(),
            path: directory(dir, shard),
            open_max: (OPEN_FILES_MAX / shards).max(OPEN_FILES_MIN),
            state: Mutex::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where they are.
    pub(crate) fn directory(&self) -> &Path {
        &self.path
    }

    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.path.join(segment::name(number))
    }

    /// For reading. Opened outside the lock: two readers may both open it.
    pub(crate) fn open(&self, number: u64) -> Result<Arc<dyn DiskFile>, DiskFailure> {
        let found = {
            let mut state = self.lock();
            let place = state.open.iter().position(|(open, _)| *open == number);
            // The one used last is the last to go.
            let found = place.and_then(|place| state.open.remove(place));
            state.open.extend(found.clone());
            found
        };
        if let Some((_, file)) = found {
            return Ok(file);
        }
        let path = self.path(number);
        let file = self.dir.disk().open(&path, OpenMode::Read);
        let file = file.map_err(failed(Action::Open, &path))?;
        let mut state = self.lock();
        if state.open.len() >= self.open_max {
            state.open.pop_front();
        }
        state.open.push_back((number, Arc::clone(&file)));
        Ok(file)
    }

    /// The index of the run at this place, if it is in memory.
    pub(crate) fn index(&self, place: (u64, u32)) -> Option<Index> {
        let mut state = self.lock();
        let found = state.indexes.iter().position(|(of, _)| *of == place)?;
        let index = state.indexes.remove(found)?;
        state.indexes.push_back(index.clone());
        Some(index.1)
    }

    pub(crate) fn keep_index(&self, place: (u64, u32), index: Index) {
        let mut state = self.lock();
        state.indexes.retain(|(of, _)| *of != place);
        if state.indexes.len() >= INDEXES_MAX {
            state.indexes.pop_front();
        }
        state.indexes.push_back((place, index));
    }

    /// Removes a file that no checkpoint lists; its bytes. One that is pinned goes later.
    pub(crate) fn remove(&self, number: u64) -> Result<u64, DiskFailure> {
        let path = self.path(number);
        let bytes = {
            let mut state = self.lock();
            if state.pins.contains_key(&number) {
                state.doomed.insert(number);
                // It stays known, so that checkpoints go on to name it as one to remove.
                if let Some(known) = state.known.get_mut(&number) {
                    known.closed = true;
                }
                return Ok(0);
            }
            state.doomed.remove(&number);
            state.open.retain(|(open, _)| *open != number);
            state.indexes.retain(|((file, _), _)| *file != number);
            state.damaged.remove(&number);
            let Some(known) = state.known.remove(&number) else {
                // Somebody else was faster.
                return Ok(0);
            };
            known.bytes
        };
        let removed = self.dir.disk().remove(&path);
        removed.map_err(failed(Action::Remove, &path))?;
        Ok(bytes)
    }
}

impl State {
    /// Keeps these from being removed.
    pub(crate) fn pin(&mut self, numbers: &[u64]) {
        for number in numbers {
            *self.pins.entry(*number).or_default() += 1;
        }
    }

    /// Does so no more; those that are to be removed now.
    pub(crate) fn unpin(&mut self, numbers: &[u64]) -> Vec<u64> {
        let mut doomed = Vec::new();
        for number in numbers {
            let Some(pins) = self.pins.get_mut(number) else {
                continue;
            };
            *pins -= 1;
            if *pins == 0 {
                self.pins.remove(number);
                doomed.extend(self.doomed.take(number));
            }
        }
        doomed
    }

    /// The youngest file that takes more of `owner`'s, or of everybody's.
    pub(crate) fn growing(
        &self,
        owner: Option<LogId>,
        untouched: impl Fn(u64) -> bool,
    ) -> Option<(u64, u64)> {
        let mut youngest = self.known.iter().rev();
        let (number, known) = youngest.find(|(_, known)| known.owner == owner)?;
        let grows = !known.closed && known.bytes < SEGMENT_BYTES_MAX && untouched(*number);
        grows.then_some((*number, known.bytes))
    }
}

/// Where a shard's segments are.
pub(crate) fn directory(dir: &DataDir, shard: ShardId) -> PathBuf {
    dir.shard_path(shard).join("segments")
}
