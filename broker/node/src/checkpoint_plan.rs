//! When a shard makes a checkpoint, and the two steps around making it. `CheckpointPlan` is pure:
//! it counts what came since the last one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_replica::Point;
use millrace_storage::{CheckpointError, Covered, EncodeSnapshot, Store};
use millrace_types::{LogIndex, ShardId};

use super::input::Input;
use super::node::Node;

/// After a disk that was full, the next try waits this long: room seldom comes at once, and each
/// try writes.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What makes a checkpoint due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thresholds {
    /// Journal records since the last one, in bytes.
    pub(super) journal_bytes: u64,
    /// Entries since the last one.
    pub(super) entries: u64,
    /// Bodies in memory.
    pub(super) resident_bytes: u64,
}

/// One shard's checkpoints.
#[derive(Debug)]
pub(super) struct CheckpointPlan {
    thresholds: Thresholds,
    covered: LogIndex,
    journal_bytes: u64,
    /// Since when, and the journal's bytes then.
    running: Option<(Instant, u64)>,
    not_before: Option<Instant>,
}

impl CheckpointPlan {
    /// The last checkpoint covers everything up to `covered`; `journal_bytes` follow.
    pub(super) const fn new(thresholds: Thresholds, covered: LogIndex, journal_bytes: u64) -> Self {
        Self {
            thresholds,
            covered,
            journal_bytes,
            running: None,
            not_before: None,
        }
    }

    /// An entry was applied.
    pub(super) const fn applied(&mut self, bytes: u64) {
        self.journal_bytes += bytes;
    }

    /// Whether to make one now.
    pub(super) fn is_due(&self, applied: LogIndex, resident_bytes: u64, now: Instant) -> bool {
        let since = applied.get() - self.covered.get();
        let Thresholds {
            journal_bytes,
            entries,
            resident_bytes: resident,
        } = self.thresholds;
        let enough = since >= entries
            || self.journal_bytes >= journal_bytes
            || (since > 0 && resident_bytes >= resident);
        enough && self.is_possible(applied, now)
    }

    /// Whether one could be made, if anybody wanted it.
    pub(super) fn is_possible(&self, applied: LogIndex, now: Instant) -> bool {
        self.running.is_none()
            && applied > self.covered
            && self.not_before.is_none_or(|not_before| not_before <= now)
    }

    /// One is being made.
    pub(super) const fn started(&mut self, now: Instant) {
        self.running = Some((now, self.journal_bytes));
    }

    /// It is done; since when it was being made.
    pub(super) fn finished(&mut self, covered: LogIndex) -> Option<Instant> {
        self.covered = covered;
        let (since, bytes) = self.running.take()?;
        self.journal_bytes -= bytes;
        Some(since)
    }

    /// It is not, for now.
    pub(super) fn failed(&mut self, now: Instant) {
        self.running = None;
        self.not_before = Some(now + RETRY_AFTER);
    }

    /// Another state has taken the place of the one before, and a checkpoint covers it.
    pub(super) const fn restarted(&mut self, covered: LogIndex) {
        self.covered = covered;
        self.journal_bytes = 0;
        self.running = None;
        self.not_before = None;
    }

    /// Whether one is being made.
    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The last entry a checkpoint covers.
    pub(super) const fn covered(&self) -> LogIndex {
        self.covered
    }
}

/// Hands everything applied up to a point to the checkpointer, which calls `snapshot` on its own
/// thread; the shard's inbox hears of the end.
pub(super) fn start(
    node: &Node,
    store: &Arc<Store>,
    (shard, point): (ShardId, &Point),
    snapshot: EncodeSnapshot,
) {
    let covered = Covered {
        index: point.mark.index,
        term: point.mark.term,
        members: point.members.encode().into(),
    };
    if millrace_types::mutant!(ReleasedBeforeCheckpoint) {
        node.journal.release(shard, covered.index);
    }
    // Also of a shard that was quarantined since: it is drained like the others.
    let inbox = Arc::clone(&node.slot_at_all(shard).inbox);
    let done = Box::new(move |result| inbox.send(Input::Checkpointed(shard, result)));
    node.checkpointer.checkpoint(store, covered, snapshot, done);
}

/// Takes note that a checkpoint has been made, or has not.
pub(super) fn finish(
    node: &Node,
    shard: ShardId,
    plan: &mut CheckpointPlan,
    result: Result<LogIndex, CheckpointError>,
    now: Instant,
) {
    match result {
        Ok(index) => {
            if let Some(since) = plan.finished(index) {
                let took = now.saturating_duration_since(since);
                node.figures.checkpoints.add(took);
            }
            tracing::debug!(%shard, %index, "checkpoint made");
        }
        Err(error) => {
            plan.failed(now);
            tracing::warn!(%shard, %error, "no checkpoint; the journal keeps growing");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds {
        journal_bytes: 100,
        entries: 10,
        resident_bytes: 1_000,
    };

    fn plan() -> CheckpointPlan {
        CheckpointPlan::new(THRESHOLDS, LogIndex::new(5), 0)
    }

    #[test]
    fn bytes_entries_or_memory_make_a_checkpoint_due() {
        let now = Instant::now();
        let (few, many) = (LogIndex::new(6), LogIndex::new(15));
        assert!(!plan().is_due(few, 0, now));
        assert!(plan().is_due(many, 0, now));
        assert!(plan().is_due(few, 1_000, now));
        let mut plan = plan();
        plan.applied(100);
        assert!(plan.is_due(few, 0, now));
    }

    #[test]
    fn nothing_new_needs_no_checkpoint() {
        let now = Instant::now();
        assert!(!plan().is_due(LogIndex::new(5), 5_000, now));
        assert!(!plan().is_possible(LogIndex::new(5), now));
    }

    #[test]
    fn what_came_while_one_was_made_counts_for_the_next() {
        let now = Instant::now();
        let mut plan = plan();
        plan.applied(150);
        plan.started(now);
        plan.applied(70);
        assert!(!plan.is_due(LogIndex::new(99), 0, now));
        plan.finished(LogIndex::new(20));
        assert!(!plan.is_due(LogIndex::new(21), 0, now));
        plan.applied(30);
        assert!(plan.is_due(LogIndex::new(22), 0, now));
    }

    #[test]
    fn a_full_disk_is_tried_again_later() {
        let now = Instant::now();
        let mut plan = plan();
        plan.applied(500);
        plan.started(now);
        plan.failed(now);
        assert!(!plan.is_due(LogIndex::new(9), 0, now));
        assert!(plan.is_due(LogIndex::new(9), 0, now + RETRY_AFTER));
    }
}
