//! What a store has done since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters, from which write amplification follows: (`segment_bytes` + `checkpoint_bytes`) for
/// each of `appended_bytes`, besides what the journal wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of records taken by `append`.
    pub appended_bytes: u64,
    /// Bytes written to segments: frames, indexes and headers, those rewritten included.
    pub segment_bytes: u64,
    /// Of these, bytes that were in a segment before.
    pub rewritten_bytes: u64,
    /// Bytes of checkpoint files.
    pub checkpoint_bytes: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Bytes of segments read for messages that were asked for.
    pub read_bytes: u64,
    /// Segments synced.
    pub syncs: u64,
    /// Segments there are.
    pub segments: u64,
    /// Logs with anything in memory or on disk.
    pub logs: u64,
    /// Indexes built from the messages, because they were damaged.
    pub indexes_built: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appended_bytes: Counter,
    pub(crate) segment_bytes: Counter,
    pub(crate) rewritten_bytes: Counter,
    pub(crate) checkpoint_bytes: Counter,
    pub(crate) checkpoints: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) syncs: Counter,
    pub(crate) indexes_built: Counter,
}

/// Relaxed: they are read one by one and decide nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
