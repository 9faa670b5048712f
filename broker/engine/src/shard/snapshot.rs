//! A shard's state as bytes. Version 1 is pinned by a golden file: another shape of `Queue`,
//! `Partition` or anything in them is a new version, and this reader stays.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use millrace_types::{LogId, LogIndex, ShardId, Stamp};
use serde::{Deserialize, Serialize};

use super::Shard;
use crate::codec::{self, DecodeError};
use crate::partition::Partition;
use crate::queue::{Arrivals, Queue};

/// Format of a shard's snapshot.
const VERSION: u8 = 1;

#[derive(Serialize)]
struct Written<'a> {
    id: ShardId,
    applied: LogIndex,
    stamp: Stamp,
    configured: u64,
    queues: &'a BTreeMap<LogId, Queue>,
    partitions: &'a BTreeMap<LogId, Partition>,
    departed: &'a BTreeMap<LogId, Arrivals>,
}

#[derive(Deserialize)]
struct Read {
    id: ShardId,
    applied: LogIndex,
    stamp: Stamp,
    configured: u64,
    queues: BTreeMap<LogId, Queue>,
    partitions: BTreeMap<LogId, Partition>,
    departed: BTreeMap<LogId, Arrivals>,
}

pub(super) fn encode(shard: &Shard) -> Vec<u8> {
    let written = Written {
        id: shard.id,
        applied: shard.applied,
        stamp: shard.stamp,
        configured: shard.configured,
        queues: &shard.queues,
        partitions: &shard.partitions,
        departed: &shard.departed,
    };
    codec::encode(VERSION, &written)
}

pub(super) fn decode(bytes: &[u8]) -> Result<Shard, DecodeError> {
    let read: Read = codec::decode(VERSION, bytes)?;
    let mut shard = Shard::new(read.id);
    shard.applied = read.applied;
    shard.stamp = read.stamp;
    shard.configured = read.configured;
    shard.departed = read.departed;
    for (log, partition) in &read.partitions {
        partition.check()?;
        if partition.log() != *log || read.queues.contains_key(log) {
            return Err(DecodeError::Inconsistent("a partition has another log id"));
        }
    }
    shard.partitions = read.partitions;
    for (log, mut queue) in read.queues {
        if queue.log() != log {
            return Err(DecodeError::Inconsistent("a queue has another log id"));
        }
        queue.restore()?;
        for view in queue.sessions() {
            if shard.sessions.insert(view.session, log).is_some() {
                return Err(DecodeError::Inconsistent("a session is of two queues"));
            }
        }
        shard.schedule(log, queue.next_deadline());
        shard.queues.insert(log, queue);
    }
    Ok(shard)
}
