//! A catalogue's snapshot of version 1, which brokers before replication wrote: it knows neither
//! nodes nor replicas, as a cluster that is still to be founded, one class of shards, and no dedup
//! windows.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;

use bytes::Bytes;
use millrace_types::{Address, LogId, LogIndex, ShardId};
use serde::Deserialize;

use super::super::class::ShardClass;
use super::super::objects::{self, Objects};
use super::super::placed::{Placed, PlacedState, Placement};
use super::super::roster::Roster;
use super::super::topology::Topology;
use super::Frozen;
use crate::codec::first;

#[derive(Deserialize)]
struct First {
    applied: LogIndex,
    last_log: LogId,
    topology: FirstTopology,
    removed: BTreeMap<(ShardId, LogId), u64>,
}

#[derive(Deserialize)]
struct FirstTopology {
    revision: u64,
    data_shards: u32,
    #[serde(deserialize_with = "objects::listed::<FirstPlaced, _>")]
    objects: Objects,
    configured: BTreeMap<ShardId, u64>,
}

#[derive(Deserialize)]
struct FirstPlaced {
    address: Address,
    uid: String,
    generation: i64,
    spec: first::ObjectSpec,
    placement: Placement,
    state: PlacedState,
    wire: Bytes,
}

impl From<FirstPlaced> for Placed {
    fn from(old: FirstPlaced) -> Self {
        Self {
            address: Arc::new(old.address),
            uid: old.uid,
            generation: old.generation,
            spec: Arc::new(old.spec.into()),
            class: ShardClass::default(),
            placement: old.placement,
            state: old.state,
            wire: old.wire,
        }
    }
}

/// A state, and the bytes after it.
pub(super) fn frozen(bytes: &[u8]) -> postcard::Result<(Frozen, &[u8])> {
    let (old, left) = postcard::take_from_bytes::<First>(bytes)?;
    let now = Frozen {
        applied: old.applied,
        last_log: old.last_log,
        topology: Topology {
            revision: old.topology.revision,
            data_shards: old.topology.data_shards,
            objects: old.topology.objects,
            configured: old.topology.configured,
        },
        removed: old.removed,
        roster: Arc::new(Roster::default()),
    };
    Ok((now, left))
}
