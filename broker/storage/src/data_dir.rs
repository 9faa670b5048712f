//! The data directory of one node: whose it is, and that nobody else has it open.
//!
//! Decides which node the files belong to (minted at the first start), to which cluster (founded or
//! joined once, never changed), and which replica of each shard is here. Each change is durable
//! before it is made. Holds an exclusive lock as long as any clone lives, so that journal and
//! stores keep it too.
//!
//! ```text
//! DIR/lock      DIR/identity  DIR/reserve
//! DIR/journal/  DIR/shards/ID/checkpoint-INDEX  DIR/shards/ID/segments/NUMBER.seg  DIR/aside/
//! ```

mod belonging;
mod identity;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_types::{NodeId, ReplicaId, SHARDS_MAX, ShardId};

use self::identity::{Held, HeldState, Identity};
use crate::disk::{Disk, Lock};
use crate::error::{Action, DiskFailure, OpenError, failed};

pub use self::belonging::BelongError;
pub use self::identity::Cluster;
#[cfg(test)]
pub(crate) use self::identity::file_of;

/// What the caller believes about a directory that founds alone.
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
    node: NodeId,
    /// As the file has it; locked while it is replaced.
    identity: Mutex<Identity>,
    random: Random,
    _lock: Lock,
}

impl DataDir {
    /// Opens a directory, creating it and minting the node's id at the first start.
    ///
    /// # Errors
    /// When it is in use, of a later version, damaged, or the system refuses.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, random: Random) -> Result<Self, OpenError> {
        disk.create_dir_all(path)
            .map_err(failed(Action::Create, path))?;
        let lock_path = path.join("lock");
        let lock = disk.lock(&lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked { path: path.into() },
            _ => failed(Action::Lock, &lock_path)(error).into(),
        })?;
        let identity = match identity::read(&*disk, &path.join("identity"))? {
            Some(identity) => {
                if identity.belongs.is_none() {
                    check_empty(&*disk, path)?;
                }
                // Whoever wrote it may have been killed before its name was durable.
                disk.sync_dir(path).map_err(failed(Action::Sync, path))?;
                identity
            }
            None => mint(&*disk, path, &random)?,
        };
        Ok(Self(Arc::new(Inner {
            disk,
            path: path.into(),
            node: identity.node,
            identity: Mutex::new(identity),
            random,
            _lock: lock,
        })))
    }

    /// Opens a directory; one that belongs to no cluster founds its own.
    ///
    /// # Errors
    /// As `open`, and when it belongs to another cluster or has another number of shards.
    pub fn open_alone(
        disk: Arc<dyn Disk>,
        path: &Path,
        expect: Expect<'_>,
        random: Random,
    ) -> Result<Self, OpenError> {
        if !(1..=SHARDS_MAX).contains(&expect.shards) {
            let (shards, shards_max) = (expect.shards, SHARDS_MAX);
            return Err(OpenError::ShardsOutOfRange { shards, shards_max });
        }
        let dir = Self::open(disk, path, random)?;
        if dir.cluster().is_none() {
            dir.found_alone(expect)?;
        }
        dir.check(expect)?;
        Ok(dir)
    }

    /// Whether it belongs to the cluster that the caller means.
    ///
    /// # Errors
    /// When it is another one, or has another number of shards.
    pub fn check(&self, expect: Expect<'_>) -> Result<(), OpenError> {
        let Some(cluster) = self.cluster() else {
            return Ok(());
        };
        if let Some(expected) = expect.cluster_id
            && expected != cluster.id
        {
            return Err(OpenError::AnotherCluster {
                path: self.path().into(),
                expected: expected.into(),
                found: cluster.id,
            });
        }
        let (expected, found) = (expect.shards, cluster.shards);
        if found != expected {
            return Err(OpenError::ShardCount {
                path: self.path().into(),
                expected,
                found,
            });
        }
        Ok(())
    }

    /// The cluster it belongs to; `None` until it has founded one or joined one.
    #[must_use]
    pub fn cluster(&self) -> Option<Cluster> {
        let identity = self.lock();
        identity.belongs.as_ref().map(|all| all.cluster.clone())
    }

    /// The node it belongs to.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Data shards that the cluster was founded with, without the metadata shard; none without a
    /// cluster.
    #[must_use]
    pub fn data_shards(&self) -> u32 {
        let identity = self.lock();
        identity
            .belongs
            .as_ref()
            .map_or(0, |all| all.cluster.shards)
    }

    /// Every shard that there may be, the metadata shard first: those that came after the founding
    /// only the catalogue knows.
    pub fn shards() -> impl Iterator<Item = ShardId> {
        (0..=SHARDS_MAX).map(ShardId::new)
    }

    /// This node's replica of a shard; `None` when it has none.
    #[must_use]
    pub fn replica(&self, shard: ShardId) -> Option<ReplicaId> {
        self.of_held(shard, |held| {
            (held.state != HeldState::Retired).then_some(held.replica)
        })
    }

    /// The replica of a shard that this node gave up last, and no other has come since.
    #[must_use]
    pub fn retired(&self, shard: ShardId) -> Option<ReplicaId> {
        self.of_held(shard, |held| {
            (held.state == HeldState::Retired).then_some(held.replica)
        })
    }

    /// The shard's first members, when this node's replica is one of them and the cluster was
    /// founded with the shard. Whoever has another one learns from a leader who they are.
    #[must_use]
    pub fn founding_members(&self, shard: ShardId) -> Option<Vec<(ReplicaId, NodeId)>> {
        let founder = self.of_held(shard, |held| {
            (held.state == HeldState::Founder).then_some(held.replica)
        })?;
        let founding = self.cluster()?.founding?;
        Some(match founding.founders() {
            [_] => vec![(founder, self.node())],
            _ => founding.members(shard),
        })
    }

    /// The same of a shard that came after the founding.
    #[must_use]
    pub fn born_members(&self, shard: ShardId) -> Option<Vec<(ReplicaId, NodeId)>> {
        self.of_held(shard, |held| match &held.state {
            HeldState::Born(members) => Some(members.clone()),
            HeldState::Founder | HeldState::Added | HeldState::Retired => None,
        })
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

    /// What there is to say of the last replica of a shard that this node has had.
    fn of_held<T>(&self, shard: ShardId, say: impl FnOnce(&Held) -> Option<T>) -> Option<T> {
        let identity = self.lock();
        say(identity.belongs.as_ref()?.replicas.get(&shard)?)
    }

    fn lock(&self) -> MutexGuard<'_, Identity> {
        // Replaced as a whole, or not at all.
        let identity = self.0.identity.lock();
        identity.unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn identity(&self) -> Identity {
        self.lock().clone()
    }
}

fn mint(disk: &dyn Disk, path: &Path, random: &Random) -> Result<Identity, OpenError> {
    let identity_path = &path.join("identity");
    check_empty(disk, path)?;
    let number = random().map_err(failed(Action::Random, identity_path))?;
    let identity = Identity {
        // 0 is nobody.
        node: NodeId::new(number.max(1)),
        belongs: None,
    };
    identity::write(disk, identity_path, &identity)?;
    Ok(identity)
}

/// Data must be somebody's.
fn check_empty(disk: &dyn Disk, path: &Path) -> Result<(), OpenError> {
    let names = disk.list(path).map_err(failed(Action::List, path))?;
    let is_data = |name: &String| name == "journal" || name == "shards";
    if names.iter().any(is_data) {
        return Err(OpenError::IdentityMissing { path: path.into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
