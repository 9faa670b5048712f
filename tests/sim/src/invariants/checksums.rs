//! A shard's state at an index is the same whenever it is computed: by applying entries as they
//! come, and by replaying them over a checkpoint.

use std::collections::BTreeMap;

use super::Invariant;
use crate::event::Event;
use crate::facts::Facts;

/// See above.
#[derive(Default)]
pub(super) struct Checksums {
    seen: BTreeMap<(u32, u64), u64>,
}

impl Invariant for Checksums {
    fn name(&self) -> &'static str {
        "checksums"
    }

    fn check(&mut self, _facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Checksum {
            shard,
            applied,
            checksum,
            ..
        } = event
        else {
            return Ok(());
        };
        let before = *self.seen.entry((*shard, *applied)).or_insert(*checksum);
        if before != *checksum {
            return Err(format!(
                "shard {shard} had checksum {before:x} at index {applied} and now has {checksum:x}"
            ));
        }
        Ok(())
    }
}
