//! A shard's state as bytes. Version 2 is pinned by a golden file: another shape of `Queue`,
//! `Partition` or anything in them is a new version, and this reader stays.

mod first;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use millrace_types::{LogId, LogIndex, SessionId, ShardId, Stamp};
use serde::{Deserialize, Serialize};

use super::{Logs, Shard};
use crate::codec::{self, DecodeError};
use crate::partition::Partition;
use crate::queue::{Arrivals, Queue};

/// Format of a shard's snapshot.
const VERSION: u8 = 2;

/// A shard's state at one moment. The shard shares what it does not change, so making one is cheap
/// and encoding it can be left to another thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frozen {
    pub(super) id: ShardId,
    pub(super) applied: LogIndex,
    pub(super) stamp: Stamp,
    pub(super) configured: u64,
    pub(super) leaders: u64,
    pub(super) detaching: Option<SessionId>,
    pub(super) queues: Logs<Queue>,
    pub(super) partitions: Logs<Partition>,
    pub(super) departed: BTreeMap<LogId, Arrivals>,
}

impl Frozen {
    /// Index of the last entry applied.
    #[must_use]
    pub const fn applied(&self) -> LogIndex {
        self.applied
    }

    /// As bytes; equal states have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(VERSION, self)
    }

    /// A number to compare states by.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        codec::checksum(VERSION, self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_any(VERSION, bytes, first::frozen)
    }

    /// The shard, with everything that is computed from its state.
    pub(super) fn thaw(self) -> Result<Shard, DecodeError> {
        let mut shard = Shard::new(self.id);
        shard.applied = self.applied;
        shard.stamp = self.stamp;
        shard.configured = self.configured;
        (shard.leaders, shard.detaching) = (self.leaders, self.detaching);
        shard.departed = self.departed;
        let mut partitions = self.partitions;
        for (log, partition) in partitions.iter_mut() {
            let partition = Arc::make_mut(partition);
            partition.restore()?;
            if partition.log() != *log || self.queues.contains_key(log) {
                return Err(DecodeError::Inconsistent("a partition has another log id"));
            }
        }
        shard.partitions = partitions;
        let mut queues = self.queues;
        for (log, queue) in queues.iter_mut() {
            if queue.log() != *log {
                return Err(DecodeError::Inconsistent("a queue has another log id"));
            }
            if queue.leaders() > shard.leaders {
                return Err(DecodeError::Inconsistent(
                    "a queue has a leader yet to come",
                ));
            }
            let queue = Arc::make_mut(queue);
            queue.restore(&mut shard.specs)?;
            for view in queue.sessions() {
                if shard.sessions.insert(view.session, *log).is_some() {
                    return Err(DecodeError::Inconsistent("a session is of two queues"));
                }
            }
            shard.deadlines.set(*log, queue.next_deadline());
        }
        shard.queues = queues;
        let partitions = shard.partitions.keys();
        let logs: Vec<LogId> = partitions.chain(shard.queues.keys()).copied().collect();
        logs.into_iter().for_each(|log| shard.recount(log, 0));
        Ok(shard)
    }
}
