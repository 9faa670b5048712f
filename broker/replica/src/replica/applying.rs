//! What follows when entries are applied: changes of members are carried out, memory is let go.

use millrace_types::LogIndex;

use super::Replica;
use crate::change;
use crate::entry::Entry;
use crate::recovered::Point;

impl Replica {
    /// The state machine has applied everything up to here.
    ///
    /// # Panics
    /// When that was not handed out.
    pub fn applied(&mut self, index: LogIndex) {
        let index = index.get();
        assert!(
            index <= self.handed,
            "entry {index} was not handed out to be applied"
        );
        self.apply_to(index);
        self.settle();
    }

    /// The log is the snapshot's now; the state machine will be when it is synced.
    pub(super) fn begin_install(&mut self, point: &Point) {
        self.handed = point.mark.index.get();
        self.changes.clear();
        self.members = point.members.clone();
        self.node.mut_store().install(point.clone());
    }

    /// The state machine is the snapshot's.
    pub(super) fn installed(&mut self, index: u64) {
        if index > self.node.raft.raft_log.applied {
            self.node.advance_apply_to(index);
        }
    }

    fn apply_to(&mut self, index: u64) {
        // A snapshot has overtaken it.
        if index <= self.node.raft.raft_log.applied {
            return;
        }
        while let Some(entry) = self
            .changes
            .pop_front_if(|entry| entry.index.get() <= index)
        {
            self.change(&entry);
            self.node.advance_apply_to(entry.index.get());
        }
        self.node.advance_apply_to(index);
        // With nobody to send them to, none are kept.
        let kept_bytes_max = match self.members.len() {
            0 | 1 => 0,
            _ => self.options.window_bytes_max,
        };
        self.node.mut_store().evict(index, kept_bytes_max);
        // raft-rs ends a change in two steps by itself, and tells nobody.
        self.unsent = self.unsent || self.leads();
    }

    pub(super) fn change(&mut self, entry: &Entry) {
        let (shard, index) = (self.options.shard, entry.index);
        let decoded = match change::decode(&entry.header) {
            Ok(decoded) => decoded,
            Err(error) => {
                tracing::error!(%shard, %index, %error, "a change of members cannot be read");
                return;
            }
        };
        // Refused by every replica alike: they have the same members.
        match self.node.apply_conf_change(&decoded.change) {
            Ok(state) => self.members = self.members.after(&state, &decoded.nodes),
            Err(error) => tracing::info!(%shard, %index, %error, "no change of members"),
        }
    }
}
