//! How much a worker does before it looks up again: whoever has a short question must not wait for
//! all that a sync has brought. Bounded by a count, which a simulation on virtual time meets too,
//! and by time, because entries differ in what they cost.

use std::time::{Duration, Instant};

use super::host::Host;

/// Entries or inputs of one part of a step: a full journal batch takes a few.
const PIECES_MAX: u32 = 1_024;
/// Time of one part of a step. A worker's shards take a part each: with a handful of them, a step
/// stays below what a slow sync takes.
const TIME_MAX: Duration = Duration::from_millis(2);

/// One part of a worker's step.
pub(super) struct Turn<'a> {
    host: &'a dyn Host,
    until: Instant,
    left: u32,
}

impl<'a> Turn<'a> {
    /// Begins.
    pub(super) fn new(host: &'a dyn Host) -> Self {
        Self {
            host,
            until: host.now() + TIME_MAX,
            left: PIECES_MAX,
        }
    }

    /// Whether one more piece may be done; to be asked before each. The first one always may.
    pub(super) fn goes_on(&mut self) -> bool {
        let first = self.left == PIECES_MAX;
        let goes_on = first || (self.left > 0 && self.host.now() < self.until);
        self.left = self.left.saturating_sub(1);
        goes_on
    }
}
