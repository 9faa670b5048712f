//! One queue: messages, leases, sessions, dead letters on their way out, and where its bindings
//! stand. Decides who gets which message and when a message ends; never sees a body.
//!
//! Each operation changes the state and notes what it did; `flush` then hands out what can be
//! handed out and turns the notes into body changes and effects, merged for the whole command.

mod append;
mod arrivals;
mod backoff;
mod consume;
mod first;
mod ledger;
mod outbox;
mod settle;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use millrace_types::{Address, Count, Elapsed, LogId, Offset, SessionId, Stamp};
use serde::{Deserialize, Serialize};

use crate::codec::DecodeError;
use crate::command::Held;
use crate::dedup::Seen;
use crate::outcome::{
    BodyChange, DeadLetter, Delivery, Effect, MessageView, QueueStats, Room, SessionView,
};
use crate::pool::Pool;
use crate::session::Sessions;
use crate::shard::Changes;
use crate::spec::{DeadLetters, QueueSpec};
use ledger::Ledger;
use outbox::Outbox;

pub(crate) use append::{Move, Publish, check_batch};
pub(crate) use arrivals::Arrivals;
pub(crate) use consume::Wish;
pub(crate) use first::First;

/// State of a queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    log: LogId,
    address: Address,
    revision: u64,
    spec: Arc<QueueSpec>,
    dead_letters: DeadLetters,
    frozen: bool,
    ledger: Ledger,
    sessions: Sessions,
    outbox: Outbox,
    /// Next offset to be read of each bound partition.
    cursors: BTreeMap<LogId, Offset>,
    /// How far each queue has come that sends dead letters here.
    arrivals: Arrivals,
    /// What was published lately, by dedup id.
    seen: Seen,
    /// Leaders that the shard had when something happened last.
    leaders: u64,
    /// A transfer or dead letter was refused, and waits for room or the end of the frost.
    starved: bool,
    /// The last operation handed out as much as one may, and more could be: computed.
    #[serde(skip)]
    unfinished: bool,
    /// Nothing most of the time.
    #[serde(skip)]
    notes: Option<Box<Notes>>,
}

/// What is declared of a queue.
pub(crate) struct Configuration<'a> {
    pub(crate) address: &'a Address,
    /// Topology revision that asked for it.
    pub(crate) revision: u64,
    pub(crate) spec: Arc<QueueSpec>,
    pub(crate) dead_letters: DeadLetters,
}

/// What happened since the last `flush`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Notes {
    settled: Vec<Offset>,
    lost: BTreeMap<SessionId, Vec<Held>>,
    closed: Vec<SessionId>,
    redelivered: Vec<Effect>,
    /// Messages died.
    died: bool,
    /// There may be something to hand out.
    woken: bool,
}

impl Queue {
    pub(crate) fn new(log: LogId, configuration: &Configuration<'_>) -> Self {
        let mut queue = Self {
            log,
            address: configuration.address.clone(),
            revision: configuration.revision,
            spec: Arc::clone(&configuration.spec),
            dead_letters: configuration.dead_letters,
            frozen: false,
            ledger: Ledger::default(),
            sessions: Sessions::default(),
            outbox: Outbox::default(),
            cursors: BTreeMap::new(),
            arrivals: Arrivals::default(),
            seen: Seen::default(),
            leaders: 0,
            starved: false,
            unfinished: false,
            notes: None,
        };
        queue.bind();
        queue
    }

    /// Takes over what is declared now; an orphan thaws, and its leases start anew because its
    /// frozen time does not count. Older revisions are ignored.
    pub(crate) fn configure(&mut self, configuration: &Configuration<'_>, now: Elapsed) {
        if configuration.revision < self.revision {
            return;
        }
        self.address = configuration.address.clone();
        self.revision = configuration.revision;
        self.spec = Arc::clone(&configuration.spec);
        self.dead_letters = configuration.dead_letters;
        self.bind();
        self.outbox.aim(self.dead_letters.target());
        if self.frozen {
            self.frozen = false;
            self.restart_leases(now);
        }
    }

    /// Delivers, takes and expires nothing from now on; what is leased can still be settled.
    pub(crate) fn freeze(&mut self, revision: u64) {
        if revision >= self.revision {
            self.revision = revision;
            self.frozen = true;
        }
    }

    /// Cursors of new bindings start at 0, the earliest message kept: YAML that declares a topic
    /// and its queues together loses nothing that is published in between.
    fn bind(&mut self) {
        let old = core::mem::take(&mut self.cursors);
        for partition in self.spec.partitions() {
            let cursor = old.get(&partition).copied().unwrap_or_default();
            self.cursors.insert(partition, cursor);
        }
    }

    fn notes(&mut self) -> &mut Notes {
        self.notes.get_or_insert_default()
    }

    /// Hands out what can be handed out and says what has happened since the last time.
    pub(crate) fn flush(&mut self, stamp: Stamp, changes: &mut Changes) {
        let mut notes = self.notes.take().unwrap_or_default();
        let deliveries = self.deliver(stamp.elapsed);
        let queue = self.log;
        notes.settled.sort_unstable();
        changes
            .bodies
            .extend(merge(&notes.settled).map(|offsets| BodyChange::Discard {
                log: queue,
                offsets,
            }));
        let lost = notes
            .lost
            .into_iter()
            .map(|(session, held)| Effect::LeasesLost {
                session,
                queue,
                held,
            });
        changes.effects.extend(lost);
        let closed = notes.closed.into_iter();
        changes
            .effects
            .extend(closed.map(|session| Effect::SessionClosed { session }));
        changes.effects.append(&mut notes.redelivered);
        let deliver = deliveries
            .into_iter()
            .map(|(session, deliveries)| Effect::Deliver {
                session,
                queue,
                deliveries,
            });
        changes.effects.extend(deliver);
        if notes.woken && self.available() > 0 {
            changes.effects.push(self.available_effect());
        }
        if !notes.settled.is_empty() && core::mem::take(&mut self.starved) {
            changes.effects.push(Effect::TransferDue { queue });
        }
        if notes.died {
            changes.effects.push(Effect::DeadLettersDue { queue });
        }
    }

    /// Everything that the leader may have to do for this queue.
    pub(crate) fn outstanding(&self, effects: &mut Vec<Effect>) {
        let queue = self.log;
        if self.available() > 0 {
            effects.push(self.available_effect());
        }
        if (self.starved || !self.cursors.is_empty()) && !self.frozen {
            effects.push(Effect::TransferDue { queue });
        }
        if self.outbox.len() > 0 {
            effects.push(Effect::DeadLettersDue { queue });
        }
    }

    /// Messages that an `Acquire` would find; none while frozen or with too many in flight.
    fn available(&self) -> u64 {
        if self.frozen || self.ledger.leased() >= u64::from(self.spec.in_flight_max) {
            return 0;
        }
        self.ledger.ready()
    }

    fn available_effect(&self) -> Effect {
        Effect::Available {
            queue: self.log,
            ready: self.ledger.ready(),
        }
    }

    /// Whether more can be handed out at once.
    pub(crate) const fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// When a lease, a delay or a detached session ends; at once when more can be handed out.
    pub(crate) fn next_deadline(&self) -> Option<Elapsed> {
        if self.unfinished {
            return Some(Elapsed::default());
        }
        let message = if self.frozen {
            None
        } else {
            self.ledger.next_deadline()
        };
        let session = self.sessions.next_deadline();
        match (message, session) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        }
    }

    /// Makes a state from disk whole, or finds that it cannot be one.
    pub(crate) fn restore(&mut self, specs: &mut Pool<QueueSpec>) -> Result<(), DecodeError> {
        let wrong = DecodeError::Inconsistent;
        self.spec = specs.share(&self.spec);
        self.ledger.restore()?;
        if millrace_types::mutant!(LeaseNotPersisted) {
            self.ledger.forget_leases();
        }
        if millrace_types::mutant!(CursorNotPersisted) {
            self.cursors
                .values_mut()
                .for_each(|cursor| *cursor = Offset::default());
        }
        self.outbox.check()?;
        self.seen.restore()?;
        let dying = |offset| {
            let exception = self.ledger.exception(offset);
            exception.is_some_and(|e| e.state == ledger::State::Dying)
        };
        let in_outbox = self.outbox.len() as u64;
        let mut offsets = self.outbox.iter_from(0).map(|(_, dead)| dead.offset);
        if in_outbox != self.ledger.dying() || !offsets.all(dying) {
            return Err(wrong("outbox and ledger of a queue differ"));
        }
        let ledger = &self.ledger;
        self.sessions
            .restore(|offset| match ledger.exception(offset)?.state {
                ledger::State::Leased(lease) => Some((lease.owner, lease.weight)),
                _ => None,
            })?;
        self.unfinished = self.next_taker().is_some();
        Ok(())
    }
}

/// What can be asked.
impl Queue {
    /// Its life.
    #[must_use]
    pub const fn log(&self) -> LogId {
        self.log
    }

    /// How it is called.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Topology revision that configured it last.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// What is declared.
    #[must_use]
    pub const fn spec(&self) -> &Arc<QueueSpec> {
        &self.spec
    }

    /// Whether it is an orphan.
    #[must_use]
    pub const fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Counts, for people and metrics.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        QueueStats {
            ready: self.ledger.ready(),
            in_flight: self.ledger.leased(),
            delayed: self.ledger.delayed(),
            dying: self.ledger.dying(),
            bytes: self.ledger.spans().bytes(),
            oldest: self.ledger.spans().oldest(),
            consumers: Count::try_from(self.sessions.len()).unwrap_or(Count::MAX),
        }
    }

    /// The first unsettled message, or the end.
    #[must_use]
    pub fn head(&self) -> Offset {
        self.ledger.head()
    }

    /// One past the last message.
    #[must_use]
    pub const fn end(&self) -> Offset {
        self.ledger.end()
    }

    /// Next offset to be read of a bound partition; `None` when it is not bound.
    #[must_use]
    pub fn cursor(&self, partition: LogId) -> Option<Offset> {
        self.cursors.get(&partition).copied()
    }

    /// How many partitions it is bound to.
    pub(crate) fn bound_len(&self) -> usize {
        self.cursors.len()
    }

    /// The same of every bound partition, in order of their logs.
    pub fn cursors(&self) -> impl Iterator<Item = (LogId, Offset)> {
        let cursors = self.cursors.iter();
        cursors.map(|(partition, cursor)| (*partition, *cursor))
    }

    /// Up to `max` dead letters that have not arrived, from a number on.
    #[must_use]
    pub fn dead_letters(&self, from_number: u64, max: usize) -> Vec<DeadLetter> {
        let dead = self.outbox.iter_from(from_number).take(max);
        dead.map(|(number, dead)| DeadLetter {
            number,
            offset: dead.offset,
            attempts: self.ledger.exception(dead.offset).map_or(0, |e| e.attempts),
            rejected: dead.rejected,
            note: dead.note.clone(),
            died_at: dead.died_at,
        })
        .collect()
    }

    /// The first dead letter that is not confirmed; `dead_letters` from here are all there are.
    #[must_use]
    pub const fn first_dead_letter(&self) -> u64 {
        self.outbox.first()
    }

    /// Where the dead letters that wait may be sent: the dead-letter queue, or an earlier one that
    /// has to recall them first.
    #[must_use]
    pub const fn dead_letter_target(&self) -> Option<LogId> {
        self.outbox.target()
    }

    /// Whether the dead letters that wait have to be recalled from their target, because another
    /// queue is the dead-letter queue now.
    #[must_use]
    pub fn recalls_dead_letters(&self) -> bool {
        self.outbox.target() != self.dead_letters.target()
    }

    /// The number that the next dead letter gets.
    #[must_use]
    pub fn next_dead_letter(&self) -> u64 {
        self.outbox.end()
    }

    /// One past the last dead letter of a queue that has arrived here.
    #[must_use]
    pub fn arrived(&self, source: LogId) -> u64 {
        self.arrivals.arrived(source)
    }

    /// Whether any queue has sent dead letters here.
    #[must_use]
    pub fn has_sources(&self) -> bool {
        self.arrivals.len() > 0
    }

    /// Up to `max` queues after one that have sent dead letters here, in order.
    #[must_use]
    pub fn sources(&self, after: Option<LogId>, max: usize) -> Vec<LogId> {
        self.arrivals.sources(after, max)
    }

    /// What it can still take from bindings and dead letters.
    #[must_use]
    pub fn room(&self) -> Room {
        // Nothing is settled in an empty queue that would tell of room: there, trying is right.
        let awaited = self.starved && self.ledger.unsettled() > 0;
        if self.frozen {
            let (messages, bytes) = (0, 0);
            return Room {
                messages,
                bytes,
                awaited,
            };
        }
        let left = |max: Option<u64>, used| max.map_or(u64::MAX, |max| max.saturating_sub(used));
        Room {
            awaited,
            messages: left(self.spec.messages_max, self.ledger.unsettled()),
            bytes: left(self.spec.bytes_max, self.ledger.spans().bytes()),
        }
    }

    /// Where a message is; `None` when it is settled or does not exist.
    #[must_use]
    pub fn state_of(&self, offset: Offset) -> Option<MessageView> {
        self.ledger.view(offset)
    }

    /// Unsettled messages in order of offset.
    pub fn unsettled(&self, from: Offset) -> impl Iterator<Item = MessageView> {
        self.ledger.views(from)
    }

    /// Who holds which lease, in order of offset.
    pub fn lease_holders(&self) -> impl Iterator<Item = (SessionId, Held)> {
        self.ledger.leases().map(|(offset, exception, lease)| {
            let acquired = exception.acquired;
            (lease.owner, Held { offset, acquired })
        })
    }

    /// Leases that end after one time and up to another and are not known to have been sent.
    pub(crate) fn unsent_due(
        &self,
        after: Elapsed,
        upto: Elapsed,
    ) -> impl Iterator<Item = (SessionId, Held)> {
        let due = self.ledger.due_between(after, upto);
        // An orphan's leases do not end.
        let due = due.filter(|(_, _, lease)| !self.frozen && lease.sent == ledger::Sent::No);
        due.map(|(offset, exception, lease)| {
            let acquired = exception.acquired;
            (lease.owner, Held { offset, acquired })
        })
    }

    /// How many leases a session holds; `None` when it has ended.
    #[must_use]
    pub fn session_holds(&self, session: SessionId) -> Option<usize> {
        self.sessions
            .get(session)
            .map(|session| session.leases.len())
    }

    /// What a session holds, with what is left of each lease; empty when it has ended.
    #[must_use]
    pub fn session_leases(&self, session: SessionId, now: Elapsed) -> Vec<Delivery> {
        let offsets = self
            .sessions
            .get(session)
            .map(|session| session.leases.keys());
        let lease = |offset: &Offset| {
            let exception = self.ledger.exception(*offset)?;
            let ledger::State::Leased(lease) = exception.state else {
                return None;
            };
            Some(Delivery {
                offset: *offset,
                acquired: exception.acquired,
                attempts: exception.attempts,
                lease_ms: lease.deadline.millis_since(now),
            })
        };
        offsets.into_iter().flatten().filter_map(lease).collect()
    }

    pub(crate) fn sessions_len(&self) -> usize {
        self.sessions.len()
    }

    /// Its sessions, in order of id.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView> {
        self.sessions.views()
    }
}

/// Ranges that cover sorted offsets.
fn merge(sorted: &[Offset]) -> impl Iterator<Item = core::ops::Range<Offset>> {
    sorted
        .chunk_by(|a, b| a.plus(1) == *b)
        .filter_map(|run| Some(*run.first()?..run.last()?.plus(1)))
}
