//! Connections of consumers to sessions of the shard: attaching, detaching, and letting go of those
//! that are silent or take nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use millrace_engine::command::{Command, Held, SentLeases, Settle, Settlement, Window};
use millrace_types::{ErrorCode, Refusal, SessionId};

use super::DataShard;
use crate::connection::{Connection, Health, Notice};
use crate::input::Proposal;

/// Leases that are noted at once to have been sent. Those beyond, if there are as many, end without
/// counting: a failure too few is better than one too many.
const NOTED_MAX: usize = 100_000;

/// How a connection begins.
pub(super) struct Begun<'a> {
    pub(super) epoch: u32,
    /// What its client said it holds,
    pub(super) claimed: &'a [Held],
    /// and does not.
    pub(super) lost: &'a [Held],
}

impl DataShard {
    /// A session is open or attached: this is its connection now.
    pub(super) fn attach(&mut self, connection: Arc<Connection>, begun: &Begun<'_>, now: Instant) {
        let epoch = begun.epoch;
        if connection.is_abandoned() {
            let command = Command::DetachSession {
                session: connection.session,
                epoch,
            };
            self.propose(Proposal::silent(self.id, command), now);
            return;
        }
        let lost: BTreeSet<Held> = begun.lost.iter().copied().collect();
        let claimed = begun.claimed.iter().copied();
        let held: Vec<Held> = claimed.filter(|held| !lost.contains(held)).collect();
        connection.attached(epoch, &held);
        if !lost.is_empty() {
            connection.tell(Notice::Lost(begun.lost.to_vec()));
        }
        let session = connection.session;
        if let Some(old) = self.connections.insert(session, connection) {
            old.tell(Notice::Closed(Refusal::new(
                ErrorCode::SessionExpired,
                "another connection has taken the session over",
            )));
            // Whoever came back may not have heard of all of it yet.
            self.note_all_sent(&old, epoch, now);
        }
    }

    /// Leases have ended; their holders need not be told.
    pub(super) fn settled(&self, settlements: &[Settlement], results: &[Result<(), Refusal>]) {
        let settled = results.iter().filter(|result| result.is_ok()).count();
        self.node.figures.settled_messages.add(settled as u64);
        let ended: Vec<&Settlement> = settlements
            .iter()
            .zip(results)
            .filter(|(one, result)| result.is_ok() && one.settle != Settle::Extend)
            .map(|(one, _)| one)
            .collect();
        for run in ended.chunk_by(|a, b| a.owner == b.owner) {
            let owner = run.first().map(|one| one.owner);
            if let Some(connection) = owner.and_then(|owner| self.connections.get(&owner)) {
                connection.settled(run.iter().map(|one| one.held));
            }
        }
    }

    /// A session has ended, and its connection with it.
    pub(super) fn session_closed(&mut self, session: SessionId) {
        if let Some(connection) = self.connections.remove(&session) {
            connection.tell(Notice::Closed(Refusal::new(
                ErrorCode::SessionExpired,
                "the session has ended",
            )));
        }
    }

    /// A connection ended; if it is the session's present one, the session is detached.
    pub(crate) fn detach(&mut self, connection: &Arc<Connection>, now: Instant) {
        let session = connection.session;
        let present = self.connections.get(&session);
        if present.is_some_and(|present| Arc::ptr_eq(present, connection)) {
            self.connections.remove(&session);
            self.end(connection, now);
        }
    }

    /// Detaches a connection that sends nothing more.
    fn end(&mut self, connection: &Connection, now: Instant) {
        let (session, epoch) = (connection.session, connection.epoch());
        self.note_all_sent(connection, epoch, now);
        let command = Command::DetachSession { session, epoch };
        self.propose(Proposal::silent(self.id, command), now);
    }

    /// Says what a connection has sent that sends nothing more; `epoch` is its session's present
    /// one.
    fn note_all_sent(&mut self, from: &Connection, epoch: u32, now: Instant) {
        let (session, held) = (from.session, from.sent());
        if !held.is_empty() {
            let sent = vec![SentLeases {
                session,
                epoch,
                held,
            }];
            let command = Command::NoteSent { sent };
            self.propose(Proposal::silent(self.id, command), now);
        }
    }

    /// Before a command is stamped, says which leases that are due by then were sent: their end is
    /// a failure, that of the others is none. What is due again later is looked at again then.
    pub(super) fn note_sent(&mut self, now: Instant) {
        let (after, upto) = (self.noted, self.clock.elapsed(now));
        let due = self.shard().next_deadline();
        if upto <= after || due.is_none_or(|due| due > upto) {
            return;
        }
        self.noted = upto;
        let mut due: BTreeMap<SessionId, Vec<Held>> = BTreeMap::new();
        for (session, held) in self.shard().unsent_due(after, upto, NOTED_MAX) {
            due.entry(session).or_default().push(held);
        }
        let sent = due.into_iter().filter_map(|(session, held)| {
            let connection = self.connections.get(&session)?;
            let (epoch, held) = (connection.epoch(), connection.split_sent(&held));
            (!held.is_empty()).then_some(SentLeases {
                session,
                epoch,
                held,
            })
        });
        let sent: Vec<SentLeases> = sent.collect();
        if !sent.is_empty() {
            let command = Command::NoteSent { sent };
            self.put_on_its_way(Proposal::silent(self.id, command), now);
        }
    }

    /// A paused connection takes messages again.
    pub(crate) fn resume(&mut self, connection: &Arc<Connection>, now: Instant) {
        self.set_window(connection.session, connection.room(0), now);
    }

    fn set_window(&mut self, session: SessionId, window: Window, now: Instant) {
        let command = Command::SetWindow { session, window };
        self.propose(Proposal::silent(self.id, command), now);
    }

    /// Tells every connection that the node is going down.
    pub(crate) fn tell_drain(&self) {
        for connection in self.connections.values() {
            connection.tell(Notice::Drain);
        }
    }

    /// Lets go of connections that are silent or take nothing.
    pub(super) fn check_connections(&mut self, now: Instant) {
        let (ttl, stall) = (
            self.node.options.session_ttl,
            self.node.options.consumer_stall,
        );
        let sick: Vec<(Arc<Connection>, Health)> = self
            .connections
            .values()
            .map(|connection| (Arc::clone(connection), connection.health(now, ttl, stall)))
            .filter(|(_, health)| *health != Health::Good)
            .collect();
        for (connection, health) in sick {
            let session = connection.session;
            match health {
                Health::Good => {}
                Health::Silent => {
                    self.connections.remove(&session);
                    connection.tell(Notice::Closed(Refusal::new(
                        ErrorCode::SessionExpired,
                        format!("nothing was heard from the client for {} s", ttl.as_secs()),
                    )));
                    self.end(&connection, now);
                }
                Health::Stuck(unsent) => {
                    let closed = Window {
                        messages: 0,
                        bytes: 0,
                    };
                    self.set_window(session, closed, now);
                    self.give_back(connection.queue, session, &unsent, now);
                }
            }
        }
    }
}
