//! Dead letters on their way out of a queue, numbered without gaps. One leaves when its arrival is
//! confirmed, in order.
//!
//! All of them are bound to one dead-letter queue, from the first that waits until none does: no
//! other may be sent any of them, because nobody here knows which have arrived there. Only that
//! queue can say, and does when it recalls them; then the rest is bound anew, under new numbers.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use millrace_types::{LogId, Offset, Wall};
use serde::{Deserialize, Serialize};

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
    dead: VecDeque<Dead>,
    /// Where they may have been sent.
    target: Option<LogId>,
}

impl Outbox {
    /// Adds a dead letter; `wanted` is the present dead-letter queue.
    pub(crate) fn push(&mut self, dead: Dead, wanted: Option<LogId>) {
        self.aim(wanted);
        self.dead.push_back(dead);
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
        let gone = number
            .saturating_sub(self.first)
            .min(self.end() - self.first);
        self.first = self.first.saturating_add(gone);
        let gone = usize::try_from(gone).unwrap_or(self.dead.len());
        let gone = self.dead.drain(..gone).collect();
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
        let skip = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let first = self.first;
        let dead = self.dead.iter().enumerate().skip(skip);
        dead.map(move |(at, dead)| (first.saturating_add(at as u64), dead))
    }
}
