//! What a worker is asked to do. One lock, taken once for everything that waits; senders never
//! block.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use millrace_storage::Signal;

/// A worker's inbox.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    state: Mutex<State<T>>,
    filled: Signal,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

impl<T> Inbox<T> {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                closed: false,
            }),
            filled: Signal::default(),
        }
    }

    /// Puts something in. After `close` it is dropped, which answers its reply.
    pub(super) fn send(&self, input: T) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            drop(input);
            return;
        }
        state.waiting.push_back(input);
        let first = state.waiting.len() == 1;
        drop(state);
        // Later ones are found by the same wake-up.
        if first {
            self.filled.ring();
        }
    }

    /// Takes everything that is there.
    pub(super) fn take(&self) -> VecDeque<T> {
        std::mem::take(&mut self.lock().waiting)
    }

    /// Waits until something has come since the last wait, or the deadline has. May return early.
    pub(super) fn wait(&self, deadline: Option<Instant>) {
        self.filled.wait(deadline);
    }

    /// Takes nothing more; what waits is dropped.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.waiting);
        // Dropping answers replies, which may send to another inbox: not under this lock.
        drop(state);
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while holding it, so the state is whole even when poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn everything_that_waits_is_taken_at_once_and_in_order() {
        let inbox = Inbox::new();
        for n in 0..5 {
            inbox.send(n);
        }
        inbox.wait(None);
        assert_eq!(inbox.take(), [0, 1, 2, 3, 4]);
        inbox.wait(Some(Instant::now()));
        assert!(inbox.take().is_empty());
    }

    #[test]
    fn a_waiting_worker_is_woken() {
        let inbox = Arc::new(Inbox::new());
        let sender = {
            let inbox = Arc::clone(&inbox);
            std::thread::spawn(move || inbox.send(1))
        };
        inbox.wait(Some(Instant::now() + Duration::from_secs(30)));
        assert_eq!(inbox.take(), [1]);
        sender.join().unwrap();
    }

    #[test]
    fn a_closed_inbox_drops_what_is_sent() {
        let inbox = Inbox::new();
        let (kept, sent) = (Arc::new(()), Arc::new(()));
        inbox.send(Arc::clone(&kept));
        inbox.close();
        inbox.send(Arc::clone(&sent));
        assert_eq!((Arc::strong_count(&kept), Arc::strong_count(&sent)), (1, 1));
    }
}
