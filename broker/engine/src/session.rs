//! Sessions of one queue: who may be handed a message next, and what each one holds. Keeps count
//! only; leases themselves are the ledger's.

use alloc::string::String;
use alloc::vec::Vec;

use millrace_types::{Count, Elapsed, IN_FLIGHT_MAX, Offset, SessionId};
use serde::{Deserialize, Serialize};

use crate::chunks::{ChunkSet, Chunks};
use crate::codec::DecodeError;
use crate::command::Window;
use crate::outcome::SessionView;

/// One consumer's session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) consumer: String,
    pub(crate) epoch: u32,
    pub(crate) window: Window,
    pub(crate) ttl_ms: u64,
    pub(crate) connection: Connection,
    /// Bytes of what it holds, as charged when handed out.
    bytes: u64,
    /// What it holds.
    pub(crate) leases: ChunkSet<Offset>,
}

/// Whether a client is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Connection {
    Attached,
    /// Closed when nobody attaches until then.
    Detached {
        until: Elapsed,
    },
}

impl Session {
    pub(crate) fn new(consumer: String, window: Window, ttl_ms: u64) -> Self {
        Self {
            consumer,
            epoch: 1,
            window: clamp(window),
            ttl_ms,
            connection: Connection::Attached,
            bytes: 0,
            leases: ChunkSet::new(),
        }
    }

    fn held(&self) -> u64 {
        self.leases.len() as u64
    }

    /// Whether it may be handed a message of this size.
    fn takes(&self, weight: u64) -> bool {
        self.held() < u64::from(self.window.messages)
            && self.connection == Connection::Attached
            && (self.leases.is_empty() || self.bytes.saturating_add(weight) <= self.window.bytes)
    }
}

/// All sessions of a queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sessions {
    all: Chunks<SessionId, Session>,
    /// Who was served last.
    turn: Option<SessionId>,
    /// Those that take at least a message of no size.
    #[serde(skip)]
    open: ChunkSet<SessionId>,
    /// When detached ones are closed.
    #[serde(skip)]
    deadlines: ChunkSet<(Elapsed, SessionId)>,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        self.all.get(&id)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.all.keys().copied()
    }

    /// Adds a session; the id is new.
    pub(crate) fn insert(&mut self, id: SessionId, session: Session) {
        self.all.insert(id, session);
        self.index(id);
    }

    /// Takes a session out, with what it holds.
    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Session> {
        self.unindex(id);
        self.all.remove(&id)
    }

    /// Changes a session's window, connection or epoch.
    pub(crate) fn change(&mut self, id: SessionId, change: impl FnOnce(&mut Session)) {
        self.unindex(id);
        if let Some(session) = self.all.get_mut(&id) {
            change(session);
            session.window = clamp(session.window);
        }
        self.index(id);
    }

    /// Who is to be handed a message of this size: one after the other, in order of ids. Sessions
    /// with room for some bytes but not these are passed over.
    pub(crate) fn pick(&self, weight: u64) -> Option<SessionId> {
        self.open
            .after(self.turn)
            .chain(self.open.iter())
            .map(|(id, ())| *id)
            .find(|id| self.all.get(id).is_some_and(|s| s.takes(weight)))
    }

    /// Notes that a session was handed a message.
    pub(crate) fn charge(&mut self, id: SessionId, offset: Offset, weight: u64) {
        let Some(session) = self.all.get_mut(&id) else {
            return;
        };
        session.leases.add(offset);
        session.bytes = session.bytes.saturating_add(weight);
        self.turn = Some(id);
        if !session.takes(0) {
            self.open.remove(&id);
        }
    }

    /// Notes that a lease is over, if its owner is a session.
    pub(crate) fn discharge(&mut self, id: SessionId, offset: Offset, weight: u64) {
        let Some(session) = self.all.get_mut(&id) else {
            return;
        };
        if session.leases.remove(&offset).is_some() {
            session.bytes = session.bytes.saturating_sub(weight);
        }
        if session.takes(0) {
            self.open.add(id);
        }
    }

    /// The session that was detached for too long first.
    pub(crate) fn expired(&self, now: Elapsed) -> Option<SessionId> {
        self.deadlines
            .first_key()
            .filter(|(until, _)| *until <= now)
            .map(|(_, id)| id)
    }

    pub(crate) fn next_deadline(&self) -> Option<Elapsed> {
        self.deadlines.first_key().map(|(until, _)| until)
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = SessionView> {
        self.all.iter().map(|(id, session)| SessionView {
            session: *id,
            consumer: session.consumer.clone(),
            epoch: session.epoch,
            attached: session.connection == Connection::Attached,
            in_flight: Count::try_from(session.leases.len()).unwrap_or(Count::MAX),
            window: session.window,
        })
    }

    /// Makes a state from disk whole; `lease` tells a message's holder and what it was charged.
    pub(crate) fn restore(
        &mut self,
        lease: impl Fn(Offset) -> Option<(SessionId, u64)>,
    ) -> Result<(), DecodeError> {
        for (id, session) in self.all.iter() {
            let mut bytes = 0_u64;
            for offset in session.leases.keys() {
                match lease(*offset) {
                    Some((owner, weight)) if owner == *id => bytes = bytes.saturating_add(weight),
                    _ => return Err(DecodeError::Inconsistent("a session holds no such lease")),
                }
            }
            if bytes != session.bytes {
                return Err(DecodeError::Inconsistent("a session's bytes do not add up"));
            }
        }
        let ids: Vec<SessionId> = self.ids().collect();
        for id in ids {
            self.index(id);
        }
        Ok(())
    }

    fn index(&mut self, id: SessionId) {
        let Some(session) = self.all.get(&id) else {
            return;
        };
        if session.takes(0) {
            self.open.add(id);
        }
        if let Connection::Detached { until } = session.connection {
            self.deadlines.add((until, id));
        }
    }

    fn unindex(&mut self, id: SessionId) {
        self.open.remove(&id);
        if let Some(session) = self.all.get(&id)
            && let Connection::Detached { until } = session.connection
        {
            self.deadlines.remove(&(until, id));
        }
    }
}

fn clamp(window: Window) -> Window {
    Window {
        messages: window.messages.min(IN_FLIGHT_MAX),
        bytes: window.bytes,
    }
}
