//! Reads are monotonic: who asks where a partition ends is told no less than anybody had been told
//! before, whichever nodes were asked.

use std::collections::BTreeMap;

use millrace_types::LogId;

use super::Invariant;
use crate::event::{Event, Read};
use crate::facts::Facts;

/// See above.
#[derive(Default)]
pub(super) struct Monotonic {
    /// The furthest end that was told by then, by count of events.
    told: BTreeMap<LogId, Vec<(u64, u64)>>,
}

impl Invariant for Monotonic {
    fn name(&self) -> &'static str {
        "monotonic reads"
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Read(read) if read.from_latest => self.read(facts, read),
            _ => Ok(()),
        }
    }
}

impl Monotonic {
    fn read(&mut self, facts: &Facts, read: &Read) -> Result<(), String> {
        let told = self.told.entry(read.log).or_default();
        // Of those who asked at the same time, any may have been first.
        let before = told.partition_point(|(at, _)| *at < read.asked);
        let before = before.checked_sub(1).map(|last| told[last].1);
        let furthest = told.last().map_or(0, |(_, end)| *end).max(read.next);
        told.push((facts.events, furthest));
        match before {
            Some(before) if before > read.next => Err(format!(
                "log {} was said to end at {before} and then at {}",
                read.log, read.next
            )),
            _ => Ok(()),
        }
    }
}
