//! Topic: an append-only, partitioned stream that any number of readers replay.
#![expect(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "the derive repeats the types inside functions; columns are not duplicates"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::rules::{at_least, at_most, between, bytes_from, unchangeable};
use crate::status::{conditions, not_reconciled, unknown};
use crate::{ClusterRef, Dedup, DeletionPolicy, Size, Span};

/// What is asked for.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "millrace.dev",
    version = "v1alpha1",
    kind = "Topic",
    plural = "topics",
    namespaced,
    doc = "A stream of messages that are kept when read.",
    status = "TopicStatus",
    derive = "PartialEq",
    shortname = "brt",
    category = "millrace",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".status.cluster"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".spec.partitions"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = unchangeable("clusterRef"))]
#[x_kube(validation = unchangeable("replication"))]
pub struct TopicSpec {
    /// The BrokerCluster that holds the topic. Default: the only one in the namespace. Cannot be
    /// changed, added or removed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_ref: Option<ClusterRef>,
    /// Ordered lanes; messages of one key stay in one. 1 to 256, default 1; can only grow.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("partitions can only grow"))]
    pub partitions: u32,
    /// How long messages are kept, for each partition; what exceeds any bound goes, oldest first.
    /// Default: for ever.
    #[serde(default)]
    pub retention: Retention,
    /// What the topic accepts.
    #[serde(default)]
    pub limits: TopicLimits,
    /// How a publish that is tried again is told from another one.
    #[serde(default)]
    pub dedup: Dedup,
    /// How many brokers keep each message, as far as there are so many. 1 to 5. Default: as the
    /// cluster has it. Cannot be changed, added or removed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replication: Option<u32>,
    /// What becomes of the messages when the Topic is deleted. Default: Orphan.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Bounds of what a partition keeps.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Messages older than this go, as a duration (`168h`). 1s to 10 years. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = between("1s", "87600h"))]
    pub age: Option<Span>,
    /// Bytes kept in a partition, as a quantity (`10Gi`). At least 1. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = bytes_from("1"))]
    pub bytes: Option<Size>,
    /// Messages kept in a partition. At least 1. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub messages: Option<i64>,
}

/// What a topic accepts.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicLimits {
    /// Largest message, as a quantity. 1 to 16Mi, default 1Mi.
    #[serde(default = "one_mebibyte")]
    #[x_kube(validation = at_least("1"), validation = at_most("16Mi"))]
    pub max_message_bytes: Size,
}

/// What the operator last saw.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// `metadata.generation` that the rest of the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, with reason and message.
    #[serde(default = "not_reconciled")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// `metadata.generation` that every broker works by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_generation: Option<i64>,
    /// What clients call it: `topic/NAMESPACE/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub address: Option<String>,
    /// The BrokerCluster that holds it.
    #[serde(default = "unknown")]
    #[schemars(length(max = 63))]
    pub cluster: String,
}

fn one() -> u32 {
    1
}

pub(crate) fn one_mebibyte() -> Size {
    Size::new("1Mi")
}

impl Default for TopicLimits {
    fn default() -> Self {
        Self {
            max_message_bytes: one_mebibyte(),
        }
    }
}

impl Default for TopicStatus {
    fn default() -> Self {
        Self {
            observed_generation: None,
            conditions: not_reconciled(),
            applied_generation: None,
            address: None,
            cluster: unknown(),
        }
    }
}
