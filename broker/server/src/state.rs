//! What the node is doing, for whoever asks: `/readyz`, gRPC health, the life cycle.

use std::sync::Arc;

use tokio::sync::watch;

/// One step of a node's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Belongs to no cluster yet, and waits for this.
    Waiting(String),
    /// Replays its data directory or applies its topology file.
    Starting,
    /// Takes every call.
    Serving,
    /// Goes down: finishes what is under way.
    Draining,
    /// Cannot go on, for this reason.
    Failed(String),
}

/// Where the state is kept. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct StateCell(Arc<watch::Sender<State>>);

impl StateCell {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::Starting)))
    }

    /// Moves on; a failure stays.
    pub(crate) fn set(&self, next: State) {
        self.0.send_if_modified(|state| {
            let moved = !matches!(state, State::Failed(_)) && *state != next;
            if moved {
                *state = next;
            }
            moved
        });
    }

    pub(crate) fn now(&self) -> State {
        self.0.borrow().clone()
    }
}
