//! Dead letters on their way out of a queue, numbered without gaps. One leaves when its arrival is
//! confirmed, in order.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use millrace_types::{Offset, Wall};
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
}

impl Outbox {
    pub(crate) fn push(&mut self, dead: Dead) {
        self.dead.push_back(dead);
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
    pub(crate) fn confirm(&mut self, number: u64) -> Vec<Dead> {
        let gone = number
            .saturating_sub(self.first)
            .min(self.end() - self.first);
        self.first = self.first.saturating_add(gone);
        let gone = usize::try_from(gone).unwrap_or(self.dead.len());
        self.dead.drain(..gone).collect()
    }

    /// Those from a number on.
    pub(crate) fn iter_from(&self, number: u64) -> impl Iterator<Item = (u64, &Dead)> {
        let skip = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let first = self.first;
        let dead = self.dead.iter().enumerate().skip(skip);
        dead.map(move |(at, dead)| (first.saturating_add(at as u64), dead))
    }
}
