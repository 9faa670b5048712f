//! Finds effects that nobody carries out: those of before a start, and those that were lost, by
//! what the engine says is outstanding and what connections have missed. No effect has to arrive
//! for messages to move on; without this, one that did not would be missed until the next one.
//! A leader goes round once without a pause, some logs with each step, and then more slowly.
//!
//! Deliveries come again by comparing what a session holds with what its connection knows of, not
//! by waiting for the lease to end: until then nobody would get the message. A
//! connection is told only what it does not know of, so it gets nothing twice.

use std::sync::Arc;
use std::time::Instant;

use millrace_engine::command::Command;
use millrace_engine::outcome::Effect;
use millrace_types::{Address, LogId, LogIndex};

use super::DataShard;
use crate::connection::Connection;
use crate::input::Proposal;
use crate::pumps::{Job, Pumps};

/// Queues and partitions looked at in one turn: well under a millisecond when nothing is due.
const LOGS_MAX: usize = 4_096;
/// Queues that are bound to the partitions among them, about: as quickly looked at.
const BOUND_MAX: usize = 10_000;
/// Leases compared in one turn, about; the rest has its turn a second later.
const LEASES_MAX: usize = 10_000;
/// Removed queues looked at in one turn: there are seldom any.
const DEPARTED_MAX: usize = 64;

/// Where the sweep is. It goes round and round, and rests when a round has found nothing and
/// nothing was applied since it began.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    after: Option<LogId>,
    /// When a leader began the round that is not over.
    first: Option<Instant>,
    /// What was applied when the round began.
    began: LogIndex,
    found: bool,
    /// A round from here on has found nothing.
    quiet: Option<LogIndex>,
    /// Topology revision whose removed sources are forgotten, and the one this round looks at.
    forgotten: u64,
    forgetting: Option<u64>,
}

impl Sweep {
    /// A leader begins: everything may be outstanding, and waits.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Self {
            first: Some(now),
            ..Self::default()
        };
    }

    /// When it goes on by itself, besides once in a while.
    pub(super) const fn next(&self) -> Option<Instant> {
        self.first
    }

    /// Whether something may be outstanding.
    pub(super) fn is_due(&self, applied: LogIndex) -> bool {
        self.quiet != Some(applied)
    }
}

impl DataShard {
    /// Looks at some logs, and at all connections.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.align_connections(now);
        self.look_around(now);
    }

    /// Looks at some logs.
    pub(super) fn look_around(&mut self, now: Instant) {
        let applied = self.shard().applied();
        if self.sweep.after.is_none() {
            if !self.sweep.is_due(applied) {
                self.sweep.first = None;
                return;
            }
            self.sweep.began = applied;
            self.sweep.found = false;
            self.sweep.forgetting = self.settled_revision();
        }
        if self.log.leads() {
            self.forget();
            self.remove_ghosts(now);
        }
        let (effects, mut last) = self.shard().outstanding(self.sweep.after, LOGS_MAX);
        let mut left = BOUND_MAX;
        for effect in effects {
            if let Effect::Appended { log, .. } = effect {
                if left == 0 {
                    // This one is the first of the next turn.
                    last = Some(LogId::new(log.get().saturating_sub(1)));
                    break;
                }
                left = left.saturating_sub(self.node.logs.bound_len(log));
            }
            self.sweep.found |= self.find(effect, now);
        }
        self.sweep.after = last;
        if last.is_none() {
            self.sweep.first = None;
            self.sweep.quiet = (!self.sweep.found).then_some(self.sweep.began);
            self.sweep.forgotten = self.sweep.forgetting.unwrap_or(self.sweep.forgotten);
        }
    }

    /// Carries out what is outstanding and not being done; whether there was anything.
    fn find(&mut self, effect: Effect, now: Instant) -> bool {
        let shard = self.id;
        match effect {
            // A leader's; of a follower's partitions, bound queues may be led here.
            effect if !self.log.leads() && !matches!(effect, Effect::Appended { .. }) => false,
            Effect::Available { queue, .. } => {
                let waited_for = self.waiters.waits(queue);
                if waited_for {
                    self.carry_out(effect, now);
                }
                waited_for
            }
            Effect::TransferDue { queue } => {
                let behind = self.node.logs.is_behind(queue);
                if behind {
                    Pumps::retry(&self.node, Job::Transfer { shard, queue });
                }
                behind
            }
            Effect::DeadLettersDue { queue } => {
                Pumps::retry(&self.node, Job::Dead { shard, queue });
                true
            }
            Effect::Appended { log, end } => {
                let lagging = self.node.logs.lagging_queues(log, end);
                self.publish_extent(log);
                for queue in &lagging {
                    if let Some(shard) = self.node.logs.shard(*queue) {
                        let queue = *queue;
                        Pumps::retry(&self.node, Job::Transfer { shard, queue });
                    }
                }
                !lagging.is_empty()
            }
            // Never outstanding: deliveries and sessions are compared, configuration is published
            // when it is applied.
            Effect::Deliver { .. }
            | Effect::LeasesLost { .. }
            | Effect::SessionClosed { .. }
            | Effect::Reconfigured { .. } => false,
        }
    }

    /// The topology revision that every shard has, if they agree on the newest.
    fn settled_revision(&self) -> Option<u64> {
        let view = self.node.view.borrow();
        let settled = view.revision() == view.applied_revision();
        settled.then(|| view.revision())
    }

    /// Lets queues forget sources that are gone, once for each topology; removed queues, until
    /// nothing is left to forget.
    fn forget(&mut self) {
        let Some(revision) = self.sweep.forgetting else {
            // Shards are being configured, which is no change of this one when the last is done.
            self.sweep.found = true;
            return;
        };
        let shard = self.id;
        let departed: Vec<LogId> = self.shard().departed().take(DEPARTED_MAX).collect();
        self.sweep.found |= !departed.is_empty();
        let after = self.sweep.after;
        let targets = if revision > self.sweep.forgotten {
            self.shard().targets(after, LOGS_MAX)
        } else {
            Vec::new()
        };
        for queue in departed.into_iter().chain(targets) {
            Pumps::retry(&self.node, Job::Forget { shard, queue });
        }
    }

    /// Removes logs that the catalogue has removed: what an earlier leader of the catalogue was
    /// late to say may have made them again meanwhile, before this shard was told of the revision
    /// that has them no more. Once for each topology.
    fn remove_ghosts(&mut self, now: Instant) {
        let Some(revision) = self
            .sweep
            .forgetting
            .filter(|it| *it > self.sweep.forgotten)
        else {
            return;
        };
        let view = self.node.view.borrow().clone();
        if view.topology().is_err() || view.revision() < revision {
            return;
        }
        let owners = self.shard().owners(self.sweep.after, LOGS_MAX);
        // What is newer than the view may not be in it yet.
        let known = owners.filter(|(.., configured)| *configured <= view.revision());
        let is_ghost = |(log, address, _): &(LogId, &Address, u64)| {
            !view.lookup(address).is_some_and(|owner| owner.has(*log))
        };
        let ghosts: Vec<LogId> = known.filter(is_ghost).map(|(log, ..)| log).collect();
        let (shard, revision) = (self.id, view.revision());
        for log in ghosts {
            tracing::warn!(%shard, %log, "a log that was removed is removed again");
            self.sweep.found = true;
            let remove = Command::Remove { log, revision };
            self.propose(Proposal::silent(shard, remove), now);
        }
    }

    /// Tells connections what they have missed.
    fn align_connections(&mut self, now: Instant) {
        let (mut left, mut ended) = (LEASES_MAX, Vec::new());
        let mut connections: Vec<&Arc<Connection>> = self.connections.values().collect();
        connections.sort_unstable_by_key(|connection| connection.session);
        for connection in connections {
            let (session, queue) = (connection.session, self.shard().queue(connection.queue));
            let Some((queue, holds)) =
                queue.and_then(|queue| Some((queue, queue.session_holds(session)?)))
            else {
                ended.push(session);
                continue;
            };
            if holds == connection.holds() {
                continue;
            }
            connection.align(&queue.session_leases(session, self.shard().elapsed()), now);
            left = left.saturating_sub(holds);
            if left == 0 {
                break;
            }
        }
        for session in ended {
            self.session_closed(session);
        }
    }
}
