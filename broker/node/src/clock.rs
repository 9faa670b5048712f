//! A shard's two clocks, as its leader reads them. Neither ever goes back.

use std::time::{Duration, Instant, SystemTime};

use millrace_types::{Elapsed, Stamp, Wall};

/// Makes stamps for the commands of one shard.
#[derive(Debug)]
pub(super) struct Clock {
    wall: Wall,
    started: Instant,
    elapsed_at_start: Elapsed,
}

impl Clock {
    /// A clock that goes on where the shard's state stands.
    pub(super) const fn new(wall: Wall, elapsed: Elapsed, started: Instant) -> Self {
        Self {
            wall,
            started,
            elapsed_at_start: elapsed,
        }
    }

    /// The stamp of a command proposed now.
    pub(super) fn stamp(&mut self, now: Instant, system: SystemTime) -> Stamp {
        let millis = system
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, millis);
        self.wall = self.wall.max(Wall::from_millis(millis));
        Stamp {
            wall: self.wall,
            elapsed: self.elapsed(now),
        }
    }

    /// Shard time.
    pub(super) fn elapsed(&self, now: Instant) -> Elapsed {
        self.elapsed_at_start
            .plus_millis(millis(now.saturating_duration_since(self.started)))
    }

    /// When shard time will be `elapsed`. A deadline of a millisecond is due when it is over, so
    /// one more is added: a thread woken a little early would find nothing to do and wake again.
    pub(super) fn instant(&self, elapsed: Elapsed) -> Instant {
        let ahead = elapsed.millis_since(self.elapsed_at_start);
        self.started + Duration::from_millis(ahead.saturating_add(1).min(FAR_MS))
    }
}

/// A year: `Instant` cannot hold every number of milliseconds, and no wait is as long.
const FAR_MS: u64 = 365 * 24 * 3_600_000;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_does_not_follow_a_clock_that_is_set_back() {
        let start = Instant::now();
        let mut clock = Clock::new(Wall::from_millis(5_000), Elapsed::from_millis(70), start);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(clock.stamp(start, at(1)).wall, Wall::from_millis(5_000));
        assert_eq!(clock.stamp(start, at(9)).wall, Wall::from_millis(9_000));
        assert_eq!(clock.stamp(start, at(3)).wall, Wall::from_millis(9_000));
    }

    #[test]
    fn shard_time_goes_on_from_where_the_state_stands() {
        let start = Instant::now();
        let mut clock = Clock::new(Wall::default(), Elapsed::from_millis(70), start);
        let later = start + Duration::from_millis(30);
        let stamp = clock.stamp(later, SystemTime::now());
        assert_eq!(stamp.elapsed, Elapsed::from_millis(100));
        assert!(clock.instant(stamp.elapsed) > later);
        assert!(clock.instant(Elapsed::from_millis(u64::MAX)) > later);
    }
}
