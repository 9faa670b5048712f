//! What the operator reports of a BrokerCluster, and what it has to remember of it.
#![expect(
    unreachable_pub,
    reason = "the derive repeats the types inside functions"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::status::{conditions, not_reconciled, unknown};

/// What the operator last saw.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerClusterStatus {
    /// `metadata.generation` that the rest of the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` and others, with reason and message.
    #[serde(default = "not_reconciled")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Broker pods there are.
    #[serde(default)]
    pub replicas: i32,
    /// Broker pods that serve.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Label selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,
    /// The image the cluster runs, pinned: another operator does not change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,
    /// Version the brokers report.
    #[serde(default = "unknown")]
    #[schemars(length(max = 64))]
    pub version: String,
    /// Minted once; on every disk of the cluster.
    #[serde(default, rename = "clusterID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub cluster_id: Option<String>,
    /// Where clients connect to: `HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub endpoint: Option<String>,
    /// Secret with the token of the control port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub control_secret: Option<String>,
    /// The broker pods, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9), extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["pod"]
    ))]
    pub nodes: Vec<NodeStatus>,
    /// What the brokers have of the queues and topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<TopologyStatus>,
    /// Who founded the cluster, and how; recorded before the brokers are told, never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founding: Option<FoundingStatus>,
    /// The disruptive step in progress; recorded before it is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationStatus>,
}

/// What every founding broker is told: all of them the same.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundingStatus {
    /// Data shards.
    pub shards: i32,
    /// Brokers that hold a copy of each shard, at most.
    pub replication: i32,
    /// The brokers that vote from the beginning.
    #[schemars(length(max = 9), extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["nodeID"]
    ))]
    pub founders: Vec<FounderStatus>,
    /// Every founder has said that it was told.
    #[serde(default)]
    pub done: bool,
}

/// A broker that was there from the beginning.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FounderStatus {
    /// On its disk.
    #[serde(rename = "nodeID")]
    #[schemars(length(max = 64))]
    pub node_id: String,
    /// Where the other brokers reach it: `HOST:PORT`.
    #[schemars(length(max = 320))]
    pub address: String,
}

/// A broker pod.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Of the pod.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// On its disk, minted at its first start; absent until it was asked.
    #[serde(default, rename = "nodeID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub node_id: Option<String>,
    /// Whether it serves.
    pub ready: bool,
    /// It reports; absent until it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
    /// `Serving`, `Waiting` (its disk is empty and it belongs to no cluster yet), `Joining`,
    /// `Draining`, `Leaving`, `Starting`, `Unreachable`, `Missing` (there is no such pod).
    #[serde(default = "unknown")]
    #[schemars(length(max = 64))]
    pub state: String,
    /// Shards it leads; absent until the brokers have told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leads: Option<i32>,
    /// Shards it votes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes: Option<i32>,
    /// Shards it follows without a vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learns: Option<i32>,
}

/// What the brokers have of the queues and topics.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyStatus {
    /// The brokers have taken this revision,
    pub revision: i64,
    /// and every shard works by this one.
    pub applied_revision: i64,
}

/// A disruptive step.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationStatus {
    /// What it is: `RestartPod`, `EmptyNode` or `RemovePod`.
    #[schemars(length(max = 64))]
    #[serde(rename = "type")]
    pub type_: String,
    /// The pod it is done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod: Option<String>,
    /// The broker in it.
    #[serde(default, rename = "nodeID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub node_id: Option<String>,
    /// When it began.
    pub started_at: Time,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

impl Default for BrokerClusterStatus {
    fn default() -> Self {
        Self {
            observed_generation: None,
            conditions: not_reconciled(),
            replicas: 0,
            ready_replicas: 0,
            selector: None,
            image: None,
            version: unknown(),
            cluster_id: None,
            endpoint: None,
            control_secret: None,
            nodes: Vec::new(),
            topology: None,
            founding: None,
            operation: None,
        }
    }
}
