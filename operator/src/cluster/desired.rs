//! What a valid BrokerCluster asks for, with defaults filled in and references resolved. Builders
//! see nothing else, so that no raw YAML gets past `validate`.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use millrace_crds::Spread;

use crate::names::ClusterKey;

/// Brokers of a cluster at most, as the definition has it: each replicates to each.
pub const NODES_MAX: u32 = 9;

/// The random id of a cluster, on its claims and its brokers' disks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterId(String);

impl ClusterId {
    /// Takes an id found on a claim or in status; `None` when it cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        /// Longer than any id ever minted; the broker's command line takes what fits here.
        const BYTES_MAX: usize = 64;
        let ok = (1..=BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        ok.then(|| Self(text.to_owned()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The disk of each broker.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    /// Size of the claim.
    pub size: Quantity,
    /// `None`: the Kubernetes cluster's default.
    pub class: Option<String>,
}

/// The image of the brokers and how it is pulled.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// With tag or digest.
    pub name: String,
    /// `IfNotPresent`, `Always` or `Never`.
    pub pull_policy: &'static str,
    /// For the image's registry.
    pub pull_secrets: Vec<LocalObjectReference>,
}

/// A valid cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Namespace and name.
    pub key: ClusterKey,
    /// `metadata.generation` this is about.
    pub generation: i64,
    /// Owner of all that is made for the cluster, except its claims.
    pub owner: OwnerReference,
    /// Adopted from the claims, or minted.
    pub cluster_id: ClusterId,
    /// Pinned when it is not in the spec.
    pub image: Image,
    /// Broker pods.
    pub replicas: u32,
    /// Copies of each shard, as far as there are brokers.
    pub replication: u32,
    /// Data shards.
    pub shards: u32,
    /// Of each broker.
    pub disk: Disk,
    /// Of each broker.
    pub resources: Option<ResourceRequirements>,
    /// The broker's settings, as environment variables.
    pub settings: BTreeMap<String, String>,
    /// How long a broker may take to finish what it has begun.
    pub drain_timeout: Duration,
    /// Labels a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints the pods tolerate.
    pub tolerations: Vec<Toleration>,
    /// Whether the pods keep apart.
    pub spread: Spread,
    /// `None`: the Kubernetes cluster's default.
    pub priority_class: Option<String>,
    /// Added to the pods' labels.
    pub pod_labels: BTreeMap<String, String>,
    /// Added to the pods' annotations.
    pub pod_annotations: BTreeMap<String, String>,
}

impl Desired {
    /// The same with another number of brokers.
    #[must_use]
    pub fn with_replicas(&self, replicas: u32) -> Self {
        Self {
            replicas,
            ..self.clone()
        }
    }
}
