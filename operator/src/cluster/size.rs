//! How many brokers a cluster is to have now. Pure.
//!
//! Promises: no broker that belongs to the cluster, or may, is taken away because a number in a
//! spec became smaller: its copies of shards would be gone with it. It goes when they have moved.

use millrace_crds::FoundingStatus;

use super::desired::{Desired, NODES_MAX};
use super::facts::{Claim, Observed, Said};
use super::object::Kind;
use super::plan::leaving_broker;

/// Decides how many broker pods there are to be: as many as are asked for, or as hold data.
#[must_use]
pub fn size(desired: &Desired, observed: &Observed) -> u32 {
    if let Some(before) = leaving_broker(desired, observed) {
        return before;
    }
    let held = (desired.replicas..NODES_MAX)
        .rev()
        .find(|ordinal| is_held(desired, observed, *ordinal));
    held.map_or(desired.replicas, |last| last + 1)
}

/// Brokers the StatefulSet makes now; 0 when there is none.
fn made(desired: &Desired, observed: &Observed) -> u64 {
    let key = (Kind::StatefulSet, desired.key.stateful_set());
    let set = observed.objects.get(&key);
    let replicas = set.and_then(|set| set["spec"]["replicas"].as_u64());
    replicas.unwrap_or_default()
}

/// Whether the disk of an ordinal is part of the cluster, or may be.
fn is_held(desired: &Desired, observed: &Observed, ordinal: u32) -> bool {
    let named = |claim: &Claim| {
        let ours = claim.cluster_id.as_deref() == Some(desired.cluster_id.as_str());
        claim.ordinal == ordinal && ours && claim.node_id.is_some()
    };
    if observed.claims.iter().any(named) {
        return true;
    }
    if u64::from(ordinal) >= made(desired, observed) {
        return false;
    }
    match observed.brokers.get(&desired.key.pod(ordinal)) {
        None => false,
        Some(Said::Nothing(_) | Said::Member { .. }) => true,
        Some(Said::Empty { node_id }) => {
            let founding = observed.status.as_ref().and_then(|s| s.founding.as_ref());
            founding.is_some_and(|founding| is_founder(founding, node_id))
        }
    }
}

fn is_founder(founding: &FoundingStatus, node_id: &str) -> bool {
    let mut founders = founding.founders.iter();
    founders.any(|founder| founder.node_id == node_id)
}
