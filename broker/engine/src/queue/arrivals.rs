//! Which dead letters have arrived in a queue, by the queue they died in. A source numbers its
//! letters, so two numbers say it all.

use alloc::vec::Vec;

use millrace_types::LogId;
use serde::{Deserialize, Serialize};

use crate::chunks::Chunks;
use crate::limits::SOURCES_MAX;

/// How far one source has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Arrival {
    /// One past the last that has arrived.
    arrived: u64,
    /// None below is taken any more: it has arrived, or was recalled.
    next: u64,
}

/// All sources of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Arrivals(Chunks<LogId, Arrival>);

/// Why a batch is not taken.
pub(crate) enum Held {
    /// Some have arrived, or were recalled: this is one past the last that has arrived.
    Before(u64),
    /// It would be one source too many.
    TooMany,
}

impl Arrivals {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// One past the last that has arrived.
    pub(crate) fn arrived(&self, source: LogId) -> u64 {
        self.0.get(&source).map_or(0, |arrival| arrival.arrived)
    }

    /// Whether letters from `number` on can be taken.
    pub(crate) fn check(&self, source: LogId, number: u64) -> Result<(), Held> {
        match self.0.get(&source) {
            Some(arrival) if number < arrival.next => Err(Held::Before(arrival.arrived)),
            None if self.0.len() >= SOURCES_MAX => Err(Held::TooMany),
            _ => Ok(()),
        }
    }

    /// Letters below `end` have arrived.
    pub(crate) fn take(&mut self, source: LogId, end: u64) {
        let (arrived, next) = (end, end);
        self.0.insert(source, Arrival { arrived, next });
    }

    /// Takes nothing below `number` any more; one past the last that has arrived.
    pub(crate) fn recall(&mut self, source: LogId, number: u64) -> u64 {
        if self.0.len() >= SOURCES_MAX && !self.0.contains_key(&source) {
            // Nothing has arrived, and nothing is taken while there are too many.
            return 0;
        }
        let mut arrival = self.0.get(&source).copied().unwrap_or_default();
        arrival.next = arrival.next.max(number);
        self.0.insert(source, arrival);
        arrival.arrived
    }

    pub(crate) fn forget(&mut self, source: LogId) {
        self.0.remove(&source);
    }

    /// Up to `max` sources after one, in order.
    pub(crate) fn sources(&self, after: Option<LogId>, max: usize) -> Vec<LogId> {
        let sources = self.0.after(after).take(max);
        sources.map(|(source, _)| *source).collect()
    }
}
