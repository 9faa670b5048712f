//! Dead letters on their way out of a queue, numbered without gaps. One leaves when its arrival is
//! confirmed, in order.
//!
//! All of them are bound to one dead-letter queue, from the first that waits until none does: no
//! other may be sent any of them, because nobody here knows which have arrived there. Only that
//! queue can say, and does when it recalls them; then the rest is bound anew, under new numbers.

use alloc::string::String;
use alloc::vec::Vec;

use millrace_types::{LogId, Offset, Wall};
use serde::{Deserialize, Serialize};

use crate::chunks::Chunks;
use crate::codec::DecodeError;

/// One dead letter; its number is its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dead {
    pub(crate) offset: Offset,
    pub(crate) rejected: bool,
    pub(crate) note: String,
    pub(crate) died_at: Wall,
}

/// All dead letters that have not arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outbox {
    /// Number of the first one.
    first: u64,
    /// By places without gaps: those that wait keep theirs when they get other numbers.
    dead: Chunks<u64, Dead>,
    /// Where they may have been sent.
    target: Option<LogId>,
}

impl Outbox {
    /// Adds a dead letter; `wanted` is the present dead-letter queue.
    pub(crate) fn push(&mut self, dead: Dead, wanted: Option<LogId>) {
        self.aim(wanted);
        let place = self.dead.last_key();
        let place = place.map_or(0, |last| last.saturating_add(1));
        self.dead.insert(place, dead);
    }

    /// Binds to the present dead-letter queue unless bound to one that may have got some.
    pub(crate) fn aim(&mut self, wanted: Option<LogId>) {
        if self.dead.is_empty() || self.target.is_none() {
            self.target = wanted;
        }
    }

    /// Where they may be sent.
    pub(crate) const fn target(&self) -> Option<LogId> {
        self.target
    }

    /// The first number that is not confirmed.
    pub(crate) const fn first(&self) -> u64 {
        self.first
    }

    /// The number that the next dead letter gets.
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(self.dead.len() as u64)
    }

    pub(crate) fn len(&self) -> usize {
        self.dead.len()
    }

    /// Removes those numbered below `number`, which is not beyond the end.
    pub(crate) fn confirm(&mut self, number: u64, wanted: Option<LogId>) -> Vec<Dead> {
        let count = number
            .saturating_sub(self.first)
            .min(self.end() - self.first);
        self.first = self.first.saturating_add(count);
        let mut gone = Vec::new();
        for _ in 0..count {
            let place = self.dead.first_key();
            gone.extend(place.and_then(|place| self.dead.remove(&place)));
        }
        self.aim(wanted);
        gone
    }

    /// Gives all of them numbers that were never sent and binds them to `wanted`.
    pub(crate) fn redirect(&mut self, wanted: Option<LogId>) {
        self.first = self.end();
        self.target = wanted;
    }

    /// Those from a number on.
    pub(crate) fn iter_from(&self, number: u64) -> impl Iterator<Item = (u64, &Dead)> {
        let front = self.front();
        let skip = number.saturating_sub(self.first);
        let dead = self.dead.from(front.saturating_add(skip));
        let first = self.first;
        dead.map(move |(place, dead)| (first.saturating_add(place.saturating_sub(front)), dead))
    }

    /// Finds a state from disk that cannot be one.
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        let last = self.dead.last_key();
        let dense = last.is_none_or(|last| last - self.front() == self.dead.len() as u64 - 1);
        if !dense || self.first.checked_add(self.dead.len() as u64).is_none() {
            return Err(DecodeError::Inconsistent("an outbox has gaps"));
        }
        Ok(())
    }

    fn front(&self) -> u64 {
        self.dead.first_key().unwrap_or_default()
    }
}
