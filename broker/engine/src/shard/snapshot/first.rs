//! A shard's snapshot of version 1, which brokers before replication wrote: the same but for dedup
//! ids, which nobody knew.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use millrace_types::{LogId, LogIndex, SessionId, ShardId, Stamp};
use serde::Deserialize;

use super::super::Logs;
use super::Frozen;
use crate::queue::Arrivals;
use crate::{partition, queue};

#[derive(Deserialize)]
struct First {
    id: ShardId,
    applied: LogIndex,
    stamp: Stamp,
    configured: u64,
    leaders: u64,
    detaching: Option<SessionId>,
    queues: BTreeMap<LogId, queue::First>,
    partitions: BTreeMap<LogId, partition::First>,
    departed: BTreeMap<LogId, Arrivals>,
}

/// A state, and the bytes after it.
pub(super) fn frozen(bytes: &[u8]) -> postcard::Result<(Frozen, &[u8])> {
    let (old, left) = postcard::take_from_bytes::<First>(bytes)?;
    let now = Frozen {
        id: old.id,
        applied: old.applied,
        stamp: old.stamp,
        configured: old.configured,
        leaders: old.leaders,
        detaching: old.detaching,
        queues: logs(old.queues),
        partitions: logs(old.partitions),
        departed: old.departed,
    };
    Ok((now, left))
}

fn logs<A: Into<B>, B: Clone>(old: BTreeMap<LogId, A>) -> Logs<B> {
    let mut logs = Logs::new();
    for (log, one) in old {
        logs.insert(log, Arc::new(one.into()));
    }
    logs
}
