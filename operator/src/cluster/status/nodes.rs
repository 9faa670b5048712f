//! What status says of each node. Pure.

use millrace_crds::NodeStatus;

use super::Inputs;
use crate::cluster::desired::Desired;
use crate::cluster::facts::{Node, Observed, Pod, Said};
use crate::cluster::plan::is_founded;
use crate::cluster::size::size;
use crate::topology::report::{Answer, Report};

/// The nodes by pod, also those whose pod is not there now: a node that cannot be asked is still
/// the node it was.
pub(super) fn nodes(inputs: Inputs<'_>) -> Vec<NodeStatus> {
    let (Some(desired), Some(observed)) = (inputs.desired, inputs.observed) else {
        return inputs.previous.nodes.clone();
    };
    let before = &inputs.previous.nodes;
    let answer = inputs.report.and_then(Report::answer);
    let mut names: Vec<String> = (0..size(desired, observed))
        .map(|ordinal| desired.key.pod(ordinal))
        .collect();
    let others = observed.pods.iter().map(|pod| pod.name.clone());
    let others: Vec<String> = others.filter(|name| !names.contains(name)).collect();
    names.extend(others);
    let node = |name: String| {
        let pod = observed.pods.iter().find(|pod| pod.name == name);
        let before = before.iter().find(|node| node.pod == name);
        if pod.is_none() && before.is_none() {
            return None;
        }
        Some(one(desired, observed, &name, pod, before, answer))
    };
    names.into_iter().filter_map(node).collect()
}

fn one(
    desired: &Desired,
    observed: &Observed,
    name: &str,
    pod: Option<&Pod>,
    before: Option<&NodeStatus>,
    answer: Option<&Answer>,
) -> NodeStatus {
    let said = observed.brokers.get(name);
    let node_id = match said.and_then(Said::node_id) {
        Some(node_id) => Some(node_id.to_owned()),
        None => before.and_then(|node| node.node_id.clone()),
    };
    let view = observed.view.as_ref();
    let seen = view
        .zip(node_id.as_ref())
        .and_then(|(view, id)| view.nodes.get(id));
    let told = answer.filter(|answer| Some(&answer.node_id) == node_id.as_ref());
    let version = match (seen, told) {
        (Some(node), _) if !node.version.is_empty() => Some(node.version.clone()),
        (_, Some(answer)) => Some(answer.version.clone()),
        _ => before.and_then(|node| node.version.clone()),
    };
    let count = |of: fn(&Node) -> u32, was: fn(&NodeStatus) -> Option<i32>| match seen {
        Some(node) => i32::try_from(of(node)).ok(),
        None => before.and_then(was),
    };
    NodeStatus {
        pod: name.to_owned(),
        ready: pod.is_some_and(|pod| pod.ready),
        state: state(desired, observed, pod, said, seen).to_owned(),
        leads: count(|node| node.leads, |before| before.leads),
        votes: count(|node| node.votes, |before| before.votes),
        learns: count(|node| node.learns, |before| before.learns),
        node_id,
        version,
    }
}

fn state(
    desired: &Desired,
    observed: &Observed,
    pod: Option<&Pod>,
    said: Option<&Said>,
    seen: Option<&Node>,
) -> &'static str {
    let Some(pod) = pod else { return "Missing" };
    match said {
        _ if pod.leaving => "Stopping",
        Some(Said::Empty { .. }) if is_founded(desired, observed) => "Joining",
        Some(Said::Empty { .. }) => "Waiting",
        Some(Said::Nothing(_)) if pod.ready => "Unreachable",
        _ if !pod.ready => "Starting",
        _ if seen.is_some_and(|node| node.is_cordoned) => "Leaving",
        _ if seen.is_some_and(|node| node.is_drained) => "Draining",
        _ => "Serving",
    }
}
