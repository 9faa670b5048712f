//! Bodies of one shard's messages, by log and offset.
//!
//! Decides where a body is: in memory from `append` until a checkpoint has written it to a segment,
//! on disk afterwards, nowhere once discarded. Promises that a read running beside a checkpoint or
//! a discard sees either the whole record or that it is gone; that no lock is held while the disk
//! works; that only what is still alive at a checkpoint is written. Does not decide what may be
//! discarded, and is not durable by itself: until a checkpoint the journal is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use millrace_types::{LogId, Offset, ShardId, Wall};

use crate::checkpoint::Manifest;
use crate::data_dir::DataDir;
use crate::error::{DiskFailure, OpenError, ReadError};

mod blocks;
pub(crate) mod files;
pub(crate) mod index;
mod listing;
mod log;
mod open;
mod pinned;
mod pins;
mod read;
mod rewrite;
pub(crate) mod run;
pub(crate) mod segment;
mod segment_writer;
pub(crate) mod spill;
mod stats;
#[cfg(test)]
mod tests;
mod verify;

use files::Files;
use log::{Batch, Log, State};
use pinned::Pinned;
pub(crate) use pins::Pin;
use stats::Counters;
pub use stats::StoreStats;

/// The bodies of one shard. Shared by the worker, readers and the checkpointer.
pub struct Store {
    pub(crate) dir: DataDir,
    pub(crate) shard: ShardId,
    logs: RwLock<Logs>,
    /// Checkpoints begun: tells bodies appended before one from those after.
    epoch: AtomicU64,
    memory_bytes: AtomicU64,
    pinned: Pinned,
    disk_bytes: AtomicU64,
    files: Files,
    stats: Counters,
    retired: AtomicBool,
}

/// All logs of a shard.
#[derive(Default)]
struct Logs {
    /// Those with something in memory or on disk, and perhaps some that had until lately.
    active: BTreeMap<LogId, Arc<Log>>,
    /// Where others end, all of whose messages are discarded: there may be very many.
    settled: BTreeMap<LogId, u64>,
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
    /// before (a replay after a checkpoint) stay discarded. The caller has checked the framing, and
    /// `records` is not a slice of something larger: all of that would stay in memory, uncounted.
    pub fn append(&self, log: LogId, first: Offset, stored_at: Wall, count: u32, records: Bytes) {
        let epoch = self.epoch.load(Ordering::Acquire);
        let batch = Batch::new(first, count, stored_at, records, epoch, &self.pinned);
        self.stats.appended_bytes.add(batch.records.len() as u64);
        loop {
            {
                // Held while it is added to: an empty log may be forgotten at any time.
                let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(log) = logs.active.get(&log) {
                    let taken = log.lock().append(batch);
                    self.memory_bytes.fetch_add(taken, Ordering::Relaxed);
                    return;
                }
            }
            let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
            let end = logs.settled.remove(&log);
            let state = end.map_or_else(State::default, State::settled);
            logs.active.insert(log, Arc::new(Log::new(log, state)));
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
        let removed = {
            let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
            logs.settled.remove(&log);
            logs.active.remove(&log)
        };
        if let Some(log) = removed {
            let freed = log.lock().remove();
            self.memory_bytes.fetch_sub(freed, Ordering::Relaxed);
        }
    }

    /// Whether reading these messages touches no disk. Discarded ones never do.
    #[must_use]
    pub fn is_resident(&self, log: LogId, offsets: Range<Offset>) -> bool {
        self.log(log).is_none_or(|log| {
            log.lock()
                .is_resident(offsets.start.get()..offsets.end.get())
        })
    }

    /// Bytes of bodies that the next checkpoint may free, and about what keeping them costs.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of bodies in memory for whatever reason: also those that are settled and still being
    /// written or sent, and all that was read from segments and is still referred to.
    #[must_use]
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned.bytes()
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

    /// Another one has taken its place: its files go when those who read them are done.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Whether another one has taken its place.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// What it has done since it was opened.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let stats = &self.stats;
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        StoreStats {
            appended_bytes: stats.appended_bytes.get(),
            segment_bytes: stats.segment_bytes.get(),
            rewritten_bytes: stats.rewritten_bytes.get(),
            checkpoint_bytes: stats.checkpoint_bytes.get(),
            checkpoints: stats.checkpoints.get(),
            read_bytes: stats.read_bytes.get(),
            syncs: stats.syncs.get(),
            segments: self.files.lock().known.len() as u64,
            logs: logs.active.len() as u64,
            indexes_built: stats.indexes_built.get(),
        }
    }

    /// A checkpoint of this many bytes was made.
    pub(crate) fn checkpointed(&self, bytes: u64) {
        self.stats.checkpoint_bytes.add(bytes);
    }

    fn log(&self, log: LogId) -> Option<Arc<Log>> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.active.get(&log).cloned()
    }

    /// Where a log ends that has nothing; 0 when it is not known.
    fn settled_end(&self, log: LogId) -> u64 {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.settled.get(&log).copied().unwrap_or(0)
    }

    /// Keeps of logs in which nothing is left only where they end.
    fn forget_idle(&self, idle: Vec<Arc<Log>>) {
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        for log in idle {
            let state = log.lock();
            let active = logs.active.get(&log.id);
            // Forgotten before, it may have come back as another one.
            let is_active = active.is_some_and(|active| Arc::ptr_eq(active, &log));
            if is_active && state.is_empty() && state.discarded.covers(0..state.end) {
                logs.active.remove(&log.id);
                logs.settled.insert(log.id, state.end);
            }
        }
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

    /// Opens the bodies of a snapshot that is staged, and leaves every other file alone.
    pub(crate) fn open_staged(
        dir: &DataDir,
        shard: ShardId,
        manifest: &Manifest,
    ) -> Result<Arc<Self>, OpenError> {
        open::open_listed(dir, shard, Some(manifest))
    }

    /// Removes the segments of a store that another one has replaced and nobody reads any more.
    /// Blocks on the disk; a start does the rest.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remove(&self) -> Result<(), DiskFailure> {
        assert!(self.is_retired(), "a store that is in use is removed");
        let numbers: Vec<u64> = self.files.lock().known.keys().copied().collect();
        numbers
            .into_iter()
            .try_for_each(|number| self.remove_segment(number))
    }

    /// The number of the next new segment.
    pub(crate) fn next_segment(&self) -> u64 {
        self.files.lock().next
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

    /// These messages, one result for each in this order, as long as those read have about
    /// `bytes_max` bytes together: the first in any case, the rest is left out. An error when one
    /// was discarded or never stored, or when what is stored is damaged or cannot be read. Costs
    /// one walk through the batches that hold them, in whatever order they are asked for, if each
    /// is asked for once.
    #[must_use]
    pub fn read_each(
        &self,
        log: LogId,
        offsets: &[Offset],
        bytes_max: u64,
    ) -> Vec<Result<StoredRecord, ReadError>> {
        read::read_each(self, log, offsets, bytes_max)
    }

    /// The first message stored at `wall` or later that is still there; `None` when there is none.
    ///
    /// # Errors
    /// When what is stored is damaged or cannot be read.
    pub fn offset_at(&self, log: LogId, wall: Wall) -> Result<Option<Offset>, ReadError> {
        read::offset_at(self, log, wall)
    }
}
