//! How many brokers a cluster is to have now. Pure.
//!
//! Promises: no broker that belongs to the cluster, or may, is taken away because a number in a
//! spec became smaller: its copies of shards would be gone with it.

use millrace_crds::FoundingStatus;

use super::desired::{Desired, NODES_MAX};
use super::facts::{Claim, Observed, Said};
use super::object::Kind;
use super::plan::Waiting;
use crate::reasons;

/// What was asked for, as far as it can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// Broker pods.
    pub brokers: u32,
    /// Why there are more than were asked for.
    pub refused: Option<Waiting>,
}

/// Decides how many brokers there are to be.
#[must_use]
pub fn size(desired: &Desired, observed: &Observed) -> Size {
    let held = (desired.replicas..NODES_MAX)
        .rev()
        .find(|ordinal| is_held(desired, observed, *ordinal));
    let Some(last) = held else {
        return Size {
            brokers: desired.replicas,
            refused: None,
        };
    };
    let asked = desired.replicas;
    let message = format!(
        "pod {} belongs to the cluster and holds copies of shards: {asked} brokers instead of {} \
         are not possible yet; nothing was done",
        desired.key.pod(last),
        last + 1,
    );
    Size {
        brokers: last + 1,
        refused: Some(Waiting {
            reason: reasons::SCALE_DOWN_UNSUPPORTED,
            message,
        }),
    }
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
