//! What queues and topics have in common.
#![expect(
    unreachable_pub,
    reason = "the derive repeats the types inside functions"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Span;
use crate::rules::between;

/// A name as Kubernetes' DNS labels are, so that it can be part of a name derived from it.
pub(crate) const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// A name as Services have it: clients connect to one that is called like the cluster.
pub(crate) const CLUSTER_PATTERN: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";

/// The BrokerCluster that holds a queue or topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// Name of a BrokerCluster in the same namespace.
    #[schemars(length(min = 1, max = 52), regex(pattern = CLUSTER_PATTERN))]
    pub name: String,
}

/// A topic that a queue is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicRef {
    /// Name of a Topic in the same namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub name: String,
}

/// A queue that dead letters go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueRef {
    /// Name of another Queue in the same namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub name: String,
}

/// How a publish that is tried again is told from another one.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dedup {
    /// How long the dedup ids of what was published are known, as a duration: within it, a message
    /// that is published again under its id is stored once. Clients' retries are known for half of
    /// it. 1s to 168h, default 2m.
    #[serde(default = "window")]
    #[x_kube(validation = between("1s", "168h"))]
    pub window: Span,
}

fn window() -> Span {
    Span::new("2m")
}

impl Default for Dedup {
    fn default() -> Self {
        Self { window: window() }
    }
}

/// What becomes of the messages when the resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Kept and frozen: nothing is delivered or published until the resource returns.
    #[default]
    Orphan,
    /// Deleted with it.
    Delete,
}
