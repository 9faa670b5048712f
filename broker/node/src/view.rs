//! What the catalogue says, as everybody but the metadata shard sees it: a value, replaced as a
//! whole whenever something changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millrace_types::{Address, ErrorCode, LogId, Refusal, ShardId};

/// The catalogue at one moment.
#[derive(Clone, Debug, Default)]
pub struct CatalogueView {
    pub(crate) revision: u64,
    pub(crate) applied_revision: u64,
    pub(crate) objects: Arc<BTreeMap<Address, Object>>,
    /// Why there is no catalogue: the metadata shard is damaged.
    pub(crate) unavailable: Option<Refusal>,
}

/// One queue or topic.
#[derive(Clone, Debug)]
pub struct Object {
    /// The resource's.
    pub uid: String,
    /// The resource's.
    pub generation: i64,
    /// Kept, but frozen: its resource was removed.
    pub orphaned: bool,
    /// Encoded `millrace.v1.TopologyObject`; empty for a dead-letter queue.
    pub wire: Bytes,
    /// One encoded message.
    pub message_bytes_max: u32,
    /// What it is and where.
    pub kind: ObjectKind,
}

/// What an object is and where it lives.
#[derive(Clone, Debug)]
pub enum ObjectKind {
    /// A queue, or a dead-letter queue.
    Queue {
        /// Where.
        shard: ShardId,
        /// Its present life.
        log: LogId,
        /// Deliveries in flight over all consumers.
        in_flight_max: u32,
    },
    /// A topic.
    Topic {
        /// By number.
        partitions: Vec<(ShardId, LogId)>,
    },
}

impl CatalogueView {
    /// Of the topology; 0 is the empty one.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The revision that every shard has applied.
    #[must_use]
    pub const fn applied_revision(&self) -> u64 {
        self.applied_revision
    }

    /// What is behind an address.
    #[must_use]
    pub fn lookup(&self, address: &Address) -> Option<&Object> {
        self.objects.get(address)
    }

    /// What is behind an address.
    ///
    /// # Errors
    /// `NO_SUCH_QUEUE` or `NO_SUCH_TOPIC`; `SHARD_UNAVAILABLE` when the catalogue cannot be read.
    pub fn require(&self, address: &Address) -> Result<&Object, Refusal> {
        if let Some(refusal) = &self.unavailable {
            return Err(refusal.clone());
        }
        self.lookup(address).ok_or_else(|| {
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
        match &self.require(address)?.kind {
            ObjectKind::Queue { shard, log, .. } => Ok((*shard, *log)),
            ObjectKind::Topic { .. } => Err(wrong_kind(address, "a queue")),
        }
    }

    /// A topic's partitions, by number.
    ///
    /// # Errors
    /// `NO_SUCH_TOPIC`; `WRONG_KIND` for a queue.
    pub fn require_topic(&self, address: &Address) -> Result<&[(ShardId, LogId)], Refusal> {
        if address.is_queue() {
            return Err(wrong_kind(address, "a topic"));
        }
        match &self.require(address)?.kind {
            ObjectKind::Topic { partitions } => Ok(partitions),
            ObjectKind::Queue { .. } => Err(wrong_kind(address, "a topic")),
        }
    }

    /// Whether an object has this log; looks at all of them.
    pub(crate) fn has_log(&self, log: LogId) -> bool {
        self.objects.values().any(|object| match &object.kind {
            ObjectKind::Queue { log: own, .. } => *own == log,
            ObjectKind::Topic { partitions } => partitions.iter().any(|(_, own)| *own == log),
        })
    }

    /// Everything declared or kept, dead-letter queues included, in order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&Address, &Object)> {
        self.objects.iter()
    }
}

impl Object {
    /// Number of partitions of a topic; `None` for a queue.
    #[must_use]
    pub fn partitions(&self) -> Option<u32> {
        match &self.kind {
            ObjectKind::Topic { partitions } => u32::try_from(partitions.len()).ok(),
            ObjectKind::Queue { .. } => None,
        }
    }
}

fn wrong_kind(address: &Address, wanted: &str) -> Refusal {
    Refusal::new(
        ErrorCode::WrongKind,
        format!("{address} is not {wanted}; this call works on {wanted}"),
    )
    .with("address", address.to_string())
}
