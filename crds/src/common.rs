//! What queues and topics have in common.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// What becomes of the messages when the resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Kept and frozen: nothing is delivered or published until the resource returns.
    #[default]
    Orphan,
    /// Deleted with it.
    Delete,
}
