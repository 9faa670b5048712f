//! How much of clients' frames waits for the broker to have room, over all streams and calls. What
//! finds no place does not wait: it is refused at once when the broker has no room, and its client
//! comes back later.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that wait at most: four of the largest frames, thousands of small ones.
const WAITING_BYTES_MAX: u32 = 68 << 20;
/// A frame counts as much at least: what it costs besides its messages.
const FRAME_BYTES_MIN: u32 = 1 << 10;

/// The places.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

/// A place; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Budget {
    /// All places are free.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(WAITING_BYTES_MAX as usize)))
    }

    /// A place for a frame of so many bytes, if there is one.
    pub(crate) fn enter(&self, bytes: u64) -> Option<Place> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bytes = bytes.clamp(FRAME_BYTES_MIN, WAITING_BYTES_MAX);
        let permit = Arc::clone(&self.0).try_acquire_many_owned(bytes);
        permit.ok().map(|permit| Place { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let budget = Budget::new();
        let half = u64::from(WAITING_BYTES_MAX / 2);
        let first = budget.enter(half).unwrap();
        let second = budget.enter(half).unwrap();
        assert!(budget.enter(0).is_none());
        drop(first);
        assert!(budget.enter(0).is_some());
        drop(second);
        // One that is larger than all of it passes alone.
        assert!(budget.enter(u64::MAX).is_some());
    }
}
