//! The order of a shard's pointers: a checkpoint covers nothing that was not applied, and neither
//! of the two ever goes back, crash or not: what was applied had been synced.

use std::collections::BTreeMap;

use super::Invariant;
use crate::event::{Event, ShardFigures};
use crate::facts::Facts;

/// See above.
#[derive(Default)]
pub(super) struct Pointers {
    /// The figures of each shard that were told last, and after how many events.
    last: BTreeMap<u32, (u64, ShardFigures)>,
}

impl Invariant for Pointers {
    fn name(&self) -> &'static str {
        "pointers"
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Figures { asked, shards } = event else {
            return Ok(());
        };
        for now in shards.iter().filter(|now| now.unavailable.is_none()) {
            if now.checkpoint > now.applied {
                return Err(format!(
                    "a checkpoint is ahead of what was applied: {now:?}"
                ));
            }
            let before = self.last.insert(now.shard, (facts.events, now.clone()));
            // Two who ask at the same time are answered in any order.
            let before = before
                .filter(|(told, _)| told < asked)
                .map(|(_, before)| before);
            let back = before.as_ref().is_some_and(|before| {
                before.applied > now.applied || before.checkpoint > now.checkpoint
            });
            if back {
                return Err(format!("a shard went back from {before:?} to {now:?}"));
            }
        }
        Ok(())
    }
}
