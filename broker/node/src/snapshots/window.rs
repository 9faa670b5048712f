//! What of a snapshot is under way: which stretch is to be sent next, and what an answer means.
//! Pure.
//!
//! The receiver takes stretches in order only and always says where it is. Who is told the same
//! place twice has lost what follows it, and sends it again: once, until there is progress. A
//! receiver may fall back to any place (it was started anew) and be ahead of what its sender thinks
//! (an answer came late).

use std::ops::Range;

/// Bytes of a stretch.
pub(super) const CHUNK_BYTES: u64 = 256 << 10;
/// Bytes under way: what a network of 100 MB/s has in the 40 ms that a busy disk takes.
const WINDOW_BYTES: u64 = 4 << 20;

/// How far a snapshot has come.
#[derive(Debug)]
pub(super) struct Window {
    total: u64,
    /// The receiver has this much.
    acknowledged: u64,
    /// The next stretch starts here.
    next: u64,
    /// What was sent at any time.
    reached: u64,
    /// It was sent again from this place.
    again: Option<u64>,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// There is progress.
    Progress,
    /// There is none.
    Nothing,
}

impl Window {
    /// Of a snapshot of so many bytes.
    pub(super) const fn new(total: u64) -> Self {
        Self {
            total,
            acknowledged: 0,
            next: 0,
            reached: 0,
            again: None,
        }
    }

    /// The next stretch, if one may leave.
    pub(super) fn next(&mut self) -> Option<Range<u64>> {
        let limit = (self.acknowledged + WINDOW_BYTES).min(self.total);
        let start = self.next;
        if start >= limit {
            return None;
        }
        let end = (start + CHUNK_BYTES).min(self.total);
        self.next = end;
        self.reached = self.reached.max(end);
        Some(start..end)
    }

    /// The receiver wants the rest from this byte on.
    pub(super) fn heard(&mut self, from: u64) -> Heard {
        if from > self.reached {
            // It cannot have what was never sent.
            return Heard::Nothing;
        }
        if from > self.acknowledged {
            self.acknowledged = from;
            self.next = self.next.max(from);
            self.again = None;
            return Heard::Progress;
        }
        // Something was lost, or the receiver knows less than before.
        if self.again != Some(from) {
            self.again = Some(from);
            self.acknowledged = from;
            self.next = from;
        }
        Heard::Nothing
    }

    /// Sends everything again that was not answered.
    pub(super) const fn rewind(&mut self) {
        self.next = self.acknowledged;
        self.again = None;
    }

    /// Bytes of the whole.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Whether the receiver has everything.
    pub(super) const fn is_done(&self) -> bool {
        self.acknowledged == self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = 100 * CHUNK_BYTES + 5;

    fn sent(window: &mut Window) -> Vec<u64> {
        std::iter::from_fn(|| window.next().map(|range| range.start / CHUNK_BYTES)).collect()
    }

    #[test]
    fn a_window_of_stretches_is_under_way() {
        let mut window = Window::new(MANY);
        assert_eq!(sent(&mut window), (0..16).collect::<Vec<_>>());
        assert_eq!(window.heard(2 * CHUNK_BYTES), Heard::Progress);
        assert_eq!(sent(&mut window), [16, 17]);
        assert!(!window.is_done());
        let mut short = Window::new(7);
        assert_eq!(short.next(), Some(0..7));
        assert_eq!(short.next(), None);
        short.heard(7);
        assert!(short.is_done());
    }

    #[test]
    fn what_was_lost_is_sent_again_once_until_there_is_progress() {
        let mut window = Window::new(MANY);
        sent(&mut window);
        window.heard(3 * CHUNK_BYTES);
        sent(&mut window);
        for _ in 0..5 {
            // Each of those behind the lost one is answered so.
            assert_eq!(window.heard(3 * CHUNK_BYTES), Heard::Nothing);
            let again = sent(&mut window);
            assert!(again.is_empty() || again.first() == Some(&3));
        }
        assert_eq!(window.heard(9 * CHUNK_BYTES), Heard::Progress);
        window.rewind();
        assert_eq!(sent(&mut window).first(), Some(&9));
    }

    #[test]
    fn a_receiver_may_fall_back_and_be_ahead() {
        let mut window = Window::new(MANY);
        sent(&mut window);
        window.heard(10 * CHUNK_BYTES);
        window.heard(0);
        assert_eq!(window.next(), Some(0..CHUNK_BYTES));
        assert_eq!(window.heard(10 * CHUNK_BYTES), Heard::Progress);
        assert_eq!(
            window.next().map(|range| range.start / CHUNK_BYTES),
            Some(10)
        );
        assert_eq!(window.heard(u64::MAX), Heard::Nothing);
        assert_eq!(window.heard(MANY), Heard::Nothing);
        assert_eq!(
            window.next().map(|range| range.start / CHUNK_BYTES),
            Some(11)
        );
    }
}
