//! What a cluster's status says after a reconciliation. Pure; written also when it failed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use millrace_crds::{BrokerClusterStatus, OperationStatus, TopologyStatus};

use super::desired::Desired;
use super::facts::Observed;
use super::plan::{EMPTY_NODE, Plan, REMOVE_POD, RESTART_POD, Record, Waiting};
use crate::condition::{conditions, cut};
use crate::labels;
use crate::topology::report::Report;

mod crew;
mod nodes;
mod verdicts;

/// How a reconciliation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every step of the plan was taken; it may have been empty.
    Done {
        /// Whether there were any.
        changed: bool,
        /// What the rest waits for.
        waiting: Option<Waiting>,
    },
    /// It cannot be reconciled, or a read or write failed.
    Failed {
        /// One of `reasons`.
        reason: &'static str,
        /// For people.
        message: String,
    },
}

impl Outcome {
    /// After all steps of `plan` succeeded.
    #[must_use]
    pub fn done(plan: &Plan) -> Self {
        Self::Done {
            changed: !plan.steps.is_empty(),
            waiting: plan.waiting.clone(),
        }
    }
}

/// What status is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// As last written.
    pub previous: &'a BrokerClusterStatus,
    /// Generation the outcome is about.
    pub generation: i64,
    /// `None`: validation failed.
    pub desired: Option<&'a Desired>,
    /// `None`: it did not come to looking.
    pub observed: Option<&'a Observed>,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// What the brokers said last about their topology; `None` when they were not asked yet.
    pub report: Option<&'a Report>,
}

/// Decides the new status.
#[must_use]
pub fn status(inputs: Inputs<'_>, now: Timestamp) -> BrokerClusterStatus {
    let mut status = inputs.previous.clone();
    status.observed_generation = Some(inputs.generation);
    if let Some(desired) = inputs.desired {
        status.selector = Some(labels::selector_text(&desired.key));
        status.cluster_id = Some(desired.cluster_id.as_str().to_owned());
        status.image = Some(desired.image.name.clone());
        status.endpoint = Some(desired.key.client_address());
        status.control_secret = Some(desired.key.control_secret());
    }
    if let Some(observed) = inputs.observed {
        let ready = observed.pods.iter().filter(|pod| pod.ready).count();
        status.replicas = count(observed.pods.len());
        status.ready_replicas = count(ready);
        status.nodes = nodes::nodes(inputs);
    }
    if let Some(answer) = inputs.report.and_then(Report::answer) {
        status.version.clone_from(&answer.version);
        status.topology = Some(TopologyStatus {
            revision: number(answer.revision),
            applied_revision: number(answer.applied_revision),
        });
    }
    let verdicts = verdicts::verdicts(inputs, status.operation.as_ref());
    status.conditions = conditions(
        &inputs.previous.conditions,
        verdicts,
        inputs.generation,
        now,
    );
    status
}

/// The status with something recorded ahead of a step.
#[must_use]
pub fn recorded(
    previous: &BrokerClusterStatus,
    record: &Record,
    now: Timestamp,
) -> BrokerClusterStatus {
    let mut status = previous.clone();
    match record {
        Record::Pin { id, image } => {
            status.cluster_id = Some(id.as_str().to_owned());
            status.image = Some(image.clone());
        }
        Record::Founding(founding) => status.founding = Some(founding.clone()),
        Record::Founded => {
            if let Some(founding) = &mut status.founding {
                founding.done = true;
            }
        }
        Record::Finished => status.operation = None,
        Record::Restart {
            pod,
            node_id,
            message,
        } => {
            let node_id = node_id.clone();
            status.operation = Some(operation(RESTART_POD, pod, node_id, message, now));
        }
        Record::Emptying {
            pod,
            node_id,
            message,
        } => {
            let node_id = Some(node_id.clone());
            status.operation = Some(operation(EMPTY_NODE, pod, node_id, message, now));
        }
        Record::Removing {
            pod,
            node_id,
            message,
        } => {
            let node_id = Some(node_id.clone());
            status.operation = Some(operation(REMOVE_POD, pod, node_id, message, now));
        }
    }
    status
}

fn operation(
    type_: &str,
    pod: &str,
    node_id: Option<String>,
    message: &str,
    now: Timestamp,
) -> OperationStatus {
    OperationStatus {
        type_: type_.to_owned(),
        pod: Some(pod.to_owned()),
        node_id,
        started_at: Time(now),
        message: Some(cut(message.to_owned())),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn number(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
