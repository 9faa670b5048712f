//! One lane to one peer: its queue, and the state of its connection as status tells it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use millrace_replica::Lane;
use millrace_types::NodeId;

use crate::error::LinkError;
use crate::handshake::Agreed;
use crate::options::QueueLimits;
use crate::queue::Queue;
use crate::status::{Failure, Link};

/// A lane to a peer.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) node: NodeId,
    pub(crate) lane: Lane,
    pub(crate) queue: Queue,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    link: Link,
    failure: Option<Failure>,
    pings: u64,
    unanswered: Option<Instant>,
    round_trip: Option<Duration>,
}

impl Line {
    pub(crate) fn new(node: NodeId, lane: Lane, limits: QueueLimits) -> Self {
        Self {
            node,
            lane,
            queue: Queue::new(limits),
            state: Mutex::new(State {
                link: Link::Down,
                failure: None,
                pings: 0,
                unanswered: None,
                round_trip: None,
            }),
        }
    }

    /// A connection is being made.
    pub(crate) fn dialling(&self) {
        self.lock().link = Link::Dialling;
    }

    /// It was made.
    pub(crate) fn up(&self, agreed: Agreed) {
        let since = SystemTime::now();
        self.lock().link = Link::Up { since, agreed };
        self.queue.up();
    }

    /// There is none any more, on purpose.
    pub(crate) fn down(&self) {
        let mut state = self.lock();
        state.link = Link::Down;
        state.unanswered = None;
        state.round_trip = None;
        drop(state);
        self.queue.down();
    }

    /// There is none any more. Says whether that is news: another reason than the last time.
    pub(crate) fn failed(&self, error: LinkError) -> bool {
        self.down();
        let at = SystemTime::now();
        let failure = self.lock().failure.replace(Failure {
            at,
            error: error.clone(),
        });
        failure.is_none_or(|before| before.error != error)
    }

    /// Sends a ping, unless one is still not answered.
    pub(crate) fn ping(&self) {
        let mut state = self.lock();
        if state.unanswered.is_some() {
            return;
        }
        state.unanswered = Some(Instant::now());
        state.pings += 1;
        let id = state.pings;
        drop(state);
        self.queue.ping(id);
    }

    /// The peer answered a ping.
    pub(crate) fn pong(&self, id: u64) {
        let mut state = self.lock();
        if id == state.pings
            && let Some(sent) = state.unanswered.take()
        {
            state.round_trip = Some(sent.elapsed());
        }
    }

    pub(crate) fn link(&self) -> (Link, Option<Failure>) {
        let state = self.lock();
        (state.link.clone(), state.failure.clone())
    }

    /// How long a ping took; when the last one takes longer still, how long that is by now.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        let state = self.lock();
        let waiting = state.unanswered.map(|sent| sent.elapsed());
        state
            .round_trip
            .map(|last| last.max(waiting.unwrap_or_default()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Only figures for people: whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
