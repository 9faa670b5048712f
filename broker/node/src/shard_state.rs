//! A data shard's state as it stands on disk and in memory: the engine and the bodies, changed
//! together. The same steps replay a journal and follow live commands, so both give the same state.

use std::sync::Arc;

use bytes::Bytes;
use millrace_engine::Shard;
use millrace_engine::command::Entry;
use millrace_engine::outcome::{BodyChange, Effect, Outcome};
use millrace_storage::Store;
use millrace_types::{Count, LogIndex};

/// Engine and bodies of one data shard.
pub(super) struct ShardState {
    /// What is where.
    pub(super) shard: Shard,
    /// The bodies.
    pub(super) store: Arc<Store>,
}

impl ShardState {
    /// Applies one synced entry, whose records are `body`.
    pub(super) fn apply(
        &mut self,
        index: LogIndex,
        entry: &Entry,
        body: Bytes,
    ) -> (Outcome, Vec<Effect>) {
        let applied = self.shard.apply(index, entry);
        for change in applied.bodies {
            match change {
                BodyChange::Store { log, offsets } => {
                    let count = Count::try_from(offsets.start.until(offsets.end))
                        .expect("a batch has at most BATCH_MESSAGES_MAX messages");
                    self.store
                        .append(log, offsets.start, entry.stamp.wall, count, body.clone());
                }
                BodyChange::Discard { log, offsets } => self.store.discard(log, offsets),
                BodyChange::DiscardAll { log } => self.store.discard_all(log),
            }
        }
        (applied.outcome, applied.effects)
    }
}
