//! Nothing is handed out that was not published there, and every byte is as it was published.

use std::collections::BTreeSet;

use millrace_types::LogId;

use super::Invariant;
use crate::event::{Answer, Body, Event};
use crate::facts::{Facts, wants};
use crate::message::{self, Found};
use crate::plan::Shape;

/// See above.
pub(super) struct Bodies;

impl Invariant for Bodies {
    fn name(&self) -> &'static str {
        "bodies"
    }

    fn outlives_damage(&self) -> bool {
        true
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Delivered(delivered) => {
                judge(facts, delivered.log, delivered.offset, &delivered.message)
            }
            Event::Read(read) => read
                .records
                .iter()
                .try_for_each(|(offset, _, body)| judge(facts, read.log, *offset, body)),
            Event::Peeked { log, messages, .. } => messages
                .iter()
                .try_for_each(|(offset, body)| judge(facts, *log, *offset, body)),
            _ => Ok(()),
        }
    }
}

fn judge(facts: &Facts, log: LogId, offset: u64, body: &Body) -> Result<(), String> {
    let place = format!("log {log} offset {offset}");
    let found = message::read(body).map_err(|why| format!("{place}: {why}"))?;
    let number = found.number;
    let Some((published, batch)) = facts.messages.get(&number) else {
        return Err(format!(
            "{place} holds message {number}, which nobody published"
        ));
    };
    if found.bytes != published.bytes {
        return Err(format!(
            "{place}: message {number} is not as it was published"
        ));
    }
    let batch = &facts.batches[*batch];
    if let Answer::Refused(why) = &batch.answer {
        return Err(format!(
            "{place} holds message {number}, refused with {why}"
        ));
    }
    if batch.log == log && found.death.is_none() {
        return Ok(());
    }
    let (Some(here), Some(home)) = (facts.logs.get(&log), facts.logs.get(&batch.log)) else {
        return Err(format!("{place} is of a log that nobody declared"));
    };
    let reach = reach(facts, home.object, number);
    let lawful = reach.contains(&here.object)
        && if here.dead {
            died_in(facts, here.object, &found)
        } else {
            found.death.is_some() || here.object != home.object
        };
    if lawful {
        return Ok(());
    }
    Err(format!(
        "{place} holds message {number}, which has no way there"
    ))
}

fn died_in(facts: &Facts, object: usize, found: &Found) -> bool {
    let Some(death) = &found.death else {
        return false;
    };
    let mut logs = facts.logs.values();
    logs.any(|log| log.object == object && !log.dead && log.address.to_string() == death.queue)
}

/// Objects that a message may come to from where it was published, by any binding or dead letter
/// that there ever was.
fn reach(facts: &Facts, home: usize, number: u64) -> BTreeSet<usize> {
    let mut reached = BTreeSet::from([home]);
    let Some((message, _)) = facts.messages.get(&number) else {
        return reached;
    };
    loop {
        let before = reached.len();
        for object in 0..facts.eras.len() {
            for shape in facts.shapes(object, 0).flatten() {
                let Shape::Queue(queue) = shape else {
                    continue;
                };
                let mut bindings = queue.bindings.iter();
                if bindings.any(|b| b.topic == home && wants(b, message)) {
                    reached.insert(object);
                }
                if reached.contains(&object) {
                    reached.extend(queue.dead_letter);
                }
            }
        }
        if reached.len() == before {
            return reached;
        }
    }
}
