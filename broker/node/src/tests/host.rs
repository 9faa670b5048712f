//! A host for tests: one thread, a clock that stands still while anything can run, chance from a
//! seed. What runs next depends on the seed alone, and everything that runs is written down.
//! Several nodes can live on it, each with a life of its own that can be ended.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant, SystemTime};

use futures::future::BoxFuture;
use millrace_storage::{Next, Routine};

use crate::{Host, Join};

/// Rounds in which no routine says that it goes on, before time may: one that hands work to another
/// leaves no other trace, and no work is handed on more often without a sync in between.
const IDLE_ROUNDS: u32 = 4;

/// More than any story of a test takes.
const STEPS_MAX: usize = 1_000_000;

/// One life of a node. Clones share it.
#[derive(Clone)]
pub(super) struct TestHost(Arc<Inner>, Life);

/// Whose something is.
type Life = u64;
type Task = BoxFuture<'static, ()>;
type Job = Box<dyn FnOnce() + Send>;

struct Inner {
    start: Instant,
    state: Mutex<State>,
}

struct State {
    now: Duration,
    random: u64,
    /// Orders what can run.
    order: u64,
    number: u64,
    /// `None` while it is polled.
    tasks: BTreeMap<u64, (Life, Option<Task>)>,
    /// In order of their numbers, not of their wake-ups.
    ready: BTreeSet<u64>,
    timers: BTreeMap<(Duration, u64), Waker>,
    jobs: BTreeMap<u64, (Life, Job)>,
    routines: Vec<Slot>,
    dead: BTreeSet<Life>,
    steps: Vec<String>,
}

struct Slot {
    life: Life,
    name: String,
    /// `None` while it is stepped, and after its end.
    routine: Option<Box<dyn Routine>>,
    deadline: Option<Instant>,
}

impl TestHost {
    /// A host on which nothing runs, at its beginning.
    pub(super) fn new(seed: u64) -> Self {
        let state = State {
            now: Duration::ZERO,
            random: seed,
            order: !seed,
            number: 0,
            tasks: BTreeMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeMap::new(),
            jobs: BTreeMap::new(),
            routines: Vec::new(),
            dead: BTreeSet::new(),
            steps: Vec::new(),
        };
        let start = Instant::now();
        let state = Mutex::new(state);
        Self(Arc::new(Inner { start, state }), 0)
    }

    /// Another life on the same clock.
    pub(super) fn life(&self) -> Self {
        let life = self.0.state().next_number();
        Self(Arc::clone(&self.0), life)
    }

    /// Runs everything until the future has ended. Time goes on when nothing else can.
    ///
    /// # Panics
    /// When the future waits for what will never come.
    pub(super) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let result = Arc::new(Mutex::new(None));
        let place = Arc::clone(&result);
        self.spawn(Box::pin(async move {
            let value = future.await;
            *place.lock().unwrap() = Some(value);
        }));
        loop {
            {
                let steps = &self.0.state().steps;
                let last = steps.len().saturating_sub(40);
                assert!(steps.len() < STEPS_MAX, "no end: {:?}", &steps[last..]);
            }
            self.settle_until(|| result.lock().unwrap().is_some());
            if let Some(value) = result.lock().unwrap().take() {
                return value;
            }
            assert!(self.pass_time(), "everything waits for nothing");
        }
    }

    /// Ends this life as `kill -9` does: nothing of it ever runs again.
    pub(super) fn kill(&self) {
        let mut state = self.0.state();
        // The first one may begin again.
        if self.1 != 0 {
            state.dead.insert(self.1);
        }
        let ours = |life: Life| life == self.1;
        let routines = state.routines.extract_if(.., |slot| ours(slot.life));
        let routines: Vec<Slot> = routines.collect();
        let jobs = state.jobs.extract_if(.., |_, (life, _)| ours(*life));
        let jobs: Vec<_> = jobs.collect();
        let tasks = state.tasks.extract_if(.., |_, (life, _)| ours(*life));
        let tasks: Vec<_> = tasks.collect();
        drop(state);
        // Without the lock: what is dropped calls back.
        drop((routines, jobs, tasks));
    }

    /// What ran, in order; notes of `note` among it.
    pub(super) fn steps(&self) -> Vec<String> {
        self.0.state().steps.clone()
    }

    /// Writes something down.
    pub(super) fn note(&self, what: String) {
        self.0.state().steps.push(what);
    }

    /// Time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.0.state().now
    }

    /// Runs whatever can run now, until `done`.
    fn settle_until(&self, done: impl Fn() -> bool) {
        let mut idle = 0;
        while idle < IDLE_ROUNDS && !done() {
            if self.run_one() || self.round() {
                idle = 0;
            } else {
                idle += 1;
            }
        }
    }

    /// Polls a future or runs a job; whether there was one.
    fn run_one(&self) -> bool {
        let mut state = self.0.state();
        let (ready, jobs) = (state.ready.len(), state.jobs.len());
        if ready + jobs == 0 {
            return false;
        }
        let at = draw(&mut state.order, ready + jobs);
        if at < ready {
            let id = *state.ready.iter().nth(at).unwrap();
            state.ready.remove(&id);
            state.steps.push(format!("future {id}"));
            drop(state);
            self.poll(id);
        } else {
            let id = *state.jobs.keys().nth(at - ready).unwrap();
            let (_, job) = state.jobs.remove(&id).unwrap();
            state.steps.push(format!("job {id}"));
            drop(state);
            job();
        }
        true
    }

    fn poll(&self, id: u64) {
        let mut state = self.0.state();
        let task = state.tasks.get_mut(&id).and_then(|(_, task)| task.take());
        drop(state);
        let Some(mut task) = task else {
            return;
        };
        let waker = Waker::from(Arc::new(Wakes(self.clone(), id)));
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        let mut state = self.0.state();
        if polled.is_ready() {
            state.tasks.remove(&id);
        } else if let Some((_, place)) = state.tasks.get_mut(&id) {
            *place = Some(task);
            return;
        }
        drop(state);
        drop(task);
    }

    /// Steps every routine once, from one of them on; whether any goes on at once.
    fn round(&self) -> bool {
        let (count, first) = {
            let mut state = self.0.state();
            let count = state.routines.len();
            (count, draw(&mut state.order, count))
        };
        let goes_on = |at| self.step((first + at) % count) == Next::Now;
        // No short cut: each has its turn.
        (0..count).map(goes_on).filter(|now| *now).count() > 0
    }

    fn step(&self, at: usize) -> Next {
        let mut state = self.0.state();
        let now = self.0.start + state.now;
        let Some(mut routine) = state.routines[at].routine.take() else {
            return Next::Ended;
        };
        drop(state);
        let next = routine.step(now);
        let mut state = self.0.state();
        let slot = &mut state.routines[at];
        let name = slot.name.clone();
        slot.deadline = None;
        match next {
            Next::Now => slot.routine = Some(routine),
            Next::Wait(deadline) => {
                slot.deadline = deadline;
                slot.routine = Some(routine);
                return next;
            }
            Next::Ended => {}
        }
        state.steps.push(format!("{name} {next:?}"));
        next
    }

    /// Moves time to what comes next; whether anything does.
    fn pass_time(&self) -> bool {
        let mut state = self.0.state();
        let start = self.0.start;
        let deadlines = state.routines.iter().filter_map(|slot| slot.deadline);
        let deadlines = deadlines.map(|at| at.saturating_duration_since(start));
        let timers = state.timers.keys().map(|(at, _)| *at);
        let Some(next) = deadlines.chain(timers).min() else {
            return false;
        };
        state.now = next.max(state.now);
        let now = state.now;
        let later = state.timers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut state.timers, later);
        state.steps.push(format!("{now:?}"));
        drop(state);
        due.into_values().for_each(Waker::wake);
        true
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

impl Host for TestHost {
    fn now(&self) -> Instant {
        self.0.start + self.0.state().now
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600) + self.0.state().now
    }

    fn random(&self) -> io::Result<u64> {
        Ok(split_mix(&mut self.0.state().random))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let mut state = self.0.state();
        if state.dead.contains(&self.1) {
            return;
        }
        let id = state.next_number();
        state.tasks.insert(id, (self.1, Some(task)));
        state.ready.insert(id);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let at = self.0.state().now + duration;
        Box::pin(Sleep(self.clone(), at))
    }

    fn blocking(&self, job: Box<dyn FnOnce() + Send>) {
        let mut state = self.0.state();
        if state.dead.contains(&self.1) {
            return;
        }
        let id = state.next_number();
        state.jobs.insert(id, (self.1, job));
    }

    fn routine(&self, name: &str, routine: Box<dyn Routine>) -> io::Result<Box<dyn Join>> {
        self.0.state().routines.push(Slot {
            life: self.1,
            name: name.into(),
            routine: Some(routine),
            deadline: None,
        });
        Ok(Box::new(Unjoined))
    }
}

struct Unjoined;

impl Join for Unjoined {
    fn join(self: Box<Self>) -> bool {
        true
    }
}

struct Wakes(TestHost, u64);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        let mut state = self.0.0.state();
        if state.tasks.contains_key(&self.1) {
            state.ready.insert(self.1);
        }
    }
}

struct Sleep(TestHost, Duration);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.0.state();
        if state.now >= self.1 {
            return Poll::Ready(());
        }
        let number = state.next_number();
        state
            .timers
            .insert((self.1, number), context.waker().clone());
        Poll::Pending
    }
}

/// Below a bound; 0 when that is 0.
fn draw(state: &mut u64, bound: usize) -> usize {
    let bits = usize::try_from(split_mix(state) >> 33).unwrap();
    bits.checked_rem(bound).unwrap_or(0)
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
