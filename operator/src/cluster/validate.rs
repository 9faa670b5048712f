//! From a BrokerCluster as written to [`Desired`]: the last place that sees raw YAML. Pure.
//!
//! The schema refuses most of what is refused here; this is for API servers with an older schema,
//! and for what a schema cannot see.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Resource, ResourceExt};
use millrace_crds::{
    Amounts, BrokerCluster, BrokerClusterSpec, ImagePullPolicy, Resources, TolerationEffect,
    TolerationOperator,
};

use super::desired::{ClusterId, Desired, Disk, Image, NODES_MAX};
use super::facts::References;
use crate::names::{CLUSTER_NAME_BYTES_MAX, ClusterKey};
use crate::reasons;

/// Environment variable of the number of data shards.
const SHARDS_VARIABLE: &str = "MILLRACE_SHARDS";
/// Environment variable of the time a broker has to finish what it has begun.
const DRAIN_VARIABLE: &str = "MILLRACE_DRAIN_TIMEOUT";

/// Why a cluster cannot be reconciled until somebody changes something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The spec or the object itself.
    #[error("{field}: {problem}")]
    Field {
        /// Path in the object.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Different ids in places that must agree.
    #[error("whose data is it? {}", list(.places))]
    Identity {
        /// Where each id was found.
        places: Vec<(String, String)>,
    },
}

impl Invalid {
    /// The reason in the condition.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } => reasons::INVALID,
            Self::Identity { .. } => reasons::IDENTITY_CONFLICT,
        }
    }
}

/// Decides what a cluster asks for.
///
/// # Errors
/// When it contradicts itself, or the ids found do not agree.
pub fn validate(cluster: &BrokerCluster, references: References) -> Result<Desired, Invalid> {
    let key = key(cluster)?;
    let spec = &cluster.spec;
    let owner = cluster.controller_owner_ref(&());
    let owner = owner.ok_or_else(|| field("metadata.uid", "is missing"))?;
    let status = cluster.status.as_ref();
    Ok(Desired {
        generation: cluster.metadata.generation.unwrap_or_default(),
        owner: k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
            // Deleting in the foreground waits for the pods.
            block_owner_deletion: Some(true),
            ..owner
        },
        cluster_id: identity(cluster, &references)?,
        image: image(
            spec,
            status.and_then(|s| s.image.clone()),
            references.default_image,
        ),
        replicas: replicas(spec)?,
        replication: spec.config.replication,
        shards: spec.config.shards,
        disk: Disk {
            size: size("spec.storage.size", &spec.storage.size)?,
            class: spec.storage.storage_class_name.clone(),
        },
        resources: resources(&spec.resources)?,
        settings: settings(spec),
        drain_timeout: spec
            .shutdown
            .drain_timeout
            .duration()
            .map_err(|error| field("spec.shutdown.drainTimeout", error))?,
        node_selector: spec.scheduling.node_selector.clone(),
        tolerations: spec.scheduling.tolerations.iter().map(toleration).collect(),
        spread: spec.scheduling.spread,
        priority_class: spec.scheduling.priority_class_name.clone(),
        pod_labels: spec.pod.labels.clone(),
        pod_annotations: spec.pod.annotations.clone(),
        key,
    })
}

fn key(cluster: &BrokerCluster) -> Result<ClusterKey, Invalid> {
    let name = cluster.name_any();
    let namespace = cluster.namespace();
    let namespace = namespace.ok_or_else(|| field("metadata.namespace", "is missing"))?;
    if name.len() > CLUSTER_NAME_BYTES_MAX {
        let problem = format!("is longer than {CLUSTER_NAME_BYTES_MAX} characters");
        return Err(field("metadata.name", problem));
    }
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Err(field(
            "metadata.name",
            "must start with a letter, as a Service's",
        ));
    }
    Ok(ClusterKey::new(namespace, name))
}

/// One id from claims, StatefulSet and status: they agree, or nothing is done. The claims come
/// first in the message because they hold the data.
fn identity(cluster: &BrokerCluster, references: &References) -> Result<ClusterId, Invalid> {
    let asked = u32::try_from(cluster.spec.replicas).unwrap_or_default();
    let used = references.claims.iter();
    let used = used.filter(|claim| claim.ordinal < asked);
    let claims = used.filter_map(|claim| {
        let id = claim.cluster_id.clone()?;
        Some((format!("claim {}", claim.name), id))
    });
    let stateful_set = references.stateful_set_id.clone();
    let stateful_set = stateful_set.map(|id| ("the StatefulSet".to_owned(), id));
    let status = cluster.status.as_ref().and_then(|s| s.cluster_id.clone());
    let status = status.map(|id| ("status".to_owned(), id));
    let places: Vec<(String, String)> = claims.chain(stateful_set).chain(status).collect();

    let first = places.first().map(|(_, id)| id.as_str());
    let agreed = places.iter().all(|(_, id)| Some(id.as_str()) == first);
    match first {
        None => Ok(references.fresh_id.clone()),
        Some(id) if agreed => ClusterId::parse(id).ok_or(Invalid::Identity { places }),
        Some(_) => Err(Invalid::Identity { places }),
    }
}

fn image(spec: &BrokerClusterSpec, pinned: Option<String>, default: String) -> Image {
    Image {
        name: spec.image.clone().or(pinned).unwrap_or(default),
        pull_policy: match spec.image_pull_policy {
            ImagePullPolicy::IfNotPresent => "IfNotPresent",
            ImagePullPolicy::Always => "Always",
            ImagePullPolicy::Never => "Never",
        },
        pull_secrets: spec
            .image_pull_secrets
            .iter()
            .map(|secret| LocalObjectReference {
                name: secret.name.clone(),
            })
            .collect(),
    }
}

fn settings(spec: &BrokerClusterSpec) -> BTreeMap<String, String> {
    let drain_timeout = spec.shutdown.drain_timeout.as_str().to_owned();
    BTreeMap::from([
        (SHARDS_VARIABLE.to_owned(), spec.config.shards.to_string()),
        (DRAIN_VARIABLE.to_owned(), drain_timeout),
    ])
}

fn replicas(spec: &BrokerClusterSpec) -> Result<u32, Invalid> {
    let replicas = u32::try_from(spec.replicas).unwrap_or_default();
    if (1..=NODES_MAX).contains(&replicas) {
        return Ok(replicas);
    }
    let problem = format!("must be 1 to {NODES_MAX}, is {}", spec.replicas);
    Err(field("spec.replicas", problem))
}

fn resources(resources: &Resources) -> Result<Option<ResourceRequirements>, Invalid> {
    let requests = amounts("spec.resources.requests.memory", &resources.requests)?;
    let limits = amounts("spec.resources.limits.memory", &resources.limits)?;
    Ok(
        (requests.is_some() || limits.is_some()).then(|| ResourceRequirements {
            requests,
            limits,
            ..ResourceRequirements::default()
        }),
    )
}

fn amounts(
    path: &'static str,
    amounts: &Amounts,
) -> Result<Option<BTreeMap<String, Quantity>>, Invalid> {
    let mut map = BTreeMap::new();
    if let Some(cpu) = &amounts.cpu {
        map.insert("cpu".to_owned(), cpu.quantity());
    }
    if let Some(memory) = &amounts.memory {
        map.insert("memory".to_owned(), size(path, memory)?);
    }
    Ok((!map.is_empty()).then_some(map))
}

fn size(path: &'static str, size: &millrace_crds::Size) -> Result<Quantity, Invalid> {
    size.bytes().map_err(|error| field(path, error))?;
    Ok(size.quantity())
}

fn toleration(toleration: &millrace_crds::Toleration) -> Toleration {
    let operator = match toleration.operator {
        TolerationOperator::Equal => "Equal",
        TolerationOperator::Exists => "Exists",
    };
    let effect = toleration.effect.map(|effect| match effect {
        TolerationEffect::NoSchedule => "NoSchedule",
        TolerationEffect::PreferNoSchedule => "PreferNoSchedule",
        TolerationEffect::NoExecute => "NoExecute",
    });
    Toleration {
        key: toleration.key.clone(),
        operator: Some(operator.to_owned()),
        value: toleration.value.clone(),
        effect: effect.map(str::to_owned),
        toleration_seconds: toleration.toleration_seconds,
    }
}

fn field(field: &'static str, problem: impl ToString) -> Invalid {
    let problem = problem.to_string();
    Invalid::Field { field, problem }
}

fn list(places: &[(String, String)]) -> String {
    let places: Vec<String> = places
        .iter()
        .map(|(place, id)| format!("{place} says {id:?}"))
        .collect();
    places.join(", ")
}
