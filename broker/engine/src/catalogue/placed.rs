//! A declared object, where it lives, and how it looks to those who ask by address. The implicit
//! dead-letter queue of a queue is a part of it: it has a log and an address, and nothing of its
//! own besides.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use millrace_types::{Address, LogId, ShardId};
use serde::{Deserialize, Serialize};

use super::class::ShardClass;
use super::declared::DeclaredSpec;

/// A declared object and where it lives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Placed {
    /// Shared with the index and with whoever has to tell of it.
    pub(super) address: Arc<Address>,
    /// Of its resource.
    pub(super) uid: String,
    /// Of its resource.
    pub(super) generation: i64,
    /// Shared with those declared alike.
    pub(super) spec: Arc<DeclaredSpec>,
    /// Of all shards it is on: what it asked for when it came.
    pub(super) class: ShardClass,
    pub(super) placement: Placement,
    pub(super) state: PlacedState,
    /// The encoded `TopologyObject`.
    pub(super) wire: Bytes,
}

/// Where an object lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Placement {
    Queue {
        /// The queue and its dead-letter queue share one.
        shard: ShardId,
        queue: Place,
        /// The implicit dead-letter queue.
        dead: Place,
    },
    Topic {
        /// By number.
        partitions: Vec<(ShardId, LogId)>,
        /// Revision at which their shards had to be told something last.
        told: u64,
    },
}

/// One log of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) log: LogId,
    /// Revision at which its shard had to be told something last.
    pub(super) told: u64,
}

impl Place {
    pub(super) const fn new(log: LogId) -> Self {
        Self { log, told: 0 }
    }
}

/// Whether an object's resource is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PlacedState {
    /// It is.
    Active,
    /// It was removed; the messages are kept, frozen.
    Orphaned,
}

/// One log of an object, with what its shard has to know about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) shard: ShardId,
    pub(super) log: LogId,
    pub(super) told: u64,
    pub(super) part: Part,
}

/// Which log of its object one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Queue,
    Dead,
    /// By number.
    Partition(u32),
}

impl Placed {
    /// All logs, a queue's own before that of its dead letters.
    pub(super) fn lanes(&self) -> impl Iterator<Item = Lane> {
        let (pair, partitions): (_, &[_]) = match &self.placement {
            Placement::Queue { shard, queue, dead } => {
                let lane = |place: &Place, part| Lane {
                    shard: *shard,
                    log: place.log,
                    told: place.told,
                    part,
                };
                (
                    Some([lane(queue, Part::Queue), lane(dead, Part::Dead)]),
                    &[],
                )
            }
            Placement::Topic { partitions, .. } => (None, partitions),
        };
        let told = self.told_partitions();
        let partitions = partitions.iter().zip(0..).map(move |(place, number)| Lane {
            shard: place.0,
            log: place.1,
            told,
            part: Part::Partition(number),
        });
        pair.into_iter().flatten().chain(partitions)
    }

    const fn told_partitions(&self) -> u64 {
        match &self.placement {
            Placement::Queue { .. } => 0,
            Placement::Topic { told, .. } => *told,
        }
    }

    pub(super) fn lane(&self, log: LogId) -> Option<Lane> {
        self.lanes().find(|lane| lane.log == log)
    }

    /// Notes the revision at which shards have to be told about some of the logs. A topic's are
    /// told together: saying it twice does nothing.
    pub(super) fn mark(&mut self, lanes: &[Lane], revision: u64) {
        match &mut self.placement {
            Placement::Queue { queue, dead, .. } => {
                for place in [queue, dead] {
                    if lanes.iter().any(|lane| lane.log == place.log) {
                        place.told = revision;
                    }
                }
            }
            Placement::Topic { told, .. } => *told = revision,
        }
    }

    /// The logs of a topic; none of a queue.
    pub(super) fn partitions(&self) -> &[(ShardId, LogId)] {
        match &self.placement {
            Placement::Queue { .. } => &[],
            Placement::Topic { partitions, .. } => partitions,
        }
    }

    /// The topics that a queue is bound to.
    pub(super) fn topics(&self) -> impl Iterator<Item = &Address> {
        let bindings: &[_] = match &*self.spec {
            DeclaredSpec::Queue(queue) => &queue.bindings,
            DeclaredSpec::Topic(_) => &[],
        };
        bindings.iter().map(|binding| &binding.topic)
    }

    /// The object as it looks under its own address.
    pub(super) fn object(&self) -> Object<'_> {
        let kind = match (&self.placement, &*self.spec) {
            (Placement::Queue { shard, queue, .. }, spec) => ObjectKind::Queue {
                shard: *shard,
                log: queue.log,
                in_flight_max: spec.in_flight_max(),
            },
            (Placement::Topic { partitions, .. }, _) => ObjectKind::Topic { partitions },
        };
        Object {
            uid: &self.uid,
            generation: self.generation,
            orphaned: self.state == PlacedState::Orphaned,
            wire: &self.wire,
            message_bytes_max: self.spec.message_bytes_max(),
            kind,
        }
    }

    /// The implicit dead-letter queue; `None` of a topic.
    pub(super) fn dead_letter_object(&self) -> Option<Object<'_>> {
        static NOT_DECLARED: Bytes = Bytes::new();
        let (Placement::Queue { shard, dead, .. }, DeclaredSpec::Queue(queue)) =
            (&self.placement, &*self.spec)
        else {
            return None;
        };
        Some(Object {
            wire: &NOT_DECLARED,
            message_bytes_max: queue.dead_letter.limits.message_bytes_max,
            kind: ObjectKind::Queue {
                shard: *shard,
                log: dead.log,
                in_flight_max: queue.in_flight_max,
            },
            ..self.object()
        })
    }
}

/// A queue, the implicit dead-letter queue of one, or a topic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object<'a> {
    /// The resource's.
    pub uid: &'a str,
    /// The resource's.
    pub generation: i64,
    /// Kept, but frozen: its resource was removed.
    pub orphaned: bool,
    /// Encoded `millrace.v1.TopologyObject`; empty for a dead-letter queue.
    pub wire: &'a Bytes,
    /// One encoded message.
    pub message_bytes_max: u32,
    /// What it is and where.
    pub kind: ObjectKind<'a>,
}

/// What an object is and where it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind<'a> {
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
        partitions: &'a [(ShardId, LogId)],
    },
}

impl<'a> Object<'a> {
    /// Whether a log is one of its own.
    #[must_use]
    pub fn has(&self, log: LogId) -> bool {
        match self.kind {
            ObjectKind::Queue { log: own, .. } => own == log,
            ObjectKind::Topic { partitions } => partitions.iter().any(|(_, own)| *own == log),
        }
    }

    /// Where a queue lives; `None` for a topic.
    #[must_use]
    pub const fn queue(&self) -> Option<(ShardId, LogId)> {
        match self.kind {
            ObjectKind::Queue { shard, log, .. } => Some((shard, log)),
            ObjectKind::Topic { .. } => None,
        }
    }

    /// Number of partitions of a topic; `None` for a queue.
    #[must_use]
    pub fn partition_count(&self) -> Option<u32> {
        match self.kind {
            ObjectKind::Queue { .. } => None,
            ObjectKind::Topic { partitions } => u32::try_from(partitions.len()).ok(),
        }
    }

    /// Where a topic's partitions live, by number; empty for a queue.
    #[must_use]
    pub const fn partitions(&self) -> &'a [(ShardId, LogId)] {
        match self.kind {
            ObjectKind::Queue { .. } => &[],
            ObjectKind::Topic { partitions } => partitions,
        }
    }
}
