//! Bodies of one shard's messages, by log and offset.
//!
//! Decides where a body is: in memory from `append` until a checkpoint has written it to a segment,
//! on disk afterwards, nowhere once discarded. Promises that a read running beside a checkpoint or
//! a discard sees either the whole record or that it is gone; that no lock is held while the disk
//! works; that only what is still alive at a checkpoint is written. Does not decide what may be
//! discarded, and is not durable by itself: until a checkpoint the journal is.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use millrace_types::{LogId, Offset, ShardId, Wall};

use crate::checkpoint::Manifest;
use crate::data_dir::DataDir;
use crate::disk::{DiskFile, OpenMode};
use crate::error::{Action, DiskFailure, OpenError, ReadError, failed};

mod log;
mod open;
mod read;
pub(crate) mod segment;
mod segment_writer;
pub(crate) mod spill;
#[cfg(test)]
mod tests;

use log::{Batch, Log};
use segment::Segment;

/// Segment files kept open for reading, per shard: enough for the logs that are busy, few enough
/// that all shards together stay far below the usual limit of 1024.
const OPEN_FILES_MAX: usize = 64;

/// The bodies of one shard. Shared by the worker, readers and the checkpointer.
pub struct Store {
    pub(crate) dir: DataDir,
    pub(crate) shard: ShardId,
    path: PathBuf,
    logs: RwLock<BTreeMap<LogId, Arc<Log>>>,
    /// Checkpoints begun: tells bodies appended before one from those after.
    epoch: AtomicU64,
    memory_bytes: AtomicU64,
    disk_bytes: AtomicU64,
    open_files: Mutex<VecDeque<(PathBuf, Arc<dyn DiskFile>)>>,
    /// Segments of logs that are gone: removed once no checkpoint lists them.
    doomed: Mutex<Vec<Arc<Segment>>>,
}

/// How much to read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records at most.
    pub messages_max: usize,
    /// About this many bytes; the first record may exceed it.
    pub bytes_max: u64,
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its place.
    pub offset: Offset,
    /// When it was stored.
    pub stored_at: Wall,
    /// As published, without its length.
    pub message: Bytes,
}

impl Store {
    /// Stores a batch of `count` records, framed as `records` has them. Offsets that were discarded
    /// before (a replay after a checkpoint) stay discarded. The caller has checked the framing.
    pub fn append(&self, log: LogId, first: Offset, stored_at: Wall, count: u32, records: Bytes) {
        let epoch = self.epoch.load(Ordering::Acquire);
        let batch = Batch::new(first, count, stored_at, records, epoch);
        let log = self.log_or_new(log);
        let bytes = batch.bytes();
        if log.lock().append(batch) {
            self.memory_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Forgets messages; unknown ones are ignored.
    pub fn discard(&self, log: LogId, offsets: Range<Offset>) {
        if let Some(log) = self.log(log) {
            let freed = log.lock().discard(offsets.start.get()..offsets.end.get());
            self.memory_bytes.fetch_sub(freed, Ordering::Relaxed);
        }
    }

    /// Forgets a whole log.
    pub fn discard_all(&self, log: LogId) {
        // Held to the end: a checkpoint must find the segments either listed or doomed.
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = logs.remove(&log) else { return };
        let mut state = log.lock();
        self.memory_bytes
            .fetch_sub(state.remove(), Ordering::Relaxed);
        let segments = std::mem::take(&mut state.segments);
        self.doom(segments.into_values());
    }

    /// Whether reading these messages touches no disk. Discarded ones never do.
    #[must_use]
    pub fn is_resident(&self, log: LogId, offsets: Range<Offset>) -> bool {
        self.log(log).is_none_or(|log| {
            log.lock()
                .is_resident(offsets.start.get()..offsets.end.get())
        })
    }

    /// Bytes of bodies in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of segments, those of discarded messages included until their segment goes.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    /// The shard it belongs to.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    fn log(&self, log: LogId) -> Option<Arc<Log>> {
        self.logs
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&log)
            .cloned()
    }

    fn log_or_new(&self, id: LogId) -> Arc<Log> {
        if let Some(log) = self.log(id) {
            return log;
        }
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(logs.entry(id).or_insert_with(|| Arc::new(Log::new(id))))
    }

    fn doom(&self, segments: impl IntoIterator<Item = Arc<Segment>>) {
        self.doomed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(segments);
    }

    fn segment_path(&self, log: LogId, first: Offset) -> PathBuf {
        self.path.join(log.to_string()).join(segment::name(first))
    }

    fn open_files(&self) -> MutexGuard<'_, VecDeque<(PathBuf, Arc<dyn DiskFile>)>> {
        self.open_files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment's file for reading. Opened outside the lock: two readers may both open it.
    fn segment_file(&self, segment: &Segment) -> Result<Arc<dyn DiskFile>, DiskFailure> {
        let path = self.segment_path(segment.log, segment.first);
        let found = self
            .open_files()
            .iter()
            .find(|(open, _)| *open == path)
            .cloned();
        if let Some((_, file)) = found {
            return Ok(file);
        }
        let file = self.dir.disk().open(&path, OpenMode::Read);
        let file = file.map_err(failed(Action::Open, &path))?;
        let mut open = self.open_files();
        if open.len() >= OPEN_FILES_MAX {
            open.pop_front();
        }
        open.push_back((path, Arc::clone(&file)));
        Ok(file)
    }

    /// Opens the bodies that a checkpoint lists. What its crash left behind is cut; files it does
    /// not know are set aside under `DIR/aside`.
    ///
    /// # Errors
    /// When a listed segment is missing, short or not a segment, or the system refuses.
    pub fn open(
        dir: &DataDir,
        shard: ShardId,
        manifest: Option<&Manifest>,
    ) -> Result<Arc<Self>, OpenError> {
        open::open(dir, shard, manifest)
    }

    /// Records from the first existing one at or after `from` on, in order, without those
    /// discarded; at least one if there is any. Nothing when there is none, or no such log.
    ///
    /// # Errors
    /// When what is stored is damaged or cannot be read.
    pub fn read(
        &self,
        log: LogId,
        from: Offset,
        limits: Limits,
    ) -> Result<Vec<StoredRecord>, ReadError> {
        read::read(self, log, from, limits)
    }

    /// These messages, in this order.
    ///
    /// # Errors
    /// When one was discarded or never stored, or what is stored is damaged or cannot be read.
    pub fn read_many(
        &self,
        log: LogId,
        offsets: &[Offset],
    ) -> Result<Vec<StoredRecord>, ReadError> {
        read::read_many(self, log, offsets)
    }
}
