//! How many bytes lie where and since when, without an entry per message: runs of messages of
//! similar size and age share one span. The total is exact; a single message counts as the average
//! of what is left of its span, so a span is exact once it is empty.

use millrace_types::{Offset, Wall};
use serde::{Deserialize, Serialize};

use crate::chunks::Chunks;
use crate::codec::DecodeError;
use crate::command::BatchHeader;

/// Messages that one span may gather: a span of about 50 bytes then costs nothing worth counting.
const SPAN_MESSAGES_MAX: u64 = 4096;
/// Sizes within one span differ at most by this factor, so that windows in bytes mean something.
const SIZE_FACTOR_MAX: u64 = 2;

/// All spans of a queue or partition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spans {
    by_first: Chunks<Offset, Span>,
    bytes: u64,
}

/// A run of messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// Offsets it reaches over.
    pub(crate) width: u64,
    /// Messages of it that are left.
    pub(crate) live: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// When its first message was stored,
    pub(crate) wall_first: Wall,
    /// and its last.
    pub(crate) wall_last: Wall,
}

impl Span {
    fn average(&self) -> u64 {
        self.bytes.checked_div(self.live).unwrap_or(0)
    }

    fn takes(&self, batch: &BatchHeader, wall: Wall, age_ms_max: u64) -> bool {
        let count = u64::from(batch.count.max(1));
        let (old, new) = (self.average().max(1), (batch.bytes / count).max(1));
        self.width.saturating_add(count) <= SPAN_MESSAGES_MAX
            && wall.millis_since(self.wall_first) <= age_ms_max
            && old.max(new) <= old.min(new).saturating_mul(SIZE_FACTOR_MAX)
    }
}

impl Spans {
    /// Adds a batch; `age_ms_max` is how much older a span's first message may be than its last.
    pub(crate) fn append(
        &mut self,
        first: Offset,
        batch: &BatchHeader,
        wall: Wall,
        age_ms_max: u64,
    ) {
        let count = u64::from(batch.count);
        self.bytes = self.bytes.saturating_add(batch.bytes);
        if let Some((start, span)) = self.by_first.last_mut()
            && start.plus(span.width) == first
            && span.takes(batch, wall, age_ms_max)
        {
            span.width = span.width.saturating_add(count);
            span.live = span.live.saturating_add(count);
            span.bytes = span.bytes.saturating_add(batch.bytes);
            span.wall_last = wall;
            return;
        }
        let span = Span {
            width: count,
            live: count,
            bytes: batch.bytes,
            wall_first: wall,
            wall_last: wall,
        };
        self.by_first.insert(first, span);
    }

    /// What a message counts for: its span's average.
    pub(crate) fn weight(&self, offset: Offset) -> u64 {
        self.find(offset)
            .and_then(|first| self.by_first.get(&first))
            .map_or(0, Span::average)
    }

    /// Takes one message out.
    pub(crate) fn settle(&mut self, offset: Offset) {
        let Some(first) = self.find(offset) else {
            return;
        };
        let Some(span) = self.by_first.get_mut(&first) else {
            return;
        };
        let share = span.average();
        span.live = span.live.saturating_sub(1);
        span.bytes = span.bytes.saturating_sub(share);
        self.bytes = self.bytes.saturating_sub(share);
        if span.live == 0 {
            self.bytes = self.bytes.saturating_sub(span.bytes);
            self.by_first.remove(&first);
        }
    }

    /// Takes everything below `first` out, of spans nobody settled in.
    pub(crate) fn trim(&mut self, first: Offset) {
        while let Some(start) = self.by_first.first_key() {
            if start >= first {
                return;
            }
            let Some(mut span) = self.by_first.remove(&start) else {
                return;
            };
            if start.plus(span.width) <= first {
                self.bytes = self.bytes.saturating_sub(span.bytes);
                continue;
            }
            let gone = start.until(first);
            let share = span.average().saturating_mul(gone);
            span.width = span.width.saturating_sub(gone);
            span.live = span.live.saturating_sub(gone);
            span.bytes = span.bytes.saturating_sub(share);
            self.bytes = self.bytes.saturating_sub(share);
            self.by_first.insert(first, span);
            return;
        }
    }

    /// Bytes of everything left.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the oldest message left was stored, or one shortly before it.
    pub(crate) fn oldest(&self) -> Option<Wall> {
        self.by_first.first().map(|(_, span)| span.wall_first)
    }

    /// All spans with their first offsets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Offset, &Span)> {
        self.by_first.iter().map(|(first, span)| (*first, span))
    }

    /// Checks a state from disk: `messages` live ones within `..end`, sums that add up.
    pub(crate) fn check(&self, end: Offset, messages: u64) -> Result<(), DecodeError> {
        let wrong = DecodeError::Inconsistent;
        let (mut reached, mut live, mut bytes) = (Offset::new(0), 0_u64, 0_u64);
        for (first, span) in self.iter() {
            if first < reached || span.live == 0 || span.live > span.width {
                return Err(wrong("spans overlap or are empty"));
            }
            reached = first.plus(span.width);
            live = live.saturating_add(span.live);
            bytes = bytes.saturating_add(span.bytes);
        }
        if reached > end || live != messages || bytes != self.bytes {
            return Err(wrong("spans do not add up"));
        }
        Ok(())
    }

    fn find(&self, offset: Offset) -> Option<Offset> {
        let (first, span) = self.by_first.last_upto(&offset)?;
        (offset < first.plus(span.width)).then_some(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(count: u32, bytes: u64) -> BatchHeader {
        BatchHeader { count, bytes }
    }

    const fn at(millis: u64) -> Wall {
        Wall::from_millis(millis)
    }

    #[test]
    fn messages_of_one_size_and_age_share_a_span() {
        let mut spans = Spans::default();
        for n in 0..100 {
            spans.append(Offset::new(n * 10), &batch(10, 1000), at(n), 10_000);
        }
        assert_eq!(spans.iter().count(), 1);
        assert_eq!(spans.bytes(), 100_000);
        spans.append(Offset::new(1000), &batch(1, 1 << 20), at(100), 10_000);
        spans.append(Offset::new(1001), &batch(1, 1 << 20), at(20_000), 10_000);
        assert_eq!(spans.iter().count(), 3);
    }

    #[test]
    fn bytes_are_exact_once_everything_is_settled() {
        let mut spans = Spans::default();
        spans.append(Offset::new(0), &batch(7, 1000), at(5), 10);
        for n in [3, 0, 6, 1, 2, 5] {
            spans.settle(Offset::new(n));
            assert_eq!(spans.oldest(), Some(at(5)));
        }
        spans.settle(Offset::new(4));
        assert_eq!((spans.bytes(), spans.oldest()), (0, None));
    }

    #[test]
    fn trimming_within_a_span_takes_its_share() {
        let mut spans = Spans::default();
        spans.append(Offset::new(0), &batch(10, 1000), at(1), 10);
        spans.append(Offset::new(10), &batch(10, 9000), at(2), 10);
        spans.trim(Offset::new(4));
        assert_eq!(spans.bytes(), 9600);
        spans.trim(Offset::new(15));
        assert_eq!(spans.bytes(), 4500);
        spans.trim(Offset::new(20));
        assert_eq!(spans.bytes(), 0);
    }
}
