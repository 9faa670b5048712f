//! What the shard does by itself: ticks when something is due, trims, makes checkpoints, and tells
//! figures.

use std::time::Instant;

use millrace_engine::command::Command;
use millrace_storage::CheckpointError;
use millrace_types::{Elapsed, LogIndex};

use super::DataShard;
use crate::checkpoint_plan;
use crate::facts::ShardFacts;
use crate::input::Proposal;
use crate::neighbours::{Hold, Neighbours};
use crate::retention;

/// Partitions that retention looks at in one turn, and queues that are bound to them: a fraction of
/// a millisecond. Those of a shard with more have their turn a second later, which no age or size
/// notices.
const TRIMS_MAX: usize = 4_096;

impl DataShard {
    /// When the thread has to look again by itself, for leases, backoff, sessions and waiting
    /// calls.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        // At once: shard time is past its beginning.
        let wakes = (!self.waking.is_idle()).then(|| self.clock.instant(Elapsed::default()));
        if !self.log.leads() {
            return wakes;
        }
        let tick = self.state.shard.next_deadline().filter(|_| !self.tick);
        let tick = tick.map(|elapsed| self.clock.instant(elapsed));
        [tick, self.waiters.next_deadline(), self.sweep.next(), wakes]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due now.
    pub(crate) fn on_time(&mut self, now: Instant) {
        self.wake_bound();
        if !self.log.leads() {
            return;
        }
        if self.sweep.next().is_some() {
            self.look_around(now);
        }
        let due = self.state.shard.next_deadline();
        if !self.tick && due.is_some_and(|due| due <= self.clock.elapsed(now)) {
            self.tick = true;
            self.propose(Proposal::silent(self.id, Command::Tick), now);
        }
        for waiter in self.waiters.expire(now) {
            // A caller that has gone away does not want to know.
            waiter.reply.send(Ok(Vec::new())).ok();
        }
    }

    /// Whether `housekeeping` has anything to look at.
    pub(crate) fn needs_housekeeping(&self) -> bool {
        let applied = self.shard().applied();
        if self.plan.covered() < applied || !self.log.leads() {
            return self.plan.covered() < applied || self.sweep.is_due(applied);
        }
        self.steering.is_restless()
            || !self.connections.is_empty()
            || self.sweep.is_due(applied)
            || self.node.neighbours.asks(&self.node)
            || self.shard().partitions().any(retention::has_bounds)
    }

    /// Nodes or replicas have changed.
    pub(crate) const fn upset(&mut self) {
        self.steering.upset();
    }

    /// Brings the members closer to what they should be, if there is reason to look.
    pub(super) fn steer(&mut self, now: Instant) {
        if self.log.regrouped() {
            self.steering.upset();
        }
        if self.steering.is_upset() {
            self.steering.steer(&self.node, &mut self.log, now);
        }
    }

    /// Looks after connections and retention; called about once a second.
    pub(crate) fn housekeeping(&mut self, now: Instant) {
        if !self.log.leads() {
            self.look_around(now);
            return;
        }
        if self.steering.is_restless() {
            self.steering.upset();
        }
        Neighbours::look(&self.node);
        self.check_connections(now);
        self.sweep(now);
        self.trim(now);
    }

    /// Lets go of what retention does not keep, some partitions a time, round and round.
    fn trim(&mut self, now: Instant) {
        if self.trims > 0 {
            return;
        }
        let wall = self.clock.stamp(now, self.node.host.wall()).wall;
        let (mut left, mut last, mut trims) = (TRIMS_MAX, None, Vec::new());
        for partition in self.shard().partitions_after(self.trimmed) {
            let log = partition.log();
            left = left.saturating_sub(1 + self.node.logs.bound_len(log));
            last = Some(log).filter(|_| left == 0);
            let mut lowest = self.node.logs.lowest_cursor(log);
            if let Hold::From(cursor) = self.node.neighbours.hold(&self.node, log) {
                lowest = Some(lowest.map_or(cursor, |lowest| lowest.min(cursor)));
            }
            if let Some(first) = retention::trim_to(partition, lowest, wall) {
                trims.push((log, first));
            }
            if left == 0 {
                break;
            }
        }
        self.trimmed = last;
        self.trims = trims.len();
        for (partition, first) in trims {
            let command = Command::Trim { partition, first };
            self.propose(Proposal::silent(self.id, command), now);
        }
    }

    /// Starts a checkpoint when it is due, or possible and `wanted`.
    pub(crate) fn checkpoint(&mut self, wanted: bool, now: Instant) {
        let applied = self.shard().applied();
        let resident = self.state.store.memory_bytes();
        let start = self.plan.is_due(applied, resident, now)
            || (wanted && self.plan.is_possible(applied, now));
        if !start {
            return;
        }
        let Some(mut point) = self.log.begin_checkpoint() else {
            return;
        };
        let at = point.mark.index;
        assert_eq!(at, applied, "the log and the state are at the same entry");
        self.plan.started(now);
        let frozen = self.shard().freeze();
        if millrace_types::mutant!(CheckpointCoversMore) && self.log.len() > 0 {
            point.mark.index = applied.next();
        }
        checkpoint_plan::start(
            &self.node,
            &self.state.store,
            (self.id, &point),
            Box::new(move || frozen.encode().into()),
        );
    }

    /// A checkpoint is done, or is not.
    pub(crate) fn checkpointed(&mut self, result: Result<LogIndex, CheckpointError>, now: Instant) {
        if result.is_ok() {
            self.log.checkpoint_made();
        }
        checkpoint_plan::finish(&self.node, self.id, &mut self.plan, result, now);
    }

    /// Whether a checkpoint is being made.
    pub(crate) const fn is_checkpointing(&self) -> bool {
        self.plan.is_running()
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.log.is_idle() && !self.plan.is_running()
    }

    /// Whether anything is on its way to the disk.
    pub(crate) fn is_writing(&self) -> bool {
        !self.log.is_idle()
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
        let reach = self.log.reach();
        ShardFacts {
            unavailable: None,
            replica: Some(self.log.id()),
            role: Some(self.log.role()),
            term: self.log.term(),
            last: reach.last,
            synced: reach.synced,
            committed: reach.committed,
            applied: self.shard().applied(),
            checkpoint: self.plan.covered(),
            in_flight_entries: self.log.len(),
            in_flight_bytes: self.log.bytes(),
            resident_bytes: self.state.store.pinned_bytes(),
            segment_bytes: self.state.store.disk_bytes(),
            sessions: self.connections.len() as u64,
        }
    }

    /// `Receive` calls that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiters.len()
    }
}
