//! A data shard: the state that committed commands change, and nothing else does. `apply` is the
//! dispatch; what a command means is decided by the queue or partition it names.
//!
//! Total: every decoded command has an outcome, none panics. Deterministic: equal entries in equal
//! order give equal states, outcomes and effects.

mod lives;
mod publishing;
mod schedule;
mod snapshot;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use millrace_types::{Address, Elapsed, LogId, LogIndex, Offset, SessionId, ShardId, Stamp, Wall};

use crate::chunks::Chunks;
use crate::codec::DecodeError;
use crate::command::{Command, Entry, Held, SentLeases};
use crate::limits::{DETACHED_MAX, EXPIRIES_MAX};
use crate::outcome::{Applied, BodyChange, Effect, Outcome};
use crate::partition::Partition;
use crate::pool::Pool;
use crate::queue::{Arrivals, Move, Queue, Wish};
use crate::refusal;
use crate::spec::QueueSpec;

use schedule::Schedule;
pub use snapshot::Frozen;

/// Logs of one kind; shared with frozen states until they change.
pub(super) type Logs<T> = Chunks<LogId, Arc<T>>;

/// State of a data shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Shard {
    id: ShardId,
    applied: LogIndex,
    stamp: Stamp,
    configured: u64,
    queues: Logs<Queue>,
    partitions: Logs<Partition>,
    /// How many leaders there were. Sessions of a queue in which nothing has happened under the
    /// present one have connections of the past.
    leaders: u64,
    /// The session from which on such queues are still to be found.
    detaching: Option<SessionId>,
    /// What has arrived in removed dead-letter queues, until their sources know.
    departed: BTreeMap<LogId, Arrivals>,
    /// Which queue each session is of; computed from the queues.
    sessions: BTreeMap<SessionId, LogId>,
    /// Earliest deadline of each queue that has one; computed from the queues.
    deadlines: Schedule,
    /// When dedup ids are to be forgotten; computed from queues and partitions.
    forgetting: Schedule,
    /// How many there are; computed.
    dedup_ids: usize,
    specs: Pool<QueueSpec>,
}

/// What a command has done so far, besides the state.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) bodies: Vec<BodyChange>,
    pub(crate) effects: Vec<Effect>,
}

impl Shard {
    /// An empty shard.
    #[must_use]
    pub const fn new(id: ShardId) -> Self {
        Self {
            id,
            applied: LogIndex::new(0),
            stamp: Stamp {
                wall: Wall::from_millis(0),
                elapsed: Elapsed::from_millis(0),
            },
            configured: 0,
            queues: Chunks::new(),
            partitions: Chunks::new(),
            leaders: 0,
            detaching: None,
            departed: BTreeMap::new(),
            sessions: BTreeMap::new(),
            deadlines: Schedule::new(),
            forgetting: Schedule::new(),
            dedup_ids: 0,
            specs: Pool::new(),
        }
    }

    /// Applies one committed entry; the only function that changes the state. Its stamp is the only
    /// time it sees, and what is due then happens first. A clock that went back stands still.
    pub fn apply(&mut self, index: LogIndex, entry: &Entry) -> Applied {
        self.applied = index;
        self.stamp = Stamp {
            wall: self.stamp.wall.max(entry.stamp.wall),
            elapsed: self.stamp.elapsed.max(entry.stamp.elapsed),
        };
        let mut changes = Changes::default();
        if let Command::NoteSent { sent } = &entry.command {
            self.note_sent(sent);
        }
        self.expire(&mut changes);
        self.forget();
        let outcome = self.dispatch(&entry.command, &mut changes);
        self.detach_some(&mut changes);
        Applied {
            outcome,
            bodies: changes.bodies,
            effects: changes.effects,
        }
    }

    /// Passes over a committed entry that is no command of ours: consensus has entries of its own.
    pub const fn pass(&mut self, index: LogIndex) {
        self.applied = index;
    }

    fn dispatch(&mut self, command: &Command, changes: &mut Changes) -> Outcome {
        let stamp = self.stamp;
        match command {
            // Noted before what is due.
            Command::Tick | Command::NoteSent { .. } => Outcome::Done,
            Command::ConfigureQueue { .. }
            | Command::ConfigurePartition { .. }
            | Command::Freeze { .. }
            | Command::Remove { .. }
            | Command::Configured { .. } => self.change_life(command, changes),
            Command::Publish { log, batch, dedup } => {
                self.publish(*log, batch, dedup.as_ref(), changes)
            }
            Command::Transfer {
                queue,
                revision,
                partition,
                from,
                to,
                batch,
            } => {
                let step = Move {
                    revision: *revision,
                    partition: *partition,
                    from: *from,
                    to: *to,
                    batch: batch.as_ref(),
                };
                self.on_queue(*queue, changes, |q, changes| {
                    q.transfer(&step, stamp, changes)
                })
            }
            Command::AcceptDead { .. }
            | Command::ConfirmDead { .. }
            | Command::RecallDead { .. }
            | Command::RedirectDead { .. }
            | Command::ForgetDead { .. } => self.move_dead(command, changes),
            Command::OpenSession { session, .. }
            | Command::AttachSession { session, .. }
            | Command::DetachSession { session, .. }
            | Command::SetWindow { session, .. }
            | Command::CloseSession { session } => self.on_session(*session, command, changes),
            Command::Acquire {
                queue,
                owner,
                messages_max,
                bytes_max,
                lease_ms,
            } => {
                let wish = Wish {
                    owner: *owner,
                    messages_max: *messages_max,
                    bytes_max: *bytes_max,
                    lease_ms: *lease_ms,
                };
                self.on_queue(*queue, changes, |q, _| q.acquire(&wish, stamp.elapsed))
            }
            Command::Settle { queue, settlements } => {
                self.on_queue(*queue, changes, |q, _| q.settle(settlements, stamp))
            }
            Command::Trim { partition, first } => self.trim(*partition, *first, changes),
            Command::Lead => {
                self.leaders = self.leaders.saturating_add(1);
                self.detaching = Some(SessionId::default());
                Outcome::Done
            }
        }
    }

    fn trim(&mut self, partition: LogId, first: Offset, changes: &mut Changes) -> Outcome {
        match own(&mut self.partitions, partition) {
            Some(partition) => partition.trim(first, changes),
            None => Outcome::Refused(refusal::no_such_partition(partition)),
        }
    }

    fn move_dead(&mut self, command: &Command, changes: &mut Changes) -> Outcome {
        let stamp = self.stamp;
        match command {
            Command::AcceptDead {
                queue,
                source,
                number,
                batch,
            } => self.on_queue(*queue, changes, |q, changes| {
                q.accept_dead(*source, *number, batch, stamp, changes)
            }),
            Command::ConfirmDead { queue, number } => {
                self.on_queue(*queue, changes, |q, _| q.confirm_dead(*number))
            }
            Command::RecallDead {
                queue,
                source,
                number,
            } => self.recall_dead(*queue, *source, *number),
            Command::RedirectDead {
                queue,
                from,
                first,
                arrived,
            } => self.on_queue(*queue, changes, |q, _| {
                q.redirect_dead(*from, *first, *arrived)
            }),
            Command::ForgetDead { queue, sources } => self.forget_dead(*queue, sources),
            _ => Outcome::Done,
        }
    }

    fn recall_dead(&mut self, log: LogId, source: LogId, number: u64) -> Outcome {
        if let Some(queue) = own(&mut self.queues, log) {
            return queue.recall_dead(source, number);
        }
        // Nothing new arrives in a removed queue.
        match self.departed.get(&log) {
            Some(arrivals) => Outcome::Numbered(arrivals.arrived(source)),
            None => Outcome::Refused(refusal::no_such_queue(log)),
        }
    }

    fn forget_dead(&mut self, log: LogId, sources: &[LogId]) -> Outcome {
        if let Some(queue) = own(&mut self.queues, log) {
            return queue.forget_dead(sources);
        }
        if let Some(arrivals) = self.departed.get_mut(&log) {
            sources.iter().for_each(|source| arrivals.forget(*source));
            if arrivals.len() == 0 {
                self.departed.remove(&log);
            }
        }
        Outcome::Done
    }

    fn on_session(&mut self, id: SessionId, command: &Command, changes: &mut Changes) -> Outcome {
        let now = self.stamp.elapsed;
        if let Command::OpenSession {
            queue,
            consumer,
            window,
            ttl_ms,
            ..
        } = command
        {
            if self.sessions.contains_key(&id) {
                return Outcome::Refused(refusal::invalid("the session is open already"));
            }
            let outcome = self.on_queue(*queue, changes, |q, _| {
                q.open_session(id, consumer, *window, *ttl_ms)
            });
            if matches!(outcome, Outcome::Session { .. }) {
                self.sessions.insert(id, *queue);
            }
            return outcome;
        }
        let Some(&queue) = self.sessions.get(&id) else {
            return Outcome::Refused(refusal::session_expired(id));
        };
        self.on_queue(queue, changes, |q, _| match command {
            Command::AttachSession { window, held, .. } => q.attach_session(id, *window, held, now),
            Command::DetachSession { epoch, .. } => q.detach_session(id, *epoch, now),
            Command::SetWindow { window, .. } => q.set_window(id, *window),
            _ => {
                q.close_session(id);
                Outcome::Done
            }
        })
    }

    fn note_sent(&mut self, sent: &[SentLeases]) {
        for sent in sent {
            let log = self.sessions.get(&sent.session);
            if let Some(queue) = log.and_then(|log| own(&mut self.queues, *log)) {
                queue.note_sent(sent);
            }
        }
    }

    /// Runs an operation of a queue, hands out what can be handed out then, and keeps what is
    /// computed from queues in step.
    fn on_queue(
        &mut self,
        log: LogId,
        changes: &mut Changes,
        operation: impl FnOnce(&mut Queue, &mut Changes) -> Outcome,
    ) -> Outcome {
        let Some(queue) = own(&mut self.queues, log) else {
            return Outcome::Refused(refusal::no_such_queue(log));
        };
        queue.follow(self.leaders, self.stamp.elapsed);
        let outcome = operation(queue, changes);
        let before = changes.effects.len();
        queue.flush(self.stamp, changes);
        for effect in &changes.effects[before..] {
            if let Effect::SessionClosed { session } = effect {
                self.sessions.remove(session);
            }
        }
        let deadline = queue.next_deadline();
        self.deadlines.set(log, deadline);
        outcome
    }

    /// Ends what is due, queue by queue.
    fn expire(&mut self, changes: &mut Changes) {
        let (stamp, mut budget) = (self.stamp, EXPIRIES_MAX);
        while budget > 0 {
            let Some((deadline, log)) = self.deadlines.first() else {
                return;
            };
            if deadline > stamp.elapsed {
                return;
            }
            // Costs one even if nothing ends, so that the loop does.
            budget -= 1;
            self.on_queue(log, changes, |queue, _| {
                queue.expire(stamp, &mut budget);
                Outcome::Done
            });
            if self.queue(log).is_some_and(Queue::is_unfinished) {
                // It goes on with the next entry, which is due.
                return;
            }
        }
    }

    /// Goes on to detach sessions whose connections a past leader had.
    fn detach_some(&mut self, changes: &mut Changes) {
        let (mut next, mut left) = (self.detaching.take(), DETACHED_MAX);
        while let Some(from) = next {
            let Some((&session, &log)) = self.sessions.range(from..).next() else {
                return;
            };
            if left == 0 {
                self.detaching = Some(session);
                return;
            }
            let behind = |queue: &&Queue| queue.leaders() < self.leaders;
            let detached = self.queue(log).filter(behind).map(Queue::sessions_len);
            if detached.is_some() {
                self.on_queue(log, changes, |_, _| Outcome::Done);
            }
            left = left.saturating_sub(detached.unwrap_or(1));
            next = session.get().checked_add(1).map(SessionId::new);
        }
    }

    /// Everything that a leader may have to do, from the state alone, of about `max` queues and
    /// partitions after one, in order of log id, and what partitions hold; the last one looked at,
    /// `None` when none is left. A partition that a queue is bound to counts, too. Whoever asks
    /// again and again finds every effect that was lost, and a new leader those of the past.
    /// Deliveries are not among them: sessions get theirs again when they attach, and are compared
    /// (`Queue::session_leases`).
    #[must_use]
    pub fn outstanding(&self, after: Option<LogId>, max: usize) -> (Vec<Effect>, Option<LogId>) {
        let mut queues = self.queues.after(after).peekable();
        let mut partitions = self.partitions.after(after).peekable();
        let (mut effects, mut last, mut left) = (Vec::new(), None, max);
        while left > 0 {
            left -= 1;
            let queue = queues.peek().map(|(log, _)| **log);
            let partition = partitions.peek().map(|(log, _)| **log);
            if partition.is_none_or(|log| queue.is_some_and(|queue| queue < log)) {
                let Some((log, queue)) = queues.next() else {
                    return (effects, None);
                };
                queue.outstanding(&mut effects);
                left = left.saturating_sub(queue.bound_len());
                last = Some(*log);
            } else if let Some((log, partition)) = partitions.next() {
                let (log, end) = (*log, partition.end());
                effects.push(Effect::Appended { log, end });
                last = Some(log);
            }
        }
        (effects, last)
    }

    /// When the next lease, delay, session or dedup id ends; a `Tick` is due then. In the past when
    /// one entry could not end all that was due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Elapsed> {
        if self.detaching.is_some() {
            return Some(Elapsed::default());
        }
        let next = [self.deadlines.first(), self.forgetting.first()];
        let next = next.into_iter().flatten().map(|(deadline, _)| deadline);
        next.min()
    }
}

/// What can be asked.
impl Shard {
    /// Which shard.
    #[must_use]
    pub const fn id(&self) -> ShardId {
        self.id
    }

    /// Index of the last entry applied; 0 when none was.
    #[must_use]
    pub const fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Shard time of the last entry.
    #[must_use]
    pub const fn elapsed(&self) -> Elapsed {
        self.stamp.elapsed
    }

    /// Wall time of the last entry.
    #[must_use]
    pub const fn wall(&self) -> Wall {
        self.stamp.wall
    }

    /// Topology revision up to which everything is configured here.
    #[must_use]
    pub const fn configured_revision(&self) -> u64 {
        self.configured
    }

    /// A queue.
    #[must_use]
    pub fn queue(&self, log: LogId) -> Option<&Queue> {
        self.queues.get(&log).map(|queue| &**queue)
    }

    /// A partition.
    #[must_use]
    pub fn partition(&self, log: LogId) -> Option<&Partition> {
        self.partitions.get(&log).map(|partition| &**partition)
    }

    /// Removed dead-letter queues that still know what has arrived in them, in order of log id.
    pub fn departed(&self) -> impl Iterator<Item = LogId> {
        self.departed.keys().copied()
    }

    /// Which of the next `max` queues and partitions after one know what has arrived in them.
    #[must_use]
    pub fn targets(&self, after: Option<LogId>, max: usize) -> Vec<LogId> {
        let queues = self.queues.after(after).take(max);
        queues
            .filter(|(_, queue)| queue.has_sources())
            .map(|(log, _)| *log)
            .collect()
    }

    /// The next `max` queues after one, and as many partitions: whose they are, and the topology
    /// revision that configured them last.
    pub fn owners(
        &self,
        after: Option<LogId>,
        max: usize,
    ) -> impl Iterator<Item = (LogId, &Address, u64)> {
        let queues = self.queues.after(after).take(max);
        let queues = queues.map(|(log, queue)| (*log, queue.address(), queue.revision()));
        let partitions = self.partitions.after(after).take(max);
        let partitions = partitions.map(|(log, it)| (*log, it.topic(), it.revision()));
        queues.chain(partitions)
    }

    /// Whether a queue is removed and still knows what has arrived in it.
    #[must_use]
    pub fn is_departed(&self, log: LogId) -> bool {
        self.departed.contains_key(&log)
    }

    /// Up to `max` queues after one that have sent dead letters to a queue, perhaps a removed one.
    #[must_use]
    pub fn sources(&self, log: LogId, after: Option<LogId>, max: usize) -> Vec<LogId> {
        if let Some(queue) = self.queues.get(&log) {
            return queue.sources(after, max);
        }
        let departed = self.departed.get(&log);
        departed.map_or_else(Vec::new, |arrivals| arrivals.sources(after, max))
    }

    /// All queues, in order of log id.
    pub fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.queues.values().map(|queue| &**queue)
    }

    /// All partitions, in order of log id.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.values().map(|partition| &**partition)
    }

    /// Its partitions after one, in order of their logs.
    pub fn partitions_after(&self, after: Option<LogId>) -> impl Iterator<Item = &Partition> {
        self.partitions
            .after(after)
            .map(|(_, partition)| &**partition)
    }

    /// Up to `max` leases of sessions that end after one time and up to another and are not known
    /// to have been sent (`Command::NoteSent`): unless that is noted, their end is no failure.
    #[must_use]
    pub fn unsent_due(&self, after: Elapsed, upto: Elapsed, max: usize) -> Vec<(SessionId, Held)> {
        let queues = self.deadlines.due(upto);
        queues
            .filter_map(|log| self.queue(log))
            .flat_map(|queue| queue.unsent_due(after, upto))
            .take(max)
            .collect()
    }

    /// Which queue a session is of; `None` when it has ended.
    #[must_use]
    pub fn session(&self, session: SessionId) -> Option<LogId> {
        self.sessions.get(&session).copied()
    }

    /// The state as it is now, to be encoded elsewhere: costs some pointers, whatever is in it.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        Frozen {
            id: self.id,
            applied: self.applied,
            stamp: self.stamp,
            configured: self.configured,
            leaders: self.leaders,
            detaching: self.detaching,
            queues: self.queues.clone(),
            partitions: self.partitions.clone(),
            departed: self.departed.clone(),
        }
    }

    /// The whole state as bytes; equal states have equal bytes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.freeze().encode()
    }

    /// The state that a snapshot was made of.
    ///
    /// # Errors
    /// When the bytes are no snapshot of a known version, or one that contradicts itself.
    pub fn restore(bytes: &[u8]) -> Result<Self, DecodeError> {
        Frozen::decode(bytes)?.thaw()
    }

    /// A number to compare states by: equal on every replica at an equal index.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        self.freeze().checksum()
    }
}

/// A log to change: its own copy, if a frozen state still has it.
pub(super) fn own<T: Clone>(logs: &mut Logs<T>, log: LogId) -> Option<&mut T> {
    // Looked up first: one that is not there copies nothing.
    logs.get_mut(&log).map(Arc::make_mut)
}
