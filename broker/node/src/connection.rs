//! One consumer's connection, between the shard's thread that leases messages to it and the task
//! that writes to its socket. Keeps what is leased but not sent, what may be sent, and when the
//! client was last heard. Bodies are not in here: they are read when they can be sent.
//!
//! Decides how much the session may be leased ahead: at first and after a pause no more than there
//! is credit for, so that nothing waits here that somebody else could handle; all of its window
//! while it gives credit faster than messages come.

mod leases;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_engine::command::{Held, Window};
use millrace_engine::outcome::Delivery;
use millrace_types::{Count, LogId, Refusal, SessionId, ShardId};
use tokio::sync::Notify;

use super::api::Credit;
use super::consumer::SettleResults;
use leases::Leases;

/// Deliveries of one event at most: bounds what one event holds in memory.
const DELIVERIES_MAX: usize = 256;
/// What waits for credit this long goes back to the queue: others may be idle. Long enough for
/// credit that is on its way.
const CREDIT_WAIT_MAX: Duration = Duration::from_secs(1);

/// Shared by both sides.
#[derive(Debug)]
pub(super) struct Connection {
    /// Whose.
    pub(super) session: SessionId,
    /// Where its queue lives.
    pub(super) shard: ShardId,
    /// Its queue.
    pub(super) queue: LogId,
    /// In flight at most.
    pub(super) window: Window,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    leases: Leases,
    /// Goes out first, whatever the credit.
    notices: VecDeque<Notice>,
    messages: u64,
    /// Below zero after a message larger than what was left.
    bytes: i64,
    epoch: u32,
    heard: Instant,
    /// Since when something waits and nothing was sent.
    stuck_since: Option<Instant>,
    /// Since when something waited and there was no credit for it: until there is.
    dry_since: Option<Instant>,
    width: Width,
    closed: bool,
    /// Its client is gone.
    abandoned: bool,
}

/// How much of its window the session is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// Nothing, until there is credit.
    Closed,
    /// What there is credit for.
    Narrow,
    /// All of it, as soon as that is asked for.
    Widening,
    /// All of it.
    Full,
}

/// What a connection is told besides deliveries.
#[derive(Debug)]
pub(super) enum Notice {
    /// Answer to a settlement.
    Settled(SettleResults),
    /// Leases that were sent and are over.
    Lost(Vec<Held>),
    /// The node is going down.
    Drain,
    /// The end.
    Closed(Refusal),
}

/// What the sending task does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Tell this.
    Notice(Notice),
    /// Read as many of these bodies as have so many bytes together, then ask `take`.
    Read(Vec<Delivery>, u64),
    /// Ask for the window to be opened, then go on.
    Resume,
    /// Nothing now.
    Wait,
    /// Nothing any more.
    End,
}

/// What the shard's thread does about a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Nothing.
    Good,
    /// The client is gone.
    Silent,
    /// It takes nothing: close the window and give these back.
    Stuck(Vec<Delivery>),
}

impl Connection {
    /// A connection that is not attached yet.
    pub(super) fn new(
        session: SessionId,
        place: (ShardId, LogId),
        window: Window,
        credit: Credit,
        now: Instant,
    ) -> Self {
        Self {
            session,
            shard: place.0,
            queue: place.1,
            window,
            state: Mutex::new(State {
                leases: Leases::default(),
                notices: VecDeque::new(),
                messages: credit.messages,
                bytes: i64::try_from(credit.bytes).unwrap_or(i64::MAX),
                epoch: 0,
                heard: now,
                stuck_since: None,
                dry_since: None,
                width: if credit.messages == 0 || credit.bytes == 0 {
                    Width::Closed
                } else {
                    Width::Narrow
                },
                closed: false,
                abandoned: false,
            }),
            changed: Notify::new(),
        }
    }

    /// What its session is to have in flight at most as things are, if it holds `more` leases that
    /// the connection has not heard of.
    pub(super) fn room(&self, more: usize) -> Window {
        let state = self.lock();
        let messages = match state.width {
            Width::Full | Width::Widening => self.window.messages,
            Width::Narrow => {
                let sent = u64::try_from(state.leases.sent_len() + more).unwrap_or(u64::MAX);
                let room = Count::try_from(sent.saturating_add(state.messages));
                room.unwrap_or(Count::MAX).min(self.window.messages)
            }
            Width::Closed => 0,
        };
        Window {
            messages,
            ..self.window
        }
    }

    /// It is the session's connection of this epoch now, and its client holds these.
    pub(super) fn attached(&self, epoch: u32, held: &[Held]) {
        let mut state = self.lock();
        state.epoch = epoch;
        state.leases.claim(held);
    }

    /// Which connection of its session it is.
    pub(super) fn epoch(&self) -> u32 {
        self.lock().epoch
    }

    /// Its client is gone, and is sent nothing more. Whoever attaches it later has to detach it.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
    }

    /// Whether its client is gone.
    pub(super) fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    /// Leased to it.
    pub(super) fn deliver(&self, deliveries: &[Delivery], now: Instant) {
        let mut state = self.lock();
        state.leases.add(deliveries, now);
        state.note_waiting(now);
        drop(state);
        self.changed.notify_one();
    }

    /// Its client has ended these leases.
    pub(super) fn settled(&self, held: impl IntoIterator<Item = Held>) {
        self.lock().leases.end(held);
    }

    /// How many leases it knows of.
    pub(super) fn holds(&self) -> usize {
        self.lock().leases.len()
    }

    /// Which of these it has sent; the others are not sent any more.
    pub(super) fn split_sent(&self, due: &[Held]) -> Vec<Held> {
        self.lock().leases.split_sent(due)
    }

    /// All that it has sent and that is not over. Nothing follows if it is abandoned or closed.
    pub(super) fn sent(&self) -> Vec<Held> {
        self.lock().leases.sent()
    }

    /// Makes it know of exactly these, which are all its session has: what it did not hear of is
    /// delivered, what is over is lost.
    pub(super) fn align(&self, leases: &[Delivery], now: Instant) {
        let (missed, over) = self.lock().leases.compare(leases);
        if !over.is_empty() {
            self.lose(over);
        }
        if !missed.is_empty() {
            self.deliver(&missed, now);
        }
    }

    /// These leases are over. Those not sent yet vanish unseen, and so do those it never heard of.
    pub(super) fn lose(&self, held: Vec<Held>) {
        let mut state = self.lock();
        let seen = state.leases.end(held);
        if !state.leases.is_waiting() {
            // Without credit nothing has changed: the message may be leased here again at once.
            state.stuck_since = None;
        }
        drop(state);
        if !seen.is_empty() {
            self.tell(Notice::Lost(seen));
        }
    }

    /// Tells something.
    pub(super) fn tell(&self, notice: Notice) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.closed = matches!(notice, Notice::Closed(_));
        if state.closed {
            state.leases.return_all();
        }
        state.notices.push_back(notice);
        drop(state);
        self.changed.notify_one();
    }

    /// More may be sent.
    pub(super) fn credit(&self, more: Credit, now: Instant) {
        let mut state = self.lock();
        state.heard = now;
        state.messages = state.messages.saturating_add(more.messages);
        let bytes = i64::try_from(more.bytes).unwrap_or(i64::MAX);
        state.bytes = state.bytes.saturating_add(bytes);
        if state.width == Width::Narrow && more.messages > 0 && !state.leases.is_waiting() {
            // It takes messages faster than they come.
            state.width = Width::Widening;
        }
        if state.has_credit() {
            state.dry_since = None;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The client is alive.
    pub(super) fn touch(&self, now: Instant) {
        self.lock().heard = now;
    }

    /// What to do next.
    pub(super) fn next(&self) -> Next {
        let mut state = self.lock();
        if let Some(notice) = state.notices.pop_front() {
            return Next::Notice(notice);
        }
        if state.closed {
            return Next::End;
        }
        if state.abandoned || !state.has_credit() {
            return Next::Wait;
        }
        let next = match state.width {
            Width::Closed => Width::Narrow,
            Width::Widening => Width::Full,
            width @ (Width::Narrow | Width::Full) => width,
        };
        if next != state.width {
            state.width = next;
            return Next::Resume;
        }
        if !state.leases.is_waiting() {
            return Next::Wait;
        }
        let count = usize::try_from(state.messages).unwrap_or(usize::MAX);
        let bytes = u64::try_from(state.bytes).unwrap_or_default();
        Next::Read(state.leases.first(count.min(DELIVERIES_MAX)), bytes)
    }

    /// Pays for the first waiting delivery, if it is this one and there is credit; it must be sent
    /// then.
    pub(super) fn take(&self, delivery: &Delivery, bytes: u64, now: Instant) -> Taken {
        let mut state = self.lock();
        if state.abandoned || !state.leases.is_first(delivery) {
            return Taken::Gone;
        }
        if !state.has_credit() {
            return Taken::NoCredit;
        }
        state.messages -= 1;
        state.bytes = state
            .bytes
            .saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        let since = state.leases.send_first().map_or(now, |sent| sent.since);
        state.stuck_since = None;
        state.note_waiting(now);
        Taken::Paid {
            waited: now.saturating_duration_since(since),
        }
    }

    /// Drops the first waiting delivery if it is this one: its body cannot be read. It comes back
    /// when its lease runs out.
    pub(super) fn skip(&self, delivery: &Delivery) {
        let mut state = self.lock();
        if state.leases.is_first(delivery) {
            state.leases.return_first();
        }
    }

    /// Waits until `next` may have something else to say.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Looks whether the client is there and takes what it gets.
    pub(super) fn health(&self, now: Instant, ttl: Duration, stall: Duration) -> Health {
        let mut state = self.lock();
        if state.closed {
            return Health::Good;
        }
        if now.saturating_duration_since(state.heard) >= ttl {
            return Health::Silent;
        }
        let past = |since: Option<Instant>, max: Duration| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= max)
        };
        // Also of a window that is closed: what was leased before that was known comes later.
        if past(state.stuck_since, stall) || past(state.dry_since, CREDIT_WAIT_MAX.min(stall)) {
            state.width = Width::Closed;
            (state.stuck_since, state.dry_since) = (None, None);
            return Health::Stuck(state.leases.return_all());
        }
        Health::Good
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it, so the state is whole even when poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    const fn has_credit(&self) -> bool {
        self.messages > 0 && self.bytes > 0
    }

    /// Something was leased or sent.
    fn note_waiting(&mut self, now: Instant) {
        if !self.leases.is_waiting() {
            self.stuck_since = None;
            return;
        }
        self.stuck_since.get_or_insert(now);
        if !self.has_credit() {
            self.dry_since.get_or_insert(now);
        }
    }
}

/// Whether a delivery can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Yes, and it is paid for.
    Paid {
        /// So much of its lease is over.
        waited: Duration,
    },
    /// Its lease is over, or it was given back.
    Gone,
    /// Not before there is more credit.
    NoCredit,
}
