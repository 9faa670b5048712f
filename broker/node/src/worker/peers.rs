//! What other nodes say to the shards of a worker.
//!
//! Entries wait until the journal has room, like everything that adds to what is to be written. The
//! rest does not: an acceptance makes room, and an election must not wait for a slow disk.

use millrace_replica::{Body, Lane, Payload, ShardMessage};
use millrace_types::{NodeId, ShardId};

use super::Worker;
use crate::inlet::Arrived;
use crate::input::Input;

impl Worker {
    /// Steps what may be; what has to wait joins what else waits.
    pub(super) fn arrived(&mut self, mut arrived: Arrived) {
        let now = arrived.take_now(adds_entries);
        self.step(arrived.from, now);
        if !arrived.messages.is_empty() {
            self.waiting.push_back(Input::Peer(arrived));
        }
    }

    /// Gives messages of a node to their shards.
    pub(super) fn step(&mut self, from: NodeId, messages: Vec<ShardMessage>) {
        let mut broken = Vec::new();
        for ShardMessage { shard, body } in messages {
            // State on its way is nobody's business here.
            let Body::Raft(message) = body else {
                continue;
            };
            if matches!(message.payload, Payload::Snapshot { .. }) {
                continue;
            }
            let stepped = if shard == ShardId::METADATA {
                let metadata = self.metadata.as_mut();
                metadata.map(|metadata| metadata.log().step(from, message))
            } else {
                let shard = self.shards.get_mut(&shard);
                shard.map(|shard| shard.log().step(from, message))
            };
            if let Some(Err(why)) = stepped {
                broken.push((shard, why));
            }
        }
        self.quarantine(broken);
    }

    /// What was sent to a node in a lane was probably lost.
    pub(super) fn unreachable(&mut self, node: NodeId, lane: Lane) {
        if let Some(metadata) = &mut self.metadata {
            metadata.log().unreachable(node, lane);
        }
        for shard in self.shards.values_mut() {
            shard.log().unreachable(node, lane);
        }
    }
}

fn adds_entries(message: &ShardMessage) -> bool {
    matches!(&message.body, Body::Raft(message)
        if matches!(&message.payload, Payload::Append { entries, .. } if !entries.is_empty()))
}
