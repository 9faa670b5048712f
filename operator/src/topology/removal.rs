//! Makes certain that a resource is gone before the broker is told so. Reads only.
//!
//! Promises: a candidate is confirmed only by a complete list read from the API server itself,
//! while the kind is defined and not being removed, and while the cluster is there and stays.
//! Everything else freezes: what the broker has is left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, Client, CustomResourceExt, Resource};
use millrace_crds::{BrokerCluster, Queue, Topic};
use serde::de::DeserializeOwned;

use super::declared::{ResourceKind, resource_of};
use super::delta::Candidate;
use crate::cluster::desired::NODES_MAX;
use crate::names::ClusterKey;

/// Objects of one page of a list: metadata only, about a kilobyte each.
const PAGE_OBJECTS: u32 = 500;

/// How long resources have to come back after their definition did: GitOps applies again within
/// minutes, and people who restore from a backup need some more.
const RETURN_LIMIT: SignedDuration = SignedDuration::from_mins(10);

/// State of the definitions of our kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Definitions {
    /// All are there to stay.
    Established {
        /// When the youngest was created.
        youngest: Timestamp,
    },
    /// One is gone or being removed, and takes its resources with it.
    Leaving(String),
    /// The operator has no right to read them.
    Unreadable,
}

/// Why nothing is removed.
#[derive(Debug, thiserror::Error)]
pub enum Frozen {
    /// A definition is gone or going.
    #[error("the definition {0} is being removed, and with it every resource")]
    Definitions(String),
    /// A definition was removed and made again: resources may still be coming back.
    #[error("definitions are younger than the data; resources may still be coming back")]
    Returning,
    /// The cluster is gone or going.
    #[error("the cluster itself is being deleted")]
    Cluster,
    /// The API server did not give a complete answer.
    #[error("the list of resources cannot be read completely")]
    Api(#[from] kube::Error),
}

/// Reads the state of the definitions of our kinds.
///
/// # Errors
/// When the API server fails otherwise than by refusing.
pub async fn definitions(client: &Client) -> kube::Result<Definitions> {
    let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(client.clone());
    let mut youngest = Timestamp::UNIX_EPOCH;
    for name in [
        BrokerCluster::crd_name(),
        Queue::crd_name(),
        Topic::crd_name(),
    ] {
        match api.get_opt(name).await {
            Ok(Some(found)) if found.metadata.deletion_timestamp.is_none() => {
                let created = found.metadata.creation_timestamp.map(|time| time.0);
                youngest = youngest.max(created.unwrap_or_default());
            }
            Ok(_) => return Ok(Definitions::Leaving(name.to_owned())),
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                return Ok(Definitions::Unreadable);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Definitions::Established { youngest })
}

/// Whether the resources of a definition may still be coming back: it was made after the data, so
/// one before it was removed and took them along, and that was not long ago. Pure.
#[must_use]
pub fn is_returning(youngest: Timestamp, data_since: Option<Timestamp>, now: Timestamp) -> bool {
    let replaced = data_since.is_some_and(|since| youngest > since);
    replaced && now.duration_since(youngest) < RETURN_LIMIT
}

/// Since when a cluster has had disks: the oldest of them, as the others may have been replaced.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn data_since(client: &Client, key: &ClusterKey) -> kube::Result<Option<Timestamp>> {
    let api: Api<PartialObjectMeta<PersistentVolumeClaim>> =
        Api::namespaced(client.clone(), &key.namespace);
    let mut oldest: Option<Timestamp> = None;
    for ordinal in 0..NODES_MAX {
        let claim = api.get_opt(&key.claim(ordinal)).await?;
        let created = claim.and_then(|claim| claim.metadata.creation_timestamp);
        if let Some(created) = created {
            oldest = Some(oldest.map_or(created.0, |oldest| oldest.min(created.0)));
        }
    }
    Ok(oldest)
}

/// Those candidates whose resources are certainly gone.
///
/// # Errors
/// When that cannot be made certain: nothing may be removed.
pub async fn confirm(
    client: &Client,
    key: &ClusterKey,
    cluster_uid: &str,
    candidates: Vec<Candidate>,
) -> Result<Vec<Candidate>, Frozen> {
    let clusters: Api<PartialObjectMeta<BrokerCluster>> =
        Api::namespaced(client.clone(), &key.namespace);
    let cluster = clusters.get_opt(&key.name).await?;
    let stays = cluster.is_some_and(|cluster| {
        let meta = &cluster.metadata;
        meta.uid.as_deref() == Some(cluster_uid) && meta.deletion_timestamp.is_none()
    });
    if !stays {
        return Err(Frozen::Cluster);
    }
    let kinds: BTreeSet<ResourceKind> = candidates
        .iter()
        .filter_map(|candidate| Some(resource_of(&candidate.address, &key.namespace)?.0))
        .collect();
    let mut there = BTreeMap::new();
    for kind in kinds {
        match kind {
            ResourceKind::Queue => list::<Queue>(client, &key.namespace, kind, &mut there).await?,
            ResourceKind::Topic => list::<Topic>(client, &key.namespace, kind, &mut there).await?,
        }
    }
    Ok(gone(candidates, &there))
}

/// Candidates whose address no resource has, or only one created later, which was not the one that
/// the broker knows. Pure.
fn gone(candidates: Vec<Candidate>, there: &BTreeMap<String, String>) -> Vec<Candidate> {
    candidates
        .into_iter()
        .filter(|candidate| there.get(&candidate.address) != Some(&candidate.uid))
        .collect()
}

/// Adds the address and uid of every resource of a kind; all pages, or an error.
async fn list<K>(
    client: &Client,
    namespace: &str,
    kind: ResourceKind,
    there: &mut BTreeMap<String, String>,
) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(client.clone(), namespace);
    let mut parameters = ListParams::default().limit(PAGE_OBJECTS);
    loop {
        let page = api.list(&parameters).await?;
        for object in page.items {
            let name = object.metadata.name.unwrap_or_default();
            let uid = object.metadata.uid.unwrap_or_default();
            there.insert(kind.address(namespace, &name), uid);
        }
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => parameters = parameters.continue_token(&token),
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_may_come_back_for_a_while_after_their_definition_was_made_again() {
        let at = |minute: i64| Timestamp::from_second(minute * 60).unwrap();
        for (definition, data, now, returning) in [
            (at(0), Some(at(5)), at(6), false),
            (at(5), Some(at(0)), at(6), true),
            (at(5), Some(at(0)), at(14), true),
            (at(5), Some(at(0)), at(15), false),
            (at(5), None, at(6), false),
        ] {
            assert_eq!(is_returning(definition, data, now), returning);
        }
    }

    #[test]
    fn only_what_no_list_has_under_its_uid_is_gone() {
        let candidate = |address: &str, uid: &str| Candidate {
            address: address.to_owned(),
            uid: uid.to_owned(),
        };
        let there = [
            ("queue/a/there".to_owned(), "u1".to_owned()),
            ("queue/a/again".to_owned(), "new".to_owned()),
        ];
        let candidates = vec![
            candidate("queue/a/there", "u1"),
            candidate("queue/a/again", "old"),
            candidate("queue/a/gone", "u3"),
        ];

        let gone = gone(candidates, &there.into());

        let expected = [
            candidate("queue/a/again", "old"),
            candidate("queue/a/gone", "u3"),
        ];
        assert_eq!(gone, expected);
    }
}
