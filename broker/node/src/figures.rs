//! Counters for metrics. Relaxed: they are read one by one and decide nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use millrace_storage::Times;
use millrace_types::{ErrorCode, Refusal};

/// All counters of a node.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Messages in acknowledged batches.
    pub(super) published_messages: Counter,
    /// Their bytes.
    pub(super) published_bytes: Counter,
    /// Messages handed to consumers.
    pub(super) delivered_messages: Counter,
    /// Leases ended by a settlement.
    pub(super) settled_messages: Counter,
    /// Messages moved by bindings.
    pub(super) transferred_messages: Counter,
    /// Messages that arrived in dead-letter queues.
    pub(super) dead_lettered_messages: Counter,
    /// Messages trimmed before a binding had looked at them.
    pub(super) missed_messages: Counter,
    /// What workers did in one turn: nothing else of their shards happened meanwhile.
    pub(super) worker_turns: Times,
    /// From the snapshot to the release of the journal.
    pub(super) checkpoints: Times,
    /// Snapshots that reached other nodes.
    pub(super) snapshots_sent: Counter,
    /// Bytes of snapshots that left, whether they arrived or not.
    pub(super) snapshot_sent_bytes: Counter,
    /// Snapshots of other nodes that were put in force.
    pub(super) snapshots_received: Counter,
    /// Bytes of snapshots that came whole.
    pub(super) snapshot_received_bytes: Counter,
    /// Snapshots that did not arrive or were not taken.
    pub(super) snapshots_failed: Counter,
    refusals: Mutex<BTreeMap<ErrorCode, u64>>,
}

/// Goes up.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Counts.
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The count.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Figures {
    /// Counts a refusal and passes it on.
    pub(super) fn refused(&self, refusal: Refusal) -> Refusal {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals.entry(refusal.code).or_default() += 1;
        refusal
    }

    /// Refusals by reason.
    pub(super) fn refusals(&self) -> BTreeMap<&'static str, u64> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals
            .iter()
            .map(|(code, count)| (code.reason(), *count))
            .collect()
    }
}
