//! What one client sends to one queue or partition is stored in the order it was sent; one call
//! hands out messages that nobody had before in the order of their offsets.

use std::collections::BTreeMap;

use millrace_types::LogId;

use super::Invariant;
use crate::event::{Answer, Delivered, Event};
use crate::facts::Facts;

/// See above.
#[derive(Default)]
pub(super) struct Order {
    /// Where batches begin, by the order they were sent in.
    sent: BTreeMap<LogId, BTreeMap<usize, u64>>,
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
            } => self.published(facts.batches[*batch].log, *batch, offsets.start),
            Event::Delivered(delivered) => self.delivered(delivered),
            _ => Ok(()),
        }
    }
}

impl Order {
    fn published(&mut self, log: LogId, batch: usize, first: u64) -> Result<(), String> {
        let sent = self.sent.entry(log).or_default();
        sent.insert(batch, first);
        let before = sent.range(..batch).next_back();
        let after = sent.range(batch + 1..).next();
        let wrong =
            before.is_some_and(|(_, at)| *at >= first) || after.is_some_and(|(_, at)| *at <= first);
        if wrong {
            return Err(format!(
                "batch {batch} is at {first} of log {log}, between {before:?} and {after:?}"
            ));
        }
        Ok(())
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
