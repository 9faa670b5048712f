//! What has to be done, in order. Pure: no choice is left to whoever carries it out.
//!
//! Promises: the plan of a converged cluster is empty; a plan has at most one disruptive step, the
//! record of it in status comes first; a pod is restarted only when the StatefulSet that will
//! replace it is as wanted and its controller has seen it.

use millrace_crds::{BrokerClusterStatus, FoundingStatus};
use serde_json::Value;

use super::build;
use super::desired::{ClusterId, Desired};
use super::facts::{Act, Claim, Observed, Question, Said, TokenState};
use super::object::{Holder, Kind, Object, holder};
use super::size::size;
use crate::reasons;

mod founding;
mod roll;
mod shrink;

pub(in crate::cluster) use founding::is_founded;
pub(in crate::cluster) use shrink::leaving as leaving_broker;
pub use shrink::{EMPTY_NODE, REMOVE_POD};

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
    /// Annotates a claim with whose it is: one made before this cluster was, or one whose node has
    /// come to belong to the cluster.
    Adopt {
        /// Name of the claim.
        claim: String,
        /// The id it gets.
        id: ClusterId,
        /// The node it holds the data of.
        node_id: Option<String>,
    },
    /// Takes the node off a claim of the cluster: it belongs to it no longer.
    Release {
        /// Name of the claim.
        claim: String,
        /// The cluster's id, which stays.
        id: ClusterId,
    },
    /// Tells a broker that it founds the cluster, with whom.
    Bootstrap {
        /// Its pod.
        pod: String,
        /// As recorded.
        founding: FoundingStatus,
    },
    /// Has the brokers steer one of them. Disruptive, where it takes something from it.
    Steer {
        /// What is done.
        act: Act,
        /// The node.
        node_id: String,
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
    /// Who is about to be told to found the cluster.
    Founding(FoundingStatus),
    /// All who were told know it.
    Founded,
    /// A pod is about to be restarted.
    Restart {
        /// Its name.
        pod: String,
        /// The node in it.
        node_id: Option<String>,
        /// Why, for people.
        message: String,
    },
    /// A broker is about to give its copies to the others.
    Emptying {
        /// Its pod.
        pod: String,
        /// The node in it.
        node_id: String,
        /// Why, for people.
        message: String,
    },
    /// It holds nothing, and its pod is about to go.
    Removing {
        /// Its pod.
        pod: String,
        /// The node in it.
        node_id: String,
        /// Why, for people.
        message: String,
    },
    /// What was recorded is done, or given up.
    Finished,
}

/// Something that somebody else has to finish first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// One of `reasons`.
    pub reason: &'static str,
    /// For people: names the object.
    pub message: String,
}

impl Plan {
    /// These steps, and nothing waits.
    fn of(steps: Vec<Step>) -> Self {
        let waiting = None;
        Self { steps, waiting }
    }

    /// Nothing to do until then.
    fn waiting(waiting: Waiting) -> Self {
        Self {
            steps: Vec::new(),
            waiting: Some(waiting),
        }
    }
}

/// Type of the operation that restarts a pod, in status.
pub const RESTART_POD: &str = "RestartPod";

/// What has to be asked of the brokers before [`plan`] can decide.
#[must_use]
pub fn question(desired: &Desired, observed: &Observed) -> Option<Question> {
    let sized = desired.with_replicas(size(desired, observed));
    roll::question(&sized, observed).or_else(|| shrink::question(observed))
}

/// Decides what has to be done.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let brokers = size(desired, observed);
    let plan = sized(&desired.with_replicas(brokers), observed);
    if plan == Plan::default() {
        return shrink::shrink(desired, observed, brokers);
    }
    plan
}

fn sized(desired: &Desired, observed: &Observed) -> Plan {
    let objects = build::objects(desired);
    if let Some(waiting) = obstacle(desired, observed, &objects) {
        return Plan::waiting(waiting);
    }
    let mut steps: Vec<Step> = pin(desired, observed.status.as_ref()).into_iter().collect();
    let naming: Vec<Step> = adoptions(desired, observed).collect();
    let named = naming.len();
    steps.extend(naming);
    if observed.token == TokenState::Missing {
        steps.push(Step::CreateToken);
    }
    steps.extend(objects.into_iter().filter_map(|object| {
        let there = observed.objects.get(&(object.kind, object.name.clone()));
        let same = there.is_some_and(|there| object.is_in(there));
        (!same).then_some(Step::Apply(object))
    }));
    if steps.len() > named {
        // What founds a cluster or restarts a pod is decided once all that it starts with is in
        // place.
        return Plan::of(steps);
    }
    let next = match founding::stage(desired, observed) {
        founding::Stage::Founded => roll::roll(desired, observed),
        founding::Stage::Due(steps) => Plan::of(steps),
        // A changed template may be what it waits for.
        founding::Stage::Waiting(waiting) => {
            let mut plan = roll::roll(desired, observed);
            plan.waiting = Some(waiting);
            plan
        }
    };
    steps.extend(next.steps);
    Plan {
        steps,
        waiting: next.waiting,
    }
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
    let wanted = observed.claims.iter();
    let mut wanted = wanted.filter(|claim| claim.ordinal < desired.replicas);
    let leaving_claim = wanted.find(|claim| claim.leaving)?;
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

/// Claims that do not say yet whose they are.
fn adoptions<'a>(desired: &'a Desired, observed: &'a Observed) -> impl Iterator<Item = Step> + 'a {
    let wanted = observed.claims.iter();
    let wanted = wanted.filter(|claim| claim.ordinal < desired.replicas);
    wanted.filter_map(|claim| {
        let node_id = node_on(desired, observed, claim);
        let is_named = node_id.is_none() || node_id == claim.node_id;
        let is_ours = claim.cluster_id.is_some();
        (!is_named || !is_ours).then(|| Step::Adopt {
            claim: claim.name.clone(),
            id: desired.cluster_id.clone(),
            node_id: node_id.or_else(|| claim.node_id.clone()),
        })
    })
}

/// The node whose disk a claim is, once that belongs to the cluster.
fn node_on(desired: &Desired, observed: &Observed, claim: &Claim) -> Option<String> {
    let said = observed.brokers.get(&desired.key.pod(claim.ordinal))?;
    match said {
        Said::Member {
            node_id,
            cluster_id,
        } if cluster_id == desired.cluster_id.as_str() => Some(node_id.clone()),
        _ => None,
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
