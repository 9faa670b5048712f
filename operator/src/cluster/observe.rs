//! Reads what a cluster has of what it should own, from the API server itself: a plan made by a
//! stale cache is how operators delete what is needed. Judges nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod as KubePod, Secret};
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client};
use millrace_crds::BrokerClusterStatus;
use serde_json::Value;

use super::build::{self, Token};
use super::dereference::claims;
use super::desired::Desired;
use super::facts::{Observed, Pod, TokenState};
use super::object::{Holder, holder};
use super::status::pod_facts;
use crate::names::ClusterKey;
use crate::{labels, names};

/// Reads what is there.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn observe(
    client: &Client,
    desired: &Desired,
    status: Option<BrokerClusterStatus>,
) -> kube::Result<Observed> {
    let mut objects = BTreeMap::new();
    for object in build::objects(desired) {
        let api: Api<DynamicObject> = Api::namespaced_with(
            client.clone(),
            &desired.key.namespace,
            &object.kind.api_resource(),
        );
        if let Some(there) = api.get_opt(&object.name).await? {
            let there = serde_json::to_value(there).map_err(kube::Error::SerdeError)?;
            objects.insert((object.kind, object.name), there);
        }
    }
    let replicas = i32::try_from(desired.replicas).unwrap_or(i32::MAX);
    Ok(Observed {
        objects,
        token: token_state(client, desired).await?,
        pods: pods(client, &desired.key).await?,
        claims: claims(client, &desired.key, replicas).await?,
        status,
    })
}

/// The broker pods of a cluster, in order of their names: those its StatefulSet made. Labels alone
/// anybody may give to a pod, and what is taken for a broker is counted, asked and restarted.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn pods(client: &Client, key: &ClusterKey) -> kube::Result<Vec<Pod>> {
    let api: Api<KubePod> = Api::namespaced(client.clone(), &key.namespace);
    let selector = ListParams::default().labels(&labels::selector_text(key));
    let labelled = api.list(&selector).await?;
    let ours = labelled
        .iter()
        .filter(|pod| is_made_by(pod, &key.stateful_set()));
    let mut pods: Vec<Pod> = ours.map(pod_facts).collect();
    pods.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(pods)
}

fn is_made_by(pod: &KubePod, stateful_set: &str) -> bool {
    let owners = pod.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    controllers.any(|owner| owner.kind == "StatefulSet" && owner.name == stateful_set)
}

/// The token of a cluster's control port; `None` when there is none, or an empty one.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn token(client: &Client, key: &ClusterKey) -> kube::Result<Option<Token>> {
    let secret = secret(client, key).await?;
    Ok(secret.as_ref().and_then(token_in))
}

async fn token_state(client: &Client, desired: &Desired) -> kube::Result<TokenState> {
    let Some(secret) = secret(client, &desired.key).await? else {
        return Ok(TokenState::Missing);
    };
    // Of the Secret only its metadata decides whose it is.
    let meta = serde_json::json!({ "metadata": secret.metadata });
    let meta: Value = meta;
    match holder(&meta, &desired.key.name, &desired.owner.uid) {
        Holder::Leaving => Ok(TokenState::Leaving),
        // Somebody may have brought the token: what counts is that there is one.
        Holder::Us | Holder::Other if token_in(&secret).is_some() => Ok(TokenState::Present),
        Holder::Us | Holder::Other => Ok(TokenState::Empty),
    }
}

async fn secret(client: &Client, key: &ClusterKey) -> kube::Result<Option<Secret>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
    api.get_opt(&key.control_secret()).await
}

fn token_in(secret: &Secret) -> Option<Token> {
    let data = secret.data.as_ref()?.get(names::TOKEN_KEY)?;
    Token::from_secret(&data.0)
}
