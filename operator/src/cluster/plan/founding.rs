//! How a cluster begins. Pure.
//!
//! Promises: the record of who founds it is in status before any broker is told; every founder is
//! told the same, as recorded; a cluster that was ever founded is not founded again, whatever disks
//! were lost. Empty brokers that are no founders are left to join by themselves.

use std::collections::BTreeMap;

use millrace_crds::{FounderStatus, FoundingStatus};

use super::{Record, Step, Waiting};
use crate::cluster::desired::Desired;
use crate::cluster::facts::{Observed, Pod, Said};
use crate::reasons;

/// Where a cluster stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stage {
    /// It is founded, as far as that can be done.
    Founded,
    /// This has to be done for it.
    Due(Vec<Step>),
    /// Brokers do not answer yet, or do not fit.
    Waiting(Waiting),
}

/// Decides what is to be done for the founding of a cluster.
pub(super) fn stage(desired: &Desired, observed: &Observed) -> Stage {
    if let Some(waiting) = strangers(desired, observed) {
        return Stage::Waiting(waiting);
    }
    let recorded = observed.status.as_ref().and_then(|s| s.founding.as_ref());
    match recorded {
        Some(founding) if founding.done => Stage::Founded,
        Some(founding) => carry_on(desired, observed, founding),
        None if is_member_known(desired, observed) => Stage::Founded,
        None => begin(desired, observed),
    }
}

/// Whether the cluster was ever founded, as far as can be seen.
pub(in crate::cluster) fn is_founded(desired: &Desired, observed: &Observed) -> bool {
    let recorded = observed.status.as_ref().and_then(|s| s.founding.as_ref());
    recorded.is_some_and(|founding| founding.done) || is_member_known(desired, observed)
}

fn is_member_known(desired: &Desired, observed: &Observed) -> bool {
    let id = desired.cluster_id.as_str();
    let ours = observed.claims.iter();
    let mut ours = ours.filter(|claim| claim.cluster_id.as_deref() == Some(id));
    let is_member =
        |said: &Said| matches!(said, Said::Member { cluster_id, .. } if cluster_id == id);
    ours.any(|claim| claim.node_id.is_some()) || observed.brokers.values().any(is_member)
}

/// A broker of another cluster, or two brokers with one disk's id.
fn strangers(desired: &Desired, observed: &Observed) -> Option<Waiting> {
    let id = desired.cluster_id.as_str();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (pod, said) in &observed.brokers {
        if let Said::Member { cluster_id, .. } = said
            && cluster_id != id
        {
            return Some(Waiting {
                reason: reasons::WRONG_CLUSTER,
                message: format!("pod {pod} belongs to cluster {cluster_id:?}, not to {id:?}"),
            });
        }
        let before = said.node_id().and_then(|node| seen.insert(node, pod));
        if let Some(other) = before {
            return Some(Waiting {
                reason: reasons::IDENTITY_CONFLICT,
                message: format!(
                    "pods {other} and {pod} have the same node id: one disk is a copy of the other"
                ),
            });
        }
    }
    None
}

/// Everybody wanted is there and empty: they found it.
fn begin(desired: &Desired, observed: &Observed) -> Stage {
    let mut founders = Vec::new();
    let mut missing = Vec::new();
    for ordinal in 0..desired.replicas {
        let name = desired.key.pod(ordinal);
        match said(observed, &name) {
            Some(Said::Empty { node_id }) => founders.push(FounderStatus {
                node_id: node_id.clone(),
                address: desired.key.peer_address(&name),
            }),
            _ => missing.push(name),
        }
    }
    if !missing.is_empty() {
        return Stage::Waiting(Waiting {
            reason: reasons::FOUNDING,
            message: format!(
                "{} brokers are to found the cluster; waiting until these answer: {}",
                desired.replicas,
                missing.join(", ")
            ),
        });
    }
    let founding = FoundingStatus {
        shards: i32::try_from(desired.shards).unwrap_or(i32::MAX),
        replication: i32::try_from(desired.replication).unwrap_or(i32::MAX),
        founders,
        done: false,
    };
    let mut steps = vec![Step::Record(Record::Founding(founding.clone()))];
    steps.extend(tell(observed, &founding));
    Stage::Due(steps)
}

/// Tells those who were not told yet exactly what was recorded.
fn carry_on(desired: &Desired, observed: &Observed, founding: &FoundingStatus) -> Stage {
    let due: Vec<Step> = tell(observed, founding).collect();
    if !due.is_empty() {
        return Stage::Due(due);
    }
    let is_told = |founder: &&FounderStatus| {
        let mut all = observed.brokers.values();
        all.any(|said| said.node_id() == Some(&founder.node_id))
    };
    let (told, missing): (Vec<&FounderStatus>, Vec<&FounderStatus>) =
        founding.founders.iter().partition(is_told);
    let Some(first) = missing.first() else {
        return Stage::Due(vec![Step::Record(Record::Founded)]);
    };
    let everybody_answers = (0..desired.replicas).all(|ordinal| {
        let said = said(observed, &desired.key.pod(ordinal));
        said.is_some_and(|said| said.node_id().is_some())
    });
    if !everybody_answers {
        return Stage::Waiting(Waiting {
            reason: reasons::FOUNDING,
            message: format!("waiting until the broker at {} answers", first.address),
        });
    }
    if told.len() * 2 > founding.founders.len() {
        // What was lost is replaced by an empty disk, which joins.
        return Stage::Due(vec![Step::Record(Record::Founded)]);
    }
    Stage::Waiting(Waiting {
        reason: reasons::FOUNDER_LOST,
        message: format!(
            "node {} lost its disk before the cluster was founded, and no majority is left; delete \
             the cluster and its claims and create it again",
            first.node_id
        ),
    })
}

/// One step for each founder that is still empty.
fn tell<'a>(
    observed: &'a Observed,
    founding: &'a FoundingStatus,
) -> impl Iterator<Item = Step> + 'a {
    let is_founder = |node: &str| founding.founders.iter().any(|f| f.node_id == node);
    let empty = observed.brokers.iter().filter_map(move |(pod, said)| {
        let Said::Empty { node_id } = said else {
            return None;
        };
        is_founder(node_id).then_some(pod)
    });
    empty.map(|pod| Step::Bootstrap {
        pod: pod.clone(),
        founding: founding.clone(),
    })
}

/// What the broker in a pod that stays says.
fn said<'a>(observed: &'a Observed, name: &str) -> Option<&'a Said> {
    let stays = |pod: &&Pod| pod.name == name && !pod.leaving;
    observed.pods.iter().find(stays)?;
    observed.brokers.get(name)
}
