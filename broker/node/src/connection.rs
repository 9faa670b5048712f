//! One consumer's connection, between the shard's thread that leases messages to it and the task
//! that writes to its socket. Keeps what is leased but not sent, what may be sent, and when the
//! client was last heard. Bodies are not in here: they are read when they can be sent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_engine::command::{Held, Window};
use millrace_engine::outcome::Delivery;
use millrace_types::{LogId, Offset, Refusal, SessionId, ShardId};
use tokio::sync::Notify;

use super::api::Credit;
use super::consumer::SettleResults;

/// Deliveries of one event at most: bounds what one event holds in memory.
const DELIVERIES_MAX: usize = 256;

/// Shared by both sides.
#[derive(Debug)]
pub(super) struct Connection {
    /// Whose.
    pub(super) session: SessionId,
    /// Where its queue lives.
    pub(super) shard: ShardId,
    /// Its queue.
    pub(super) queue: LogId,
    /// In flight at most, unless it is paused.
    pub(super) window: Window,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// Leased, not sent.
    pending: VecDeque<Delivery>,
    /// Everything leased to its session that it knows of, sent or not.
    holds: BTreeMap<Offset, u32>,
    /// Goes out first, whatever the credit.
    notices: VecDeque<Notice>,
    messages: u64,
    /// Below zero after a message larger than what was left.
    bytes: i64,
    epoch: u32,
    heard: Instant,
    /// Since when something could have been sent and was not; `None` when nothing waits.
    stuck_since: Option<Instant>,
    paused: bool,
    closed: bool,
    /// Its client is gone.
    abandoned: bool,
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
    /// Read these bodies, then ask `take`.
    Read(Vec<Delivery>),
    /// Ask for the window to be opened again, then go on.
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
    Silent {
        /// The connection to detach.
        epoch: u32,
    },
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
                pending: VecDeque::new(),
                holds: BTreeMap::new(),
                notices: VecDeque::new(),
                messages: credit.messages,
                bytes: i64::try_from(credit.bytes).unwrap_or(i64::MAX),
                epoch: 0,
                heard: now,
                stuck_since: None,
                paused: false,
                closed: false,
                abandoned: false,
            }),
            changed: Notify::new(),
        }
    }

    /// It is the session's connection of this epoch now, and its client holds these.
    pub(super) fn attached(&self, epoch: u32, held: &[Held]) {
        let mut state = self.lock();
        state.epoch = epoch;
        let held = held.iter().map(|held| (held.offset, held.acquired));
        state.holds.extend(held);
    }

    /// Which connection of its session it is.
    pub(super) fn epoch(&self) -> u32 {
        self.lock().epoch
    }

    /// Its client is gone. Whoever attaches it later has to detach it.
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
        state.pending.extend(deliveries);
        let leases = deliveries.iter().map(|d| (d.offset, d.acquired));
        state.holds.extend(leases);
        state.stuck_since.get_or_insert(now);
        drop(state);
        self.changed.notify_one();
    }

    /// Its client has ended these leases.
    pub(super) fn settled(&self, held: impl IntoIterator<Item = Held>) {
        let mut state = self.lock();
        for held in held {
            state.release(&held);
        }
    }

    /// How many leases it knows of.
    pub(super) fn holds(&self) -> usize {
        self.lock().holds.len()
    }

    /// Makes it know of exactly these, which are all its session has: what it did not hear of is
    /// delivered, what is over is lost.
    pub(super) fn align(&self, leases: &[Delivery], now: Instant) {
        let (missed, over) = {
            let state = self.lock();
            let unheard = |d: &&Delivery| state.holds.get(&d.offset) != Some(&d.acquired);
            let missed: Vec<Delivery> = leases.iter().filter(unheard).copied().collect();
            let live: BTreeMap<Offset, u32> =
                leases.iter().map(|d| (d.offset, d.acquired)).collect();
            let over = state.holds.iter();
            let over = over.filter(|(offset, acquired)| live.get(offset) != Some(acquired));
            let held = |(offset, acquired): (&Offset, &u32)| Held {
                offset: *offset,
                acquired: *acquired,
            };
            (missed, over.map(held).collect::<Vec<Held>>())
        };
        if !over.is_empty() {
            self.lose(over);
        }
        if !missed.is_empty() {
            self.deliver(&missed, now);
        }
    }

    /// These leases are over. Those not sent yet vanish unseen, and so do those it never heard of.
    pub(super) fn lose(&self, mut held: Vec<Held>) {
        let mut state = self.lock();
        held.retain(|held| state.release(held));
        held.retain(|held| {
            let unsent = state
                .pending
                .iter()
                .position(|d| d.offset == held.offset && d.acquired == held.acquired);
            unsent.and_then(|at| state.pending.remove(at)).is_none()
        });
        if state.pending.is_empty() {
            state.stuck_since = None;
        }
        drop(state);
        if !held.is_empty() {
            self.tell(Notice::Lost(held));
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
            state.pending.clear();
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
        if state.messages == 0 || state.bytes <= 0 {
            return Next::Wait;
        }
        if state.paused {
            state.paused = false;
            return Next::Resume;
        }
        if state.pending.is_empty() {
            return Next::Wait;
        }
        let count = usize::try_from(state.messages)
            .unwrap_or(usize::MAX)
            .min(DELIVERIES_MAX);
        Next::Read(state.pending.iter().take(count).copied().collect())
    }

    /// Pays for the first waiting delivery, if it is this one and there is credit; it must be sent
    /// then.
    pub(super) fn take(&self, delivery: &Delivery, bytes: u64, now: Instant) -> Taken {
        let mut state = self.lock();
        if state.pending.front() != Some(delivery) {
            return Taken::Gone;
        }
        if state.messages == 0 || state.bytes <= 0 {
            return Taken::NoCredit;
        }
        state.messages -= 1;
        state.bytes = state
            .bytes
            .saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        state.pending.pop_front();
        state.stuck_since = (!state.pending.is_empty()).then_some(now);
        Taken::Paid
    }

    /// Drops the first waiting delivery if it is this one: its body cannot be read.
    pub(super) fn skip(&self, delivery: &Delivery) {
        let mut state = self.lock();
        if state.pending.front() == Some(delivery) {
            state.pending.pop_front();
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
            return Health::Silent { epoch: state.epoch };
        }
        let stuck = |since: Instant| now.saturating_duration_since(since) >= stall;
        if !state.paused && state.stuck_since.is_some_and(stuck) {
            state.paused = true;
            state.stuck_since = None;
            return Health::Stuck(state.pending.drain(..).collect());
        }
        Health::Good
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it, so the state is whole even when poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets a lease; whether it knew of it.
    fn release(&mut self, held: &Held) -> bool {
        let known = self.holds.get(&held.offset) == Some(&held.acquired);
        if known {
            self.holds.remove(&held.offset);
        }
        known
    }
}

/// Whether a delivery can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Yes, and it is paid for.
    Paid,
    /// Its lease is over, or it was given back.
    Gone,
    /// Not before there is more credit.
    NoCredit,
}

#[cfg(test)]
mod tests {
    use millrace_types::Offset;

    use super::*;

    const WINDOW: Window = Window {
        messages: 10,
        bytes: 1_000,
    };

    fn connection(messages: u64, bytes: u64, now: Instant) -> Connection {
        let place = (ShardId::new(1), LogId::new(2));
        Connection::new(
            SessionId::new(3),
            place,
            WINDOW,
            Credit { messages, bytes },
            now,
        )
    }

    fn delivery(offset: u64) -> Delivery {
        Delivery {
            offset: Offset::new(offset),
            acquired: 1,
            attempts: 0,
            lease_ms: 1_000,
        }
    }

    fn held(offset: u64) -> Held {
        Held {
            offset: Offset::new(offset),
            acquired: 1,
        }
    }

    #[test]
    fn credit_in_messages_is_never_exceeded() {
        let now = Instant::now();
        let connection = connection(2, 1_000, now);
        connection.deliver(&[delivery(0), delivery(1), delivery(2)], now);
        let Next::Read(read) = connection.next() else {
            panic!("nothing to read")
        };
        assert_eq!(read, [delivery(0), delivery(1)]);
        for sent in &read {
            assert_eq!(connection.take(sent, 1, now), Taken::Paid);
        }
        assert!(matches!(connection.next(), Next::Wait));
        assert_eq!(connection.take(&delivery(2), 1, now), Taken::NoCredit);
        connection.credit(
            Credit {
                messages: 1,
                bytes: 0,
            },
            now,
        );
        assert!(matches!(connection.next(), Next::Read(read) if read == [delivery(2)]));
    }

    #[test]
    fn one_large_message_overdraws_the_bytes_once_and_the_debt_is_paid_back() {
        let now = Instant::now();
        let connection = connection(10, 5, now);
        connection.deliver(&[delivery(0), delivery(1)], now);
        assert_eq!(connection.take(&delivery(0), 100, now), Taken::Paid);
        assert_eq!(connection.take(&delivery(1), 1, now), Taken::NoCredit);
        connection.credit(
            Credit {
                messages: 0,
                bytes: 95,
            },
            now,
        );
        assert!(matches!(connection.next(), Next::Wait));
        connection.credit(
            Credit {
                messages: 0,
                bytes: 1,
            },
            now,
        );
        assert_eq!(connection.take(&delivery(1), 1, now), Taken::Paid);
    }

    #[test]
    fn a_lease_lost_before_it_was_sent_is_never_mentioned() {
        let now = Instant::now();
        let connection = connection(9, 1_000, now);
        connection.deliver(&[delivery(0), delivery(1)], now);
        assert_eq!(connection.take(&delivery(0), 1, now), Taken::Paid);
        connection.lose(vec![held(0), held(1)]);
        assert_eq!(connection.take(&delivery(1), 1, now), Taken::Gone);
        assert!(matches!(connection.next(), Next::Notice(Notice::Lost(lost)) if lost == [held(0)]));
        assert!(matches!(connection.next(), Next::Wait));
    }

    #[test]
    fn a_stuck_connection_gives_back_what_waits_and_resumes_when_it_takes_again() {
        let now = Instant::now();
        let (ttl, stall) = (Duration::from_secs(60), Duration::from_secs(10));
        let connection = connection(0, 0, now);
        assert_eq!(connection.health(now + stall, ttl, stall), Health::Good);
        connection.deliver(&[delivery(0)], now);
        assert_eq!(connection.health(now + stall / 2, ttl, stall), Health::Good);
        let stuck = connection.health(now + stall, ttl, stall);
        assert_eq!(stuck, Health::Stuck(vec![delivery(0)]));
        assert_eq!(connection.health(now + stall, ttl, stall), Health::Good);
        assert!(matches!(connection.next(), Next::Wait));
        connection.credit(
            Credit {
                messages: 1,
                bytes: 1,
            },
            now,
        );
        assert!(matches!(connection.next(), Next::Resume));
        assert!(matches!(connection.next(), Next::Wait));
    }

    #[test]
    fn a_silent_client_is_gone_and_any_sign_of_life_counts() {
        let now = Instant::now();
        let (ttl, stall) = (Duration::from_secs(30), Duration::from_secs(10));
        let connection = connection(1, 1, now);
        connection.attached(4, &[]);
        connection.touch(now + ttl / 2);
        assert_eq!(connection.health(now + ttl, ttl, stall), Health::Good);
        let later = now + ttl + ttl / 2;
        assert_eq!(
            connection.health(later, ttl, stall),
            Health::Silent { epoch: 4 }
        );
    }

    #[test]
    fn a_connection_hears_of_what_it_missed_and_of_nothing_twice() {
        let now = Instant::now();
        let connection = connection(9, 1_000, now);
        connection.attached(1, &[held(7)]);
        connection.deliver(&[delivery(0), delivery(1)], now);
        assert_eq!(connection.take(&delivery(0), 1, now), Taken::Paid);
        connection.settled([held(0)]);
        assert_eq!(connection.holds(), 2);

        connection.align(&[delivery(1), delivery(2)], now);
        assert!(matches!(connection.next(), Next::Notice(Notice::Lost(lost)) if lost == [held(7)]));
        let Next::Read(read) = connection.next() else {
            panic!("nothing to read")
        };
        assert_eq!(read, [delivery(1), delivery(2)]);
        connection.align(&[delivery(1), delivery(2)], now);
        assert!(matches!(connection.next(), Next::Read(same) if same == read));
    }

    #[test]
    fn nothing_follows_the_end() {
        let now = Instant::now();
        let connection = connection(1, 1, now);
        let end = Refusal::new(millrace_types::ErrorCode::SessionExpired, "over");
        connection.deliver(&[delivery(0)], now);
        connection.tell(Notice::Closed(end));
        connection.tell(Notice::Drain);
        assert!(matches!(connection.next(), Next::Notice(Notice::Closed(_))));
        assert!(matches!(connection.next(), Next::End));
    }
}
