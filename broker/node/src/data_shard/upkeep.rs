//! What the shard does by itself: ticks when something is due, trims, makes checkpoints, and tells
//! figures.

use std::time::Instant;

use millrace_engine::command::Command;
use millrace_storage::CheckpointError;
use millrace_types::{LogId, LogIndex, Offset};

use super::DataShard;
use crate::checkpoint_plan;
use crate::facts::ShardFacts;
use crate::input::Proposal;
use crate::outbound::Outbound;
use crate::retention;

impl DataShard {
    /// When the thread has to look again by itself, for leases, backoff, sessions and waiting
    /// calls.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let tick = self.replica.shard.next_deadline().filter(|_| !self.tick);
        let tick = tick.map(|elapsed| self.clock.instant(elapsed));
        [tick, self.waiters.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due now.
    pub(crate) fn on_time(&mut self, now: Instant, out: &mut Outbound) {
        let due = self.replica.shard.next_deadline();
        if !self.tick && due.is_some_and(|due| due <= self.clock.elapsed(now)) {
            self.tick = true;
            self.propose(Proposal::silent(self.id, Command::Tick), now, out);
        }
        for waiter in self.waiters.expire(now) {
            // A caller that has gone away does not want to know.
            waiter.reply.send(Ok(Vec::new())).ok();
        }
    }

    /// Whether `housekeeping` has anything to look at.
    pub(crate) fn needs_housekeeping(&self) -> bool {
        !self.connections.is_empty()
            || self.plan.covered() < self.shard().applied()
            || self.sweep.is_due(self.shard().applied())
            || self.shard().partitions().any(retention::has_bounds)
    }

    /// Looks after connections and retention; called about once a second.
    pub(crate) fn housekeeping(&mut self, now: Instant, out: &mut Outbound) {
        self.check_connections(now, out);
        self.sweep(now, out);
        if self.trims > 0 {
            return;
        }
        let wall = self.clock.stamp(now, self.node.host.wall()).wall;
        let logs = &self.node.logs;
        let trims: Vec<(LogId, Offset)> = self
            .shard()
            .partitions()
            .filter_map(|partition| {
                let log = partition.log();
                let first = retention::trim_to(partition, logs.lowest_cursor(log), wall)?;
                Some((log, first))
            })
            .collect();
        self.trims = trims.len();
        for (partition, first) in trims {
            let command = Command::Trim { partition, first };
            self.propose(Proposal::silent(self.id, command), now, out);
        }
    }

    /// Starts a checkpoint when it is due, or possible and `wanted`.
    pub(crate) fn checkpoint(&mut self, wanted: bool, now: Instant) {
        let applied = self.shard().applied();
        let resident = self.replica.store.memory_bytes();
        let start = self.plan.is_due(applied, resident, now)
            || (wanted && self.plan.is_possible(applied, now));
        if !start {
            return;
        }
        self.plan.started(now);
        let frozen = self.shard().freeze();
        checkpoint_plan::start(
            &self.node,
            &self.replica.store,
            (self.id, applied),
            Box::new(move || frozen.encode().into()),
        );
    }

    /// A checkpoint is done, or is not.
    pub(crate) fn checkpointed(&mut self, result: Result<LogIndex, CheckpointError>, now: Instant) {
        checkpoint_plan::finish(&self.node, self.id, &mut self.plan, result, now);
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.proposals.is_empty() && !self.plan.is_running()
    }

    /// Whether a checkpoint covers everything.
    pub(crate) fn is_covered(&self, now: Instant) -> bool {
        !self.plan.is_possible(self.shard().applied(), now)
    }

    /// Answers `Receive` calls that wait: nothing comes any more.
    pub(crate) fn stop_waiting(&mut self) {
        for waiter in self.waiters.take_all() {
            // A caller that has gone away does not want to know.
            waiter.reply.send(Ok(Vec::new())).ok();
        }
    }

    /// Figures for metrics.
    pub(crate) fn facts(&self) -> ShardFacts {
        ShardFacts {
            unavailable: None,
            applied: self.shard().applied(),
            checkpoint: self.plan.covered(),
            in_flight_entries: self.proposals.len(),
            in_flight_bytes: self.proposals.bytes(),
            resident_bytes: self.replica.store.memory_bytes(),
            segment_bytes: self.replica.store.disk_bytes(),
            sessions: self.connections.len() as u64,
        }
    }

    /// `Receive` calls that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiters.len()
    }
}
