//! Builders of everything a cluster owns: pure functions of [`Desired`], golden-tested. Does not
//! decide when anything is applied; that is `plan`.

mod access;
mod budget;
mod config;
mod pod;
mod services;
mod spread;
mod stateful_set;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::desired::Desired;
use super::object::{Kind, Object};
use crate::labels;

pub use access::Token;
pub use pod::template_hash;

/// All objects that are applied, in the order in which they are: what a pod mounts and refers to
/// comes before the StatefulSet.
#[must_use]
pub fn objects(desired: &Desired) -> Vec<Object> {
    vec![
        Object::new(Kind::ServiceAccount, &access::service_account(desired)),
        Object::new(Kind::ConfigMap, &config::config_map(desired)),
        Object::new(Kind::Service, &services::nodes(desired)),
        Object::new(Kind::Service, &services::client(desired)),
        Object::new(Kind::PodDisruptionBudget, &budget::budget(desired)),
        Object::new(Kind::StatefulSet, &stateful_set::stateful_set(desired)),
    ]
}

/// The Secret of the control port. Apart from [`objects`]: it is created once and never applied,
/// for whoever holds the token keeps working with it.
#[must_use]
pub fn control_secret(desired: &Desired, token: &Token) -> Secret {
    access::control_secret(desired, token)
}

/// Metadata of an owned object.
fn meta(desired: &Desired, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(desired.key.namespace.clone()),
        labels: Some(labels::common(&desired.key)),
        owner_references: Some(vec![desired.owner.clone()]),
        ..ObjectMeta::default()
    }
}
