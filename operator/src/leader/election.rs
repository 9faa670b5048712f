//! Whose turn it is. Pure: time and what is in the API server are given.

use std::time::{Duration, Instant};

/// After this long without renewal another operator takes over.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// Who could not renew for this long stops acting, well before others start.
pub(super) const RENEW_LIMIT: Duration = Duration::from_secs(10);
/// Between renewals, and between looks of those that wait.
pub(super) const PERIOD: Duration = Duration::from_secs(2);

/// How long an attempt to renew may take. `renewed` is when the last one that succeeded *began*:
/// others may have seen its result at once, whenever the answer came.
pub(super) fn left(renewed: Instant, now: Instant) -> Duration {
    RENEW_LIMIT.saturating_sub(now.saturating_duration_since(renewed))
}

/// A Lease as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Who has it; `None` or empty when it was given up.
    pub(super) holder: Option<String>,
    /// Changes with every renewal.
    pub(super) version: String,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nobody has it, or not any more.
    Take,
    /// We have it.
    Renew,
    /// Somebody else has it.
    Wait,
}

/// What one operator knows of the election.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    /// The claim last seen, and since when it has been unchanged.
    seen: Option<(Claim, Instant)>,
}

impl Election {
    pub(super) fn new(identity: &str) -> Self {
        Self {
            identity: identity.to_owned(),
            seen: None,
        }
    }

    /// Whose turn it is, given what was read now.
    pub(super) fn turn(&mut self, claim: Option<Claim>, now: Instant) -> Turn {
        let Some(claim) = claim else {
            return Turn::Take;
        };
        let holder = claim.holder.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == claim => *since,
            _ => {
                self.seen = Some((claim, now));
                now
            }
        };
        if holder.is_empty() {
            return Turn::Take;
        }
        if holder == self.identity {
            return Turn::Renew;
        }
        let expired = now.saturating_duration_since(since) >= LEASE;
        if expired { Turn::Take } else { Turn::Wait }
    }

    /// Notes what we wrote ourselves.
    pub(super) fn wrote(&mut self, claim: Claim, now: Instant) {
        self.seen = Some((claim, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(holder: &str, version: &str) -> Option<Claim> {
        Some(Claim {
            holder: Some(holder.to_owned()),
            version: version.to_owned(),
        })
    }

    #[test]
    fn a_lease_that_nobody_has_is_taken_at_once() {
        let now = Instant::now();
        for free in [None, claim("", "1")] {
            assert_eq!(Election::new("me").turn(free, now), Turn::Take);
        }
    }

    #[test]
    fn a_lease_that_is_renewed_is_left_to_its_holder() {
        let mut election = Election::new("me");
        let start = Instant::now();
        for second in 0..60 {
            let renewed = claim("other", &(second / 2).to_string());
            let turn = election.turn(renewed, start + Duration::from_secs(second));
            assert_eq!(turn, Turn::Wait);
        }
    }

    #[test]
    fn a_lease_seen_unchanged_for_its_whole_length_is_taken() {
        let mut election = Election::new("me");
        let start = Instant::now();

        assert_eq!(election.turn(claim("other", "1"), start), Turn::Wait);
        let almost = start + LEASE - Duration::from_millis(1);
        assert_eq!(election.turn(claim("other", "1"), almost), Turn::Wait);
        assert_eq!(
            election.turn(claim("other", "1"), start + LEASE),
            Turn::Take
        );
    }

    #[test]
    fn our_own_lease_is_renewed_also_after_a_restart_under_the_same_name() {
        let mut election = Election::new("me");

        assert_eq!(election.turn(claim("me", "1"), Instant::now()), Turn::Renew);
    }

    #[test]
    fn whoever_cannot_renew_stops_before_others_start_however_its_attempts_go() {
        let renewed = Instant::now();
        for attempt_ms in [0, 1, 700, 5_000, 60_000] {
            let attempt = Duration::from_millis(attempt_ms);
            let mut now = renewed;
            // As `keep` goes: a pause, an attempt that fails, and is it over?
            while left(renewed, now) > Duration::ZERO {
                now += PERIOD;
                now += attempt.min(left(renewed, now));
            }
            let acted = now - renewed;
            assert!(acted < LEASE, "attempts of {attempt:?}: {acted:?}");
        }
    }
}
