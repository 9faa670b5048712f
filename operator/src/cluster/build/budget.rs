//! How many brokers an eviction may take away at a time.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta;
use crate::cluster::desired::Desired;
use crate::labels;

/// One pod at a time, stated as what may be missing: with a single broker `kubectl drain` goes
/// through, where a minimum of one pod would block it for ever.
///
/// A single broker that is not ready serves nobody, and may always be evicted. One of several may
/// be what is left of a majority: it goes only while the others are well.
pub(super) fn budget(desired: &Desired) -> PodDisruptionBudget {
    let if_unhealthy = match desired.replicas {
        1 => "AlwaysAllow",
        _ => "IfHealthyBudget",
    };
    PodDisruptionBudget {
        metadata: meta(desired, desired.key.budget()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(labels::selector(&desired.key)),
                ..LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: Some(if_unhealthy.to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
