//! Where a stretch of one log is: in which segment, from where to where.

use std::ops::Range;

use millrace_types::Wall;
use serde::{Deserialize, Serialize};

use crate::range_set::RangeSet;

/// Frames of one log, one behind the other in one segment, and behind them their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Number of the segment.
    pub(crate) file: u64,
    /// Its first offset.
    pub(crate) first: u64,
    /// One past its last offset. What was discarded before it was written is missing in between.
    pub(crate) end: u64,
    /// When the first message was stored.
    pub(crate) oldest: Wall,
    /// Where its frames start in the segment.
    pub(crate) at: u32,
    /// Bytes of its frames.
    pub(crate) bytes: u32,
    /// Bytes of the index behind them; 0: too short to need one.
    pub(crate) index_bytes: u32,
    /// Messages in it.
    pub(crate) messages: u32,
}

impl Run {
    pub(crate) fn range(&self) -> Range<u64> {
        self.first..self.end
    }

    /// The place on disk, which no other run ever has.
    pub(crate) fn place(&self) -> (u64, u32) {
        (self.file, self.at)
    }

    /// One past its last byte, the index included.
    pub(crate) fn bytes_end(&self) -> u64 {
        u64::from(self.at) + u64::from(self.bytes) + u64::from(self.index_bytes)
    }

    /// About how many of its bytes belong to messages that are alive.
    pub(crate) fn live_bytes(&self, discarded: &RangeSet) -> u64 {
        let missing = (self.end - self.first).saturating_sub(u64::from(self.messages));
        let gone = discarded.count_within(self.range());
        // What was missing when it was written counts as discarded still.
        let gone = gone.saturating_sub(missing).min(u64::from(self.messages));
        let live = u64::from(self.messages) - gone;
        (u64::from(self.bytes) * live).div_ceil(u64::from(self.messages).max(1))
    }

    /// Whether the numbers can be true: others rely on it.
    pub(crate) fn is_sound(&self) -> bool {
        let messages = u64::from(self.messages);
        self.first < self.end && messages > 0 && messages <= self.end - self.first && self.bytes > 0
    }
}
