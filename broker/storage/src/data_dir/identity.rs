//! The file that says whose directory it is: `DIR/identity`, replaced as a whole.
//!
//! Decides what of it is believed. Version 1 knew only nodes that had founded a cluster alone, with
//! replica ids that were drawn; it is read as that. Who wrote it is not asked: what is behind the
//! checksum may be anything.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use millrace_types::{CLUSTER_ID_BYTES_MAX, Founding, NodeId, ReplicaId, SHARDS_MAX, ShardId};
use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::envelope::{self, Kind};
use crate::error::{Corruption, DiskFailure, OpenError};

const IDENTITY: Kind = Kind {
    magic: *b"MRIDENT\0",
    version: 2,
    // A cluster id, for each of at most 257 shards two numbers and the same for each of five
    // members, the addresses of some founders.
    payload_bytes_max: 64 << 10,
};

/// Members that a shard begins with at most.
const BORN_MEMBERS_MAX: usize = 5;

/// Payload of the file, version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    /// `None` until the node has founded one or joined one.
    pub(super) belongs: Option<Belongs>,
}

/// To which cluster, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Belongs {
    pub(super) cluster: Cluster,
    pub(super) replicas: BTreeMap<ShardId, Held>,
}

/// The cluster that a directory belongs to; never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id.
    pub id: String,
    /// Its data shards; the metadata shard comes on top.
    pub shards: u32,
    /// How it began. Who joins is told by who was there.
    pub founding: Option<Founding>,
}

/// The last replica of a shard that this node has had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) replica: ReplicaId,
    pub(super) state: HeldState,
}

/// What it is to the node. Variants keep their place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum HeldState {
    /// The shard began with it.
    Founder,
    /// Came later, with nothing.
    Added,
    /// Given up; its id is not used again.
    Retired,
    /// The shard began with it, after the cluster was founded, and with these members.
    Born(Vec<(ReplicaId, NodeId)>),
}

/// Payload of version 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct IdentityV1 {
    cluster_id: String,
    node: NodeId,
    /// By shard: the metadata shard first.
    replicas: Vec<ReplicaId>,
}

/// What the file says; `None` when there is none.
pub(super) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Identity>, OpenError> {
    let Some((version, payload)) = envelope::read(disk, path, IDENTITY)? else {
        return Ok(None);
    };
    let identity = if version == 1 {
        postcard::from_bytes(&payload).ok().and_then(from_v1)
    } else {
        postcard::from_bytes(&payload).ok()
    };
    let identity = identity.filter(makes_sense);
    identity.map(Some).ok_or_else(|| OpenError::Corrupt {
        path: path.into(),
        at: 24,
        kind: Corruption::Content,
    })
}

/// Replaces the file, durably.
pub(super) fn write(disk: &dyn Disk, path: &Path, identity: &Identity) -> Result<(), DiskFailure> {
    envelope::replace(disk, path, IDENTITY, vec![encode(identity)])
}

fn encode(identity: &Identity) -> Bytes {
    let payload = postcard::to_allocvec(identity).expect("plain data of bounded size encodes");
    payload.into()
}

fn from_v1(v1: IdentityV1) -> Option<Identity> {
    let shards = u32::try_from(v1.replicas.len().checked_sub(1)?).ok()?;
    let founding = Founding::alone(&v1.cluster_id, shards, v1.node).ok()?;
    let held = |replica| Held {
        replica,
        state: HeldState::Founder,
    };
    let replicas = (0..).map(ShardId::new).zip(v1.replicas);
    let cluster = Cluster {
        id: v1.cluster_id,
        shards,
        founding: Some(founding),
    };
    Some(Identity {
        node: v1.node,
        belongs: Some(Belongs {
            cluster,
            replicas: replicas.map(|(shard, id)| (shard, held(id))).collect(),
        }),
    })
}

pub(super) fn makes_sense(identity: &Identity) -> bool {
    let Some(Belongs { cluster, replicas }) = &identity.belongs else {
        return true;
    };
    let node = identity.node;
    let founding = cluster.founding.as_ref();
    let is_its = founding.is_none_or(|founding| {
        (founding.cluster_id(), founding.shards()) == (&*cluster.id, cluster.shards)
    });
    let founds = founding.is_some_and(|founding| founding.is_founder(node));
    let has_replica = |(shard, held): (&ShardId, &Held)| {
        let fits = match &held.state {
            HeldState::Founder => founds && shard.get() <= cluster.shards,
            HeldState::Born(members) => {
                members.len() <= BORN_MEMBERS_MAX && members.contains(&(held.replica, node))
            }
            HeldState::Added | HeldState::Retired => true,
        };
        fits && shard.get() <= SHARDS_MAX && held.replica.get() != 0
    };
    (1..=CLUSTER_ID_BYTES_MAX).contains(&cluster.id.len())
        && (1..=SHARDS_MAX).contains(&cluster.shards)
        && is_its
        && replicas.iter().all(has_replica)
}

/// The bytes of an identity file.
#[cfg(test)]
pub(crate) fn file_of(dir: &super::DataDir) -> Vec<u8> {
    let payload = encode(&dir.identity());
    [
        envelope::header(IDENTITY, std::slice::from_ref(&payload)),
        payload,
    ]
    .concat()
}

/// An identity file with any payload.
#[cfg(test)]
pub(crate) fn file_with(version: u32, payload: &[u8]) -> Vec<u8> {
    let payload = Bytes::copy_from_slice(payload);
    let kind = Kind {
        version,
        ..IDENTITY
    };
    [
        envelope::header(kind, std::slice::from_ref(&payload)),
        payload,
    ]
    .concat()
}
