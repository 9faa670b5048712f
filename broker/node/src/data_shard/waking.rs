//! Wakes the pumps of queues that are bound to what has grown: some with each step, because very
//! many queues may be bound to one topic. A partition that grows meanwhile is gone through once
//! more.

use std::collections::BTreeMap;
use std::ops::Bound;

use millrace_types::{LogId, ShardId};

use crate::logs::Logs;

/// Queues woken in one step: well under a millisecond.
const WAKES_MAX: usize = 1_024;

/// Partitions whose queues are being woken.
#[derive(Debug, Default)]
pub(super) struct Waking {
    partitions: BTreeMap<LogId, Progress>,
    /// The partition that had its turn last: none keeps the others waiting.
    turn: Option<LogId>,
}

/// How far one partition has come.
#[derive(Debug, Default)]
struct Progress {
    /// The queue woken last; `None` before the first one.
    after: Option<LogId>,
    /// It has grown since the first one was woken.
    again: bool,
}

impl Waking {
    /// A partition has grown, or is new.
    pub(super) fn add(&mut self, partition: LogId) {
        let progress = self.partitions.entry(partition).or_default();
        progress.again = progress.after.is_some();
    }

    /// Whether anybody has still to be woken.
    pub(super) fn is_idle(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Those to be woken now, and where they live.
    pub(super) fn next(&mut self, logs: &Logs) -> Vec<(LogId, ShardId)> {
        let mut woken = Vec::new();
        let mut left = WAKES_MAX;
        while left > 0 {
            let Some(partition) = self.next_partition() else {
                break;
            };
            self.turn = Some(partition);
            let Some(progress) = self.partitions.get_mut(&partition) else {
                break;
            };
            let queues = logs.bound_queues(partition, progress.after, left);
            if queues.len() == left {
                progress.after = queues.last().map(|(queue, _)| *queue);
            } else if progress.again {
                *progress = Progress::default();
            } else {
                self.partitions.remove(&partition);
            }
            // One that nobody is bound to costs something, too.
            left -= queues.len().max(1);
            woken.extend(queues);
        }
        woken
    }

    fn next_partition(&self) -> Option<LogId> {
        let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.partitions.range((after, Bound::Unbounded)).next();
        let (partition, _) = behind.or_else(|| self.partitions.first_key_value())?;
        Some(*partition)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use millrace_types::Offset;

    use super::*;

    const MANY: u64 = 2 * WAKES_MAX as u64 + 5;
    const FAMOUS: LogId = LogId::new(1);
    const PLAIN: LogId = LogId::new(2);

    /// Very many queues are bound to one partition, and two to another.
    fn logs() -> Logs {
        let logs = Logs::default();
        let bind = |queue, partition| {
            let cursors = vec![(partition, Offset::default())];
            logs.set_queue(ShardId::new(1), LogId::new(queue), cursors);
        };
        (100..100 + MANY).for_each(|queue| bind(queue, FAMOUS));
        (10..12).for_each(|queue| bind(queue, PLAIN));
        logs
    }

    #[test]
    fn however_many_queues_are_bound_a_step_wakes_so_many() {
        let (logs, mut waking) = (logs(), Waking::default());
        waking.add(FAMOUS);
        let mut woken = BTreeSet::new();
        let mut steps = 0;
        while !waking.is_idle() {
            let step = waking.next(&logs);
            assert!(step.len() <= WAKES_MAX);
            woken.extend(step);
            steps += 1;
        }
        assert_eq!((woken.len() as u64, steps), (MANY, 3));
    }

    #[test]
    fn a_partition_that_keeps_growing_keeps_no_other_waiting() {
        let (logs, mut waking) = (logs(), Waking::default());
        waking.add(FAMOUS);
        waking.next(&logs);
        waking.add(PLAIN);
        waking.add(FAMOUS);
        let woken = waking.next(&logs);
        let plain = |(queue, _): &&(LogId, ShardId)| queue.get() < 100;
        assert_eq!(woken.iter().filter(plain).count(), 2);
    }

    #[test]
    fn queues_woken_before_a_partition_grew_are_woken_again() {
        let (logs, mut waking) = (logs(), Waking::default());
        waking.add(FAMOUS);
        let first = waking.next(&logs);
        waking.add(FAMOUS);
        let mut later = BTreeSet::new();
        while !waking.is_idle() {
            later.extend(waking.next(&logs));
        }
        assert!(first.iter().all(|queue| later.contains(queue)));
        assert_eq!(later.len() as u64, MANY);
    }
}
