//! The order of a shard's pointers: a checkpoint covers nothing that was not applied, applied is
//! only what is committed and synced, and there is no more of those than the log has. Checkpoint,
//! applied and term never go back, crash or not: they had been synced. Of several replicas, one
//! that has just started may not know what of its log is committed, and has that to apply again;
//! another one that takes its place begins with nothing.

use std::collections::BTreeMap;

use super::Invariant;
use crate::event::{Event, ShardFigures};
use crate::facts::Facts;

/// See above.
#[derive(Default)]
pub(super) struct Pointers {
    /// The figures of each replica, by node and shard, that were told last, and after how many
    /// events.
    last: BTreeMap<(usize, u32), (u64, ShardFigures)>,
}

impl Invariant for Pointers {
    fn name(&self) -> &'static str {
        "pointers"
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        if let (Event::Stopped { node, .. }, true) = (event, facts.is_cluster) {
            let replicas = self.last.iter_mut().filter(|((at, _), _)| at == node);
            replicas.for_each(|(_, (_, figures))| figures.applied = 0);
        }
        let Event::Figures {
            node,
            asked,
            shards,
        } = event
        else {
            return Ok(());
        };
        for now in shards.iter().filter(|now| now.unavailable.is_none()) {
            let reach = now.committed.min(now.synced);
            if now.applied > reach || now.committed > now.last || now.synced > now.last {
                return Err(format!(
                    "more is applied than committed and synced, or more of that than there is: \
                     {now:?}"
                ));
            }
            if now.checkpoint > now.applied {
                return Err(format!(
                    "a checkpoint is ahead of what was applied: {now:?}"
                ));
            }
            let before = self
                .last
                .insert((*node, now.shard), (facts.events, now.clone()));
            // Two who ask at the same time are answered in any order.
            let before = before
                .filter(|(told, before)| told < asked && before.replica == now.replica)
                .map(|(_, before)| before);
            let back = before.as_ref().is_some_and(|before| {
                let ahead = before.term > now.term || before.applied > now.applied;
                ahead || before.checkpoint > now.checkpoint
            });
            if back {
                return Err(format!("a shard went back from {before:?} to {now:?}"));
            }
        }
        Ok(())
    }
}
