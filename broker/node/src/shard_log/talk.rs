//! What a shard's log hears from its other replicas and says to them: where those are.
//!
//! Promises: nobody speaks for a replica that is another node's, as far as the members say. They
//! may be old ones: whoever is not among them is answered where it was heard from.

use std::collections::VecDeque;

use millrace_replica::{
    Body, Lane, MEMBERS_MAX, Member, Message, Payload, Replica, Seat, ShardMessage, StepError,
};
use millrace_types::{NodeId, ReplicaId};

use super::ShardLog;
use crate::outbound::Outbound;
use crate::snapshots::Order;

/// Replicas heard from that are no members: as many as may join or have left at a time.
const STRANGERS_MAX: usize = MEMBERS_MAX;

/// Where replicas are that the members do not say.
#[derive(Debug, Default)]
pub(super) struct Strangers(VecDeque<(ReplicaId, NodeId)>);

impl Strangers {
    fn note(&mut self, replica: ReplicaId, node: NodeId) {
        self.0.retain(|(known, _)| *known != replica);
        if self.0.len() >= STRANGERS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((replica, node));
    }

    fn find(&self, replica: ReplicaId) -> Option<NodeId> {
        let found = self.0.iter().find(|(known, _)| *known == replica);
        found.map(|(_, node)| *node)
    }
}

impl<E> ShardLog<E> {
    /// A message of another replica has come from a node.
    ///
    /// # Errors
    /// When it shows that this replica has lost what it once had: the shard must not go on.
    pub(crate) fn step(&mut self, from: NodeId, message: Message) -> Result<(), String> {
        let (shard, sender) = (self.replica.shard(), message.from);
        match self.replica.members().find(sender) {
            Some(member) if member.node != from => {
                tracing::warn!(%shard, replica = %sender, node = %from,
                    "a node speaks for a replica of another one");
                return Ok(());
            }
            Some(_) => {}
            None => self.strangers.note(sender, from),
        }
        self.news = true;
        match self.replica.step(message) {
            Ok(()) => Ok(()),
            Err(error @ StepError::CommitBeyondLog { .. }) => {
                Err(format!("this disk has lost something: {error}"))
            }
            Err(error) => {
                tracing::debug!(%shard, replica = %sender, %error, "a message was not taken");
                Ok(())
            }
        }
    }

    /// What was sent to a node in a lane was probably lost.
    pub(crate) fn unreachable(&mut self, node: NodeId, lane: Lane) {
        // Heartbeats come again anyway; of snapshots, whoever sends them knows.
        if lane != Lane::Appends || !self.leads() {
            return;
        }
        let there = |member: &Member| member.node == node;
        let own = self.replica.id();
        let lost: Vec<Member> = self.replica.members().iter().filter(there).collect();
        for member in lost.into_iter().filter(|member| member.replica != own) {
            self.replica.unreachable(member.replica);
            self.news = true;
        }
    }

    /// Nodes with a replica that votes, besides this one.
    pub(crate) fn other_voters(&self) -> Vec<NodeId> {
        let own = self.replica.id();
        let members = self.replica.members().iter();
        let voters = members.filter(|m| m.seat != Seat::Learner && m.replica != own);
        voters.map(|member| member.node).collect()
    }

    /// Addresses what the replica says.
    pub(super) fn send(&mut self, messages: Vec<Message>, out: &mut Outbound) {
        for message in messages {
            let (shard, to) = (self.replica.shard(), message.to);
            let there = self.node_of(&self.replica, to);
            let is_snapshot = matches!(message.payload, Payload::Snapshot { .. });
            match there {
                // It leaves behind the state it speaks of.
                Some(node) if is_snapshot => out.snapshot(Order {
                    shard,
                    node,
                    message,
                }),
                Some(node) => {
                    let body = Body::Raft(message);
                    out.send(node, ShardMessage { shard, body });
                }
                None if is_snapshot => self.replica.snapshot_failed(to),
                None => {}
            }
        }
    }

    fn node_of(&self, replica: &Replica, id: ReplicaId) -> Option<NodeId> {
        let member = replica.members().find(id).map(|member| member.node);
        member.or_else(|| self.strangers.find(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_known_by_where_they_were_heard_last_and_only_so_many() {
        let mut strangers = Strangers::default();
        for id in 1..=STRANGERS_MAX as u64 + 1 {
            strangers.note(ReplicaId::new(id), NodeId::new(id));
        }
        assert_eq!(strangers.find(ReplicaId::new(1)), None);
        let (again, there) = (ReplicaId::new(2), NodeId::new(99));
        strangers.note(again, there);
        assert_eq!(strangers.find(again), Some(there));
        assert_eq!(strangers.0.len(), STRANGERS_MAX);
    }
}
