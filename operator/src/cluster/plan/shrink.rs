//! How a cluster gets smaller: its last broker first, one at a time. Pure.
//!
//! Promises: a broker's pod goes only when the others have said that it holds no copy of anything;
//! what is about to happen is recorded first; whoever asks for more brokers meanwhile gets this
//! one back, unless its pod was told to go already. Its claim stays, and is nobody's then.

use millrace_crds::OperationStatus;

use super::roll::listed;
use super::{Plan, Record, Step, Waiting};
use crate::cluster::desired::{ClusterId, Desired, NODES_MAX};
use crate::cluster::facts::{Act, Answer, Asked, Claim, Node, Observed, Pod, Question, Said, View};
use crate::reasons;

/// Type of the operation that moves a broker's copies to the others, in status.
pub const EMPTY_NODE: &str = "EmptyNode";
/// Type of the operation that takes away the pod of a broker that holds nothing any more.
pub const REMOVE_POD: &str = "RemovePod";

/// The ordinal of the broker whose pod was told to go: there are as many brokers before it.
pub(in crate::cluster) fn leaving(desired: &Desired, observed: &Observed) -> Option<u32> {
    let operation = operation(observed).filter(|it| it.type_ == REMOVE_POD)?;
    ordinal(desired, operation)
}

/// Of an operation's pod; the first broker never goes.
fn ordinal(desired: &Desired, operation: &OperationStatus) -> Option<u32> {
    let ordinal = desired.key.ordinal(operation.pod.as_deref()?)?;
    (1..NODES_MAX).contains(&ordinal).then_some(ordinal)
}

/// Whether an operation is one of these.
pub(super) fn is_ours(operation: &OperationStatus) -> bool {
    [EMPTY_NODE, REMOVE_POD].contains(&operation.type_.as_str())
}

/// What has to be asked before [`shrink`] can decide: whether a node that seems to hold nothing is
/// missed by nobody.
pub(super) fn question(observed: &Observed) -> Option<Question> {
    let operation = operation(observed).filter(|it| it.type_ == EMPTY_NODE)?;
    let node_id = operation.node_id.as_deref()?;
    let node = observed.view.as_ref()?.nodes.get(node_id)?;
    let may_be_empty = node.is_cordoned && holds(node) == 0;
    may_be_empty.then(|| Question::CanStop(node_id.to_owned()))
}

/// The next step to fewer brokers; `made` is how many there are to be now.
pub(super) fn shrink(desired: &Desired, observed: &Observed, made: u32) -> Plan {
    let Some(operation) = operation(observed).filter(|it| is_ours(it)) else {
        return match made > desired.replicas {
            true => begin(desired, observed, made - 1),
            false => Plan::default(),
        };
    };
    let pod = operation.pod.as_deref().unwrap_or_default();
    let node_id = operation.node_id.as_deref().unwrap_or_default();
    let Some(ordinal) = ordinal(desired, operation) else {
        return Plan::of(vec![Step::Record(Record::Finished)]);
    };
    let going = Going {
        observed,
        pod,
        node_id,
    };
    if operation.type_ == REMOVE_POD {
        return going.remove(ordinal);
    }
    if ordinal < desired.replicas || ordinal + 1 != made {
        return going.call_off();
    }
    going.empty()
}

/// The broker that goes.
struct Going<'a> {
    observed: &'a Observed,
    pod: &'a str,
    node_id: &'a str,
}

impl Going<'_> {
    /// Its copies move to the others.
    fn empty(&self) -> Plan {
        let (pod, node_id) = (self.pod, self.node_id);
        let Some(view) = &self.observed.view else {
            return waits("no broker tells of its shards".to_owned());
        };
        let removing = Step::Record(Record::Removing {
            pod: pod.to_owned(),
            node_id: node_id.to_owned(),
            message: "it holds nothing any more".to_owned(),
        });
        let Some(node) = view.nodes.get(node_id) else {
            // Somebody struck it off, which can be done only to a node without copies.
            return Plan::of(vec![removing]);
        };
        if !node.is_cordoned {
            return Plan::of(vec![steer(Act::Cordon, node_id)]);
        }
        let left = holds(node);
        if left > 0 {
            return waits(format!(
                "pod {pod} goes: {left} of its copies of shards have still to move to other brokers"
            ));
        }
        match &self.observed.answer {
            Some((Question::CanStop(asked), Answer::Yes)) if asked == node_id => {
                Plan::of(vec![removing])
            }
            Some((Question::CanStop(asked), Answer::No(missing))) if asked == node_id => {
                waits(format!("pod {pod} is still needed: {}", listed(missing)))
            }
            _ => waits(format!("nobody says whether pod {pod} may go")),
        }
    }

    /// More brokers are asked for again.
    fn call_off(&self) -> Plan {
        let mut steps = Vec::new();
        let view = self.observed.view.as_ref();
        if view.is_none_or(|view| view.nodes.contains_key(self.node_id)) {
            steps.push(steer(Act::Uncordon, self.node_id));
        }
        steps.push(Step::Record(Record::Finished));
        Plan::of(steps)
    }

    /// Its pod goes with the StatefulSet's number; what remains of it is struck off.
    fn remove(&self, ordinal: u32) -> Plan {
        let (pod, node_id) = (self.pod, self.node_id);
        if self.observed.pods.iter().any(|it| it.name == pod) {
            return waits(format!("pod {pod} holds nothing any more and stops"));
        }
        let Some(view) = &self.observed.view else {
            return waits("no broker tells of its shards".to_owned());
        };
        let mut steps = Vec::new();
        if view.nodes.contains_key(node_id) {
            steps.push(steer(Act::Forget, node_id));
        }
        let mut claims = self.observed.claims.iter();
        let is_its =
            |claim: &&Claim| claim.ordinal == ordinal && claim.node_id.as_deref() == Some(node_id);
        steps.extend(claims.find(is_its).and_then(release));
        steps.push(Step::Record(Record::Finished));
        Plan::of(steps)
    }
}

/// A claim that is kept says no longer that a node of the cluster is on it.
fn release(claim: &Claim) -> Option<Step> {
    let id = claim.cluster_id.as_deref();
    let id = id.and_then(ClusterId::parse)?;
    let claim = claim.name.clone();
    Some(Step::Release { claim, id })
}

/// The last broker is to go, once the others are well.
fn begin(desired: &Desired, observed: &Observed, ordinal: u32) -> Plan {
    let pod = desired.key.pod(ordinal);
    let blocked = |why: String| {
        let message = format!(
            "pod {pod} is to go, for spec.replicas is {}, and cannot yet: {why}",
            desired.replicas
        );
        let reason = reasons::SCALE_DOWN_BLOCKED;
        Plan::waiting(Waiting { reason, message })
    };
    if let Some(asked) = observed.asked.as_ref().filter(|it| it.copies > ordinal) {
        let Asked { by, copies } = asked;
        return blocked(format!("{by} asks for {copies} copies of its messages"));
    }
    let Some(node_id) = node_in(observed, &pod, ordinal) else {
        return blocked("it does not say which node it is".to_owned());
    };
    let stays = |n: &u32| {
        let name = desired.key.pod(*n);
        let is_well = |pod: &Pod| pod.name == name && pod.ready && !pod.leaving;
        !observed.pods.iter().any(is_well)
    };
    if let Some(down) = (0..ordinal).find(stays) {
        return blocked(format!("pod {} is not ready", desired.key.pod(down)));
    }
    let Some(view) = &observed.view else {
        return blocked("no broker tells of its shards".to_owned());
    };
    if let Some(restless) = restless(view) {
        return blocked(restless);
    }
    let message = format!("spec.replicas is {}", desired.replicas);
    let record = Record::Emptying {
        pod,
        node_id: node_id.clone(),
        message,
    };
    Plan::of(vec![Step::Record(record), steer(Act::Cordon, &node_id)])
}

/// Why no copy should begin to move now.
fn restless(view: &View) -> Option<String> {
    let leaderless = view.leaderless();
    if !leaderless.is_empty() {
        return Some(format!(
            "shards without a leader: {}",
            leaderless.join(", ")
        ));
    }
    let mut shards = view.shards.iter();
    let (number, _) = shards.find(|(_, shard)| shard.is_changing)?;
    Some(format!("shard {number} gets other copies just now"))
}

/// The node in a pod, or on its claim while it says nothing.
fn node_in(observed: &Observed, pod: &str, ordinal: u32) -> Option<String> {
    if let Some(Said::Member { node_id, .. }) = observed.brokers.get(pod) {
        return Some(node_id.clone());
    }
    let mut claims = observed.claims.iter();
    claims
        .find(|claim| claim.ordinal == ordinal)?
        .node_id
        .clone()
}

const fn holds(node: &Node) -> u32 {
    node.votes.saturating_add(node.learns)
}

fn operation(observed: &Observed) -> Option<&OperationStatus> {
    observed.status.as_ref()?.operation.as_ref()
}

fn steer(act: Act, node_id: &str) -> Step {
    let node_id = node_id.to_owned();
    Step::Steer { act, node_id }
}

fn waits(message: String) -> Plan {
    let reason = reasons::SCALING_DOWN;
    Plan::waiting(Waiting { reason, message })
}
