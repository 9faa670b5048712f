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
use crate::spec::{BoundPartition, Filter, PartitionSpec, QueueSpec, Target};

/// What a shard knows about an active log.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum LogSpec {
    Queue(QueueSpec),
    Partition { number: u32, spec: PartitionSpec },
}

/// What a shard has to know about one log of an object; `None` when the object is frozen.
pub(super) fn spec(scene: &Scene<'_>, placed: &Placed, part: Part) -> Option<LogSpec> {
    if placed.state == PlacedState::Orphaned {
        return None;
    }
    match (&placed.spec, part) {
        (DeclaredSpec::Queue(queue), Part::Dead) => Some(LogSpec::Queue(dead_letter_spec(queue))),
        (DeclaredSpec::Queue(queue), _) => {
            let spec = queue_spec(scene, &placed.address, queue);
            Some(LogSpec::Queue(spec))
        }
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
    let address = address.unwrap_or_else(|| placed.address.clone());
    match spec(scene, placed, lane.part) {
        None => Command::Freeze { log, revision },
        Some(LogSpec::Queue(spec)) => Command::ConfigureQueue {
            log,
            address,
            revision,
            spec,
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

fn queue_spec(scene: &Scene<'_>, address: &Address, queue: &DeclaredQueue) -> QueueSpec {
    QueueSpec {
        bindings: bindings(scene, queue),
        messages_max: queue.limits.messages_max,
        bytes_max: queue.limits.bytes_max,
        message_bytes_max: queue.limits.message_bytes_max,
        dead_letter: problem::dead_letter_target(address, queue).map(|target| Target {
            log: problem::dead_letter_log(scene, address, &target),
            address: target,
        }),
        ..dead_letter_spec(queue)
    }
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
        dead_letter: None,
    }
}

/// One for each partition of each bound topic, with all filters on that topic. An orphaned
/// topic stays bound: its cursors must be there when it returns.
fn bindings(scene: &Scene<'_>, queue: &DeclaredQueue) -> Vec<BoundPartition> {
    let mut topics: BTreeMap<&Address, Vec<Filter>> = BTreeMap::new();
    for binding in &queue.bindings {
        let filters = topics.entry(&binding.topic).or_default();
        filters.push(binding.filter.clone());
    }
    let mut bound = Vec::new();
    for (topic, filters) in topics {
        let partitions = scene.declared(topic).map_or(&[][..], Placed::partitions);
        for ((_, log), partition) in partitions.iter().zip(0_u32..) {
            bound.push(BoundPartition {
                topic: topic.clone(),
                partition,
                log: *log,
                filters: filters.clone(),
            });
        }
    }
    bound
}
