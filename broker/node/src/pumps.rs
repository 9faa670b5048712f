//! Moves messages between logs: from topics into bound queues, and from queues into their
//! dead-letter queues. Woken by effects; a pump runs until it has caught up or cannot go on, then
//! ends. All state is in the engine (cursors, numbers), so a pump can be lost at any point and
//! started again.

mod dead;
mod forget;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_types::{Applied, ErrorCode, LogId, Refusal, ShardId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::facts::Problem;
use super::node::Node;

/// Pumps at work at a time: each keeps a batch in memory.
const RUNNING_MAX: usize = 32;
/// Bytes of one step: small beside a journal batch, so that clients' commands are not held up.
pub(super) const STEP_BYTES_MAX: u64 = 1 << 20;
/// Messages of one step.
pub(super) const STEP_MESSAGES_MAX: usize = 1_000;

/// Pumps that room in a queue wakes at a time: more than are at work, and a fraction of a
/// millisecond. Those that move something on wake the next.
const ROOM_WAKES_MAX: usize = 256;

/// How often a pump that waits for room on the disk looks again.
const ROOM_LOOK: Duration = Duration::from_millis(500);

/// Something to pump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Job {
    /// Into this queue, from what it is bound to.
    Transfer {
        /// Where it lives.
        shard: ShardId,
        /// Which.
        queue: LogId,
    },
    /// The dead letters of this queue.
    Dead {
        /// Where it lives.
        shard: ShardId,
        /// Which.
        queue: LogId,
    },
    /// What this queue, perhaps a removed one, need not know any more of those that sent it dead
    /// letters.
    Forget {
        /// Where it lives.
        shard: ShardId,
        /// Which.
        queue: LogId,
    },
}

/// Why a pump ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// Nothing is left to do.
    CaughtUp,
    /// The queue has no room; go on when it has. For people.
    Full(String),
    /// It still has none, and knows that somebody waits.
    StillFull,
    /// Whoever it needs leads elsewhere, or nobody knows where, or its answer was lost; go on when
    /// it is looked at again. For people.
    Away(String),
    /// It cannot go on before somebody changes something, for people.
    Stuck(String),
    /// Its shard is not led here any more.
    Stopped,
}

impl Ended {
    /// What a refusal means for a pump that expected none. Whatever was proposed can be proposed
    /// again: an outcome that is not known is found out by that.
    fn refused(refusal: &Refusal) -> Self {
        let passes = match refusal.code {
            ErrorCode::NotLeader
            | ErrorCode::Draining
            | ErrorCode::Overloaded
            | ErrorCode::DiskFull => true,
            // One of a damaged shard does not pass.
            ErrorCode::ShardUnavailable => refusal.retry_after_ms.is_some(),
            _ => false,
        };
        if passes || refusal.applied == Applied::Unknown {
            return Self::Away(refusal.to_string());
        }
        Self::Stuck(refusal.to_string())
    }
}

/// All pumps of a node.
pub(super) struct Pumps {
    tracker: TaskTracker,
    stop: CancellationToken,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Shards led here; nothing is pumped for others.
    led: BTreeSet<ShardId>,
    running: BTreeMap<Job, Running>,
    /// Dead letters that wait for room in a queue.
    waiting: BTreeMap<LogId, BTreeSet<Job>>,
    /// Why pumps do not go on.
    blocked: BTreeMap<Job, Problem>,
}

impl State {
    /// Some of those that wait for room in a queue.
    fn take_waiting(&mut self, queue: LogId) -> BTreeSet<Job> {
        let Some(mut waiting) = self.waiting.remove(&queue) else {
            return BTreeSet::new();
        };
        if let Some(beyond) = waiting.iter().nth(ROOM_WAKES_MAX).copied() {
            let rest = waiting.split_off(&beyond);
            self.waiting.insert(queue, rest);
        }
        waiting
    }
}

/// A pump at work.
#[derive(Default)]
struct Running {
    /// Whether it has to look again when it is done.
    again: bool,
    stop: CancellationToken,
}

impl Job {
    /// For whom it is done.
    const fn shard(self) -> ShardId {
        match self {
            Self::Transfer { shard, .. }
            | Self::Dead { shard, .. }
            | Self::Forget { shard, .. } => shard,
        }
    }
}

impl Pumps {
    /// None at work yet.
    pub(super) fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            permits: Arc::new(Semaphore::new(RUNNING_MAX)),
            state: Mutex::default(),
        }
    }

    /// There is, or may be, something to do.
    pub(super) fn wake(node: &Arc<Node>, job: Job) {
        let pumps = &node.pumps;
        if pumps.stop.is_cancelled() {
            return;
        }
        {
            let mut state = pumps.lock();
            if !state.led.contains(&job.shard()) {
                return;
            }
            state.blocked.remove(&job);
            if let Some(running) = state.running.get_mut(&job) {
                running.again = true;
                return;
            }
            state.running.insert(job, Running::default());
        }
        Self::start(node, job);
    }

    /// Runs something for this node that ends with the pumps, if it has not by then.
    pub(super) fn errand(node: &Arc<Node>, errand: impl Future<Output = ()> + Send + 'static) {
        let stop = node.pumps.stop.clone();
        let run = node.pumps.tracker.track_future(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = errand => {}
            }
        });
        node.host.spawn(Box::pin(run));
    }

    /// There is something to do, and nobody does it: an effect was lost, or the last try failed. A
    /// pump at work is left alone, and what keeps one from going on stays known until it does.
    pub(super) fn retry(node: &Arc<Node>, job: Job) {
        let pumps = &node.pumps;
        if pumps.stop.is_cancelled() {
            return;
        }
        {
            let mut state = pumps.lock();
            if state.running.contains_key(&job) || !state.led.contains(&job.shard()) {
                return;
            }
            state.running.insert(job, Running::default());
        }
        Self::start(node, job);
    }

    fn start(node: &Arc<Node>, job: Job) {
        let run = run(Arc::clone(node), job);
        let run = node.pumps.tracker.track_future(run);
        node.host.spawn(Box::pin(run));
    }

    /// Says that this pump may find no room in a queue: `room` will wake it. To be called before it
    /// tries, so that room which comes at that moment is not missed.
    fn expect_room(&self, queue: LogId, job: Job) {
        self.lock().waiting.entry(queue).or_default().insert(job);
    }

    /// A queue has, or may have, room: dead letters that wait for it move on.
    pub(super) fn room(node: &Arc<Node>, queue: LogId) {
        let woken = node.pumps.lock().take_waiting(queue);
        for job in woken {
            Self::wake(node, job);
        }
    }

    /// Why a pump does not go on; `None` when it does or has nothing to do.
    pub(super) fn blocked(&self, job: Job) -> Option<Problem> {
        self.lock().blocked.get(&job).cloned()
    }

    /// Everything that keeps messages from moving into and out of a queue.
    pub(super) fn problems(&self, shard: ShardId, queue: LogId) -> Vec<Problem> {
        let jobs = [Job::Transfer { shard, queue }, Job::Dead { shard, queue }];
        let state = self.lock();
        jobs.iter()
            .filter_map(|job| state.blocked.get(job).cloned())
            .collect()
    }

    /// Waits while there is no room for more messages of a shard in memory or on a disk.
    async fn wait_for_room(node: &Node, shard: ShardId) {
        while node.check_room_of(shard).is_err() {
            // Nobody says when a disk has room again.
            node.host.sleep(ROOM_LOOK).await;
        }
    }

    /// A shard is led here: its pumps may run.
    pub(super) fn lead(&self, shard: ShardId) {
        self.lock().led.insert(shard);
    }

    /// A shard is not led here any more: its pumps end at once, whatever they are at. Whoever leads
    /// it now finds in its state what is left to do.
    pub(super) fn follow(&self, shard: ShardId) {
        let mut state = self.lock();
        state.led.remove(&shard);
        state.blocked.retain(|job, _| job.shard() != shard);
        for waiting in state.waiting.values_mut() {
            waiting.retain(|job| job.shard() != shard);
        }
        state.waiting.retain(|_, waiting| !waiting.is_empty());
        for (job, running) in &mut state.running {
            if job.shard() == shard {
                running.again = false;
                running.stop.cancel();
            }
        }
    }

    /// Stops all of them; each ends after the step it is at.
    pub(super) async fn stop(&self) {
        self.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Lets none go on.
    pub(super) fn cancel(&self) {
        self.stop.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it, so the state is whole even when poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What ends a pump that is at work.
    fn stops(&self, job: Job) -> CancellationToken {
        let state = self.lock();
        let running = state.running.get(&job);
        running.map_or_else(CancellationToken::new, |running| running.stop.clone())
    }

    /// Notes how a pump ended; whether it has to look again.
    fn ended(&self, job: Job, ended: &Ended) -> bool {
        let mut state = self.lock();
        let again = state.running.remove(&job).is_some_and(|r| r.again);
        if !state.led.contains(&job.shard()) {
            return false;
        }
        let problem = |reason: &str, message: &str| Problem {
            reason: reason.into(),
            message: message.into(),
        };
        match ended {
            Ended::Stopped => {}
            Ended::CaughtUp => {
                state.blocked.remove(&job);
            }
            Ended::Full(message) => {
                state.blocked.insert(job, problem("TargetFull", message));
            }
            Ended::StillFull => {
                let still = || problem("TargetFull", "the queue it goes to is full");
                state.blocked.entry(job).or_insert_with(still);
            }
            Ended::Away(message) => {
                state.blocked.insert(job, problem("ShardAway", message));
            }
            Ended::Stuck(message) => {
                let stalled = problem("Stalled", message);
                if state.blocked.get(&job) != Some(&stalled) {
                    // Once for as long as it lasts, however often it is tried.
                    tracing::error!(?job, why = %message, "messages cannot be moved on");
                    state.blocked.insert(job, stalled);
                }
            }
        }
        if again {
            state.running.insert(job, Running::default());
        }
        again
    }
}

async fn run(node: Arc<Node>, job: Job) {
    loop {
        // The semaphore is never closed.
        let Ok(_permit) = node.pumps.permits.acquire().await else {
            return;
        };
        let stops = node.pumps.stops(job);
        let ended = tokio::select! {
            biased;
            () = node.pumps.stop.cancelled() => return,
            () = stops.cancelled() => Ended::Stopped,
            ended = step(&node, job) => ended,
        };
        if !node.pumps.ended(job, &ended) {
            return;
        }
    }
}

async fn step(node: &Arc<Node>, job: Job) -> Ended {
    match job {
        Job::Transfer { shard, queue } => transfer::run(node, shard, queue).await,
        Job::Dead { shard, queue } => dead::run(node, shard, queue).await,
        Job::Forget { shard, queue } => forget::run(node, shard, queue).await,
    }
}
