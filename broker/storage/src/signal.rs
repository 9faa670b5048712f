//! Wakes a routine that waits. Carries nothing: whoever is woken looks at everything.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// A bell. One routine waits for it, anybody may ring it; a ring before the wait counts.
#[derive(Debug, Default)]
pub struct Signal {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Wakes whoever waits, or comes to wait next.
    pub fn ring(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        // One that rings already has been told.
        if !*rung {
            *rung = true;
            self.changed.notify_one();
        }
    }

    /// Blocks until rung or until the deadline.
    pub fn wait(&self, deadline: Option<Instant>) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            rung = match deadline {
                None => self
                    .changed
                    .wait(rung)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    let woken = self.changed.wait_timeout(rung, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *rung = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_wait_counts_once() {
        let signal = Signal::default();
        signal.ring();
        signal.ring();
        signal.wait(None);
        // Nobody rang since: only the deadline, which is now, ends this.
        signal.wait(Some(Instant::now()));
        assert!(!*signal.rung.lock().unwrap());
    }
}
