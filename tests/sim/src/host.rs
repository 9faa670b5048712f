//! Runs a node in one thread, on a clock that stands still while it works: futures, routines and
//! blocking jobs take turns in an order chosen by a seed. One host is one life of a node; a crash
//! drops it with everything that runs on it.
//!
//! Promises: equal seeds and equal inputs give equal runs. Does not know what it runs.

mod tasks;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures::future::BoxFuture;
use millrace_node::{Host, Join};
use millrace_storage::{Next, Routine};

use crate::clock::Clock;
use crate::random::Random;
use tasks::{Sleep, Tasks};

/// Rounds in which no routine finds anything to do before time may move: work is handed on from one
/// routine to the next, and a hand-over leaves no other trace.
const IDLE_ROUNDS: u32 = 3;
/// Turns that ending a routine takes at most; more is a routine that does not end.
const JOIN_TURNS_MAX: u32 = 1_000_000;
/// What a host is made with.
pub(crate) struct Setting {
    /// The machine's, shared by all lives.
    pub clock: Arc<Clock>,
    /// Orders everything.
    pub schedule: Random,
    /// What the node draws.
    pub chance: Random,
    /// Counts what happens on the disk: a routine that worked is told from one that did not.
    pub disk_operations: Arc<AtomicU64>,
    /// How many effects of a hundred are lost.
    pub lost_effects_percent: u64,
}

/// One life's runtime. Clones share it.
#[derive(Clone)]
pub(crate) struct SimHost(Arc<Inner>);

struct Inner {
    clock: Arc<Clock>,
    tasks: Arc<Tasks>,
    disk_operations: Arc<AtomicU64>,
    state: Mutex<State>,
}

struct State {
    schedule: Random,
    chance: Random,
    lost_effects_percent: u64,
    jobs: Vec<Box<dyn FnOnce() + Send>>,
    routines: Vec<Slot>,
    /// Routines not yet stepped in this round.
    round: Vec<usize>,
    idle_rounds: u32,
    /// What had happened when the present count of idle rounds began.
    traces: u64,
    dead: bool,
}

struct Slot {
    /// `None` while it is being stepped, and after its end.
    routine: Option<Box<dyn Routine>>,
    deadline: Option<Instant>,
    ended: bool,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Something ran.
    Ran,
    /// Nothing can run before this true time.
    Idle(Option<Duration>),
}

impl SimHost {
    /// A host on which nothing runs yet.
    #[must_use]
    pub(crate) fn new(setting: Setting) -> Self {
        let state = State {
            schedule: setting.schedule,
            chance: setting.chance,
            lost_effects_percent: setting.lost_effects_percent,
            jobs: Vec::new(),
            routines: Vec::new(),
            round: Vec::new(),
            idle_rounds: 0,
            traces: 0,
            dead: false,
        };
        Self(Arc::new(Inner {
            tasks: Tasks::new(Arc::clone(&setting.clock)),
            clock: setting.clock,
            disk_operations: setting.disk_operations,
            state: Mutex::new(state),
        }))
    }

    /// The clock.
    #[must_use]
    pub(crate) fn clock(&self) -> &Arc<Clock> {
        &self.0.clock
    }

    /// No effect is lost from now on.
    pub(crate) fn keep_effects(&self) {
        self.0.state().lost_effects_percent = 0;
    }

    /// Lets one thing run that can.
    pub(crate) fn turn(&self) -> Turn {
        self.0.turn()
    }

    /// Time has gone on; what waited for it can run now.
    pub(crate) fn time_passed(&self) {
        self.0.tasks.fire();
        self.0.state().begin_rounds();
    }

    /// The end of a process: nothing that ran here ever runs again.
    pub(crate) fn kill(&self) {
        let (jobs, routines) = {
            let mut state = self.0.state();
            state.dead = true;
            let jobs = std::mem::take(&mut state.jobs);
            (jobs, std::mem::take(&mut state.routines))
        };
        // Dropped without any lock: what is dropped may call back.
        drop((jobs, routines));
        self.0.tasks.kill();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn traces(&self) -> u64 {
        self.disk_operations.load(Ordering::Relaxed) + self.tasks.woken()
    }

    fn turn(&self) -> Turn {
        let ready = self.tasks.ready();
        let mut state = self.state();
        let jobs = state.jobs.len();
        let live: Vec<usize> = state.live().collect();
        let busy = ready + jobs;
        if busy > 0 {
            let at = state.schedule.below(busy + live.len());
            if at < ready {
                drop(state);
                self.tasks.poll(at);
            } else if at < busy {
                let job = state.jobs.swap_remove(at - ready);
                state.begin_rounds();
                drop(state);
                job();
            } else {
                drop(state);
                self.step(live[at - busy]);
            }
            self.state().begin_rounds();
            return Turn::Ran;
        }
        let traces = self.traces();
        if state.traces != traces {
            state.traces = traces;
            state.begin_rounds();
        }
        if state.idle_rounds >= IDLE_ROUNDS || live.is_empty() {
            return Turn::Idle(self.next_time(&state));
        }
        let next = state.next_of_round(&live);
        drop(state);
        self.step(next);
        Turn::Ran
    }

    fn next_time(&self, state: &State) -> Option<Duration> {
        let deadlines = state.routines.iter().filter(|slot| !slot.ended);
        let deadlines = deadlines.filter_map(|slot| slot.deadline);
        let deadlines = deadlines.map(|at| self.clock.since_start(at));
        let next = deadlines.chain(self.tasks.next_timer()).min();
        next.map(|at| self.clock.true_time(at))
    }

    /// Steps a routine, unless it is being stepped further up the stack.
    fn step(&self, index: usize) {
        let now = self.instant();
        let taken = {
            let mut state = self.state();
            let slot = state.routines.get_mut(index);
            slot.and_then(|slot| slot.routine.take())
        };
        let Some(mut routine) = taken else {
            return;
        };
        let next = routine.step(now);
        let mut state = self.state();
        if state.dead {
            drop(state);
            return;
        }
        let slot = &mut state.routines[index];
        match next {
            Next::Now => {
                slot.deadline = Some(now);
                slot.routine = Some(routine);
                state.begin_rounds();
            }
            Next::Wait(deadline) => {
                slot.deadline = deadline;
                slot.routine = Some(routine);
            }
            Next::Ended => {
                slot.ended = true;
                state.begin_rounds();
                drop(state);
                drop(routine);
            }
        }
    }

    fn instant(&self) -> Instant {
        self.clock.instant()
    }
}

impl State {
    fn live(&self) -> impl Iterator<Item = usize> {
        let slots = self.routines.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.routine.is_some())
            .map(|(index, _)| index)
    }

    /// Something has happened: every routine may have something to do.
    fn begin_rounds(&mut self) {
        self.idle_rounds = 0;
        self.round.clear();
    }

    fn next_of_round(&mut self, live: &[usize]) -> usize {
        if self.round.is_empty() {
            self.round.extend_from_slice(live);
        }
        let at = self.schedule.below(self.round.len());
        let next = self.round.swap_remove(at);
        if self.round.is_empty() {
            self.idle_rounds += 1;
        }
        next
    }
}

impl Host for SimHost {
    fn now(&self) -> Instant {
        self.0.instant()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.clock.wall_millis())
    }

    fn random(&self) -> io::Result<u64> {
        Ok(self.0.state().chance.bits())
    }

    fn loses_effect(&self) -> bool {
        let mut state = self.0.state();
        let lost = state.lost_effects_percent;
        lost > 0 && state.chance.percent(lost)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.tasks.spawn(task);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let at = self.0.clock.now() + duration;
        Box::pin(Sleep::new(Arc::clone(&self.0.tasks), at))
    }

    fn blocking(&self, job: Box<dyn FnOnce() + Send>) {
        let mut state = self.0.state();
        if state.dead {
            drop(state);
            return;
        }
        state.jobs.push(job);
    }

    fn routine(&self, _name: &str, routine: Box<dyn Routine>) -> io::Result<Box<dyn Join>> {
        let mut state = self.0.state();
        let index = state.routines.len();
        state.routines.push(Slot {
            routine: Some(routine),
            deadline: None,
            ended: false,
        });
        state.begin_rounds();
        let host = Arc::clone(&self.0);
        Ok(Box::new(SimJoin { host, index }))
    }
}

struct SimJoin {
    host: Arc<Inner>,
    index: usize,
}

impl Join for SimJoin {
    /// Whoever waits keeps the only thread there is, so the routines run in here.
    fn join(self: Box<Self>) -> bool {
        for _ in 0..JOIN_TURNS_MAX {
            let routines = {
                let state = self.host.state();
                if state.dead || state.routines[self.index].ended {
                    return true;
                }
                state.routines.len()
            };
            self.host.step(self.index);
            let other = self.host.state().schedule.below(routines);
            self.host.step(other);
        }
        panic!("a routine that was told to end does not");
    }
}

/// Nothing panics while holding one of our locks, so what they guard is whole even when poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
