//! Labels and annotations the operator writes or selects by. No other file spells one.

use std::collections::BTreeMap;

use crate::names::ClusterKey;

/// Which cluster an object belongs to; the key of every selector.
pub const CLUSTER: &str = "millrace.dev/cluster";
/// The random id of the cluster, on its claims: what makes a claim's data this cluster's.
pub const CLUSTER_ID: &str = "millrace.dev/cluster-id";
/// On applied objects: hash of what was applied, so that a field we no longer set is noticed too.
pub const APPLIED_HASH: &str = "millrace.dev/applied-hash";
/// On broker pods: hash of the pod template with the settings it started with.
pub const TEMPLATE_HASH: &str = "millrace.dev/template-hash";

/// On broker claims: the node whose disk it is. Set once that node belongs to the cluster.
pub const NODE_ID: &str = "millrace.dev/node-id";
/// Of Kubernetes, on nodes: the machine.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Of Kubernetes, on nodes and, since 1.35, on their pods.
pub const ZONE: &str = "topology.kubernetes.io/zone";

const COMPONENT: &str = "app.kubernetes.io/component";
const BROKER: &str = "broker";

/// Which pods are a cluster's brokers. Immutable in a StatefulSet, hence as few as will do.
#[must_use]
pub fn selector(key: &ClusterKey) -> BTreeMap<String, String> {
    map([(CLUSTER, key.name.as_str()), (COMPONENT, BROKER)])
}

/// What every object of a cluster carries. No version among them: it would change with the operator
/// and restart brokers.
#[must_use]
pub fn common(key: &ClusterKey) -> BTreeMap<String, String> {
    map([
        ("app.kubernetes.io/name", "millrace"),
        ("app.kubernetes.io/instance", key.name.as_str()),
        ("app.kubernetes.io/managed-by", "millrace-operator"),
        (COMPONENT, BROKER),
        (CLUSTER, key.name.as_str()),
    ])
}

/// Label selector of everything that belongs to any cluster, for watches.
#[must_use]
pub const fn any_cluster() -> &'static str {
    CLUSTER
}

/// Label selector of one cluster's brokers, as `scale` reports it.
#[must_use]
pub fn selector_text(key: &ClusterKey) -> String {
    let parts: Vec<String> = selector(key)
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    parts.join(",")
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
