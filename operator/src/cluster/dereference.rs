//! Reads what says who a cluster is: its claims and its StatefulSet. Judges nothing.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use millrace_crds::BrokerCluster;

use super::desired::{ClusterId, NODES_MAX};
use super::facts::{Claim, References};
use crate::names::ClusterKey;
use crate::{hash, labels, names};

/// Random bytes of a cluster's id: two clusters never get the same one.
const ID_BYTES: usize = 16;

/// Why references could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DereferenceError {
    /// The API server refused or did not answer.
    #[error("cannot read what the cluster refers to")]
    Api(#[from] kube::Error),
    /// The operating system has no randomness.
    #[error("cannot mint a cluster id")]
    Random(#[from] getrandom::Error),
}

/// Reads the references of a cluster.
///
/// # Errors
/// When the API server or the operating system fails.
pub(super) async fn dereference(
    client: &Client,
    cluster: &BrokerCluster,
    default_image: &str,
) -> Result<References, DereferenceError> {
    let namespace = cluster.namespace().unwrap_or_default();
    let key = ClusterKey::new(namespace, cluster.name_any());
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &key.namespace);
    let set = sets.get_opt(&key.stateful_set()).await?;
    let asked = u32::try_from(cluster.spec.replicas).unwrap_or_default();
    let mut random = [0; ID_BYTES];
    getrandom::fill(&mut random)?;
    let fresh_id = ClusterId::parse(&hash::hex(&random));
    Ok(References {
        claims: claims(client, &key, asked).await?,
        stateful_set_id: set
            .filter(|set| is_ours(set, &key))
            .and_then(|set| template_id(&set)),
        fresh_id: fresh_id.expect("hexadecimal digits make an id"),
        default_image: default_image.to_owned(),
    })
}

/// The claims that pods of the cluster use or will use, and those of more pods, up to a gap: what
/// was there once. Each by its name: whoever made one, a pod takes it.
pub(super) async fn claims(
    client: &Client,
    key: &ClusterKey,
    replicas: u32,
) -> kube::Result<Vec<Claim>> {
    let api: Api<PartialObjectMeta<PersistentVolumeClaim>> =
        Api::namespaced(client.clone(), &key.namespace);
    let mut claims = Vec::new();
    for ordinal in 0..NODES_MAX {
        let Some(claim) = api.get_opt(&key.claim(ordinal)).await? else {
            if ordinal < replicas {
                continue;
            }
            break;
        };
        claims.push(Claim {
            name: claim.name_any(),
            ordinal,
            node_id: claim.annotations().get(labels::NODE_ID).cloned(),
            cluster_id: claim.annotations().get(labels::CLUSTER_ID).cloned(),
            leaving: claim.metadata.deletion_timestamp.is_some(),
        });
    }
    Ok(claims)
}

fn is_ours(set: &StatefulSet, key: &ClusterKey) -> bool {
    set.labels().get(labels::CLUSTER) == Some(&key.name)
}

fn template_id(set: &StatefulSet) -> Option<String> {
    let templates = set.spec.as_ref()?.volume_claim_templates.as_ref()?;
    let data = templates
        .iter()
        .find(|template| template.metadata.name.as_deref() == Some(names::DATA_VOLUME))?;
    data.annotations().get(labels::CLUSTER_ID).cloned()
}
