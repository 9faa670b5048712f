//! How fast all snapshots of a node leave together: a bucket of tokens, on a clock that it is told.

use std::time::{Duration, Instant};

/// What may leave at once after a silence: a few chunks, so that what is shorter is not held up.
const BURST: Duration = Duration::from_millis(50);

/// The bucket.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When everything that was taken will have left.
    free_at: Instant,
}

impl Pace {
    /// A full one; 0 bytes a second: without end.
    pub(super) const fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self {
            bytes_per_second,
            free_at: now,
        }
    }

    /// Takes so many bytes; they may leave after this time.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let free_at = self.free_at.max(now);
        self.free_at = free_at + takes;
        let ahead = free_at.saturating_duration_since(now);
        ahead.saturating_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_takes_as_much_as_it_may() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000, start);
        let mut now = start;
        for _ in 0..50 {
            now += pace.take(100, now);
        }
        let took = now - start;
        assert!(took >= Duration::from_millis(4_800), "{took:?}");
        assert!(took <= Duration::from_millis(5_000), "{took:?}");
        // Silence saves up nothing.
        now += Duration::from_secs(60);
        assert_eq!(pace.take(100, now), Duration::ZERO);
        assert_eq!(pace.take(100, now), Duration::from_millis(50));
        assert_eq!(Pace::new(0, now).take(u64::MAX, now), Duration::ZERO);
    }
}
