//! Reads what a cluster has of what it should own, from the API server itself, and what its brokers
//! say: a plan made by a stale cache is how operators delete what is needed. Judges nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod as KubePod, Secret};
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client};
use millrace_crds::BrokerClusterStatus;
use serde_json::Value;

use super::build::{self, Token};
use super::dereference::claims;
use super::desired::Desired;
use super::facts::{Observed, Pod, Said, TokenState};
use super::object::{Holder, holder};
use super::plan::question;
use super::pod_facts::pod_facts;
use crate::brokers::{Brokers, Unanswered, addresses, first, identities};
use crate::names::ClusterKey;
use crate::{labels, names};

/// Reads what is there.
///
/// # Errors
/// When the API server refuses or does not answer.
pub(crate) async fn observe(
    client: &Client,
    brokers: &dyn Brokers,
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
    let secret = secret(client, &desired.key).await?;
    let mut observed = Observed {
        objects,
        token: token_state(secret.as_ref(), desired),
        pods: pods(client, &desired.key).await?,
        claims: claims(client, &desired.key, desired.replicas).await?,
        status,
        ..Observed::default()
    };
    if let Some(token) = secret.as_ref().and_then(token_in) {
        hear(brokers, &token, desired, &mut observed).await;
    }
    Ok(observed)
}

/// Asks the brokers, as far as they answer: each who it is, one of them what it knows of all, and
/// then what the plan needs to know of the node whose turn it is.
async fn hear(brokers: &dyn Brokers, token: &Token, desired: &Desired, observed: &mut Observed) {
    let said = identities(brokers, token, &observed.pods).await;
    observed.brokers = said.into_iter().collect();
    let is_member =
        |pod: &&Pod| matches!(observed.brokers.get(&pod.name), Some(Said::Member { .. }));
    let members: Vec<Pod> = observed.pods.iter().filter(is_member).cloned().collect();
    let addresses = addresses(&members);
    if addresses.is_empty() {
        return;
    }
    let view = first(&addresses, |at| brokers.view(at, token)).await;
    observed.view = note("what brokers know of each other", desired, view);
    if let Some(question) = question(desired, observed) {
        let answer = first(&addresses, |at| brokers.ask(at, token, &question)).await;
        let answer = note("what is asked of a node", desired, answer);
        observed.answer = answer.map(|answer| (question, answer));
    }
}

/// What nobody answers is no failure: the plan goes by what is known.
fn note<T>(what: &str, desired: &Desired, answer: Result<T, Unanswered>) -> Option<T> {
    answer
        .inspect_err(|error| {
            let cluster = &desired.key;
            tracing::info!(%cluster, %error, what, "brokers do not answer");
        })
        .ok()
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

fn token_state(secret: Option<&Secret>, desired: &Desired) -> TokenState {
    let Some(secret) = secret else {
        return TokenState::Missing;
    };
    // Of the Secret only its metadata decides whose it is.
    let meta = serde_json::json!({ "metadata": secret.metadata });
    let meta: Value = meta;
    match holder(&meta, &desired.key.name, &desired.owner.uid) {
        Holder::Leaving => TokenState::Leaving,
        // Somebody may have brought the token: what counts is that there is one.
        Holder::Us | Holder::Other if token_in(secret).is_some() => TokenState::Present,
        Holder::Us | Holder::Other => TokenState::Empty,
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
