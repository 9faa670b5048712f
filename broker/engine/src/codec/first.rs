//! Reads entries of version 1, which knew no dedup ids and one class of shards: what they declare
//! has the usual window and that class, and what they publish has no id. Only what has another
//! shape now is spelled out. What such entries have in common with snapshots of that version is
//! used by the readers of those.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use millrace_types::{Address, DEDUP_MS_DEFAULT, LogId, Stamp};
use postcard::take_from_bytes as take;
use serde::Deserialize;

use crate::catalogue::{
    CatalogueCommand, CatalogueEntry, Declared, DeclaredBinding, DeclaredDeadLetter,
    DeclaredLimits, DeclaredQueue, DeclaredSpec, DeclaredTopic, DeletionPolicy, Removed,
    ShardClass,
};
use crate::command::{BatchHeader, Command, Entry};
use crate::spec::{BoundTopic, DeadLetters, PartitionSpec, QueueSpec};

/// Places of what has another shape now.
const CONFIGURE_QUEUE: u32 = 1;
const CONFIGURE_PARTITION: u32 = 2;
const PUBLISH: u32 = 6;
const APPLY_TOPOLOGY: u32 = 0;

/// An entry, and the bytes after it.
pub(super) fn entry(bytes: &[u8]) -> postcard::Result<(Entry, &[u8])> {
    let (stamp, rest) = take::<Stamp>(bytes)?;
    let (kind, fields) = take::<u32>(rest)?;
    let (command, left) = match kind {
        CONFIGURE_QUEUE => convert::<ConfigureQueue, _>(fields)?,
        CONFIGURE_PARTITION => convert::<ConfigurePartition, _>(fields)?,
        PUBLISH => convert::<Publish, _>(fields)?,
        _ => take(rest)?,
    };
    Ok((Entry { stamp, command }, left))
}

/// The same of the catalogue.
pub(super) fn catalogue_entry(bytes: &[u8]) -> postcard::Result<(CatalogueEntry, &[u8])> {
    let (stamp, rest) = take::<Stamp>(bytes)?;
    let (kind, fields) = take::<u32>(rest)?;
    let (command, left) = match kind {
        APPLY_TOPOLOGY => convert::<ApplyTopology, _>(fields)?,
        _ => take(rest)?,
    };
    Ok((CatalogueEntry { stamp, command }, left))
}

fn convert<'a, A: Deserialize<'a> + Into<B>, B>(
    bytes: &'a [u8],
) -> postcard::Result<(B, &'a [u8])> {
    let (value, left) = take::<A>(bytes)?;
    Ok((value.into(), left))
}

#[derive(Deserialize)]
struct ConfigureQueue {
    log: LogId,
    address: Address,
    revision: u64,
    spec: Queue,
    dead_letters: DeadLetters,
}

/// A `QueueSpec`.
#[derive(Deserialize)]
pub(crate) struct Queue {
    bindings: Vec<BoundTopic>,
    lease_ms: u64,
    in_flight_max: u32,
    deliveries_max: u32,
    backoff_initial_ms: u64,
    backoff_max_ms: u64,
    backoff_factor_milli: u32,
    messages_max: Option<u64>,
    bytes_max: Option<u64>,
    message_bytes_max: u32,
}

impl From<Queue> for QueueSpec {
    fn from(old: Queue) -> Self {
        Self {
            bindings: old.bindings,
            lease_ms: old.lease_ms,
            in_flight_max: old.in_flight_max,
            deliveries_max: old.deliveries_max,
            backoff_initial_ms: old.backoff_initial_ms,
            backoff_max_ms: old.backoff_max_ms,
            backoff_factor_milli: old.backoff_factor_milli,
            messages_max: old.messages_max,
            bytes_max: old.bytes_max,
            message_bytes_max: old.message_bytes_max,
            dedup_ms: DEDUP_MS_DEFAULT,
        }
    }
}

impl From<ConfigureQueue> for Command {
    fn from(old: ConfigureQueue) -> Self {
        Self::ConfigureQueue {
            log: old.log,
            address: old.address,
            revision: old.revision,
            spec: old.spec.into(),
            dead_letters: old.dead_letters,
        }
    }
}

#[derive(Deserialize)]
struct ConfigurePartition {
    log: LogId,
    address: Address,
    partition: u32,
    revision: u64,
    spec: Partition,
}

/// A `PartitionSpec`.
#[derive(Deserialize)]
pub(crate) struct Partition {
    age_ms_max: Option<u64>,
    bytes_max: Option<u64>,
    messages_max: Option<u64>,
    message_bytes_max: u32,
}

impl From<Partition> for PartitionSpec {
    fn from(old: Partition) -> Self {
        Self {
            age_ms_max: old.age_ms_max,
            bytes_max: old.bytes_max,
            messages_max: old.messages_max,
            message_bytes_max: old.message_bytes_max,
            dedup_ms: DEDUP_MS_DEFAULT,
        }
    }
}

impl From<ConfigurePartition> for Command {
    fn from(old: ConfigurePartition) -> Self {
        Self::ConfigurePartition {
            log: old.log,
            address: old.address,
            partition: old.partition,
            revision: old.revision,
            spec: old.spec.into(),
        }
    }
}

#[derive(Deserialize)]
struct Publish {
    log: LogId,
    batch: BatchHeader,
}

impl From<Publish> for Command {
    fn from(Publish { log, batch }: Publish) -> Self {
        let dedup = None;
        Self::Publish { log, batch, dedup }
    }
}

#[derive(Deserialize)]
struct ApplyTopology {
    base_revision: u64,
    upserts: Vec<Object>,
    removals: Vec<Removed>,
}

#[derive(Deserialize)]
struct Object {
    address: Address,
    uid: String,
    generation: i64,
    wire: Bytes,
    spec: ObjectSpec,
}

/// A `DeclaredSpec`.
#[derive(Deserialize)]
pub(crate) enum ObjectSpec {
    Queue(ObjectQueue),
    Topic(ObjectTopic),
}

#[derive(Deserialize)]
pub(crate) struct ObjectQueue {
    bindings: Vec<DeclaredBinding>,
    lease_ms: u64,
    in_flight_max: u32,
    deliveries_max: u32,
    backoff_initial_ms: u64,
    backoff_max_ms: u64,
    backoff_factor_milli: u32,
    limits: DeclaredLimits,
    dead_letter: DeclaredDeadLetter,
    deletion: DeletionPolicy,
}

#[derive(Deserialize)]
pub(crate) struct ObjectTopic {
    partitions: u32,
    partition: Partition,
    deletion: DeletionPolicy,
}

impl From<ApplyTopology> for CatalogueCommand {
    fn from(old: ApplyTopology) -> Self {
        Self::ApplyTopology {
            base_revision: old.base_revision,
            upserts: old.upserts.into_iter().map(Object::into).collect(),
            removals: old.removals,
        }
    }
}

impl From<Object> for Declared {
    fn from(old: Object) -> Self {
        Self {
            address: old.address,
            uid: old.uid,
            generation: old.generation,
            wire: old.wire,
            spec: old.spec.into(),
        }
    }
}

impl From<ObjectSpec> for DeclaredSpec {
    fn from(old: ObjectSpec) -> Self {
        match old {
            ObjectSpec::Queue(queue) => Self::Queue(queue.into()),
            ObjectSpec::Topic(topic) => Self::Topic(DeclaredTopic {
                partitions: topic.partitions,
                partition: topic.partition.into(),
                class: ShardClass::default(),
                deletion: topic.deletion,
            }),
        }
    }
}

impl From<ObjectQueue> for DeclaredQueue {
    fn from(old: ObjectQueue) -> Self {
        Self {
            bindings: old.bindings,
            lease_ms: old.lease_ms,
            in_flight_max: old.in_flight_max,
            deliveries_max: old.deliveries_max,
            backoff_initial_ms: old.backoff_initial_ms,
            backoff_max_ms: old.backoff_max_ms,
            backoff_factor_milli: old.backoff_factor_milli,
            limits: old.limits,
            dedup_ms: DEDUP_MS_DEFAULT,
            dead_letter: old.dead_letter,
            class: ShardClass::default(),
            deletion: old.deletion,
        }
    }
}
