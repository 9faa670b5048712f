//! Names of everything the operator makes or talks to. No other file spells a derived name.
//!
//! Promises: every derived name of a cluster whose name is at most [`CLUSTER_NAME_BYTES_MAX`] long
//! is valid where Kubernetes uses it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use kube::Resource;
use kube::runtime::reflector::ObjectRef;

/// Field manager of every object the operator applies.
pub const FIELD_MANAGER: &str = "millrace-operator";
/// Field manager of status: apart from [`FIELD_MANAGER`], so that applying one never drops the
/// other.
pub const STATUS_MANAGER: &str = "millrace-operator-status";
/// The Lease that elects the acting operator; one for each namespace an operator is installed in.
pub const LEADER_LEASE: &str = "millrace-operator";

/// Longest name of a cluster. Pods carry the label `controller-revision-hash: NAME-HASH` with a
/// hash of up to 10 characters, and a label value has at most 63.
pub const CLUSTER_NAME_BYTES_MAX: usize = 63 - 11;

/// Port of client calls.
pub const CLIENT_PORT: u16 = 7070;
/// Port that steers the broker; needs the control token.
pub const CONTROL_PORT: u16 = 7071;
/// Port on which brokers talk to each other, and are told to found a cluster; needs the control
/// token.
pub const PEER_PORT: u16 = 7073;
/// Port of metrics and health.
pub const METRICS_PORT: u16 = 7072;

/// Name of the client port in Services and pods.
pub const CLIENT_PORT_NAME: &str = "grpc";
/// Name of the control port.
pub const CONTROL_PORT_NAME: &str = "control";
/// Name of the peer port.
pub const PEER_PORT_NAME: &str = "peer";
/// Name of the metrics and health port.
pub const METRICS_PORT_NAME: &str = "metrics";

/// Template name of the broker's claim; with the pod's name it makes the claim's name.
pub const DATA_VOLUME: &str = "data";
/// The broker container.
pub const BROKER_CONTAINER: &str = "broker";
/// Key of the token in the control Secret.
pub const TOKEN_KEY: &str = "token";

/// A BrokerCluster by namespace and name: what outlives its object, as its claims do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterKey {
    /// Namespace of the cluster and of all that belongs to it.
    pub namespace: String,
    /// Name of the BrokerCluster.
    pub name: String,
}

impl ClusterKey {
    /// The key of `NAMESPACE/NAME`.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Reference to the cluster as an object of kind `K`.
    #[must_use]
    pub fn object_ref<K: Resource<DynamicType = ()>>(&self) -> ObjectRef<K> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }

    /// Service that clients connect to.
    #[must_use]
    pub fn client_service(&self) -> String {
        self.name.clone()
    }

    /// Headless Service that gives each pod a name in DNS.
    #[must_use]
    pub fn nodes_service(&self) -> String {
        format!("{}-nodes", self.name)
    }

    /// Secret with the token of the control port.
    #[must_use]
    pub fn control_secret(&self) -> String {
        format!("{}-control", self.name)
    }

    /// ConfigMap with the broker's settings.
    #[must_use]
    pub fn config_map(&self) -> String {
        format!("{}-config", self.name)
    }

    /// StatefulSet of the broker pods.
    #[must_use]
    pub fn stateful_set(&self) -> String {
        self.name.clone()
    }

    /// PodDisruptionBudget of the broker pods.
    #[must_use]
    pub fn budget(&self) -> String {
        self.name.clone()
    }

    /// ServiceAccount of the broker pods.
    #[must_use]
    pub fn service_account(&self) -> String {
        self.name.clone()
    }

    /// The pod of an ordinal.
    #[must_use]
    pub fn pod(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.name)
    }

    /// The claim of an ordinal, as the StatefulSet controller names it.
    #[must_use]
    pub fn claim(&self, ordinal: u32) -> String {
        format!("{DATA_VOLUME}-{}", self.pod(ordinal))
    }

    /// The ordinal of a pod; `None` for one of another name.
    #[must_use]
    pub fn ordinal(&self, pod: &str) -> Option<u32> {
        let digits = pod.strip_prefix(&self.name)?.strip_prefix('-')?;
        let canonical = digits == "0" || !digits.starts_with('0');
        let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
        (canonical && all_digits).then(|| digits.parse().ok())?
    }

    /// The name in DNS of every broker's pod together, ready or not.
    #[must_use]
    pub fn nodes_host(&self) -> String {
        format!("{}.{}.svc", self.nodes_service(), self.namespace)
    }

    /// The name in DNS that a pod keeps, whatever its address.
    #[must_use]
    pub fn pod_host(&self, pod: &str) -> String {
        format!("{pod}.{}", self.nodes_host())
    }

    /// Where the other brokers reach the one in a pod.
    #[must_use]
    pub fn peer_address(&self, pod: &str) -> String {
        format!("{}:{PEER_PORT}", self.pod_host(pod))
    }

    /// Host and port for clients inside the cluster.
    #[must_use]
    pub fn client_address(&self) -> String {
        format!(
            "{}.{}.svc:{CLIENT_PORT}",
            self.client_service(),
            self.namespace
        )
    }
}

/// URL of a port of a pod. By the pod's address, not by its name: the answer is about that
/// very pod, and a name asked for too early is remembered as unknown by DNS caches, for half a
/// minute.
#[must_use]
pub fn pod_url(address: IpAddr, port: u16) -> String {
    format!("http://{}", SocketAddr::new(address, port))
}

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longest value of a label and longest DNS label.
    const LABEL_BYTES_MAX: usize = 63;
    /// Longest hash the StatefulSet controller appends to a revision's name.
    const REVISION_HASH_BYTES_MAX: usize = 10;

    #[test]
    fn the_longest_cluster_name_leaves_room_for_every_derived_name() {
        let key = ClusterKey::new("n".repeat(63), "c".repeat(CLUSTER_NAME_BYTES_MAX));

        assert!(key.name.len() + 1 + REVISION_HASH_BYTES_MAX <= LABEL_BYTES_MAX);
        for name in [
            key.client_service(),
            key.nodes_service(),
            key.control_secret(),
            key.config_map(),
            key.pod(9),
            key.claim(9),
        ] {
            assert!(name.len() <= LABEL_BYTES_MAX, "{name} is too long");
        }
    }

    #[test]
    fn the_ordinal_of_a_pod_is_in_its_name() {
        let key = ClusterKey::new("shop", "main");

        assert_eq!(key.ordinal(&key.pod(0)), Some(0));
        assert_eq!(key.ordinal(&key.pod(12)), Some(12));
        for other in ["main", "main-", "main-x", "main-01", "other-0", "main-0-0"] {
            assert_eq!(key.ordinal(other), None, "{other}");
        }
    }

    #[test]
    fn the_control_port_is_reached_by_addresses_of_both_families() {
        assert_eq!(
            pod_url("10.1.2.3".parse().unwrap(), CONTROL_PORT),
            "http://10.1.2.3:7071"
        );
        assert_eq!(
            pod_url("fd00::1".parse().unwrap(), CONTROL_PORT),
            "http://[fd00::1]:7071"
        );
    }
}
