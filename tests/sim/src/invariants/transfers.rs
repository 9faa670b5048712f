//! What a topic has and a bound queue wants comes into that queue exactly once and in order.

use std::collections::{BTreeMap, BTreeSet};

use millrace_types::LogId;

use super::Invariant;
use crate::event::{Answer, Body, Event};
use crate::facts::{Batch, Facts, Log, wants};
use crate::message;
use crate::plan::TopicShape;

/// A partition may grow to this many times its bounds before it lets go of what a bound queue has
/// not looked at.
const LAG_FACTOR: u64 = 2;

/// See above.
#[derive(Default)]
pub(super) struct Transfers {
    /// Where each message of a topic was seen in each queue.
    places: BTreeMap<(LogId, u64), BTreeSet<u64>>,
}

impl Invariant for Transfers {
    fn name(&self) -> &'static str {
        "transfers"
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Delivered(delivered) => {
                self.seen(facts, delivered.log, delivered.offset, &delivered.message)
            }
            Event::Peeked { log, messages, .. } => messages
                .iter()
                .try_for_each(|(offset, body)| self.seen(facts, *log, *offset, body)),
            Event::Drained => {
                self.in_order(facts)?;
                self.complete(facts)
            }
            _ => Ok(()),
        }
    }
}

impl Transfers {
    fn seen(&mut self, facts: &Facts, log: LogId, offset: u64, body: &Body) -> Result<(), String> {
        let Ok(found) = message::read(body) else {
            return Ok(());
        };
        let Some((_, batch)) = facts.messages.get(&found.number) else {
            return Ok(());
        };
        let home = facts.batches[*batch].log;
        if found.death.is_some() || home == log {
            return Ok(());
        }
        let places = self.places.entry((log, found.number)).or_default();
        places.insert(offset);
        if places.len() > 1 && was_always_bound(facts, log, home) {
            return Err(format!(
                "message {} came into log {log} at {places:?}",
                found.number
            ));
        }
        Ok(())
    }

    fn in_order(&self, facts: &Facts) -> Result<(), String> {
        let mut lanes: BTreeMap<(LogId, LogId), BTreeMap<u64, u64>> = BTreeMap::new();
        let mut numbers: BTreeMap<LogId, BTreeMap<u64, u64>> = BTreeMap::new();
        for (home, stored) in &facts.stored {
            let turned = stored.iter().map(|(offset, number)| (*number, *offset));
            numbers.insert(*home, turned.collect());
        }
        for ((log, number), places) in &self.places {
            let Some((_, batch)) = facts.messages.get(number) else {
                continue;
            };
            let home = facts.batches[*batch].log;
            let origin = numbers.get(&home).and_then(|numbers| numbers.get(number));
            if let (Some(place), Some(origin)) = (places.first(), origin) {
                lanes
                    .entry((*log, home))
                    .or_default()
                    .insert(*place, *origin);
            }
        }
        for ((log, home), lane) in lanes {
            if !was_always_bound(facts, log, home) {
                continue;
            }
            let origins: Vec<u64> = lane.into_values().collect();
            if let Some(pair) = origins.windows(2).find(|pair| pair[0] >= pair[1]) {
                return Err(format!(
                    "log {log} has {} of log {home} before {}",
                    pair[0], pair[1]
                ));
            }
        }
        Ok(())
    }

    fn complete(&self, facts: &Facts) -> Result<(), String> {
        for batch in &facts.batches {
            let Answer::Done(offsets) = &batch.answer else {
                continue;
            };
            let home = facts.logs.get(&batch.log);
            let Some(home) = home.filter(|log| !facts.is_missable(log)) else {
                continue;
            };
            for queue in 0..facts.eras.len() {
                let missable =
                    |log: &Log| facts.is_missable(log) && may_hold(facts, queue, log.object);
                let buried = facts.damage.has_any_said() && facts.may_bury(queue);
                if buried || facts.logs.values().any(missable) {
                    continue;
                }
                let numbers = batch.messages.clone().zip(offsets.clone());
                for (number, offset) in numbers {
                    let due = is_due(facts, batch, home.object, queue, number);
                    if due
                        && !self.came(facts, queue, number)
                        && !may_miss(facts, batch, queue, offset)
                    {
                        return Err(format!(
                            "message {number} at {offset} of log {} never came to object {queue}",
                            batch.log
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn came(&self, facts: &Facts, queue: usize, number: u64) -> bool {
        let mut logs = facts.logs.iter();
        logs.any(|(id, log)| {
            let here = log.object == queue && !log.dead;
            here && (self.places.contains_key(&(*id, number)) || died_unseen(facts, log, number))
        })
    }
}

/// Whether a message was seen that has died in a queue, or more than once, which hides where.
fn died_unseen(facts: &Facts, queue: &Log, number: u64) -> bool {
    let address = queue.address.to_string();
    facts.seen.values().any(|seen| {
        let death = seen.death.as_ref();
        seen.number == number
            && death.is_some_and(|(died_in, _, count)| *died_in == address || *count >= 2)
    })
}

/// Whether what has come into a queue may be in this object: itself, or where its messages go when
/// they die, which may be before anybody has seen them.
fn may_hold(facts: &Facts, queue: usize, object: usize) -> bool {
    let mut shapes = facts.queues(queue, 0);
    object == queue || shapes.any(|shape| shape.dead_letter == Some(object))
}

/// Whether the queue has wanted this message at any time since it was sent.
fn is_due(facts: &Facts, batch: &Batch, topic: usize, queue: usize, number: u64) -> bool {
    let Some((message, _)) = facts.messages.get(&number) else {
        return false;
    };
    let mut shapes = facts.queues(queue, batch.sent_ms).peekable();
    shapes.peek().is_some()
        && shapes.all(|shape| {
            let mut bindings = shape.bindings.iter();
            bindings.any(|bound| bound.topic == topic && wants(bound, message))
        })
}

/// Whether the queue never lost its cursor on a partition.
fn was_always_bound(facts: &Facts, queue: LogId, partition: LogId) -> bool {
    let (Some(queue), Some(topic)) = (facts.logs.get(&queue), facts.logs.get(&partition)) else {
        return false;
    };
    facts.queues(queue.object, 0).all(|shape| {
        let mut bindings = shape.bindings.iter();
        bindings.any(|bound| bound.topic == topic.object)
    })
}

/// Whether retention may have been quicker than the binding.
fn may_miss(facts: &Facts, batch: &Batch, queue: usize, offset: u64) -> bool {
    let Some(home) = facts.logs.get(&batch.log) else {
        return true;
    };
    let end = facts.end_max(batch.log);
    // A queue that is not declared holds nothing back of a topic that came after it had gone.
    let mut shapes = facts.shapes(queue, batch.sent_ms);
    let bounded = |topic: &TopicShape| topic.messages_max.is_some() || topic.age_ms_max.is_some();
    if shapes.any(|shape| shape.is_none()) && facts.topics(home.object, 0).any(bounded) {
        return true;
    }
    facts.topics(home.object, 0).any(|topic| {
        let crowded = topic
            .messages_max
            .is_some_and(|max| end > max * LAG_FACTOR && offset < end.saturating_sub(max));
        let old = topic
            .age_ms_max
            .is_some_and(|max| facts.wall_max_ms >= batch.sent_wall + max);
        crowded || old
    })
}
