//! What other nodes say to the shards of a worker.
//!
//! Entries wait until the journal has room, like everything that adds to what is to be written;
//! what a leader says of its log behind them waits, too, or it would be taken for a gap. The rest
//! does not wait: an acceptance makes room, and an election must not wait for a slow disk.

use millrace_replica::{Body, Entry, Lane, Payload, ShardMessage};
use millrace_types::{LogIndex, NodeId, ShardId};

use super::Worker;
use crate::inlet::Arrived;
use crate::input::Input;

impl Worker {
    /// Steps what may be; what has to wait joins what else waits.
    pub(super) fn arrived(&mut self, mut arrived: Arrived) {
        let now = arrived.take_now(is_append);
        self.step(arrived.from, now);
        if !arrived.messages.is_empty() {
            self.waiting.push_back(Input::Peer(arrived));
        }
    }

    /// Gives messages of a node to their shards.
    pub(super) fn step(&mut self, from: NodeId, messages: Vec<ShardMessage>) {
        let mut broken = Vec::new();
        for ShardMessage { shard, body } in messages {
            let message = match body {
                Body::Raft(message) => message,
                Body::Chunk(chunk) => {
                    self.chunk(from, shard, chunk);
                    continue;
                }
                Body::Ack(ack) => {
                    self.node.snapshots.acknowledged(from, shard, ack);
                    continue;
                }
            };
            if matches!(message.payload, Payload::Snapshot { .. }) {
                self.snapshot(from, shard, message);
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

    /// Lets the journal go as far as checkpoints cover it and no follower needs it.
    pub(super) fn let_go(&mut self) {
        let keeps = self.node.keeps();
        let journal = &self.node.journal;
        if let Some(metadata) = &mut self.metadata
            && let Some(upto) = metadata.log().let_go(keeps)
        {
            journal.release(ShardId::METADATA, upto);
        }
        for (id, shard) in &mut self.shards {
            if let Some(upto) = shard.log().let_go(keeps) {
                journal.release(*id, upto);
            }
        }
    }

    /// Whether something is kept for followers only.
    pub(super) fn keeps_some(&mut self) -> bool {
        let mut shards = self.shards.values_mut();
        let metadata = self.metadata.as_mut();
        metadata.is_some_and(|metadata| metadata.log().keeps_some())
            || shards.any(|shard| shard.log().keeps_some())
    }

    /// Entries for a follower have been read.
    pub(super) fn loaded(&mut self, shard: ShardId, from: LogIndex, entries: Vec<Entry>) {
        if shard == ShardId::METADATA {
            if let Some(metadata) = &mut self.metadata {
                metadata.log().loaded(from, entries);
            }
        } else if let Some(shard) = self.shards.get_mut(&shard) {
            shard.log().loaded(from, entries);
        }
    }

    /// What was sent to a node in a lane was probably lost.
    pub(super) fn unreachable(&mut self, node: NodeId, lane: Lane) {
        if lane == Lane::Snapshots {
            self.node.snapshots.unreachable(node);
        }
        if let Some(metadata) = &mut self.metadata {
            metadata.log().unreachable(node, lane);
        }
        for shard in self.shards.values_mut() {
            shard.log().unreachable(node, lane);
        }
    }
}

/// Also without entries: a commit that overtakes the entries before it is rejected, and the leader
/// sends all of them again.
fn is_append(message: &ShardMessage) -> bool {
    matches!(&message.body, Body::Raft(message)
        if matches!(&message.payload, Payload::Append { .. }))
}
