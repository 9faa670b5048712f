//! What the broker tells about itself: listings, descriptions, metadata, figures for metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use millrace_replica::Role;
use millrace_storage::{Area, TimesSeen};
use millrace_types::{Address, LogIndex, NodeId, Offset, ReplicaId, ShardId, Term, Wall};
use serde::{Deserialize, Serialize};
use std::ops::Range;

pub use millrace_engine::outcome::QueueStats;

/// Which objects to list.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Queues; dead-letter queues are not listed, their counts stand with their queue.
    pub queues: bool,
    /// Topics.
    pub topics: bool,
    /// Only this one; `None`: all.
    pub namespace: Option<String>,
    /// Start after this address.
    pub after: Option<Address>,
    /// 1..=1000.
    pub objects_max: usize,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// In order of their addresses.
    pub items: Vec<Summary>,
    /// Pass as `after` to go on; `None` at the end.
    pub next: Option<Address>,
}

/// One object in figures.
#[derive(Clone, Debug)]
pub struct Summary {
    /// How it is called.
    pub address: Address,
    /// Kept, but frozen.
    pub orphaned: bool,
    /// The figures; `None` while its shard is unavailable or has not been configured yet.
    pub kind: Option<SummaryKind>,
}

/// Figures of an object.
#[derive(Clone, Debug)]
pub enum SummaryKind {
    /// Of a queue.
    Queue(QueueFacts),
    /// Of a topic.
    Topic(TopicFacts),
}

/// Figures of a queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueFacts {
    /// Its own.
    pub stats: QueueStats,
    /// Unsettled messages in its implicit dead-letter queue.
    pub dead_lettered: u64,
}

/// Figures of a topic.
#[derive(Clone, Copy, Debug, Default)]
pub struct TopicFacts {
    /// How many.
    pub partitions: u32,
    /// Kept in all of them.
    pub messages: u64,
    /// Of these messages.
    pub bytes: u64,
}

/// One object in full.
#[derive(Clone, Debug)]
pub struct Description {
    /// Figures.
    pub summary: Summary,
    /// Encoded `millrace.v1.TopologyObject`; empty for a dead-letter queue.
    pub wire: Bytes,
    /// Of a queue.
    pub consumers: Vec<ConsumerFacts>,
    /// Of a queue.
    pub bindings: Vec<BindingFacts>,
    /// Of a topic.
    pub partitions: Vec<PartitionFacts>,
}

/// A session of a queue.
#[derive(Clone, Debug)]
pub struct ConsumerFacts {
    /// As the client called itself.
    pub name: String,
    /// Messages it holds.
    pub in_flight: u32,
    /// Whether it has a connection.
    pub connected: bool,
}

/// How far a queue has come with a partition.
#[derive(Clone, Debug)]
pub struct BindingFacts {
    /// Of the topic.
    pub topic: Address,
    /// Number of the partition.
    pub partition: u32,
    /// Next offset to look at.
    pub cursor: Offset,
    /// Messages behind.
    pub lag: u64,
    /// Why it does not move; empty when it does.
    pub stalled: String,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionFacts {
    /// Its number.
    pub partition: u32,
    /// Where it lives.
    pub shard: ShardId,
    /// What it holds.
    pub offsets: Range<Offset>,
    /// Of these messages.
    pub bytes: u64,
    /// When the oldest was stored.
    pub oldest: Option<Wall>,
}

/// Who this cluster is and which topology it has.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Minted with the data directory or given.
    pub cluster_id: String,
    /// Minted at the node's first start.
    pub node_id: NodeId,
    /// Data shards.
    pub shards: u32,
    /// Of the topology; 0 is the empty one.
    pub revision: u64,
    /// What every shard has applied.
    pub applied_revision: u64,
    /// SHA-256 over the objects in order of their addresses.
    pub digest: [u8; 32],
    /// Declared and kept ones; dead-letter queues are not among them.
    pub objects: Vec<ObjectState>,
}

/// State of a declared object.
#[derive(Clone, Debug)]
pub struct ObjectState {
    /// How it is called.
    pub address: Address,
    /// The resource's.
    pub uid: String,
    /// The resource's.
    pub generation: i64,
    /// Every shard that holds a part of it has applied `generation`.
    pub applied: bool,
    /// Kept, but frozen.
    pub orphaned: bool,
    /// What keeps it from working as declared.
    pub problems: Vec<Problem>,
}

/// What keeps an object from working as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Stable, CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// How much publishers may have under way in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Messages; a good figure for a stream's credit is a fraction of it.
    pub messages_max: u64,
    /// Bytes.
    pub bytes_max: u64,
}

/// Figures for metrics, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// By shard, the metadata shard included.
    pub shards: BTreeMap<ShardId, ShardFacts>,
    /// By address, dead-letter queues included.
    pub queues: BTreeMap<Address, QueueStats>,
    /// By address.
    pub topics: BTreeMap<Address, TopicFacts>,
    /// Queues, dead-letter queues and topics that are not among those, because there are too many.
    pub omitted_objects: u64,
    /// Of the one journal.
    pub journal: JournalFacts,
    /// Free on the data directory's file system.
    pub disk_free_bytes: u64,
    /// Publishes are refused below this.
    pub disk_reserve_bytes: u64,
    /// `Receive` calls that wait for a message.
    pub waiting_receives: u64,
    /// Messages published, in acknowledged batches.
    pub published_messages: u64,
    /// Their bytes.
    pub published_bytes: u64,
    /// Messages handed to consumers.
    pub delivered_messages: u64,
    /// Leases ended by a settlement.
    pub settled_messages: u64,
    /// Messages that bindings moved from topics to queues.
    pub transferred_messages: u64,
    /// Messages that arrived in a dead-letter queue.
    pub dead_lettered_messages: u64,
    /// Messages trimmed from a partition before a binding had looked at them.
    pub missed_messages: u64,
    /// Snapshots that reached other nodes.
    pub snapshots_sent: u64,
    /// Bytes of snapshots that left, whether they arrived or not.
    pub snapshot_sent_bytes: u64,
    /// Snapshots of other nodes that were put in force.
    pub snapshots_received: u64,
    /// Bytes of snapshots that came whole.
    pub snapshot_received_bytes: u64,
    /// Snapshots that did not arrive or were not taken.
    pub snapshots_failed: u64,
    /// Snapshots that leave, wait to leave, or come.
    pub snapshots_under_way: u64,
    /// What workers did in one turn.
    pub worker_turns: TimesSeen,
    /// Checkpoints made, of all shards.
    pub checkpoints: TimesSeen,
    /// Bytes written and syncs, by area of the data directory; empty when the disk does not count.
    pub traffic: Vec<(Area, u64, TimesSeen)>,
    /// Refusals, by reason.
    pub refusals: BTreeMap<&'static str, u64>,
}

/// Figures of a shard.
#[derive(Clone, Debug, Default)]
pub struct ShardFacts {
    /// Why it does not serve; `None` when it does.
    pub unavailable: Option<String>,
    /// The replica here; `None` when there is none that runs.
    pub replica: Option<ReplicaId>,
    /// What it is; `None` when there is none that runs.
    pub role: Option<Role>,
    /// Raft's.
    pub term: Term,
    /// Last entry that the log has.
    pub last: LogIndex,
    /// Last entry that is on this disk.
    pub synced: LogIndex,
    /// Last entry known to be committed.
    pub committed: LogIndex,
    /// Last entry applied.
    pub applied: LogIndex,
    /// Last entry a checkpoint covers.
    pub checkpoint: LogIndex,
    /// Entries on their way to the disk.
    pub in_flight_entries: u64,
    /// Their bytes.
    pub in_flight_bytes: u64,
    /// Bodies in memory, for whatever reason.
    pub resident_bytes: u64,
    /// Bodies in segments.
    pub segment_bytes: u64,
    /// Attached consumers.
    pub sessions: u64,
}

/// Figures of the journal.
#[derive(Clone, Debug, Default)]
pub struct JournalFacts {
    /// Synced batches.
    pub fsyncs: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes no checkpoint covers yet.
    pub live_bytes: u64,
    /// How long the last sync took.
    pub last_sync: Duration,
    /// How long the syncs of batches took.
    pub syncs: TimesSeen,
}
