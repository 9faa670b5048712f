//! Who is handed which message: sessions by their windows, one after the other, and `Receive`
//! calls by asking.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use millrace_types::{
    Count, DELAY_MS_MAX, Elapsed, IN_FLIGHT_MAX, LEASE_MS_MIN, Offset, SessionId, TEXT_BYTES_MAX,
};

use super::Queue;
use super::ledger::{Exception, Lease, Sent, State};
use crate::command::{Held, SentLeases, Window};
use crate::limits::{ACQUIRE_MESSAGES_MAX, DELIVERIES_MAX, SESSION_TTL_MS_MAX, SESSIONS_MAX};
use crate::outcome::{Delivery, Effect, Outcome};
use crate::refusal;
use crate::session::{Connection, Session};

/// What `Receive` asks for, as `Command::Acquire` has it.
pub(crate) struct Wish {
    pub(crate) owner: SessionId,
    pub(crate) messages_max: Count,
    pub(crate) bytes_max: u64,
    pub(crate) lease_ms: Option<u64>,
}

impl Queue {
    /// Hands messages to sessions while there are both, as many as one operation may.
    pub(super) fn deliver(&mut self, now: Elapsed) -> BTreeMap<SessionId, Vec<Delivery>> {
        let mut handed: BTreeMap<SessionId, Vec<Delivery>> = BTreeMap::new();
        self.unfinished = false;
        for _ in 0..DELIVERIES_MAX {
            let Some((session, offset, weight)) = self.next_taker() else {
                return handed;
            };
            let Some(delivery) = self.hand_out(session, self.lease_ms(None), Sent::No, now) else {
                return handed;
            };
            self.sessions.charge(session, offset, weight);
            handed.entry(session).or_default().push(delivery);
        }
        self.unfinished = self.next_taker().is_some();
        handed
    }

    /// Who is to be handed the front message, and what it weighs.
    pub(super) fn next_taker(&self) -> Option<(SessionId, Offset, u64)> {
        let offset = self.ledger.front().filter(|_| self.available() > 0)?;
        let weight = self.ledger.spans().weight(offset);
        let session = self.sessions.pick(weight)?;
        Some((session, offset, weight))
    }

    pub(crate) fn acquire(&mut self, wish: &Wish, now: Elapsed) -> Outcome {
        if self.frozen {
            return Outcome::Refused(refusal::orphaned(&self.address));
        }
        let lease_ms = self.lease_ms(wish.lease_ms);
        let (mut taken, mut bytes) = (Vec::new(), 0_u64);
        let messages_max = wish.messages_max.min(ACQUIRE_MESSAGES_MAX);
        for _ in 0..messages_max {
            let Some(offset) = self.ledger.front().filter(|_| self.available() > 0) else {
                break;
            };
            bytes = bytes.saturating_add(self.ledger.spans().weight(offset));
            if bytes > wish.bytes_max && !taken.is_empty() {
                break;
            }
            // The outcome is the answer: nobody could say later whether it was given.
            taken.extend(self.hand_out(wish.owner, lease_ms, Sent::Yes, now));
        }
        Outcome::Acquired(taken)
    }

    fn hand_out(
        &mut self,
        owner: SessionId,
        lease_ms: u64,
        sent: Sent,
        now: Elapsed,
    ) -> Option<Delivery> {
        let offset = self.ledger.front()?;
        let leased = self.ledger.lease_front(|weight| Lease {
            owner,
            deadline: now.plus_millis(lease_ms),
            lease_ms,
            weight,
            sent,
        })?;
        Some(Delivery {
            offset,
            acquired: leased.acquired,
            attempts: leased.attempts,
            lease_ms,
        })
    }

    /// The length of a lease, within what is allowed.
    fn lease_ms(&self, wanted: Option<u64>) -> u64 {
        wanted
            .unwrap_or(self.spec.lease_ms)
            .clamp(LEASE_MS_MIN, DELAY_MS_MAX)
    }

    pub(crate) fn open_session(
        &mut self,
        id: SessionId,
        consumer: &str,
        window: Window,
        ttl_ms: u64,
    ) -> Outcome {
        if self.frozen {
            return Outcome::Refused(refusal::orphaned(&self.address));
        }
        if self.sessions.len() >= SESSIONS_MAX {
            let limit = SESSIONS_MAX as u64;
            return Outcome::Refused(refusal::limit_reached(&self.address, "sessions", limit));
        }
        if consumer.len() > TEXT_BYTES_MAX {
            return Outcome::Refused(refusal::invalid(alloc::format!(
                "a consumer's name has at most {TEXT_BYTES_MAX} bytes, not {}",
                consumer.len()
            )));
        }
        let session = Session::new(consumer.into(), window, ttl_ms.min(SESSION_TTL_MS_MAX));
        let epoch = session.epoch;
        self.sessions.insert(id, session);
        Outcome::Session {
            epoch,
            lost: Vec::new(),
        }
    }

    /// A client is back. What it does not claim is sent again as the same lease, started anew.
    pub(crate) fn attach_session(
        &mut self,
        id: SessionId,
        window: Window,
        held: &[Held],
        now: Elapsed,
    ) -> Outcome {
        if held.len() > IN_FLIGHT_MAX as usize {
            return Outcome::Refused(refusal::invalid(alloc::format!(
                "a session holds at most {IN_FLIGHT_MAX} leases, not {}",
                held.len()
            )));
        }
        let Some(session) = self.sessions.get(id) else {
            return Outcome::Refused(refusal::session_expired(id));
        };
        let leases: Vec<_> = session.leases.keys().copied().collect();
        let epoch = session.epoch.saturating_add(1);
        self.sessions.change(id, |session| {
            session.epoch = epoch;
            session.window = window;
            session.connection = Connection::Attached;
        });
        let mut claimed: BTreeSet<Held> = held.iter().copied().collect();
        let mut again = Vec::new();
        for offset in leases {
            let Some(exception) = self.ledger.exception(offset).copied() else {
                continue;
            };
            let State::Leased(lease) = exception.state else {
                continue;
            };
            let (acquired, attempts) = (exception.acquired, exception.attempts);
            if claimed.remove(&Held { offset, acquired }) {
                self.mark(offset, exception, lease, Sent::Yes);
                continue;
            }
            // One that an earlier connection has sent stays sent.
            self.extend(offset, exception, lease, now);
            again.push(Delivery {
                offset,
                acquired,
                attempts,
                lease_ms: lease.lease_ms,
            });
        }
        if !again.is_empty() {
            let queue = self.log;
            self.notes().redelivered.push(Effect::Deliver {
                session: id,
                queue,
                deliveries: again,
            });
        }
        Outcome::Session {
            epoch,
            lost: claimed.into_iter().collect(),
        }
    }

    /// A connection ended. An epoch of the past says nothing.
    pub(crate) fn detach_session(&mut self, id: SessionId, epoch: u32, now: Elapsed) -> Outcome {
        match self.sessions.get(id) {
            None => return Outcome::Refused(refusal::session_expired(id)),
            Some(session) if session.epoch != epoch => {}
            Some(session) if session.connection != Connection::Attached => {}
            Some(session) => {
                let leases: Vec<_> = session.leases.keys().copied().collect();
                self.detach(id, now);
                for offset in leases {
                    self.release_unsent(offset);
                }
            }
        }
        Outcome::Done
    }

    /// A connection has sent these to its client.
    pub(crate) fn note_sent(&mut self, sent: &SentLeases) {
        let session = self.sessions.get(sent.session);
        if session.is_none_or(|session| session.epoch != sent.epoch) {
            return;
        }
        for held in &sent.held {
            let exception = self.ledger.exception(held.offset).copied();
            let Some(exception) = exception.filter(|e| e.acquired == held.acquired) else {
                continue;
            };
            if let State::Leased(lease) = exception.state
                && lease.owner == sent.session
            {
                self.mark(held.offset, exception, lease, Sent::Yes);
            }
        }
    }

    fn mark(&mut self, offset: Offset, exception: Exception, lease: Lease, sent: Sent) {
        if lease.sent != sent {
            let state = State::Leased(Lease { sent, ..lease });
            self.ledger.put(offset, Exception { state, ..exception });
        }
    }

    fn release_unsent(&mut self, offset: Offset) {
        if let Some(exception) = self.ledger.exception(offset)
            && let State::Leased(lease) = exception.state
            && lease.sent == Sent::No
        {
            self.release(offset);
        }
    }

    /// Comes before anything else that happens: detaches every session if there is another leader
    /// since, because no connection of the past is left. What they had sent is not known,
    /// so each keeps what it holds.
    pub(crate) fn follow(&mut self, leaders: u64, now: Elapsed) {
        if self.leaders == leaders {
            return;
        }
        self.leaders = leaders;
        let ids: Vec<_> = self.sessions.ids().collect();
        for id in ids {
            self.detach(id, now);
        }
    }

    /// Leaders that the shard had when something happened last.
    pub(crate) const fn leaders(&self) -> u64 {
        self.leaders
    }

    fn detach(&mut self, id: SessionId, now: Elapsed) {
        self.sessions.change(id, |session| {
            session.connection = Connection::Detached {
                until: now.plus_millis(session.ttl_ms),
            };
        });
    }

    pub(crate) fn set_window(&mut self, id: SessionId, window: Window) -> Outcome {
        if self.sessions.get(id).is_none() {
            return Outcome::Refused(refusal::session_expired(id));
        }
        self.sessions.change(id, |session| session.window = window);
        Outcome::Done
    }

    /// Ends a session; what it holds is released without counting a failure.
    pub(crate) fn close_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(id) else {
            return;
        };
        for offset in session.leases.keys() {
            self.release(*offset);
        }
        self.notes().closed.push(id);
    }
}
