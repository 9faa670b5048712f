//! How the pods of a cluster keep apart: one machine or one zone that fails should take one of
//! them. The same whatever the number of pods, so that scaling restarts nobody.

use k8s_openapi::api::core::v1::{
    Affinity, PodAffinityTerm, PodAntiAffinity, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use millrace_crds::Spread;

use crate::cluster::desired::Desired;
use crate::labels;

/// The heaviest there is: nothing else that the scheduler weighs is worth two brokers on a machine.
const WEIGHT: i32 = 100;

/// Away from each other's machine.
pub(super) fn affinity(desired: &Desired) -> Option<Affinity> {
    let term = PodAffinityTerm {
        label_selector: Some(selector(desired)),
        topology_key: labels::HOSTNAME.to_owned(),
        ..PodAffinityTerm::default()
    };
    let apart = match desired.spread {
        Spread::None => return None,
        Spread::Preferred => PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                WeightedPodAffinityTerm {
                    weight: WEIGHT,
                    pod_affinity_term: term,
                },
            ]),
            ..PodAntiAffinity::default()
        },
        Spread::Required => PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        },
    };
    Some(Affinity {
        pod_anti_affinity: Some(apart),
        ..Affinity::default()
    })
}

/// Over the zones, never at the price of not running: where nodes have no zone, that would be
/// nowhere.
pub(super) fn constraints(desired: &Desired) -> Option<Vec<TopologySpreadConstraint>> {
    (desired.spread != Spread::None).then(|| {
        vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: labels::ZONE.to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(selector(desired)),
            ..TopologySpreadConstraint::default()
        }]
    })
}

fn selector(desired: &Desired) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels::selector(&desired.key)),
        ..LabelSelector::default()
    }
}
