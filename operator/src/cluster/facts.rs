//! What was read from the API server: facts the pure middle of the pipeline decides by.

use std::collections::BTreeMap;
use std::net::IpAddr;

use millrace_crds::BrokerClusterStatus;
use serde_json::Value;

use super::desired::ClusterId;
use super::object::Kind;

/// What `dereference` found: everything outside the BrokerCluster that says who the cluster is.
#[derive(Clone, Debug, PartialEq)]
pub struct References {
    /// The claims that the cluster's pods will use, as far as they exist.
    pub claims: Vec<Claim>,
    /// The id in the claim template of an existing StatefulSet of this cluster.
    pub stateful_set_id: Option<String>,
    /// A fresh id, used if nothing has one yet.
    pub fresh_id: ClusterId,
    /// The image of a cluster that names none.
    pub default_image: String,
}

/// A claim of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// The cluster id it is annotated with.
    pub cluster_id: Option<String>,
    /// It is being deleted.
    pub leaving: bool,
}

/// What `observe` found of what the cluster should own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Existing objects with a wanted kind and name, whoever they belong to.
    pub objects: BTreeMap<(Kind, String), Value>,
    /// The Secret of the control port.
    pub token: TokenState,
    /// The cluster's pods.
    pub pods: Vec<Pod>,
    /// The claims of the cluster.
    pub claims: Vec<Claim>,
    /// Status as last written, `None` when there is none.
    pub status: Option<BrokerClusterStatus>,
}

/// State of the control Secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenState {
    /// There is no such Secret.
    #[default]
    Missing,
    /// It is of a deleted cluster of the same name, or being deleted.
    Leaving,
    /// It is there without a token.
    Empty,
    /// It has a token.
    Present,
}

/// A broker pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid: deleting it names it, so that a pod that replaced it is never hit.
    pub uid: String,
    /// Hash of the template and settings it started with.
    pub template_hash: Option<String>,
    /// The image it was made with.
    pub image: String,
    /// It is being deleted.
    pub leaving: bool,
    /// It serves.
    pub ready: bool,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// What keeps it from serving, as far as Kubernetes says.
    pub trouble: Option<Trouble>,
}

/// Why a pod does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One of `reasons`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}
