//! How long nothing came through: the longest time between two beats of something that beats all
//! the time, around a moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When something happened. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Beats(Arc<Mutex<Vec<Instant>>>);

impl Beats {
    fn beats(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It happens now.
    pub fn beat(&self) {
        self.beats().push(Instant::now());
    }

    /// Whether it has happened since.
    #[must_use]
    pub fn since(&self, moment: Instant) -> bool {
        self.beats().last().is_some_and(|beat| *beat > moment)
    }

    /// The longest time without a beat that ends after `from`, up to the last beat; before the
    /// first one, counted from then on.
    #[must_use]
    pub fn gap_after(&self, from: Instant) -> Duration {
        let beats = self.beats();
        let pairs = beats.iter().zip(beats.iter().skip(1));
        let gaps = pairs.filter(|(_, end)| **end >= from);
        let gaps = gaps.map(|(start, end)| *end - *start);
        let first = beats.first().filter(|first| **first >= from);
        let first = first.map(|first| *first - from);
        gaps.chain(first).max().unwrap_or_default()
    }
}

/// Gaps of one kind.
#[derive(Clone, Debug, Default)]
pub struct Gaps(Vec<Duration>);

impl Gaps {
    /// Adds one.
    pub fn add(&mut self, gap: Duration) {
        self.0.push(gap);
    }

    /// For people: how many, their median and the longest.
    #[must_use]
    pub fn line(&self) -> String {
        let mut sorted = self.0.clone();
        sorted.sort();
        let Some(worst) = sorted.last() else {
            return "none".to_owned();
        };
        let median = sorted[sorted.len() / 2];
        format!(
            "{} gaps, median {} ms, worst {} ms",
            sorted.len(),
            median.as_millis(),
            worst.as_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_around_a_moment_is_the_longest_one_that_ends_after_it() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let beats = Beats::default();
        beats.beats().extend([0, 900, 1_000, 1_400, 1_450].map(at));
        assert_eq!(beats.gap_after(at(1_100)), Duration::from_millis(400));
        assert_eq!(beats.gap_after(at(0)), Duration::from_millis(900));
        let late = Beats::default();
        late.beats().extend([700, 710].map(at));
        assert_eq!(late.gap_after(at(100)), Duration::from_millis(600));
        assert!(beats.since(at(1_449)) && !beats.since(at(1_450)));
    }

    #[test]
    fn gaps_are_told_by_median_and_worst() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.line(), "none");
        for ms in [30, 10, 20] {
            gaps.add(Duration::from_millis(ms));
        }
        assert_eq!(gaps.line(), "3 gaps, median 20 ms, worst 30 ms");
    }
}
