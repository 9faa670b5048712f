//! What the catalogue says, as everybody but the metadata shard sees it: a value, replaced as a
//! whole whenever something changes. It shares with its successor what has not changed.

use std::sync::{Arc, OnceLock};

use millrace_engine::catalogue::{Roster, Topology};
use millrace_types::{Address, ErrorCode, LogId, Refusal, ShardId};

pub use millrace_engine::catalogue::{Object, ObjectKind};

/// The catalogue at one moment.
#[derive(Clone, Debug, Default)]
pub struct CatalogueView {
    topology: Topology,
    roster: Arc<Roster>,
    /// Of this revision; computed when somebody asks.
    digest: Arc<OnceLock<[u8; 32]>>,
    /// Why there is no catalogue: the metadata shard is damaged.
    unavailable: Option<Refusal>,
}

impl CatalogueView {
    /// The metadata shard is damaged: nothing is known.
    pub(crate) fn unavailable(why: Refusal) -> Self {
        Self {
            unavailable: Some(why),
            ..Self::default()
        }
    }

    /// The catalogue is not to be had any more; who the nodes were last is still known.
    pub(crate) fn lost(why: Refusal, before: &Self) -> Self {
        Self {
            roster: Arc::clone(&before.roster),
            ..Self::unavailable(why)
        }
    }

    /// What others know of nodes and replicas, while there is no catalogue here; `None` when that
    /// is no news.
    pub(crate) fn told(roster: &Arc<Roster>, before: &Self) -> Option<Self> {
        let refusal = before.unavailable.clone()?;
        (roster.revision() > before.roster.revision()).then(|| Self {
            roster: Arc::clone(roster),
            ..Self::unavailable(refusal)
        })
    }

    /// What comes after this view.
    pub(crate) fn next(&self, topology: &Topology, roster: &Arc<Roster>) -> Self {
        let is_same = self.revision() == topology.revision();
        Self {
            digest: if is_same {
                Arc::clone(&self.digest)
            } else {
                Arc::default()
            },
            topology: topology.clone(),
            roster: Arc::clone(roster),
            unavailable: None,
        }
    }

    /// Everything that is declared.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE` when the catalogue cannot be read.
    pub(crate) fn topology(&self) -> Result<&Topology, Refusal> {
        match &self.unavailable {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(&self.topology),
        }
    }

    /// Nodes, and the replicas of each shard: as this node knows them, which may be late.
    #[must_use]
    pub const fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// SHA-256 over the objects in order of their addresses. Takes time with their number, once for
    /// each revision.
    pub(crate) fn digest(&self) -> [u8; 32] {
        *self.digest.get_or_init(|| self.topology.digest())
    }

    /// Data shards that there are; 0 before anybody said.
    pub(crate) const fn data_shards(&self) -> u32 {
        self.topology.data_shards()
    }

    /// Of the topology; 0 is the empty one.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.topology.revision()
    }

    /// The revision that every shard has applied.
    #[must_use]
    pub fn applied_revision(&self) -> u64 {
        self.topology.applied_revision()
    }

    /// What is behind an address.
    #[must_use]
    pub fn lookup(&self, address: &Address) -> Option<Object<'_>> {
        self.topology.lookup(address)
    }

    /// What is behind an address.
    ///
    /// # Errors
    /// `NO_SUCH_QUEUE` or `NO_SUCH_TOPIC`; `SHARD_UNAVAILABLE` when the catalogue cannot be read.
    pub fn require(&self, address: &Address) -> Result<Object<'_>, Refusal> {
        self.topology()?.lookup(address).ok_or_else(|| {
            let code = if address.is_queue() {
                ErrorCode::NoSuchQueue
            } else {
                ErrorCode::NoSuchTopic
            };
            Refusal::new(code, format!("{address} is not declared"))
                .with("address", address.to_string())
        })
    }

    /// A queue's place.
    ///
    /// # Errors
    /// `NO_SUCH_QUEUE`; `WRONG_KIND` for a topic.
    pub fn require_queue(&self, address: &Address) -> Result<(ShardId, LogId), Refusal> {
        if !address.is_queue() {
            return Err(wrong_kind(address, "a queue"));
        }
        let queue = self.require(address)?.queue();
        queue.ok_or_else(|| wrong_kind(address, "a queue"))
    }

    /// A topic's partitions, by number.
    ///
    /// # Errors
    /// `NO_SUCH_TOPIC`; `WRONG_KIND` for a queue.
    pub fn require_topic(&self, address: &Address) -> Result<&[(ShardId, LogId)], Refusal> {
        if address.is_queue() {
            return Err(wrong_kind(address, "a topic"));
        }
        match self.require(address)?.kind {
            ObjectKind::Topic { partitions } => Ok(partitions),
            ObjectKind::Queue { .. } => Err(wrong_kind(address, "a topic")),
        }
    }

    /// A partition's place.
    ///
    /// # Errors
    /// `NO_SUCH_PARTITION`; as `require_topic`.
    pub fn require_partition(
        &self,
        address: &Address,
        partition: u32,
    ) -> Result<(ShardId, LogId), Refusal> {
        let partitions = self.require_topic(address)?;
        let place = usize::try_from(partition).ok();
        let place = place.and_then(|at| partitions.get(at));
        place.copied().ok_or_else(|| {
            let count = partitions.len();
            let text = format!("{address} has {count} partitions, none is number {partition}");
            Refusal::new(ErrorCode::NoSuchPartition, text).with("address", address.to_string())
        })
    }

    /// Everything declared or kept, in order of addresses: queues, then topics. Implicit
    /// dead-letter queues are left out: each queue has one.
    pub fn iter(&self) -> impl Iterator<Item = (&Address, Object<'_>)> {
        self.topology.iter()
    }
}

fn wrong_kind(address: &Address, wanted: &str) -> Refusal {
    Refusal::new(
        ErrorCode::WrongKind,
        format!("{address} is not {wanted}; this call works on {wanted}"),
    )
    .with("address", address.to_string())
}
