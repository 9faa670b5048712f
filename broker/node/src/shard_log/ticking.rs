//! Time, as consensus counts it.
//!
//! All leaders of a worker send their heartbeats in the same ticks, however many there are: one
//! frame for each peer, and one wake-up there.

use super::ShardLog;

/// Ticks from one heartbeat to the next.
const HEARTBEAT_TICKS: u64 = millrace_replica::HEARTBEAT_TICKS as u64;

impl<E> ShardLog<E> {
    /// Time has passed, for the so manieth time in this worker.
    pub(crate) fn tick(&mut self, number: u64) {
        // Who was just elected has been heard of: one tick less does not matter.
        self.in_step |= number % HEARTBEAT_TICKS == 1 % HEARTBEAT_TICKS;
        if self.in_step {
            self.replica.tick();
            self.news = true;
        }
        self.notice_followers();
    }

    /// Whether time matters: alone, it does not.
    pub(crate) fn needs_ticks(&self) -> bool {
        self.replica.members().len() > 1
    }
}
