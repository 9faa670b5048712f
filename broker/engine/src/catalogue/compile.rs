//! From names to log ids: what a data shard is told about one log, given the objects that its own
//! one refers to.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use millrace_types::Address;

use super::declared::{DeclaredQueue, DeclaredSpec};
use super::placed::{Lane, Part, Placed, PlacedState};
use super::problem;
use super::topology::Scene;
use crate::command::Command;
use crate::spec::{BoundTopic, DeadLetters, Filter, PartitionSpec, QueueSpec};

/// What a shard knows about an active log.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum LogSpec {
    Queue {
        spec: QueueSpec,
        dead_letters: DeadLetters,
    },
    Partition {
        number: u32,
        spec: PartitionSpec,
    },
}

/// What a shard has to know about one log of an object; `None` when the object is frozen.
pub(super) fn spec(scene: &Scene<'_>, placed: &Placed, part: Part) -> Option<LogSpec> {
    if placed.state == PlacedState::Orphaned {
        return None;
    }
    match (&*placed.spec, part) {
        (DeclaredSpec::Queue(queue), Part::Dead) => Some(LogSpec::Queue {
            spec: dead_letter_spec(queue),
            dead_letters: DeadLetters::Dropped,
        }),
        (DeclaredSpec::Queue(queue), _) => Some(LogSpec::Queue {
            spec: queue_spec(scene, queue),
            dead_letters: dead_letters(scene, &placed.address, queue),
        }),
        (DeclaredSpec::Topic(topic), Part::Partition(number)) => Some(LogSpec::Partition {
            number,
            spec: topic.partition.clone(),
        }),
        // The catalogue never gives a topic the logs of a queue.
        (DeclaredSpec::Topic(_), Part::Queue | Part::Dead) => None,
    }
}

/// What a shard is told about one log of an object.
pub(super) fn command(scene: &Scene<'_>, placed: &Placed, lane: Lane) -> Command {
    let (log, revision) = (lane.log, lane.told);
    let address = match lane.part {
        Part::Dead => placed.address.dead_letter(),
        Part::Queue | Part::Partition(_) => None,
    };
    let address = address.unwrap_or_else(|| Address::clone(&placed.address));
    match spec(scene, placed, lane.part) {
        None => Command::Freeze { log, revision },
        Some(LogSpec::Queue { spec, dead_letters }) => Command::ConfigureQueue {
            log,
            address,
            revision,
            spec,
            dead_letters,
        },
        Some(LogSpec::Partition { number, spec }) => Command::ConfigurePartition {
            log,
            address,
            partition: number,
            revision,
            spec,
        },
    }
}

fn queue_spec(scene: &Scene<'_>, queue: &DeclaredQueue) -> QueueSpec {
    QueueSpec {
        bindings: bindings(scene, queue),
        messages_max: queue.limits.messages_max,
        bytes_max: queue.limits.bytes_max,
        message_bytes_max: queue.limits.message_bytes_max,
        ..dead_letter_spec(queue)
    }
}

fn dead_letters(scene: &Scene<'_>, address: &Address, queue: &DeclaredQueue) -> DeadLetters {
    let target = problem::dead_letter_target(address, queue);
    let log = target.and_then(|target| problem::dead_letter_log(scene, address, &target));
    log.map_or(DeadLetters::Waiting, DeadLetters::To)
}

/// The implicit dead-letter queue of a queue: consumed the same way, bound to nothing.
fn dead_letter_spec(queue: &DeclaredQueue) -> QueueSpec {
    let limits = &queue.dead_letter.limits;
    QueueSpec {
        bindings: Vec::new(),
        lease_ms: queue.lease_ms,
        in_flight_max: queue.in_flight_max,
        deliveries_max: queue.deliveries_max,
        backoff_initial_ms: queue.backoff_initial_ms,
        backoff_max_ms: queue.backoff_max_ms,
        backoff_factor_milli: queue.backoff_factor_milli,
        messages_max: limits.messages_max,
        bytes_max: limits.bytes_max,
        message_bytes_max: limits.message_bytes_max,
        dedup_ms: queue.dedup_ms,
    }
}

/// One for each bound topic, with all filters on it. An orphaned topic stays bound: its cursors
/// must be there when it returns.
fn bindings(scene: &Scene<'_>, queue: &DeclaredQueue) -> Vec<BoundTopic> {
    let mut topics: BTreeMap<&Address, Vec<Filter>> = BTreeMap::new();
    for binding in &queue.bindings {
        let filters = topics.entry(&binding.topic).or_default();
        filters.push(binding.filter.clone());
    }
    let bound = topics.into_iter().filter_map(|(topic, filters)| {
        let partitions = scene.declared(topic)?.partitions().iter();
        Some(BoundTopic {
            topic: topic.clone(),
            partitions: partitions.map(|(_, log)| *log).collect(),
            filters,
        })
    });
    bound.collect()
}
