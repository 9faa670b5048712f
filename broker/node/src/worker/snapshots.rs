//! States on their way, as far as a worker's shards have to do with them.

use std::time::Instant;

use millrace_replica::{Message, SnapshotChunk};
use millrace_types::{NodeId, ReplicaId, ShardId};

use super::Worker;
use crate::snapshots::{self, Fate, Prepared};

impl Worker {
    /// A stretch of a snapshot has come.
    pub(super) fn chunk(&mut self, from: NodeId, shard: ShardId, chunk: SnapshotChunk) {
        let may_come = if shard == ShardId::METADATA {
            let metadata = self.metadata.as_mut();
            metadata.is_some_and(|metadata| metadata.log().may_come(from, &chunk))
        } else {
            let shard = self.shards.get_mut(&shard);
            shard.is_some_and(|shard| shard.log().may_come(from, &chunk))
        };
        if may_come {
            snapshots::receive(&self.node, from, shard, chunk);
        } else {
            let (replica, own) = (chunk.from, chunk.to);
            tracing::debug!(%shard, %from, %replica, %own, "a snapshot that nobody waits for");
        }
    }

    /// Raft's message behind a snapshot has come: it is nothing without the state.
    pub(super) fn snapshot(&mut self, from: NodeId, shard: ShardId, message: Message) {
        if !self.node.snapshots.is_staged(shard, &message) {
            tracing::debug!(%shard, %from, "a snapshot came without the state it speaks of");
            return;
        }
        if shard == ShardId::METADATA {
            if let Some(metadata) = &mut self.metadata {
                metadata.log().offer(from, message);
            }
        } else if let Some(shard) = self.shards.get_mut(&shard) {
            shard.log().offer(from, message);
        }
    }

    /// A snapshot that was sent has ended.
    pub(super) fn snapshot_ended(&mut self, shard: ShardId, to: ReplicaId, fate: Fate) {
        if shard == ShardId::METADATA {
            if let Some(metadata) = &mut self.metadata {
                metadata.log().snapshot_ended(to, fate);
            }
        } else if let Some(shard) = self.shards.get_mut(&shard) {
            shard.log().snapshot_ended(to, fate);
        }
    }

    /// The state of a snapshot is in force on disk.
    pub(super) fn promoted(&mut self, shard: ShardId, prepared: Prepared, now: Instant) {
        if shard == ShardId::METADATA {
            if let Some(metadata) = &mut self.metadata {
                metadata.promoted(prepared, now);
            }
        } else if let Some(shard) = self.shards.get_mut(&shard) {
            shard.promoted(prepared, now);
        }
        self.node.figures.snapshots_received.add(1);
        self.node.snapshots.installed(shard);
    }
}
