//! How long to wait before the next attempt to connect: doubles, with jitter, up to a limit.

use std::time::Duration;

/// A broker that restarts is back in about a second: the first attempts come quickly.
const FIRST: Duration = Duration::from_millis(50);
/// One attempt every two seconds costs nobody anything and finds a server soon after it is back.
const LONGEST: Duration = Duration::from_secs(2);

/// The delays of one series of attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// A series that has not begun.
    pub(crate) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// How long to wait now: between half of the current delay and all of it, so that clients that
    /// lost the same server do not come back in step.
    pub(crate) fn delay(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        // Without a random number all that is lost is the jitter.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// The attempt succeeded: the next series begins anew.
    pub(crate) const fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_limit_and_start_anew_after_a_success() {
        let mut backoff = Backoff::new();
        for _ in 0..20 {
            assert!(backoff.delay() <= LONGEST);
        }
        assert!(backoff.delay() >= LONGEST / 2);

        backoff.reset();

        assert!(backoff.delay() <= FIRST);
    }
}
