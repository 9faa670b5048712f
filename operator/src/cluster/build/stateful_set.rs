//! The StatefulSet: pods that keep their name and their disk.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{meta, pod};
use crate::cluster::desired::Desired;
use crate::{labels, names};

/// Old revisions kept: the operator never rolls back by them.
const REVISIONS_KEPT: i32 = 2;

/// `OnDelete`, because only the operator knows when a broker may stop. `Parallel`, because brokers
/// that wait for each other's start would wait for ever. Claims outlive it.
pub(super) fn stateful_set(desired: &Desired) -> StatefulSet {
    StatefulSet {
        metadata: meta(desired, desired.key.stateful_set()),
        spec: Some(StatefulSetSpec {
            replicas: i32::try_from(desired.replicas).ok(),
            service_name: Some(desired.key.nodes_service()),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            revision_history_limit: Some(REVISIONS_KEPT),
            persistent_volume_claim_retention_policy: Some(
                StatefulSetPersistentVolumeClaimRetentionPolicy {
                    when_deleted: Some("Retain".to_owned()),
                    when_scaled: Some("Retain".to_owned()),
                },
            ),
            selector: LabelSelector {
                match_labels: Some(labels::selector(&desired.key)),
                ..LabelSelector::default()
            },
            template: pod::template(desired),
            volume_claim_templates: Some(vec![claim(desired)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

/// Immutable once the StatefulSet exists: nothing here may depend on what can change.
fn claim(desired: &Desired) -> PersistentVolumeClaim {
    let id = desired.cluster_id.as_str().to_owned();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::DATA_VOLUME.to_owned()),
            labels: Some(labels::common(&desired.key)),
            annotations: Some(BTreeMap::from([(labels::CLUSTER_ID.to_owned(), id)])),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: desired.disk.class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    desired.disk.size.clone(),
                )])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
