//! How long something took, over and over: a histogram that any thread may add to and read without
//! a lock. Relaxed: its numbers are read one by one and decide nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds. From a sync of a fast disk to a pause that every
/// client notices; 1-2.5-5 steps tell neighbours apart and keep a scrape short.
const BOUNDS_MICROS: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000,
];
/// The last bucket has no bound.
const BUCKETS: usize = BOUNDS_MICROS.len() + 1;

/// Durations, as they come in.
#[derive(Debug, Default)]
pub struct Times {
    buckets: [AtomicU64; BUCKETS],
    total_nanos: AtomicU64,
    longest_nanos: AtomicU64,
}

/// Durations so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimesSeen {
    /// How many there were, by upper bound; the last has none. Not cumulative.
    pub buckets: Vec<(Option<Duration>, u64)>,
    /// All together.
    pub total: Duration,
    /// The longest one.
    pub longest: Duration,
}

impl Times {
    /// Adds one.
    pub fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.total_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.longest_nanos.fetch_max(nanos, Ordering::Relaxed);
    }

    /// What was added so far.
    #[must_use]
    pub fn seen(&self) -> TimesSeen {
        let bounds = BOUNDS_MICROS
            .iter()
            .map(|m| Some(Duration::from_micros(*m)));
        let counts = self.buckets.iter().map(|n| n.load(Ordering::Relaxed));
        TimesSeen {
            buckets: bounds.chain([None]).zip(counts).collect(),
            total: Duration::from_nanos(self.total_nanos.load(Ordering::Relaxed)),
            longest: Duration::from_nanos(self.longest_nanos.load(Ordering::Relaxed)),
        }
    }
}

impl TimesSeen {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_bucket_of_the_next_bound() {
        let times = Times::default();
        for micros in [0, 100, 101, 9_999_999] {
            times.add(Duration::from_micros(micros));
        }
        let seen = times.seen();
        let counts: Vec<u64> = seen.buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(seen.count(), 4);
        assert_eq!(seen.longest, Duration::from_micros(9_999_999));
        assert_eq!(seen.total, Duration::from_micros(10_000_200));
    }
}
