//! Publishes, and the dedup ids that they leave behind: how many there are, and when they go.

use millrace_types::{LogId, Refusal};

use super::{Changes, Shard, own};
use crate::command::{BatchHeader, Dedup};
use crate::limits::FORGOTTEN_MAX;
use crate::outcome::Outcome;
use crate::partition::Partition;
use crate::queue::{Publish, Queue};
use crate::refusal;

impl Shard {
    pub(super) fn publish(
        &mut self,
        log: LogId,
        batch: &BatchHeader,
        dedup: Option<&Dedup>,
        changes: &mut Changes,
    ) -> Outcome {
        let (stamp, before) = (self.stamp, self.dedup_ids_of(log));
        let publish = Publish {
            batch,
            dedup,
            of_shard: self.dedup_ids,
        };
        let outcome = match own(&mut self.partitions, log) {
            Some(partition) => partition.publish(&publish, stamp, changes),
            None if self.queues.contains_key(&log) => self.on_queue(log, changes, |q, changes| {
                q.publish(&publish, stamp, changes)
            }),
            None => Outcome::Refused(refusal::no_such_log(log)),
        };
        if dedup.is_some() {
            self.recount(log, before);
        }
        outcome
    }

    /// Whether a publish would be refused now: it may be different when its turn comes.
    ///
    /// # Errors
    /// The refusal.
    pub fn check_publish(&self, log: LogId, batch: &BatchHeader) -> Result<(), Refusal> {
        match (self.partition(log), self.queue(log)) {
            (Some(partition), _) => partition.check_publish(batch),
            (None, Some(queue)) => queue.check_publish(batch),
            (None, None) => Err(refusal::no_such_log(log)),
        }
    }

    /// Forgets dedup ids that are over, as many as one entry may.
    pub(super) fn forget(&mut self) {
        let (stamp, mut budget) = (self.stamp, FORGOTTEN_MAX);
        while budget > 0
            && let Some((at, log)) = self.forgetting.first()
            && at <= stamp.elapsed
        {
            // Costs one even if nothing goes, so that the loop ends.
            budget -= 1;
            let before = self.dedup_ids_of(log);
            if let Some(partition) = own(&mut self.partitions, log) {
                partition.forget(stamp, &mut budget);
            } else if let Some(queue) = own(&mut self.queues, log) {
                queue.forget(stamp, &mut budget);
            }
            self.recount(log, before);
        }
    }

    /// Keeps what is computed from dedup ids in step; `before` are those that the log had.
    pub(super) fn recount(&mut self, log: LogId, before: usize) {
        let now = self.dedup_ids_of(log);
        self.dedup_ids = (self.dedup_ids + now).saturating_sub(before);
        let partition = self.partition(log).and_then(Partition::forgets_at);
        let queue = self.queue(log).and_then(Queue::forgets_at);
        self.forgetting.set(log, partition.or(queue));
    }

    /// Dedup ids that a queue or partition knows.
    #[must_use]
    pub fn dedup_ids_of(&self, log: LogId) -> usize {
        let partition = self.partition(log).map(Partition::dedup_ids);
        let queue = || self.queue(log).map(Queue::dedup_ids);
        partition.or_else(queue).unwrap_or(0)
    }
}
