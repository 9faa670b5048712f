//! A queue as one would write it on a napkin: every message in a list, every question a walk over
//! it. It follows what the engine hands out, and objects when that was not allowed.

use millrace_engine::command::{Held, Settle, Window};
use millrace_engine::outcome::{Delivery, MessageState, MessageView};
use millrace_types::Offset;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    Ready,
    Delayed {
        until: u64,
    },
    Leased {
        owner: u64,
        deadline: u64,
        sent: bool,
    },
    Dying,
    Done,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) place: Place,
    pub(crate) attempts: u32,
    pub(crate) acquired: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) epoch: u32,
    pub(crate) window: Window,
    pub(crate) attached: bool,
    pub(crate) until: u64,
}

/// Settings the model shares with the engine.
pub(crate) const LEASE_MS: u64 = 1000;
pub(crate) const DELIVERIES_MAX: u32 = 3;
pub(crate) const IN_FLIGHT_MAX: usize = 12;
pub(crate) const MESSAGES_MAX: usize = 40;
pub(crate) const TTL_MS: u64 = 1500;
pub(crate) const MESSAGE_BYTES: u64 = 100;
/// So short that a tenth of it is nothing: no jitter to know.
const BACKOFF_MS: [u64; 3] = [3, 6, 9];

#[derive(Clone, Debug, Default)]
pub(crate) struct Naive {
    pub(crate) now: u64,
    pub(crate) messages: Vec<Message>,
    pub(crate) sessions: Vec<Session>,
    /// Offsets in the order of their death; never shortened.
    pub(crate) dead: Vec<usize>,
    pub(crate) confirmed: usize,
    pub(crate) frozen: bool,
    pub(crate) cursor: u64,
    pub(crate) received: u64,
}

impl Naive {
    pub(crate) fn count(&self, is: impl Fn(Place) -> bool) -> usize {
        self.messages.iter().filter(|m| is(m.place)).count()
    }

    pub(crate) fn leased(&self) -> usize {
        self.count(|place| matches!(place, Place::Leased { .. }))
    }

    pub(crate) fn held_by(&self, id: u64) -> u64 {
        self.count(|place| matches!(place, Place::Leased { owner, .. } if owner == id)) as u64
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.count(|place| place != Place::Done)
    }

    pub(crate) fn append(&mut self, count: u32) {
        for _ in 0..count {
            self.messages.push(Message {
                place: Place::Ready,
                attempts: 0,
                acquired: 0,
            });
        }
    }

    /// Returned messages first, then fresh ones; each in order.
    fn front(&self) -> Option<usize> {
        let ready = |m: &&Message| m.place == Place::Ready;
        let mut all = self.messages.iter();
        let returned = all.position(|m| ready(&m) && m.acquired > 0);
        returned.or_else(|| self.messages.iter().position(|m| ready(&m)))
    }

    /// Follows one hand-out, which must be of the front message.
    pub(crate) fn hand_out(&mut self, owner: u64, delivery: &Delivery) {
        assert!(!self.frozen, "an orphan delivers nothing");
        assert!(self.leased() < IN_FLIGHT_MAX, "too many in flight");
        let offset = usize::try_from(delivery.offset.get()).unwrap();
        let message = &mut self.messages[offset];
        assert_eq!(message.place, Place::Ready, "{offset} is not to be had");
        message.acquired += 1;
        assert_eq!(
            (delivery.acquired, delivery.attempts),
            (message.acquired, message.attempts)
        );
        let deadline = self.now + delivery.lease_ms;
        // What a call asked for is its answer; what a session is handed waits to be sent.
        let sent = !self.sessions.iter().any(|session| session.id == owner);
        message.place = Place::Leased {
            owner,
            deadline,
            sent,
        };
    }

    /// Follows all hand-outs of one command, which must be of the first messages there are.
    pub(crate) fn hand_out_all(&mut self, mut handed: Vec<(u64, Delivery)>) {
        for _ in 0..handed.len() {
            let front = self.front().unwrap() as u64;
            let next = handed.iter().position(|(_, d)| d.offset.get() == front);
            let (owner, delivery) = handed.remove(next.unwrap());
            self.hand_out(owner, &delivery);
        }
    }

    /// Nobody waits for what is there.
    pub(crate) fn check_nobody_waits(&self) {
        for session in &self.sessions {
            let idle = session.attached && self.fits(session, 1);
            let possible = !self.frozen && self.leased() < IN_FLIGHT_MAX;
            let waits = idle && possible && self.front().is_some();
            assert!(!waits, "session {} waits for nothing", session.id);
        }
    }

    /// Whether a session may hold so many more.
    pub(crate) fn fits(&self, session: &Session, more: u64) -> bool {
        let after = self.held_by(session.id) + more;
        after <= u64::from(session.window.messages)
            && (after <= 1 || after * MESSAGE_BYTES <= session.window.bytes)
    }

    pub(crate) fn expire(&mut self) {
        let now = self.now;
        let expired = |s: &&Session| !s.attached && s.until <= now;
        let gone: Vec<u64> = self.sessions.iter().filter(expired).map(|s| s.id).collect();
        for id in gone {
            self.close(id);
        }
        if self.frozen {
            return;
        }
        let mut due: Vec<(u64, usize)> = Vec::new();
        for (offset, message) in self.messages.iter().enumerate() {
            match message.place {
                Place::Delayed { until } if until <= now => due.push((until, offset)),
                Place::Leased { deadline, .. } if deadline <= now => due.push((deadline, offset)),
                _ => {}
            }
        }
        due.sort_unstable();
        for (_, offset) in due {
            match self.messages[offset].place {
                Place::Leased { sent: true, .. } => self.fail(offset, None),
                _ => self.messages[offset].place = Place::Ready,
            }
        }
    }

    /// What a session holds and was not sent comes back.
    pub(crate) fn release_unsent(&mut self, id: u64) {
        for message in &mut self.messages {
            if matches!(message.place, Place::Leased { owner, sent: false, .. } if owner == id) {
                message.place = Place::Ready;
            }
        }
    }

    /// A session was sent this, if it holds it.
    pub(crate) fn note_sent(&mut self, id: u64, held: Held) {
        let offset = usize::try_from(held.offset.get()).unwrap();
        if let Some(message) = self.messages.get_mut(offset)
            && message.acquired == held.acquired
            && let Place::Leased { owner, sent, .. } = &mut message.place
            && *owner == id
        {
            *sent = true;
        }
    }

    pub(crate) fn close(&mut self, id: u64) {
        self.sessions.retain(|s| s.id != id);
        for message in &mut self.messages {
            if matches!(message.place, Place::Leased { owner, .. } if owner == id) {
                message.place = Place::Ready;
            }
        }
    }

    fn fail(&mut self, offset: usize, delay_ms: Option<u64>) {
        let message = &mut self.messages[offset];
        message.attempts += 1;
        if message.attempts >= DELIVERIES_MAX {
            message.place = Place::Dying;
            self.dead.push(offset);
            return;
        }
        let backoff = BACKOFF_MS[message.attempts as usize - 1];
        self.put_back(offset, delay_ms.unwrap_or(backoff));
    }

    fn put_back(&mut self, offset: usize, delay_ms: u64) {
        let until = self.now + delay_ms;
        self.messages[offset].place = if delay_ms == 0 {
            Place::Ready
        } else {
            Place::Delayed { until }
        };
    }

    /// Settles; says whether the lease was there.
    pub(crate) fn settle(&mut self, by: u64, held: Held, settle: &Settle) -> bool {
        let offset = usize::try_from(held.offset.get()).unwrap();
        let now = self.now;
        let Some(message) = self.messages.get_mut(offset) else {
            return false;
        };
        match message.place {
            Place::Leased { owner, .. } if owner == by && message.acquired == held.acquired => {}
            _ => return false,
        }
        match settle {
            Settle::Accept => message.place = Place::Done,
            Settle::Release { delay_ms } => self.put_back(offset, *delay_ms),
            Settle::Retry { delay_ms, .. } => self.fail(offset, *delay_ms),
            Settle::Reject { .. } => {
                message.attempts += 1;
                message.place = Place::Dying;
                self.dead.push(offset);
            }
            Settle::Extend => {
                let deadline = now + LEASE_MS;
                message.place = Place::Leased {
                    owner: by,
                    deadline,
                    sent: true,
                };
            }
        }
        true
    }

    pub(crate) fn confirm(&mut self, number: usize) {
        for offset in &self.dead[self.confirmed.min(number)..number] {
            self.messages[*offset].place = Place::Done;
        }
        self.confirmed = self.confirmed.max(number);
    }

    pub(crate) fn restart_leases(&mut self) {
        for message in &mut self.messages {
            if let Place::Leased { deadline, .. } = &mut message.place {
                *deadline = self.now + LEASE_MS;
            }
        }
    }

    pub(crate) fn view(&self, offset: usize) -> Option<MessageView> {
        let message = self.messages.get(offset)?;
        Some(MessageView {
            offset: Offset::new(offset as u64),
            state: match message.place {
                Place::Ready => MessageState::Ready,
                Place::Delayed { .. } => MessageState::Delayed,
                Place::Leased { .. } => MessageState::InFlight,
                Place::Dying => MessageState::Dying,
                Place::Done => return None,
            },
            attempts: message.attempts,
            acquired: message.acquired,
        })
    }

    /// When the next lease, delay or session ends.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let messages = self.messages.iter().filter_map(|m| match m.place {
            Place::Delayed { until } => Some(until),
            Place::Leased { deadline, .. } => Some(deadline),
            Place::Ready | Place::Dying | Place::Done => None,
        });
        let messages = if self.frozen { None } else { messages.min() };
        let detached = self.sessions.iter().filter(|s| !s.attached);
        let sessions = detached.map(|s| s.until).min();
        messages.into_iter().chain(sessions).min()
    }
}
