//! How long to wait before an object is tried again: longer with each failure in a row, never in
//! step with others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// After the first failure: most of what fails at once works a moment later.
const FIRST: Duration = Duration::from_millis(500);
/// At most: long enough to spare an API server in trouble, short enough for people who wait.
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row, by object.
#[derive(Debug)]
pub(crate) struct Backoffs<K> {
    failures: Mutex<HashMap<K, u32>>,
}

impl<K> Default for Backoffs<K> {
    fn default() -> Self {
        Self {
            failures: Mutex::default(),
        }
    }
}

impl<K: Eq + Hash> Backoffs<K> {
    /// Notes a failure and returns how long to wait.
    pub(crate) fn fail(&self, key: K) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key).or_insert(0);
        let wait = wait(*count, random_byte());
        *count = count.saturating_add(1);
        wait
    }

    /// Forgets an object's failures: it worked, or it is gone.
    pub(crate) fn reset(&self, key: &K) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(key);
    }
}

/// The wait after `failures` earlier ones: between half of the doubled wait and all of it.
fn wait(failures: u32, random: u8) -> Duration {
    let full = FIRST.saturating_mul(1_u32.checked_shl(failures.min(20)).unwrap_or(u32::MAX));
    let full = full.min(LONGEST);
    full / 2 + full / 2 * u32::from(random) / u32::from(u8::MAX)
}

/// Jitter needs no secrecy: without randomness the wait is merely the shortest.
fn random_byte() -> u8 {
    let mut byte = [0];
    match getrandom::fill(&mut byte) {
        Ok(()) => byte[0],
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_limit_and_has_jitter() {
        for (failures, shortest_ms, longest_ms) in [
            (0, 250, 500),
            (1, 500, 1_000),
            (4, 4_000, 8_000),
            (10, 30_000, 60_000),
            (u32::MAX, 30_000, 60_000),
        ] {
            assert_eq!(wait(failures, 0), Duration::from_millis(shortest_ms));
            assert_eq!(wait(failures, u8::MAX), Duration::from_millis(longest_ms));
        }
    }

    #[test]
    fn failures_are_counted_by_object_until_it_works() {
        let backoffs = Backoffs::default();
        backoffs.fail("a");
        backoffs.fail("a");

        assert!(backoffs.fail("a") >= Duration::from_secs(1));
        assert!(backoffs.fail("b") <= Duration::from_millis(500));
        backoffs.reset(&"a");
        assert!(backoffs.fail("a") <= Duration::from_millis(500));
    }
}
