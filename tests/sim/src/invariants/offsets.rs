//! Offsets are dense, ascend, and hold the same message for ever: for whoever published, reads,
//! looks or consumes, before and after restarts. What is acknowledged can be read from then on.

use std::collections::BTreeMap;
use std::ops::Range;

use millrace_types::LogId;

use super::Invariant;
use crate::event::{Answer, Body, Event, Read};
use crate::facts::Facts;
use crate::message;

/// See above.
#[derive(Default)]
pub(super) struct Offsets {
    /// What each offset was first seen to hold.
    held: BTreeMap<(LogId, u64), u64>,
    /// Where each message of a partition was first seen.
    places: BTreeMap<(LogId, u64), u64>,
    /// When a partition was known to end where, or beyond.
    ends: BTreeMap<LogId, Vec<(u64, u64)>>,
}

impl Invariant for Offsets {
    fn name(&self) -> &'static str {
        "offsets"
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Published {
                batch,
                answer: Answer::Done(offsets),
            } => self.published(facts, *batch, offsets),
            Event::Delivered(delivered) => {
                let place = (delivered.log, delivered.offset);
                self.body(facts, place, &delivered.message)
            }
            Event::Peeked { log, messages, .. } => {
                dense_or_ascending(messages.iter().map(|(offset, _)| *offset), 0)?;
                messages
                    .iter()
                    .try_for_each(|(offset, body)| self.body(facts, (*log, *offset), body))
            }
            Event::Read(read) => self.read(facts, read),
            _ => Ok(()),
        }
    }
}

impl Offsets {
    fn published(
        &mut self,
        facts: &Facts,
        batch: usize,
        offsets: &Range<u64>,
    ) -> Result<(), String> {
        let batch = &facts.batches[batch];
        let (wanted, got) = (
            batch.messages.end - batch.messages.start,
            offsets.end.saturating_sub(offsets.start),
        );
        if wanted != got {
            return Err(format!(
                "{wanted} messages were acknowledged at {offsets:?}"
            ));
        }
        for (offset, number) in offsets.clone().zip(batch.messages.clone()) {
            self.holds(batch.log, offset, number)?;
            self.is_at(batch.log, number, offset)?;
        }
        let ends = self.ends.entry(batch.log).or_default();
        ends.push((facts.now_ms, offsets.end));
        Ok(())
    }

    fn body(
        &mut self,
        facts: &Facts,
        (log, offset): (LogId, u64),
        body: &Body,
    ) -> Result<(), String> {
        // The invariant about bodies says so when it cannot be read.
        let Ok(found) = message::read(body) else {
            return Ok(());
        };
        let batch = facts.messages.get(&found.number);
        let home = batch.map(|(_, batch)| facts.batches[*batch].log);
        if home == Some(log) && found.death.is_none() {
            // However often it was sent, it is there once.
            self.is_at(log, found.number, offset)?;
        }
        self.holds(log, offset, found.number)
    }

    fn holds(&mut self, log: LogId, offset: u64, number: u64) -> Result<(), String> {
        let held = *self.held.entry((log, offset)).or_insert(number);
        if held == number {
            return Ok(());
        }
        Err(format!(
            "offset {offset} of log {log} held message {held} and now holds {number}"
        ))
    }

    fn is_at(&mut self, log: LogId, number: u64, offset: u64) -> Result<(), String> {
        let place = *self.places.entry((log, number)).or_insert(offset);
        if place == offset {
            return Ok(());
        }
        Err(format!(
            "message {number} is at offsets {place} and {offset} of log {log}"
        ))
    }

    fn read(&mut self, facts: &Facts, read: &Read) -> Result<(), String> {
        let log = read.log;
        for (offset, _, body) in &read.records {
            if let Ok(found) = message::read(body) {
                self.holds(log, *offset, found.number)?;
                self.is_at(log, found.number, *offset)?;
            }
        }
        let offsets = read.records.iter().map(|(offset, _, _)| *offset);
        dense_or_ascending(offsets.clone(), 1)?;
        if let Some(from) = read.from {
            let first = from.max(read.available.start);
            match offsets.clone().next() {
                Some(got) if got != first => {
                    return Err(format!("a read of log {log} from {from} began at {got}"));
                }
                None if first < read.available.end => {
                    return Err(format!("a read of log {log} from {from} found nothing"));
                }
                _ => {}
            }
        }
        if offsets.last().is_some_and(|last| last + 1 != read.next) {
            return Err(format!("a read of log {log} goes on at {}", read.next));
        }
        let old = read
            .records
            .iter()
            .find(|(_, wall, _)| read.since_wall.is_some_and(|since| *wall < since));
        if let Some((offset, wall, _)) = old {
            return Err(format!(
                "offset {offset} of log {log} is of {wall}, too old"
            ));
        }
        if facts.is_cluster && !read.from_latest {
            // Shown is what is committed, as far as the node knows, which is not all.
            return Ok(());
        }
        let end = match read.from_latest {
            true => read.next,
            false => read.available.end,
        };
        let known = self.ends.get(&log).into_iter().flatten();
        let known = known
            .filter(|(at, _)| *at < read.asked_ms)
            .map(|(_, end)| *end);
        match known.max() {
            Some(known) if known > end => Err(format!(
                "log {log} was acknowledged up to {known} and ends at {end}"
            )),
            _ => Ok(()),
        }
    }
}

/// Each is above the one before: by `step`, or by anything when that is 0.
fn dense_or_ascending(offsets: impl Iterator<Item = u64>, step: u64) -> Result<(), String> {
    let mut last = None;
    for offset in offsets {
        let fits = last.is_none_or(|last| match step {
            0 => offset > last,
            step => offset == last + step,
        });
        if !fits {
            return Err(format!("offset {offset} comes after {last:?}"));
        }
        last = Some(offset);
    }
    Ok(())
}
