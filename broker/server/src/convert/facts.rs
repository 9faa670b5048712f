//! What the broker tells about itself, as it goes over the wire. Pure.

use millrace_proto::v1;
use millrace_types::{ErrorCode, Refusal};
use prost::Message as _;

use super::{offsets, timestamp};
use millrace_node::{
    BindingFacts, ConsumerFacts, Description, Metadata, ObjectState, PartitionFacts, Problem,
    QueueFacts, Summary, SummaryKind, TopicFacts,
};

/// One object in figures.
pub(crate) fn summary(summary: Summary) -> v1::Summary {
    use v1::summary::Stats;
    let Summary {
        address,
        orphaned,
        kind,
    } = summary;
    v1::Summary {
        address: address.to_string(),
        orphaned,
        stats: kind.map(|kind| match kind {
            SummaryKind::Queue(facts) => Stats::Queue(queue(facts)),
            SummaryKind::Topic(facts) => Stats::Topic(topic(facts)),
        }),
    }
}

fn queue(facts: QueueFacts) -> v1::QueueStats {
    let stats = facts.stats;
    v1::QueueStats {
        ready: stats.ready,
        in_flight: stats.in_flight,
        delayed: stats.delayed,
        dead_lettered: facts.dead_lettered,
        bytes: stats.bytes,
        oldest: stats.oldest.map(timestamp),
        consumers: stats.consumers,
        dying: stats.dying,
    }
}

fn topic(facts: TopicFacts) -> v1::TopicStats {
    v1::TopicStats {
        partitions: facts.partitions,
        messages: facts.messages,
        bytes: facts.bytes,
    }
}

/// One object in full.
///
/// # Errors
/// `INTERNAL` when its stored declaration cannot be read.
pub(crate) fn description(described: Description) -> Result<v1::DescribeResponse, Refusal> {
    let declared = if described.wire.is_empty() {
        None
    } else {
        let object = v1::TopologyObject::decode(described.wire).map_err(|error| {
            let text = format!("a stored declaration cannot be read: {error}");
            Refusal::new(ErrorCode::Internal, text)
        })?;
        Some(object)
    };
    Ok(v1::DescribeResponse {
        summary: Some(summary(described.summary)),
        declared,
        consumers: described.consumers.into_iter().map(consumer).collect(),
        bindings: described.bindings.into_iter().map(binding).collect(),
        partitions: described.partitions.iter().map(partition).collect(),
    })
}

fn consumer(facts: ConsumerFacts) -> v1::ConsumerInfo {
    v1::ConsumerInfo {
        name: facts.name,
        in_flight: facts.in_flight,
        connected: facts.connected,
    }
}

fn binding(facts: BindingFacts) -> v1::BindingInfo {
    v1::BindingInfo {
        topic: facts.topic.to_string(),
        partition: facts.partition,
        cursor: facts.cursor.get(),
        lag: facts.lag,
        stalled: facts.stalled,
    }
}

fn partition(facts: &PartitionFacts) -> v1::PartitionInfo {
    v1::PartitionInfo {
        partition: facts.partition,
        shard: facts.shard.get(),
        offsets: Some(offsets(&facts.offsets)),
        bytes: facts.bytes,
        oldest: facts.oldest.map(timestamp),
    }
}

/// Who this cluster is and which topology it has.
pub(crate) fn metadata(metadata: Metadata) -> v1::MetadataResponse {
    v1::MetadataResponse {
        cluster_id: metadata.cluster_id,
        node_id: super::node_id(metadata.node_id),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        shards: metadata.shards,
        topology: Some(v1::TopologyState {
            revision: metadata.revision,
            applied_revision: metadata.applied_revision,
            digest: metadata.digest.to_vec().into(),
            objects: metadata.objects.into_iter().map(object).collect(),
        }),
    }
}

fn object(state: ObjectState) -> v1::ObjectState {
    v1::ObjectState {
        address: state.address.to_string(),
        uid: state.uid,
        generation: state.generation,
        applied: state.applied,
        orphaned: state.orphaned,
        problems: state.problems.into_iter().map(problem).collect(),
    }
}

fn problem(problem: Problem) -> v1::ObjectProblem {
    v1::ObjectProblem {
        reason: problem.reason,
        message: problem.message,
    }
}
