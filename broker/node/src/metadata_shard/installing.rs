//! A snapshot takes the place of the catalogue, as one does of a data shard's state.

use std::sync::Arc;
use std::time::Instant;

use millrace_types::ShardId;

use super::MetadataShard;
use crate::clock::Clock;
use crate::slot::Content;
use crate::snapshots::{self, Prepared, State};

impl MetadataShard {
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
        self.prepared = self.node.snapshots.take_staged(ShardId::METADATA, &message);
        if self.prepared.is_none() {
            return Ok(());
        }
        self.node.snapshots.confirm(&self.node, ShardId::METADATA);
        self.log.step(from, message)
    }

    /// The replica goes: a state that nobody has begun to put in force is not kept.
    pub(crate) fn abandon_install(&mut self) {
        if let Some(prepared) = self.prepared.take() {
            self.node.snapshots.give_back(ShardId::METADATA, prepared);
        }
    }

    /// A state that the replica does not install is not kept.
    pub(super) fn return_unwanted(&mut self) {
        if !self.log.is_installing()
            && let Some(prepared) = self.prepared.take()
        {
            self.node.snapshots.give_back(ShardId::METADATA, prepared);
        }
    }

    /// The state is in force on disk: it is the shard's from here on.
    pub(crate) fn promoted(&mut self, prepared: Prepared, now: Instant) {
        let (State::Metadata(catalogue), store) = (prepared.state, prepared.staged.store()) else {
            return;
        };
        let Some(index) = self.log.installed() else {
            return;
        };
        let old = std::mem::replace(&mut self.state.catalogue, *catalogue);
        let old_store = std::mem::replace(&mut self.state.store, Arc::clone(store));
        let slot = self.node.slot_at_all(ShardId::METADATA);
        slot.replace(Content::replica(Arc::clone(store)));
        self.plan.restarted(index);
        self.node.journal.release(ShardId::METADATA, index);
        self.clock = Clock::new(self.state.wall, self.state.elapsed, now);
        self.rounds.clear();
        self.noted.clear();
        self.publish();
        snapshots::replaced(&self.node, ShardId::METADATA, (old_store, old));
    }
}
