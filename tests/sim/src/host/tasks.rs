//! Futures of one life: those that can run, those that wait, and timers.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::BoxFuture;

use super::lock;
use crate::clock::Clock;

/// All futures of a life.
pub(super) struct Tasks {
    clock: Arc<Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Empty while it is being polled.
    all: BTreeMap<u64, Option<BoxFuture<'static, ()>>>,
    /// In order of their numbers: tokio's `watch` wakes in any order.
    ready: Vec<u64>,
    timers: BTreeMap<(Duration, u64), Waker>,
    number: u64,
    /// How often anything was made ready.
    woken: u64,
    dead: bool,
}

impl Tasks {
    pub(super) fn new(clock: Arc<Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            state: Mutex::default(),
        })
    }

    /// How many can run.
    pub(super) fn ready(&self) -> usize {
        self.state().ready.len()
    }

    /// How often a future became ready.
    pub(super) fn woken(&self) -> u64 {
        self.state().woken
    }

    pub(super) fn spawn(&self, task: BoxFuture<'static, ()>) {
        let mut state = self.state();
        if state.dead {
            drop(state);
            return;
        }
        state.number += 1;
        state.woken += 1;
        let id = state.number;
        state.all.insert(id, Some(task));
        state.ready.push(id);
    }

    /// Runs one of those that can.
    pub(super) fn poll(self: &Arc<Self>, at: usize) {
        let (id, task) = {
            let mut state = self.state();
            let id = state.ready.remove(at);
            (id, state.all.get_mut(&id).and_then(Option::take))
        };
        let Some(mut task) = task else {
            return;
        };
        let waker = Waker::from(Arc::new(TaskWaker {
            tasks: Arc::clone(self),
            id,
        }));
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        let mut state = self.state();
        match (polled, state.all.get_mut(&id)) {
            (Poll::Pending, Some(place)) => {
                *place = Some(task);
                return;
            }
            (Poll::Ready(()), _) => {
                state.all.remove(&id);
            }
            // Killed while it ran.
            (Poll::Pending, None) => {}
        }
        drop(state);
        drop(task);
    }

    /// When the next timer is due, on this machine's clock.
    pub(super) fn next_timer(&self) -> Option<Duration> {
        self.state().timers.keys().next().map(|(at, _)| *at)
    }

    /// Wakes those whose time has come.
    pub(super) fn fire(&self) {
        let now = self.clock.now();
        loop {
            let waker = {
                let mut state = self.state();
                match state.timers.first_key_value() {
                    Some(((at, _), _)) if *at <= now => state.timers.pop_first(),
                    _ => return,
                }
            };
            if let Some((_, waker)) = waker {
                waker.wake();
            }
        }
    }

    /// Drops all of them.
    pub(super) fn kill(&self) {
        let all = {
            let mut state = self.state();
            state.dead = true;
            state.ready.clear();
            std::mem::take(&mut state.all)
        };
        // Dropped without the lock: what is dropped wakes others and ends timers.
        drop(all);
        let timers = std::mem::take(&mut self.state().timers);
        drop(timers);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

struct TaskWaker {
    tasks: Arc<Tasks>,
    id: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut state = self.tasks.state();
        let place = state.ready.binary_search(&self.id);
        if let (true, Err(at)) = (state.all.contains_key(&self.id), place) {
            state.ready.insert(at, self.id);
            state.woken += 1;
        }
    }
}

/// Resolves at a time.
pub(super) struct Sleep {
    tasks: Arc<Tasks>,
    at: Duration,
    timer: Option<u64>,
}

impl Sleep {
    pub(super) const fn new(tasks: Arc<Tasks>, at: Duration) -> Self {
        Self {
            tasks,
            at,
            timer: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.tasks.clock.now() >= self.at {
            return Poll::Ready(());
        }
        let number = {
            let mut state = self.tasks.state();
            let number = match self.timer {
                Some(number) => number,
                None => {
                    state.number += 1;
                    state.number
                }
            };
            let waker = context.waker().clone();
            state.timers.insert((self.at, number), waker);
            number
        };
        self.timer = Some(number);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.timer {
            let waker = self.tasks.state().timers.remove(&(self.at, number));
            drop(waker);
        }
    }
}
