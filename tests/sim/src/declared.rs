//! From shapes to what a node is told is declared.

use millrace_engine::catalogue::{
    Declared, DeclaredBinding, DeclaredDeadLetter, DeclaredLimits, DeclaredQueue, DeclaredSpec,
    DeclaredTopic, DeletionPolicy, ShardClass,
};
use millrace_engine::spec::{Filter, HeaderCondition, PartitionSpec};
use millrace_types::Address;

use crate::message::{HEADER, PATTERNS};
use crate::plan::{Bound, QueueShape, Shape, TopicShape};

/// The namespace of everything.
const NAMESPACE: &str = "sim";
/// Longest message: none of ours comes near.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;
/// Backoffs grow to so many times the first one.
const BACKOFF_GROWTH_MAX: u64 = 4;

/// How an object is called.
#[must_use]
pub(crate) fn address(place: usize, shape: &Shape) -> Address {
    let namespace = NAMESPACE.to_owned();
    match shape {
        Shape::Queue(_) => Address::Queue {
            namespace,
            name: format!("q{place}"),
        },
        Shape::Topic(_) => Address::Topic {
            namespace,
            name: format!("t{place}"),
        },
    }
}

/// The id of an object's resource.
#[must_use]
pub(crate) fn uid(place: usize) -> String {
    format!("uid-{place}")
}

/// What is declared.
#[must_use]
pub(crate) fn declared(place: usize, shape: &Shape, all: &[Shape], generation: i64) -> Declared {
    let address = address(place, shape);
    let wire = format!("{address} {shape:?}").into();
    Declared {
        address,
        uid: uid(place),
        generation,
        wire,
        spec: match shape {
            Shape::Queue(shape) => DeclaredSpec::Queue(queue(shape, all)),
            Shape::Topic(shape) => DeclaredSpec::Topic(topic(shape)),
        },
    }
}

fn queue(shape: &QueueShape, all: &[Shape]) -> DeclaredQueue {
    let limits = |messages_max| DeclaredLimits {
        messages_max,
        bytes_max: None,
        message_bytes_max: MESSAGE_BYTES_MAX,
    };
    let bindings = shape.bindings.iter();
    DeclaredQueue {
        bindings: bindings.map(|bound| binding(bound, all)).collect(),
        lease_ms: shape.lease_ms,
        in_flight_max: shape.in_flight_max,
        deliveries_max: shape.deliveries_max,
        backoff_initial_ms: shape.backoff_ms,
        backoff_max_ms: shape.backoff_ms * BACKOFF_GROWTH_MAX,
        backoff_factor_milli: 2_000,
        limits: limits(shape.messages_max),
        dedup_ms: 120_000,
        dead_letter: DeclaredDeadLetter {
            queue: shape.dead_letter.map(|place| address(place, &all[place])),
            limits: limits(None),
        },
        class: ShardClass::default(),
        deletion: deletion(shape.deletes),
    }
}

fn binding(bound: &Bound, all: &[Shape]) -> DeclaredBinding {
    let (name, value) = HEADER;
    let condition = bound.marked.then(|| HeaderCondition {
        name: name.into(),
        value: Some(value.into()),
    });
    DeclaredBinding {
        topic: address(bound.topic, &all[bound.topic]),
        filter: Filter {
            pattern: PATTERNS[bound.pattern].0.into(),
            headers: condition.into_iter().collect(),
            any: false,
        },
    }
}

fn topic(shape: &TopicShape) -> DeclaredTopic {
    DeclaredTopic {
        partitions: shape.partitions,
        partition: PartitionSpec {
            age_ms_max: shape.age_ms_max,
            bytes_max: None,
            messages_max: shape.messages_max,
            message_bytes_max: MESSAGE_BYTES_MAX,
            dedup_ms: 120_000,
        },
        class: ShardClass::default(),
        deletion: deletion(shape.deletes),
    }
}

const fn deletion(deletes: bool) -> DeletionPolicy {
    if deletes {
        DeletionPolicy::Delete
    } else {
        DeletionPolicy::Orphan
    }
}
