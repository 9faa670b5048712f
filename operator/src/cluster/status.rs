//! What a cluster's status says after a reconciliation. Pure; written also when it failed.

use k8s_openapi::api::core::v1::Pod as KubePod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use millrace_crds::{BrokerClusterStatus, NodeStatus, OperationStatus, TopologyStatus};

use super::desired::Desired;
use super::facts::{Observed, Pod, Trouble};
use super::plan::{Plan, RESTART_POD, Record, Waiting};
use crate::condition::{Truth, Verdict, conditions, cut, find};
use crate::reasons::{self, condition};
use crate::topology::report::{Broker, Report};
use crate::{labels, names};

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
        status.nodes = nodes(observed, &inputs.previous.nodes, inputs.report);
        if !is_restarting(inputs) {
            status.operation = None;
        }
    }
    if let Some(answer) = inputs.report.and_then(Report::answer) {
        status.version.clone_from(&answer.version);
        status.topology = Some(TopologyStatus {
            revision: number(answer.revision),
            applied_revision: number(answer.applied_revision),
        });
    }
    let verdicts = vec![
        ready(inputs, status.operation.as_ref()),
        progressing(inputs, status.operation.as_ref()),
        synced(inputs.report, &inputs.previous.conditions),
    ];
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
        Record::Restart { pod, message } => {
            status.operation = Some(OperationStatus {
                type_: RESTART_POD.to_owned(),
                pod: Some(pod.clone()),
                started_at: Time(now),
                message: Some(cut(message.clone())),
            });
        }
    }
    status
}

/// A restart is over when every pod runs what is wanted and serves.
fn is_restarting(inputs: Inputs<'_>) -> bool {
    let (Some(desired), Some(observed)) = (inputs.desired, inputs.observed) else {
        return inputs.previous.operation.is_some();
    };
    let settled = |pod: &Pod| {
        pod.ready
            && !pod.leaving
            && pod.template_hash.as_deref() == Some(&super::build::template_hash(desired))
    };
    let all = observed.pods.len() >= desired.replicas as usize && observed.pods.iter().all(settled);
    inputs.previous.operation.is_some() && !all
}

fn ready(inputs: Inputs<'_>, operation: Option<&OperationStatus>) -> Verdict {
    let refuse =
        |reason, message: &str| Verdict::new(condition::READY, Truth::False, reason, message);
    match inputs.outcome {
        // A failing API server takes nothing away from a broker that serves.
        Outcome::Failed { reason, message } if *reason == reasons::API_FAILED => {
            match serves_all_the_same(inputs) {
                Some(verdict) => return verdict,
                None => return refuse(*reason, message),
            }
        }
        Outcome::Failed { reason, message } => return refuse(*reason, message),
        Outcome::Done {
            waiting: Some(waiting),
            ..
        } if waiting.reason != reasons::APPLYING => {
            return refuse(waiting.reason, &waiting.message);
        }
        Outcome::Done { .. } => {}
    }
    if serves(inputs) {
        return serving();
    }
    let pods = inputs.observed.map(|observed| observed.pods.as_slice());
    let pods = pods.unwrap_or_default();
    if let Some(Trouble { reason, message }) = pods.iter().find_map(|pod| pod.trouble.as_ref()) {
        return refuse(*reason, message);
    }
    if let Some(operation) = operation {
        let pod = operation.pod.as_deref().unwrap_or_default();
        let message = operation.message.as_deref().unwrap_or_default();
        return refuse(
            reasons::RESTARTING,
            &format!("pod {pod} restarts: {message}"),
        );
    }
    match pods.iter().find(|pod| pod.leaving) {
        Some(pod) => refuse(
            reasons::POD_STOPPING,
            &format!("pod {} is stopping", pod.name),
        ),
        None => refuse(reasons::STARTING, "the broker pod is starting"),
    }
}

fn serving() -> Verdict {
    Verdict::new(
        condition::READY,
        Truth::True,
        reasons::READY,
        "the broker serves",
    )
}

fn serves(inputs: Inputs<'_>) -> bool {
    let wanted = inputs
        .desired
        .map_or(1, |desired| desired.replicas as usize);
    let pods = inputs.observed.map(|observed| observed.pods.as_slice());
    let pods = pods.unwrap_or_default();
    pods.len() >= wanted && pods.iter().all(|pod| pod.ready && !pod.leaving)
}

/// While the API server fails: by the pods if they could be read, else as it was.
fn serves_all_the_same(inputs: Inputs<'_>) -> Option<Verdict> {
    let before = find(&inputs.previous.conditions, condition::READY);
    let served = before.is_some_and(|before| before.status == Truth::True.as_str());
    let does = match inputs.observed {
        Some(_) => serves(inputs),
        None => served,
    };
    does.then(serving)
}

fn progressing(inputs: Inputs<'_>, operation: Option<&OperationStatus>) -> Verdict {
    let verdict =
        |truth, reason, message: &str| Verdict::new(condition::PROGRESSING, truth, reason, message);
    match (inputs.outcome, operation) {
        (Outcome::Failed { reason, message }, _) => verdict(Truth::False, *reason, message),
        (
            Outcome::Done {
                waiting: Some(waiting),
                ..
            },
            _,
        ) => verdict(Truth::True, waiting.reason, &waiting.message),
        (_, Some(operation)) => {
            let message = operation.message.as_deref().unwrap_or_default();
            verdict(Truth::True, reasons::RESTARTING, message)
        }
        (Outcome::Done { changed: true, .. }, None) => verdict(
            Truth::True,
            reasons::APPLYING,
            "objects were created or changed",
        ),
        (Outcome::Done { changed: false, .. }, None) => {
            verdict(Truth::False, reasons::SETTLED, "nothing is left to do")
        }
    }
}

fn synced(report: Option<&Report>, before: &[Condition]) -> Verdict {
    let verdict = |truth, reason: &str, message: &str| {
        Verdict::new(condition::SYNCED, truth, reason, message)
    };
    let Some(report) = report else {
        // An operator that has just started knows less than the one before it.
        let message = "the broker was not asked yet";
        return find(before, condition::SYNCED)
            .and_then(Verdict::again)
            .unwrap_or_else(|| verdict(Truth::Unknown, reasons::BROKER_UNAVAILABLE, message));
    };
    match &report.broker {
        Broker::Unavailable { reason, message } => verdict(Truth::False, reason, message),
        Broker::Answered(_) if !report.is_settled() => {
            let message = "not every shard works by all that is declared yet";
            verdict(Truth::False, reasons::SYNCING, message)
        }
        Broker::Answered(_) => synced_but(report).map_or_else(
            || {
                let message = "queues and topics are as declared";
                verdict(Truth::True, reasons::READY, message)
            },
            |(reason, message)| verdict(Truth::False, reason, &message),
        ),
    }
}

/// What keeps a broker that has done all it was told from having what is declared.
fn synced_but(report: &Report) -> Option<(&'static str, String)> {
    if let Some(why) = &report.frozen {
        return Some((reasons::REMOVAL_FROZEN, why.clone()));
    }
    let (address, first) = report.refused.first_key_value()?;
    let count = report.refused.len();
    let message = format!("{count} refused, the first is {address}: {}", first.message);
    Some((reasons::REFUSED, message))
}

/// A node that cannot be asked is still the node it was.
fn nodes(observed: &Observed, before: &[NodeStatus], report: Option<&Report>) -> Vec<NodeStatus> {
    let answer = report.and_then(Report::answer);
    let node = |pod: &Pod| {
        let before = before.iter().find(|node| node.pod == pod.name);
        NodeStatus {
            pod: pod.name.clone(),
            node_id: match answer {
                Some(answer) => Some(answer.node_id.clone()),
                None => before.and_then(|node| node.node_id.clone()),
            },
            ready: pod.ready,
            version: match answer {
                Some(answer) => Some(answer.version.clone()),
                None => before.and_then(|node| node.version.clone()),
            },
        }
    };
    observed.pods.iter().map(node).collect()
}

/// Reads off a pod what the pipeline needs to know.
#[must_use]
pub fn pod_facts(pod: &KubePod) -> Pod {
    let meta = &pod.metadata;
    let annotations = meta.annotations.as_ref();
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    Pod {
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        template_hash: annotations.and_then(|a| a.get(labels::TEMPLATE_HASH).cloned()),
        image: broker_image(pod).unwrap_or_default(),
        leaving: meta.deletion_timestamp.is_some(),
        ready,
        address: pod
            .status
            .as_ref()
            .and_then(|s| s.pod_ip.as_ref()?.parse().ok()),
        trouble: trouble(pod),
    }
}

fn broker_image(pod: &KubePod) -> Option<String> {
    let containers = &pod.spec.as_ref()?.containers;
    let broker = containers
        .iter()
        .find(|c| c.name == names::BROKER_CONTAINER)?;
    broker.image.clone()
}

fn trouble(pod: &KubePod) -> Option<Trouble> {
    /// Fewer may be the race of a start with what it needs.
    const RESTARTS_MIN: i32 = 2;
    let status = pod.status.as_ref()?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let unscheduled = status.conditions.as_ref().and_then(|conditions| {
        let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled")?;
        (scheduled.status == "False").then(|| scheduled.message.clone().unwrap_or_default())
    });
    if let Some(message) = unscheduled {
        return Some(Trouble {
            reason: reasons::POD_UNSCHEDULABLE,
            message: format!("no node takes pod {name}: {message}"),
        });
    }
    let containers = status.container_statuses.as_ref()?;
    let broker = containers
        .iter()
        .find(|c| c.name == names::BROKER_CONTAINER)?;
    let waiting = broker
        .state
        .as_ref()
        .and_then(|state| state.waiting.as_ref());
    let reason = waiting
        .and_then(|waiting| waiting.reason.as_deref())
        .unwrap_or_default();
    let said = waiting
        .and_then(|waiting| waiting.message.as_deref())
        .unwrap_or_default();
    match reason {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            Some(Trouble {
                reason: reasons::IMAGE_UNAVAILABLE,
                message: format!("{}: {reason}: {said}", broker.image),
            })
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(Trouble {
                reason: reasons::STARTING,
                message: format!("pod {name}: {reason}: {said}"),
            })
        }
        _ if broker.restart_count >= RESTARTS_MIN && !broker.ready => {
            let last = broker
                .last_state
                .as_ref()
                .and_then(|s| s.terminated.as_ref());
            let code = last.map_or(0, |terminated| terminated.exit_code);
            let said = last.and_then(|terminated| terminated.message.as_deref());
            let said = said
                .and_then(|said| said.trim_end().lines().next_back())
                .unwrap_or_default();
            let restarts = broker.restart_count;
            let message =
                format!("pod {name} exited {restarts} times, last with code {code}: {said}");
            Some(Trouble {
                reason: reasons::POD_CRASHING,
                message,
            })
        }
        _ => None,
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn number(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
