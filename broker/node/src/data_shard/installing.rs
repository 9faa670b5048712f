//! A snapshot takes the place of the state: when no checkpoint of the old one is being made, in the
//! order that `shard_log/install.rs` tells, and with everything that others know of the shard told
//! anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use millrace_types::LogId;

use super::DataShard;
use crate::clock::Clock;
use crate::shard_state::ShardState;
use crate::slot::Content;
use crate::snapshots::{self, Prepared, State};

impl DataShard {
    /// Gives the replica a snapshot that is staged, if nothing is in the way.
    ///
    /// # Errors
    /// Why the shard must not go on.
    pub(super) fn take_offered(&mut self) -> Result<(), String> {
        if self.plan.is_running() {
            return Ok(());
        }
        let Some((from, message)) = self.log.take_offered() else {
            return Ok(());
        };
        // First: a state that is gone by now must not be installed.
        self.prepared = self.node.snapshots.take_staged(self.id, &message);
        if self.prepared.is_none() {
            return Ok(());
        }
        self.node.snapshots.confirm(&self.node, self.id);
        self.log.step(from, message)
    }

    /// The replica goes: a state that nobody has begun to put in force is not kept.
    pub(crate) fn abandon_install(&mut self) {
        if let Some(prepared) = self.prepared.take() {
            self.node.snapshots.give_back(self.id, prepared);
        }
    }

    /// A state that the replica does not install is not kept.
    pub(super) fn return_unwanted(&mut self) {
        if !self.log.is_installing()
            && let Some(prepared) = self.prepared.take()
        {
            self.node.snapshots.give_back(self.id, prepared);
        }
    }

    /// The journal has the snapshot: puts its state in force.
    pub(super) fn promote(&mut self) {
        if let Some(prepared) = self.prepared.take() {
            snapshots::promote(&self.node, self.id, prepared);
        }
    }

    /// The state is in force on disk: it is the shard's from here on.
    pub(crate) fn promoted(&mut self, prepared: Prepared, now: Instant) {
        let (State::Data(shard), store) = (prepared.state, prepared.staged.store()) else {
            return;
        };
        let Some(index) = self.log.installed() else {
            return;
        };
        let before: BTreeSet<LogId> = self.logs().into_iter().collect();
        let new = ShardState {
            shard: *shard,
            store: Arc::clone(store),
        };
        let old = std::mem::replace(&mut self.state, new);
        let slot = self.node.slot_at_all(self.id);
        slot.replace(Content::replica(Arc::clone(store)));
        self.plan.restarted(index);
        self.node.journal.release(self.id, index);
        let shard = &self.state.shard;
        self.clock = Clock::new(shard.wall(), shard.elapsed(), now);
        self.noted = shard.elapsed();
        for log in before.into_iter().chain(self.logs()) {
            self.publish_log(log);
        }
        // Last: who reads it takes all queues for known.
        self.publish_configured();
        snapshots::replaced(&self.node, self.id, (old.store, old.shard));
    }
}
