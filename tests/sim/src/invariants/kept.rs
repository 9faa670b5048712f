//! No acknowledged message is lost: by the time everything has been taken, each was handed to a
//! client that ended it; and a topic keeps what its retention does not let go.

use super::Invariant;
use crate::event::{Answer, Event, Read};
use crate::facts::Facts;

/// See above.
pub(super) struct Kept;

impl Invariant for Kept {
    fn name(&self) -> &'static str {
        "kept"
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Read(read) => trimmed(facts, read),
            Event::Drained => ended(facts),
            _ => Ok(()),
        }
    }
}

fn ended(facts: &Facts) -> Result<(), String> {
    for batch in &facts.batches {
        let is_topic = facts
            .logs
            .get(&batch.log)
            .is_some_and(|log| facts.topics(log.object, 0).next().is_some());
        let Answer::Done(offsets) = &batch.answer else {
            continue;
        };
        if is_topic || facts.may_be_missed(batch.log) {
            continue;
        }
        for (offset, number) in offsets.clone().zip(batch.messages.clone()) {
            if !facts.may_have_ended(batch.log, offset, number) {
                return Err(format!(
                    "message {number} was acknowledged at {offset} of log {} and is gone; nobody \
                     ended it",
                    batch.log
                ));
            }
        }
    }
    copies_ended(facts)
}

/// What came by a binding or as a dead letter is as good as published.
fn copies_ended(facts: &Facts) -> Result<(), String> {
    for ((log, offset), seen) in &facts.seen {
        if !facts.may_be_missed(*log) && !facts.may_have_ended(*log, *offset, seen.number) {
            return Err(format!(
                "message {} was handed out from {offset} of log {log} and is gone; nobody ended it",
                seen.number
            ));
        }
    }
    Ok(())
}

/// Nothing that retention has to keep is gone.
fn trimmed(facts: &Facts, read: &Read) -> Result<(), String> {
    let Some(log) = facts.logs.get(&read.log) else {
        return Ok(());
    };
    let end = facts.end_max(read.log).max(read.available.end);
    let mut allowed = 0;
    for topic in facts.topics(log.object, 0) {
        if let Some(max) = topic.messages_max {
            allowed = allowed.max(end.saturating_sub(max));
        }
        if let Some(max) = topic.age_ms_max {
            allowed = allowed.max(first_younger(facts, read, max, end));
        }
    }
    if read.available.start > allowed {
        return Err(format!(
            "log {} begins at {}, retention allows {allowed} at most (it ends at {end})",
            read.log, read.available.start
        ));
    }
    Ok(())
}

/// The first offset that is certain to be younger than this.
fn first_younger(facts: &Facts, read: &Read, age_ms: u64, end: u64) -> u64 {
    let stored = facts.stored.get(&read.log).into_iter().flatten();
    let mut young = stored.filter(|(_, number)| {
        let batch = facts.messages.get(number).map(|(_, batch)| *batch);
        let sent = batch.map_or(0, |batch| facts.batches[batch].sent_wall);
        facts.wall_max_ms < sent.saturating_add(age_ms)
    });
    young.next().map_or(end, |(offset, _)| *offset)
}
