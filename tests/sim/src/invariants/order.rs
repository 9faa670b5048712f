//! What one client sends to one queue or partition over one node is stored in the order it was
//! sent, and what anybody sends after something was acknowledged is stored behind that; one call
//! hands out messages that nobody had before in the order of their offsets.

use std::collections::BTreeMap;

use millrace_types::LogId;

use super::Invariant;
use crate::event::{Answer, Delivered, Event};
use crate::facts::{Batch, Facts};

/// A node, and what was sent over it to a log.
type Way = (LogId, usize);

/// See above.
#[derive(Default)]
pub(super) struct Order {
    /// Where batches begin, by the order they were sent in.
    sent: BTreeMap<Way, BTreeMap<u64, u64>>,
    /// Where the last of those begins that were acknowledged by then, by count of events.
    acknowledged: BTreeMap<LogId, Vec<(u64, u64)>>,
    /// The last call and what it handed out last.
    call: Option<(u64, u64)>,
}

impl Invariant for Order {
    fn name(&self) -> &'static str {
        "order"
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Published {
                batch,
                answer: Answer::Done(offsets),
            } => self.published(facts, &facts.batches[*batch], offsets.start),
            Event::Delivered(delivered) => self.delivered(delivered),
            _ => Ok(()),
        }
    }
}

impl Order {
    fn published(&mut self, facts: &Facts, batch: &Batch, first: u64) -> Result<(), String> {
        if batch.attempts > 1 {
            // Any of them may have been the one.
            return Ok(());
        }
        let (log, order) = (batch.log, batch.order);
        let sent = self.sent.entry((log, batch.node)).or_default();
        sent.insert(order, first);
        let before = sent.range(..order).next_back();
        let after = sent.range(order + 1..).next();
        let wrong =
            before.is_some_and(|(_, at)| *at >= first) || after.is_some_and(|(_, at)| *at <= first);
        if wrong {
            return Err(format!(
                "batch {order} is at {first} of log {log}, between {before:?} and {after:?}"
            ));
        }
        let acknowledged = self.acknowledged.entry(log).or_default();
        let known = acknowledged.partition_point(|(told, _)| *told < batch.asked);
        let known = known.checked_sub(1).map(|last| acknowledged[last].1);
        let last = acknowledged
            .last()
            .map_or(first, |(_, last)| first.max(*last));
        acknowledged.push((facts.events, last));
        match known {
            Some(known) if known >= first => Err(format!(
                "batch {order} is at {first} of log {log}; {known} was acknowledged before it was \
                 sent"
            )),
            _ => Ok(()),
        }
    }

    fn delivered(&mut self, delivered: &Delivered) -> Result<(), String> {
        if delivered.acquired != 1 || delivered.session.is_some() {
            return Ok(());
        }
        let (call, offset) = (delivered.call, delivered.offset);
        match self.call.replace((call, offset)) {
            Some((last, before)) if last == call && before >= offset => Err(format!(
                "one call was handed {offset} of log {} after {before}",
                delivered.log
            )),
            _ => Ok(()),
        }
    }
}
