//! What has to be done, in order. Pure: no choice is left to whoever carries it out.
//!
//! Promises: the plan of a converged cluster is empty; a plan has at most one disruptive step, the
//! record of it in status comes first; a pod is restarted only when the StatefulSet that will
//! replace it is as wanted and its controller has seen it.

use millrace_crds::BrokerClusterStatus;
use serde_json::Value;

use super::build;
use super::desired::{ClusterId, Desired};
use super::facts::{Claim, Observed, Pod, TokenState};
use super::object::{Holder, Kind, Object, holder};
use crate::reasons;

/// What is to be done, and what everything else waits for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order; the first that fails ends it.
    pub steps: Vec<Step>,
    /// Why not all that is wanted is in `steps`.
    pub waiting: Option<Waiting>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Writes to status what must be known before the next step is taken.
    Record(Record),
    /// Creates the control Secret with a new token.
    CreateToken,
    /// Applies an object.
    Apply(Object),
    /// Annotates a claim with the cluster's id: one made before this cluster was.
    Adopt {
        /// Name of the claim.
        claim: String,
        /// The id it gets.
        id: ClusterId,
    },
    /// Deletes a pod, for the StatefulSet to make it anew. Disruptive.
    RestartPod {
        /// Its name.
        name: String,
        /// No other pod of that name is deleted.
        uid: String,
        /// Why, for people.
        message: String,
    },
}

/// What is written to status ahead of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The id and the image the cluster keeps.
    Pin {
        /// The cluster's id.
        id: ClusterId,
        /// The image it runs.
        image: String,
    },
    /// A pod is about to be restarted.
    Restart {
        /// Its name.
        pod: String,
        /// Why, for people.
        message: String,
    },
}

/// Something that somebody else has to finish first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// One of `reasons`.
    pub reason: &'static str,
    /// For people: names the object.
    pub message: String,
}

/// Type of the operation that restarts a pod, in status.
pub const RESTART_POD: &str = "RestartPod";

/// Decides what has to be done.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let objects = build::objects(desired);
    if let Some(waiting) = obstacle(desired, observed, &objects) {
        return Plan {
            steps: Vec::new(),
            waiting: Some(waiting),
        };
    }
    let mut steps: Vec<Step> = pin(desired, observed.status.as_ref()).into_iter().collect();
    steps.extend(adoptions(desired, &observed.claims));
    if observed.token == TokenState::Missing {
        steps.push(Step::CreateToken);
    }
    steps.extend(objects.into_iter().filter_map(|object| {
        let there = observed.objects.get(&(object.kind, object.name.clone()));
        let same = there.is_some_and(|there| object.is_in(there));
        (!same).then_some(Step::Apply(object))
    }));
    if !steps.is_empty() {
        // What restarts a pod is decided once all that it starts with is in place.
        return Plan {
            steps,
            waiting: None,
        };
    }
    restart(desired, observed)
}

/// What forbids touching anything.
fn obstacle(desired: &Desired, observed: &Observed, objects: &[Object]) -> Option<Waiting> {
    let uid = desired.owner.uid.as_str();
    for object in objects {
        let Some(there) = observed.objects.get(&(object.kind, object.name.clone())) else {
            continue;
        };
        let what = format!("{} {}", object.kind.name(), object.name);
        match holder(there, &desired.key.name, uid) {
            Holder::Us => {}
            Holder::Leaving => return Some(leaving(&what)),
            Holder::Other => {
                return Some(Waiting {
                    reason: reasons::NAME_TAKEN,
                    message: format!(
                        "{what} belongs to somebody else; the cluster needs that name"
                    ),
                });
            }
        }
    }
    let secret = format!("Secret {}", desired.key.control_secret());
    match observed.token {
        TokenState::Leaving => return Some(leaving(&secret)),
        TokenState::Empty => {
            return Some(Waiting {
                reason: reasons::CONTROL_TOKEN_MISSING,
                message: format!("{secret} holds no token; delete it and a new one is made"),
            });
        }
        TokenState::Missing | TokenState::Present => {}
    }
    let leaving_claim = observed.claims.iter().find(|claim| claim.leaving)?;
    // With its pod still there the claim stays until the pod goes; making a pod now would tie it
    // down.
    let in_use = !observed.pods.is_empty();
    (!in_use).then(|| leaving(&format!("claim {}", leaving_claim.name)))
}

fn leaving(what: &str) -> Waiting {
    Waiting {
        reason: reasons::PREDECESSOR_LEAVING,
        message: format!("{what} is being deleted; waiting until it is gone"),
    }
}

/// The id and image are known before anything is made by them.
fn pin(desired: &Desired, status: Option<&BrokerClusterStatus>) -> Option<Step> {
    let id = status.and_then(|status| status.cluster_id.as_deref());
    let image = status.and_then(|status| status.image.as_deref());
    let pinned = id == Some(desired.cluster_id.as_str()) && image == Some(&desired.image.name);
    (!pinned).then(|| {
        Step::Record(Record::Pin {
            id: desired.cluster_id.clone(),
            image: desired.image.name.clone(),
        })
    })
}

fn adoptions<'a>(desired: &'a Desired, claims: &'a [Claim]) -> impl Iterator<Item = Step> + 'a {
    let nameless = claims.iter().filter(|claim| claim.cluster_id.is_none());
    nameless.map(|claim| Step::Adopt {
        claim: claim.name.clone(),
        id: desired.cluster_id.clone(),
    })
}

/// At most one pod, the first that does not run what is wanted.
fn restart(desired: &Desired, observed: &Observed) -> Plan {
    let wanted = build::template_hash(desired);
    let outdated = |pod: &&Pod| pod.template_hash.as_deref() != Some(wanted.as_str());
    if observed.pods.iter().any(|pod| pod.leaving) {
        return Plan::default();
    }
    let Some(pod) = observed.pods.iter().find(outdated) else {
        return Plan::default();
    };
    if !is_seen_by_its_controller(observed, &desired.key.stateful_set()) {
        return Plan {
            steps: Vec::new(),
            waiting: Some(Waiting {
                reason: reasons::APPLYING,
                message: "the StatefulSet controller has not seen the change yet".to_owned(),
            }),
        };
    }
    let message = why(desired, pod);
    let record = Step::Record(Record::Restart {
        pod: pod.name.clone(),
        message: message.clone(),
    });
    let recorded = observed.status.as_ref().and_then(|s| s.operation.as_ref());
    let recorded = recorded.is_some_and(|operation| {
        operation.type_ == RESTART_POD && operation.pod.as_deref() == Some(&pod.name)
    });
    let delete = Step::RestartPod {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        message,
    };
    let steps = if recorded {
        vec![delete]
    } else {
        vec![record, delete]
    };
    Plan {
        steps,
        waiting: None,
    }
}

fn why(desired: &Desired, pod: &Pod) -> String {
    let wanted = &desired.image.name;
    if pod.image == *wanted {
        "its settings or its pod template changed".to_owned()
    } else {
        format!("its image changes from {} to {wanted}", pod.image)
    }
}

/// Otherwise it would make the new pod by the old template.
fn is_seen_by_its_controller(observed: &Observed, name: &str) -> bool {
    let key = (Kind::StatefulSet, name.to_owned());
    observed.objects.get(&key).is_some_and(|set| {
        let seen = &set["status"]["observedGeneration"];
        seen != &Value::Null && seen == &set["metadata"]["generation"]
    })
}
