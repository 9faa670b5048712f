//! What is due when, by queue or partition: one time each, computed from the state.

use alloc::collections::{BTreeMap, BTreeSet};

use millrace_types::{Elapsed, LogId};

/// The next deadline of each log that has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Schedule {
    deadlines: BTreeSet<(Elapsed, LogId)>,
    by_log: BTreeMap<LogId, Elapsed>,
}

impl Schedule {
    pub(super) const fn new() -> Self {
        Self {
            deadlines: BTreeSet::new(),
            by_log: BTreeMap::new(),
        }
    }

    /// The log's deadline is this now.
    pub(super) fn set(&mut self, log: LogId, deadline: Option<Elapsed>) {
        let old = match deadline {
            Some(deadline) => self.by_log.insert(log, deadline),
            None => self.by_log.remove(&log),
        };
        if old == deadline {
            return;
        }
        if let Some(old) = old {
            self.deadlines.remove(&(old, log));
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, log));
        }
    }

    /// The earliest one.
    pub(super) fn first(&self) -> Option<(Elapsed, LogId)> {
        self.deadlines.first().copied()
    }

    /// The logs that have something due by then, the earliest first.
    pub(super) fn due(&self, upto: Elapsed) -> impl Iterator<Item = LogId> {
        let due = self.deadlines.range(..=(upto, LogId::new(u64::MAX)));
        due.map(|(_, log)| *log)
    }
}
