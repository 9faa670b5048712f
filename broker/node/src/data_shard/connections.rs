//! Connections of consumers to sessions of the shard: attaching, detaching, and letting go of those
//! that are silent or take nothing.

use std::sync::Arc;
use std::time::Instant;

use millrace_engine::command::{Command, Held, Window};
use millrace_types::{ErrorCode, Refusal, SessionId};

use super::DataShard;
use crate::connection::{Connection, Health, Notice};
use crate::input::Proposal;
use crate::outbound::Outbound;

impl DataShard {
    /// A session is open or attached: this is its connection now.
    pub(super) fn attach(
        &mut self,
        connection: Arc<Connection>,
        epoch: u32,
        lost: Vec<Held>,
        now: Instant,
        out: &mut Outbound,
    ) {
        if connection.is_abandoned() {
            let command = Command::DetachSession {
                session: connection.session,
                epoch,
            };
            self.propose(Proposal::silent(self.id, command), now, out);
            return;
        }
        connection.attached(epoch);
        if !lost.is_empty() {
            connection.tell(Notice::Lost(lost));
        }
        let session = connection.session;
        if let Some(old) = self.connections.insert(session, connection) {
            old.tell(Notice::Closed(Refusal::new(
                ErrorCode::SessionExpired,
                "another connection has taken the session over",
            )));
        }
    }

    /// A connection ended; if it is the session's present one, the session is detached.
    pub(crate) fn detach(
        &mut self,
        connection: &Arc<Connection>,
        now: Instant,
        out: &mut Outbound,
    ) {
        let session = connection.session;
        let present = self.connections.get(&session);
        if present.is_some_and(|present| Arc::ptr_eq(present, connection)) {
            self.connections.remove(&session);
            let epoch = connection.epoch();
            let command = Command::DetachSession { session, epoch };
            self.propose(Proposal::silent(self.id, command), now, out);
        }
    }

    /// A paused connection takes messages again.
    pub(crate) fn resume(
        &mut self,
        connection: &Arc<Connection>,
        now: Instant,
        out: &mut Outbound,
    ) {
        self.set_window(connection.session, connection.window, now, out);
    }

    fn set_window(&mut self, session: SessionId, window: Window, now: Instant, out: &mut Outbound) {
        let command = Command::SetWindow { session, window };
        self.propose(Proposal::silent(self.id, command), now, out);
    }

    /// Tells every connection that the node is going down.
    pub(crate) fn tell_drain(&self) {
        for connection in self.connections.values() {
            connection.tell(Notice::Drain);
        }
    }

    /// Lets go of connections that are silent or take nothing.
    pub(super) fn check_connections(&mut self, now: Instant, out: &mut Outbound) {
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
                Health::Silent { epoch } => {
                    self.connections.remove(&session);
                    connection.tell(Notice::Closed(Refusal::new(
                        ErrorCode::SessionExpired,
                        format!("nothing was heard from the client for {} s", ttl.as_secs()),
                    )));
                    let command = Command::DetachSession { session, epoch };
                    self.propose(Proposal::silent(self.id, command), now, out);
                }
                Health::Stuck(unsent) => {
                    let closed = Window {
                        messages: 0,
                        bytes: 0,
                    };
                    self.set_window(session, closed, now, out);
                    self.give_back(connection.queue, session, &unsent, now, out);
                }
            }
        }
    }
}
