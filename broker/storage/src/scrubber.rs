//! Reads everything that is stored, slowly and again and again, so that damage is found while
//! somebody can still do something about it, and not when the message is needed.
//!
//! Decides what to read next and when; promises to read at most `bytes_per_second` over any longer
//! time, one piece a step, and to report each damaged run, index or checkpoint once a pass, with
//! file and byte. What is damaged only once of two readings, or has gone meanwhile, is not
//! reported. Repairs nothing. Leaves the journal alone: that is read at every start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millrace_types::ShardId;

use crate::error::ReadError;
use crate::routine::{Next, Routine};
use crate::signal::Signal;
use crate::store::Store;

mod checkpoint;
mod pass;
#[cfg(test)]
mod tests;

use pass::{Look, Pass};

/// A tenth of what a slow disk gives; ten gigabytes take three quarters of an hour.
pub const SCRUB_BYTES_PER_SECOND_DEFAULT: u64 = 4 << 20;
/// Between the end of a pass and the next one: with little stored, it would read without end.
const PAUSE: Duration = Duration::from_secs(600);

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// Messages: they cannot be read; or the shard that has them would not start.
    Messages,
    /// An index: it is built again from the messages whenever it is needed.
    Index,
    /// The checkpoint in force: the shard would not start.
    Checkpoint,
}

/// Damage, and where.
#[derive(Debug)]
pub struct Finding {
    /// Whose it is.
    pub shard: ShardId,
    /// What it is.
    pub what: Damaged,
    /// Where, and how it shows.
    pub error: ReadError,
}

/// Asked before each pass for what there is to read.
pub type Stores = Box<dyn FnMut() -> Vec<Arc<Store>> + Send>;

/// Called for each damage found, with the store it is in.
pub type OnDamage = Box<dyn FnMut(&Arc<Store>, Finding) + Send>;

/// What was read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubStats {
    /// Bytes read.
    pub bytes: u64,
    /// Passes over everything.
    pub passes: u64,
    /// Findings reported.
    pub findings: u64,
}

/// The routine.
pub struct Scrubber {
    source: Stores,
    /// Those of the pass under way.
    stores: Vec<Arc<Store>>,
    bytes_per_second: u64,
    on_damage: OnDamage,
    shared: Arc<Shared>,
    /// The store being read, and how far.
    under_way: Option<(usize, Pass)>,
    not_before: Option<Instant>,
}

/// A way to a scrubber. Clones speak to the same one.
#[derive(Clone)]
pub struct ScrubberHandle(Arc<Shared>);

#[derive(Default)]
struct Shared {
    stopped: Mutex<bool>,
    signal: Signal,
    bytes: AtomicU64,
    passes: AtomicU64,
    findings: AtomicU64,
}

impl Scrubber {
    /// A scrubber of the stores that `source` gives, and the way to it. Somebody has to run it.
    /// With 0 bytes a second it ends at once.
    #[must_use]
    pub fn new(
        source: Stores,
        bytes_per_second: u64,
        on_damage: OnDamage,
    ) -> (Self, ScrubberHandle) {
        let shared = Arc::<Shared>::default();
        let handle = ScrubberHandle(Arc::clone(&shared));
        let routine = Self {
            source,
            stores: Vec::new(),
            bytes_per_second,
            on_damage,
            shared,
            under_way: None,
            not_before: None,
        };
        (routine, handle)
    }

    fn is_stopped(&self) -> bool {
        let stopped = self.shared.stopped.lock();
        *stopped.unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one piece; the bytes read, or nothing at the end of a pass over all stores.
    fn look(&mut self) -> Option<u64> {
        let (place, mut pass) = self.under_way.take().unwrap_or_else(|| {
            self.stores = (self.source)();
            (0, Pass::default())
        });
        let Some(store) = self.stores.get(place) else {
            self.stores.clear();
            return None;
        };
        match pass.look(store) {
            // Another store has its place, and perhaps the names of its files.
            _ if store.is_retired() => {
                self.under_way = Some((place + 1, Pass::default()));
                Some(0)
            }
            Look::Read(bytes) => {
                self.under_way = Some((place, pass));
                Some(bytes)
            }
            Look::Damage(what, error) => {
                let shard = store.shard;
                (self.on_damage)(store, Finding { shard, what, error });
                self.shared.findings.fetch_add(1, Ordering::Relaxed);
                self.under_way = Some((place, pass));
                Some(0)
            }
            Look::Finished => {
                self.under_way = Some((place + 1, Pass::default()));
                Some(0)
            }
        }
    }
}

impl Routine for Scrubber {
    fn step(&mut self, now: Instant) -> Next {
        if self.is_stopped() || self.bytes_per_second == 0 {
            return Next::Ended;
        }
        if let Some(not_before) = self.not_before
            && now < not_before
        {
            return Next::Wait(Some(not_before));
        }
        let pause = match self.look() {
            Some(bytes) => {
                self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
                let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
            None => {
                self.shared.passes.fetch_add(1, Ordering::Relaxed);
                PAUSE
            }
        };
        if pause.is_zero() {
            return Next::Now;
        }
        let not_before = now + pause;
        self.not_before = Some(not_before);
        Next::Wait(Some(not_before))
    }

    fn wait(&mut self, deadline: Option<Instant>) {
        self.shared.signal.wait(deadline);
    }
}

impl ScrubberHandle {
    /// Lets the routine end. Does not wait for that.
    pub fn stop(&self) {
        let stopped = self.0.stopped.lock();
        *stopped.unwrap_or_else(PoisonError::into_inner) = true;
        self.0.signal.ring();
    }

    /// What was read so far.
    #[must_use]
    pub fn stats(&self) -> ScrubStats {
        ScrubStats {
            bytes: self.0.bytes.load(Ordering::Relaxed),
            passes: self.0.passes.load(Ordering::Relaxed),
            findings: self.0.findings.load(Ordering::Relaxed),
        }
    }
}
