//! Objects as JSON, whatever their kind: what is applied, and whether what is there already says
//! it.
//!
//! Promises: [`Object::is_in`] is true exactly when applying would change nothing that we set.
//! Fields that others set or the API server filled in do not count.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ApiResource;
use millrace_crds::Quantity;
use serde::Serialize;
use serde_json::Value;

use crate::{hash, labels};

/// Kinds that are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// v1
    ServiceAccount,
    /// v1
    ConfigMap,
    /// v1
    Service,
    /// policy/v1
    PodDisruptionBudget,
    /// apps/v1
    StatefulSet,
}

impl Kind {
    /// For a dynamic API.
    #[must_use]
    pub fn api_resource(self) -> ApiResource {
        match self {
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        }
    }

    /// As in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::StatefulSet => "StatefulSet",
        }
    }
}

/// One object to be applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// All of it, with the hash of itself among the annotations.
    pub body: Value,
}

impl Object {
    /// The object as it will be applied.
    ///
    /// # Panics
    /// When it has no name: builders always give one.
    #[must_use]
    pub fn new<T: Serialize>(kind: Kind, object: &T) -> Self {
        let mut body = serde_json::to_value(object).expect("Kubernetes types are written as JSON");
        let hash = hash::of_json(&body);
        let name = body["metadata"]["name"].as_str();
        let name = name.expect("builders name their objects").to_owned();
        body["metadata"]["annotations"][labels::APPLIED_HASH] = Value::String(hash);
        Self { kind, name, body }
    }

    /// Whether `observed` has everything this object sets, and nothing that an earlier version of
    /// it set and this one does not.
    #[must_use]
    pub fn is_in(&self, observed: &Value) -> bool {
        contains(observed, &self.body)
    }
}

/// Who an existing object of a wanted name belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This cluster, or nobody any more although it was made for a cluster of this name.
    Us,
    /// A deleted cluster of the same name, or it is being deleted itself: soon gone.
    Leaving,
    /// Somebody else: not to be touched.
    Other,
}

/// Decides whose an existing object is.
#[must_use]
pub fn holder(observed: &Value, cluster_name: &str, owner_uid: &str) -> Holder {
    let meta = &observed["metadata"];
    if meta["deletionTimestamp"].is_string() {
        return Holder::Leaving;
    }
    let owners = meta["ownerReferences"].as_array();
    let controller = owners
        .into_iter()
        .flatten()
        .find(|owner| owner["controller"] == Value::Bool(true));
    match controller {
        Some(owner) if owner["uid"] == owner_uid => Holder::Us,
        Some(owner) if owner["kind"] == "BrokerCluster" && owner["name"] == cluster_name => {
            Holder::Leaving
        }
        Some(_) => Holder::Other,
        None if meta["labels"][labels::CLUSTER] == cluster_name => Holder::Us,
        None => Holder::Other,
    }
}

/// Whether `observed` says all that `wanted` says. Lists: each wanted item has its own match among
/// the observed, in order, so that items added by others do not count. Empty equals absent: the API
/// server drops what is empty.
fn contains(observed: &Value, wanted: &Value) -> bool {
    match (observed, wanted) {
        (Value::Object(observed), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| contains(observed.get(key).unwrap_or(&Value::Null), wanted)),
        (Value::Array(observed), Value::Array(wanted)) => {
            let mut rest = observed.iter();
            wanted
                .iter()
                .all(|wanted| rest.any(|observed| contains(observed, wanted)))
        }
        (Value::Null, Value::Object(wanted)) => {
            wanted.values().all(|wanted| contains(&Value::Null, wanted))
        }
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (Value::String(observed), Value::String(wanted)) => {
            observed == wanted || is_same_amount(observed, wanted)
        }
        (observed, wanted) => observed == wanted,
    }
}

/// Whether both texts are quantities, and the same one in different words.
fn is_same_amount(left: &str, right: &str) -> bool {
    Quantity::parse(left).is_some_and(|left| Quantity::parse(right) == Some(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service() -> Object {
        let body = json!({
            "metadata": { "name": "orders" },
            "spec": { "ports": [{ "name": "grpc", "port": 7070 }], "selector": { "a": "b" } },
        });
        Object::new(Kind::Service, &body)
    }

    #[test]
    fn fields_of_others_and_defaults_do_not_count_as_a_difference() {
        let wanted = service();
        let mut observed = wanted.body.clone();
        observed["spec"]["clusterIP"] = json!("10.0.0.1");
        observed["spec"]["ports"] = json!([
            { "name": "theirs", "port": 1 },
            { "name": "grpc", "port": 7070, "protocol": "TCP" },
        ]);
        observed["metadata"]["labels"] = json!({ "their": "label" });

        assert!(wanted.is_in(&observed));
    }

    #[test]
    fn a_changed_field_a_missing_item_and_an_older_version_are_differences() {
        let wanted = service();
        for (path, value) in [
            ("/spec/selector/a", json!("c")),
            ("/spec/ports", json!([])),
            (
                "/metadata/annotations",
                json!({ labels::APPLIED_HASH: "older" }),
            ),
        ] {
            let mut observed = wanted.body.clone();
            *observed.pointer_mut(path).unwrap() = value;

            assert!(!wanted.is_in(&observed), "{path} went unnoticed");
        }
    }

    #[test]
    fn what_the_api_server_drops_or_rewrites_is_no_difference() {
        for (wanted, observed) in [
            (json!({ "emptyDir": {}, "list": [] }), json!({})),
            (json!({ "cpu": "1000m" }), json!({ "cpu": "1" })),
            (json!({ "memory": "1024Mi" }), json!({ "memory": "1Gi" })),
        ] {
            assert!(
                contains(&observed, &wanted),
                "{wanted} is not in {observed}"
            );
        }
    }

    #[test]
    fn an_object_of_somebody_else_is_not_ours() {
        let owner = |kind: &str, name: &str, uid: &str| {
            json!({ "metadata": { "ownerReferences": [
                { "controller": true, "kind": kind, "name": name, "uid": uid },
            ] } })
        };
        let labelled = json!({ "metadata": { "labels": { labels::CLUSTER: "orders" } } });
        let deleted = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
        for (observed, expected) in [
            (owner("BrokerCluster", "orders", "u1"), Holder::Us),
            (owner("BrokerCluster", "orders", "u0"), Holder::Leaving),
            (owner("BrokerCluster", "others", "u2"), Holder::Other),
            (owner("Deployment", "orders", "u3"), Holder::Other),
            (labelled, Holder::Us),
            (json!({ "metadata": {} }), Holder::Other),
            (deleted, Holder::Leaving),
        ] {
            assert_eq!(holder(&observed, "orders", "u1"), expected, "{observed}");
        }
    }
}
