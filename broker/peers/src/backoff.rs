//! How long to wait before the next attempt to connect: doubles, with jitter, up to a limit.

use std::time::Duration;

/// The delays of one series of attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// A series that has not begun.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// How long to wait now.
    pub(crate) fn delay(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.longest);
        jittered(whole)
    }

    /// The attempt succeeded: the next series begins anew.
    pub(crate) const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Between half of `whole` and all of it, so that nodes that lost the same peer do not come back in
/// step.
pub(crate) fn jittered(whole: Duration) -> Duration {
    // Without a random number all that is lost is the jitter.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_limit_and_start_anew_after_a_success() {
        let (first, longest) = (Duration::from_millis(10), Duration::from_millis(100));
        let mut backoff = Backoff::new(first, longest);
        for _ in 0..20 {
            assert!(backoff.delay() <= longest);
        }
        assert!(backoff.delay() >= longest / 2);

        backoff.reset();

        assert!(backoff.delay() <= first);
    }
}
