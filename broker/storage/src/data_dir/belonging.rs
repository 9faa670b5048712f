//! How a directory comes to belong to a cluster, and to have replicas of its shards.
//!
//! Promises: a cluster is founded or joined once, replicas are never used again once they were
//! given up, and whoever asks for what is so already gets the same answer. What a replica that was
//! given up has left behind is gone before another one begins.

use std::collections::BTreeMap;
use std::io;

use millrace_types::{Founding, NodeId, ReplicaId, SHARDS_MAX, ShardId};
use thiserror::Error;

use super::identity::{self, Belongs, Cluster, Held, HeldState, Identity};
use super::{DataDir, Expect};
use crate::error::{Action, DiskFailure, OpenError, failed};

/// Why a directory does not come to belong as asked. But for a failure of the disk, nothing has
/// changed.
#[derive(Debug, Error)]
pub enum BelongError {
    /// It belongs to another cluster, or to this one by another record.
    #[error("node {node} belongs to cluster {found} already, in another way than asked for")]
    Already {
        /// The directory's.
        node: NodeId,
        /// The cluster's id.
        found: String,
    },
    /// Others found it.
    #[error("node {node} is not among the founders")]
    NotFounder {
        /// The directory's.
        node: NodeId,
    },
    /// It founds it.
    #[error("node {node} is one of the founders: it does not join")]
    Founder {
        /// The directory's.
        node: NodeId,
    },
    /// A number or a name is out of its bounds.
    #[error("cluster {id:?} with {shards} data shards is none")]
    NoCluster {
        /// Its id.
        id: String,
        /// Its shards.
        shards: u32,
    },
    /// There is no such shard, or no cluster.
    #[error("there is no shard {shard}")]
    NoShard {
        /// Which.
        shard: ShardId,
    },
    /// Another replica of the shard is here.
    #[error("replica {replica} of shard {shard} is here")]
    Held {
        /// Of what.
        shard: ShardId,
        /// Which is here.
        replica: ReplicaId,
    },
    /// The id was used, or is none.
    #[error("replica {replica} of shard {shard} was given up; its id is not used again")]
    Retired {
        /// Of what.
        shard: ShardId,
        /// Which.
        replica: ReplicaId,
    },
    /// The shard would not begin with it, or with more members than it may.
    #[error("shard {shard} does not begin with replica {replica}")]
    NotMember {
        /// Of what.
        shard: ShardId,
        /// Which.
        replica: ReplicaId,
    },
    /// What is on disk now is not known.
    #[error(transparent)]
    Disk(#[from] DiskFailure),
}

impl DataDir {
    /// Founds a cluster with others, or alone, and durably. The same again is no error.
    ///
    /// # Errors
    /// When the node is not in the record, or belongs to a cluster by another one.
    pub fn found(&self, founding: &Founding) -> Result<(), BelongError> {
        let node = self.node();
        if !founding.is_founder(node) {
            return Err(BelongError::NotFounder { node });
        }
        let held = |shard| {
            let replica = founding.replica(shard, node)?;
            let state = HeldState::Founder;
            Some((shard, Held { replica, state }))
        };
        let shards = (0..=founding.shards()).map(ShardId::new);
        self.belong(
            Cluster {
                id: founding.cluster_id().into(),
                shards: founding.shards(),
                founding: Some(founding.clone()),
            },
            shards.filter_map(held).collect(),
        )
    }

    /// Joins a cluster that others founded, durably, with a first replica: that of the metadata
    /// shard. The same again is no error.
    ///
    /// # Errors
    /// When the node is one of the founders, or belongs to a cluster in another way.
    pub fn join(&self, cluster: Cluster, metadata: ReplicaId) -> Result<(), BelongError> {
        let node = self.node();
        if is_founder(&cluster, node) {
            return Err(BelongError::Founder { node });
        }
        let held = Held {
            replica: metadata,
            state: HeldState::Added,
        };
        self.belong(cluster, BTreeMap::from([(ShardId::METADATA, held)]))
    }

    /// Takes a new, empty replica of a shard, durably. What a former one has left behind is
    /// removed. The same again is no error.
    ///
    /// # Errors
    /// When there is another one, or its id was used or is an older one.
    pub fn hold(&self, shard: ShardId, replica: ReplicaId) -> Result<(), BelongError> {
        self.take(shard, replica, HeldState::Added)
    }

    /// The same of a replica that the shard begins with, as one of these members.
    ///
    /// # Errors
    /// As `hold`, and when it is none of them or they are too many.
    pub fn hold_first(
        &self,
        shard: ShardId,
        replica: ReplicaId,
        members: Vec<(ReplicaId, NodeId)>,
    ) -> Result<(), BelongError> {
        self.take(shard, replica, HeldState::Born(members))
    }

    fn take(
        &self,
        shard: ShardId,
        replica: ReplicaId,
        state: HeldState,
    ) -> Result<(), BelongError> {
        let mut identity = self.lock();
        let belongs = belongs(&identity, shard)?;
        if let Some(held) = belongs.replicas.get(&shard) {
            let was_used = || !is_later(&belongs.cluster, shard, (held.replica, replica));
            match (&held.state, held.replica == replica) {
                (HeldState::Retired, _) if was_used() => {
                    return Err(BelongError::Retired { shard, replica });
                }
                (HeldState::Retired, _) => {}
                (HeldState::Founder | HeldState::Added | HeldState::Born(_), true) => {
                    return Ok(());
                }
                (HeldState::Founder | HeldState::Added | HeldState::Born(_), false) => {
                    let replica = held.replica;
                    return Err(BelongError::Held { shard, replica });
                }
            }
        }
        if replica.get() == 0 {
            return Err(BelongError::Retired { shard, replica });
        }
        let next = with(&identity, shard, Held { replica, state });
        if !identity::makes_sense(&next) {
            return Err(BelongError::NotMember { shard, replica });
        }
        self.clear(shard)?;
        self.replace(&mut identity, next)
    }

    /// Whether a replica could be taken where another one was given up. An old catalogue may want
    /// one that was here before.
    #[must_use]
    pub fn may_hold(&self, shard: ShardId, replica: ReplicaId) -> bool {
        let identity = self.lock();
        belongs(&identity, shard).is_ok_and(|belongs| {
            let former = belongs.replicas.get(&shard).map(|held| held.replica);
            former.is_none_or(|former| is_later(&belongs.cluster, shard, (former, replica)))
        })
    }

    /// Gives up this node's replica of a shard, durably; its files go with `clear_retired`, or when
    /// there is a next one. No error when there is none.
    ///
    /// # Errors
    /// When there is no such shard.
    pub fn retire(&self, shard: ShardId) -> Result<(), BelongError> {
        let mut identity = self.lock();
        let held = belongs(&identity, shard)?.replicas.get(&shard).cloned();
        match held {
            None => Ok(()),
            Some(held) if held.state == HeldState::Retired => Ok(()),
            Some(Held { replica, .. }) => {
                let state = HeldState::Retired;
                let next = with(&identity, shard, Held { replica, state });
                self.replace(&mut identity, next)
            }
        }
    }

    /// Removes the files of a replica that was given up. Does nothing when one is here.
    ///
    /// # Errors
    /// When there is no such shard.
    pub fn clear_retired(&self, shard: ShardId) -> Result<(), BelongError> {
        let identity = self.lock();
        let held = belongs(&identity, shard)?.replicas.get(&shard);
        match held {
            Some(held) if held.state == HeldState::Retired => Ok(self.clear(shard)?),
            Some(_) | None => Ok(()),
        }
    }

    /// A cluster of one.
    pub(super) fn found_alone(&self, expect: Expect<'_>) -> Result<(), OpenError> {
        let random = || {
            let bits = self.random();
            bits.map_err(failed(Action::Random, &self.path().join("identity")))
        };
        let cluster_id = match expect.cluster_id {
            Some(id) => id.into(),
            None => format!("{:016x}{:016x}", random()?, random()?),
        };
        let founding = Founding::alone(&cluster_id, expect.shards, self.node());
        let founding = founding.map_err(|source| OpenError::Founding { source })?;
        self.found(&founding).map_err(|error| match error {
            BelongError::Disk(failure) => failure.into(),
            source => OpenError::Belong { source },
        })
    }

    fn belong(
        &self,
        cluster: Cluster,
        replicas: BTreeMap<ShardId, Held>,
    ) -> Result<(), BelongError> {
        let mut identity = self.lock();
        let node = self.node();
        let asked = Belongs { cluster, replicas };
        if let Some(known) = &identity.belongs {
            let found = known.cluster.id.clone();
            let same = is_same(known, &asked, node);
            return same
                .then_some(())
                .ok_or(BelongError::Already { node, found });
        }
        let (id, shards) = (asked.cluster.id.clone(), asked.cluster.shards);
        let belongs = Some(asked);
        let next = Identity { node, belongs };
        if !identity::makes_sense(&next) {
            return Err(BelongError::NoCluster { id, shards });
        }
        self.replace(&mut identity, next)
    }

    fn replace(&self, identity: &mut Identity, next: Identity) -> Result<(), BelongError> {
        identity::write(&**self.disk(), &self.path().join("identity"), &next)?;
        *identity = next;
        Ok(())
    }

    /// Removes the files of a shard.
    fn clear(&self, shard: ShardId) -> Result<(), DiskFailure> {
        let directory = self.shard_path(shard);
        for directory in [directory.join("segments"), directory] {
            let names = match self.disk().list(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                listed => listed.map_err(failed(Action::List, &directory))?,
            };
            for name in names.iter().filter(|name| *name != "segments") {
                let path = directory.join(name);
                let removed = self.disk().remove(&path);
                removed.map_err(failed(Action::Remove, &path))?;
            }
            let synced = self.disk().sync_dir(&directory);
            synced.map_err(failed(Action::Sync, &directory))?;
        }
        Ok(())
    }
}

/// The identity with another last replica of a shard.
fn with(identity: &Identity, shard: ShardId, held: Held) -> Identity {
    let mut next = identity.clone();
    if let Some(belongs) = &mut next.belongs {
        belongs.replicas.insert(shard, held);
    }
    next
}

fn belongs(identity: &Identity, shard: ShardId) -> Result<&Belongs, BelongError> {
    let belongs = identity.belongs.as_ref();
    let belongs = belongs.filter(|_| shard.get() <= SHARDS_MAX);
    belongs.ok_or(BelongError::NoShard { shard })
}

/// Whether a replica was minted after one that was here, whatever an old catalogue wants: ids are
/// minted in order, and founders brought theirs before.
fn is_later(cluster: &Cluster, shard: ShardId, (former, next): (ReplicaId, ReplicaId)) -> bool {
    let founding = cluster.founding.as_ref();
    let first = founding.map(|founding| founding.members(shard));
    let is_first = |id| first.iter().flatten().any(|(first, _)| *first == id);
    former != next && !is_first(next) && (is_first(former) || next > former)
}

fn is_founder(cluster: &Cluster, node: NodeId) -> bool {
    let founding = cluster.founding.as_ref();
    founding.is_some_and(|founding| founding.is_founder(node))
}

/// Whether the node belongs as it is asked to. What it had to begin with counts, not what has
/// become of that.
fn is_same(known: &Belongs, asked: &Belongs, node: NodeId) -> bool {
    let (ours, theirs) = (&known.cluster, &asked.cluster);
    if is_founder(ours, node) || is_founder(theirs, node) {
        let foundings = ours.founding.as_ref().zip(theirs.founding.as_ref());
        return foundings.is_some_and(|(ours, theirs)| ours.is_same(theirs));
    }
    let metadata = |all: &Belongs| all.replicas.get(&ShardId::METADATA).map(|it| it.replica);
    (&ours.id, ours.shards) == (&theirs.id, theirs.shards) && metadata(known) == metadata(asked)
}
