//! A message that dies is dead-lettered exactly once.

use std::collections::BTreeMap;

use millrace_types::LogId;

use super::Invariant;
use crate::event::{Body, Event};
use crate::facts::{Facts, death};
use crate::message;
use crate::plan::End;

/// One death of one message.
type Death = (u64, (String, u64, u32));

/// See above.
#[derive(Default)]
pub(super) struct DeadLetters {
    /// Where each was seen.
    places: BTreeMap<Death, Vec<(LogId, u64)>>,
}

impl Invariant for DeadLetters {
    fn name(&self) -> &'static str {
        "dead-letters"
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Delivered(delivered) => {
                self.seen(facts, (delivered.log, delivered.offset), &delivered.message)
            }
            Event::Peeked { log, messages, .. } => messages
                .iter()
                .try_for_each(|(offset, body)| self.seen(facts, (*log, *offset), body)),
            Event::Drained => arrived(facts),
            _ => Ok(()),
        }
    }
}

impl DeadLetters {
    fn seen(&mut self, facts: &Facts, place: (LogId, u64), body: &Body) -> Result<(), String> {
        let Ok(found) = message::read(body) else {
            return Ok(());
        };
        let Some(death) = death(&found) else {
            return Ok(());
        };
        // A queue that was deleted and declared again takes its topic's messages from the start:
        // what died in its first life may die in the next one, at the same offset.
        let lives = facts
            .logs
            .values()
            .filter(|log| log.address.to_string() == death.0);
        let lives = lives.count().max(1);
        let died = (found.number, death);
        let places = self.places.entry(died.clone()).or_default();
        // Who deletes a dead-letter queue while a letter arrives may see it in its successor.
        places.retain(|before| *before == place || !facts.is_condemned(before.0));
        if places.contains(&place) {
            return Ok(());
        }
        places.push(place);
        if places.len() > lives {
            return Err(format!(
                "message {} that died in {:?} is at {places:?}",
                died.0, died.1
            ));
        }
        Ok(())
    }
}

/// Everything whose rejection was confirmed has become a dead letter.
fn arrived(facts: &Facts) -> Result<(), String> {
    for lease in &facts.leases {
        let Some(log) = facts.logs.get(&lease.log) else {
            continue;
        };
        if lease.done != Some(End::Reject) || log.dead || facts.is_missable(log) {
            continue;
        }
        let number = facts.seen.get(&(lease.log, lease.offset));
        let number = number.map_or(0, |seen| seen.number);
        let mut copies = facts.dead_copies(lease.log, lease.offset, number);
        if copies.next().is_some() {
            continue;
        }
        let targets = facts
            .queues(log.object, 0)
            .filter_map(|queue| queue.dead_letter);
        let targets: Vec<usize> = targets.chain([log.object]).collect();
        let mut logs = facts.logs.values();
        // It may have died again where it came, and once more, out of sight.
        let buried = facts.damage.has_any_said() && facts.may_be_buried(lease.log);
        if buried || logs.any(|log| facts.is_missable(log) && targets.contains(&log.object)) {
            continue;
        }
        return Err(format!(
            "offset {} of log {} was rejected and is in no dead-letter queue",
            lease.offset, lease.log
        ));
    }
    Ok(())
}
