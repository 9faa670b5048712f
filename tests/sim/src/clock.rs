//! Time: the true one, which moves only when the world lets it, and what each machine takes for it.
//! Machines run a little fast or slow, and are set to a time of day that others do not share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the time of day is at the start of a simulation: 2026-01-01.
const WALL_START: Duration = Duration::from_secs(1_767_225_600);
/// A machine gains or loses at most this many of a hundred: far more than any that works, so that
/// little time shows much.
pub(crate) const DRIFT_PERCENT_MAX: u64 = 5;
/// Parts of a second in which drift is told.
const MILLION: i128 = 1_000_000;

/// True time since the beginning, which nobody in a node can see.
pub(crate) struct Time {
    start: Instant,
    now: Mutex<Duration>,
}

impl Time {
    /// Nothing has passed.
    #[must_use]
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            now: Mutex::default(),
        })
    }

    /// Time since the beginning.
    #[must_use]
    pub(crate) fn now(&self) -> Duration {
        *lock(&self.now)
    }

    /// Milliseconds since the beginning.
    #[must_use]
    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX)
    }

    /// Time goes on.
    pub(crate) fn set(&self, now: Duration) {
        let mut at = lock(&self.now);
        *at = now.max(*at);
    }
}

/// How a machine's clock is off.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drift {
    /// Millionths of a second that it gains in each.
    pub gains_ppm: i64,
    /// Milliseconds that its time of day is ahead at first.
    pub ahead_ms: i64,
}

/// The clock of one machine, over all lives of its node.
pub(crate) struct Clock {
    time: Arc<Time>,
    drift: Drift,
    skew: Mutex<i64>,
}

impl Clock {
    /// A machine that was just switched on.
    #[must_use]
    pub(crate) fn new(time: &Arc<Time>, drift: Drift) -> Arc<Self> {
        Arc::new(Self {
            time: Arc::clone(time),
            drift,
            skew: Mutex::new(drift.ahead_ms),
        })
    }

    /// True time.
    #[must_use]
    pub(crate) const fn time(&self) -> &Arc<Time> {
        &self.time
    }

    /// What the machine takes for the time since the beginning.
    #[must_use]
    pub(crate) fn now(&self) -> Duration {
        scaled(
            self.time.now(),
            MILLION + i128::from(self.drift.gains_ppm),
            MILLION,
        )
    }

    /// The same as the system tells it.
    #[must_use]
    pub(crate) fn instant(&self) -> Instant {
        self.time.start + self.now()
    }

    /// When it is so late on this machine, as time since the beginning.
    #[must_use]
    pub(crate) fn since_start(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.time.start)
    }

    /// The true time at which this machine says so.
    #[must_use]
    pub(crate) fn true_time(&self, local: Duration) -> Duration {
        if self.drift.gains_ppm == 0 {
            return local;
        }
        // Not before: whoever waits for it looks at this clock.
        let nanosecond = Duration::from_nanos(2);
        scaled(local, MILLION, MILLION + i128::from(self.drift.gains_ppm)) + nanosecond
    }

    /// The time of day in milliseconds since 1970.
    #[must_use]
    pub(crate) fn wall_millis(&self) -> u64 {
        let wall = WALL_START + self.now();
        let millis = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        millis.saturating_add_signed(*lock(&self.skew))
    }

    /// Somebody sets the time of day.
    pub(crate) fn jump(&self, millis: i64) {
        *lock(&self.skew) += millis;
    }
}

fn scaled(duration: Duration, by: i128, of: i128) -> Duration {
    let nanos = i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
    let nanos = nanos.saturating_mul(by) / of;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Nothing panics while holding one of our locks, so what they guard is whole even when poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
