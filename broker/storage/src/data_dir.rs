//! The data directory of one node: whose it is, and that nobody else has it open.
//!
//! Decides which node and cluster the files belong to (minted at the first start, in
//! `DIR/identity`, never changed) and where everything is. Holds an exclusive lock as long as any
//! clone lives, so that journal and stores keep it too.
//!
//! ```text
//! DIR/lock      DIR/identity  DIR/reserve
//! DIR/journal/  DIR/shards/ID/checkpoint-INDEX  DIR/shards/ID/segments/NUMBER.seg  DIR/aside/
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_types::{NodeId, ReplicaId, SHARDS_MAX, ShardId};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, Lock};
use crate::envelope::{self, Kind};
use crate::error::{Action, Corruption, DiskFailure, OpenError, failed};

const IDENTITY: Kind = Kind {
    magic: *b"MRIDENT\0",
    version: 1,
    // A cluster id, and one number for each of at most 257 shards.
    payload_bytes_max: 16 << 10,
};
/// Longest cluster id: it is a label of a Kubernetes object.
pub const CLUSTER_ID_BYTES_MAX: usize = 63;

/// What the caller believes about the directory.
#[derive(Clone, Copy, Debug)]
pub struct Expect<'a> {
    /// The cluster it must belong to; `None` accepts any and mints one at the first start.
    pub cluster_id: Option<&'a str>,
    /// Data shards (the metadata shard comes on top).
    pub shards: u32,
}

/// Where ids and nonces come from: bits that nobody can foresee, or in a simulation those of a
/// seed.
pub type Random = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// An open, locked data directory. Clones share it.
#[derive(Clone)]
pub struct DataDir(Arc<Inner>);

struct Inner {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    identity: Identity,
    random: Random,
    _lock: Lock,
}

/// Payload of `DIR/identity`, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    cluster_id: String,
    node: NodeId,
    /// By shard: the metadata shard first.
    replicas: Vec<ReplicaId>,
}

impl DataDir {
    /// Opens a directory, creating it and minting its identity at the first start.
    ///
    /// # Errors
    /// When it is in use, belongs to another cluster, is of a later version or another number of
    /// shards, is damaged, or the system refuses.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        expect: Expect<'_>,
        random: Random,
    ) -> Result<Self, OpenError> {
        if !(1..=SHARDS_MAX).contains(&expect.shards) {
            let (shards, shards_max) = (expect.shards, SHARDS_MAX);
            return Err(OpenError::ShardsOutOfRange { shards, shards_max });
        }
        disk.create_dir_all(path)
            .map_err(failed(Action::Create, path))?;
        let lock_path = path.join("lock");
        let lock = disk.lock(&lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked { path: path.into() },
            _ => failed(Action::Lock, &lock_path)(error).into(),
        })?;
        let identity_path = path.join("identity");
        let identity = match envelope::read(&*disk, &identity_path, IDENTITY)? {
            Some((_, payload)) => {
                // Whoever minted it may have been killed before its name was durable.
                disk.sync_dir(path).map_err(failed(Action::Sync, path))?;
                parse(&identity_path, &payload)?
            }
            None => mint(&*disk, path, &random, expect)?,
        };
        check(path, &identity, expect)?;
        Ok(Self(Arc::new(Inner {
            disk,
            path: path.into(),
            identity,
            random,
            _lock: lock,
        })))
    }

    /// The cluster it belongs to.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.0.identity.cluster_id
    }

    /// The node it belongs to.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.identity.node
    }

    /// Data shards, without the metadata shard.
    #[must_use]
    pub fn data_shards(&self) -> u32 {
        u32::try_from(self.0.identity.replicas.len() - 1).expect("checked against SHARDS_MAX")
    }

    /// Every shard, the metadata shard first.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..=self.data_shards()).map(ShardId::new)
    }

    /// This node's replica of a shard; `None` when there is no such shard here.
    #[must_use]
    pub fn replica(&self, shard: ShardId) -> Option<ReplicaId> {
        let place = usize::try_from(shard.get()).ok()?;
        self.0.identity.replicas.get(place).copied()
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Where its files are.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.0.disk
    }

    /// Bytes that may still be written.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn free_bytes(&self) -> Result<u64, DiskFailure> {
        self.0
            .disk
            .free_bytes(&self.0.path)
            .map_err(failed(Action::Read, &self.0.path))
    }

    /// Random bits.
    pub(crate) fn random(&self) -> io::Result<u64> {
        (self.0.random)()
    }

    pub(crate) fn journal_path(&self) -> PathBuf {
        self.0.path.join("journal")
    }

    pub(crate) fn shard_path(&self, shard: ShardId) -> PathBuf {
        self.0.path.join("shards").join(shard.to_string())
    }

    /// Of the file that keeps room for a checkpoint.
    pub(crate) fn reserve_path(&self) -> PathBuf {
        self.0.path.join("reserve")
    }

    pub(crate) fn aside_path(&self) -> PathBuf {
        self.0.path.join("aside")
    }
}

fn parse(path: &Path, payload: &[u8]) -> Result<Identity, OpenError> {
    let corrupt = || OpenError::Corrupt {
        path: path.into(),
        at: 24,
        kind: Corruption::Content,
    };
    let identity: Identity = postcard::from_bytes(payload).map_err(|_| corrupt())?;
    let shards = identity.replicas.len().saturating_sub(1);
    if !(1..=SHARDS_MAX as usize).contains(&shards) {
        return Err(corrupt());
    }
    Ok(identity)
}

fn mint(
    disk: &dyn Disk,
    path: &Path,
    random: &Random,
    expect: Expect<'_>,
) -> Result<Identity, OpenError> {
    let identity_path = &path.join("identity");
    let names = disk.list(path).map_err(failed(Action::List, path))?;
    if names
        .iter()
        .any(|name| name == "journal" || name == "shards")
    {
        return Err(OpenError::IdentityMissing { path: path.into() });
    }
    let random = || random().map_err(failed(Action::Random, identity_path));
    let cluster_id = match expect.cluster_id {
        Some(id) => id.into(),
        None => format!("{:016x}{:016x}", random()?, random()?),
    };
    let mut replicas = Vec::new();
    for _ in 0..=expect.shards {
        replicas.push(ReplicaId::new(random()?));
    }
    let identity = Identity {
        cluster_id,
        node: NodeId::new(random()?),
        replicas,
    };
    let payload = postcard::to_allocvec(&identity).expect("plain data of bounded size encodes");
    envelope::replace(disk, identity_path, IDENTITY, vec![payload.into()])?;
    Ok(identity)
}

fn check(path: &Path, identity: &Identity, expect: Expect<'_>) -> Result<(), OpenError> {
    if let Some(expected) = expect.cluster_id
        && expected != identity.cluster_id
    {
        return Err(OpenError::AnotherCluster {
            path: path.into(),
            expected: expected.into(),
            found: identity.cluster_id.clone(),
        });
    }
    let found = u32::try_from(identity.replicas.len() - 1).expect("checked against SHARDS_MAX");
    if found != expect.shards {
        let (path, expected) = (path.into(), expect.shards);
        return Err(OpenError::ShardCount {
            path,
            expected,
            found,
        });
    }
    Ok(())
}

/// The bytes of an identity file.
#[cfg(test)]
pub(crate) fn identity_file(cluster: &str, node: NodeId, replicas: Vec<ReplicaId>) -> Vec<u8> {
    let disk = crate::MemoryDisk::new();
    disk.create_dir_all(Path::new("/")).expect("in memory");
    let identity = Identity {
        cluster_id: cluster.into(),
        node,
        replicas,
    };
    let payload = postcard::to_allocvec(&identity).expect("plain data encodes");
    let path = Path::new("/identity");
    envelope::replace(&disk, path, IDENTITY, vec![payload.into()]).expect("in memory");
    disk.content(path).expect("in memory")
}

#[cfg(test)]
mod tests;
