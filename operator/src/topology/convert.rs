//! From the wire to what the operator knows of a broker.

use std::collections::BTreeMap;

use millrace_proto::v1::{MetadataResponse, ObjectState, TopologyObject};
use prost::Message as _;

use super::report::{Answer, Held, Problem};

/// What the broker says of itself and its topology.
#[must_use]
pub fn answer(metadata: MetadataResponse) -> Answer {
    let topology = metadata.topology.unwrap_or_default();
    Answer {
        version: metadata.version,
        node_id: metadata.node_id,
        revision: topology.revision,
        applied_revision: topology.applied_revision,
        objects: topology.objects.into_iter().map(held).collect(),
    }
}

/// Bytes an object takes in a call.
#[must_use]
pub fn encoded_bytes(object: &TopologyObject) -> usize {
    object.encoded_len()
}

/// The wire encoding by which broker and operator compare what they have.
#[must_use]
pub fn encoded(objects: &BTreeMap<String, TopologyObject>) -> Vec<Vec<u8>> {
    objects
        .values()
        .map(TopologyObject::encode_to_vec)
        .collect()
}

fn held(state: ObjectState) -> (String, Held) {
    let problem = |problem: millrace_proto::v1::ObjectProblem| Problem {
        reason: problem.reason,
        message: problem.message,
    };
    let held = Held {
        uid: state.uid,
        generation: state.generation,
        applied: state.applied,
        orphaned: state.orphaned,
        problems: state.problems.into_iter().map(problem).collect(),
    };
    (state.address, held)
}
