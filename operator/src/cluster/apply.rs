//! Carries out a plan, step by step. Writes only; decides nothing.
//!
//! Promises: the first step that fails ends it; a pod is deleted only under the uid the plan names.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod as KubePod, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use millrace_crds::{BrokerCluster, BrokerClusterStatus, FoundingStatus};
use serde_json::json;

use super::build::{self, Token};
use super::desired::{ClusterId, Desired};
use super::facts::{Act, Observed};
use super::object::Object;
use super::observe::token;
use super::plan::{Plan, Record, Step};
use super::status::recorded;
use super::write_status;
use crate::brokers::{Unanswered, addresses, first};
use crate::context::Context;
use crate::events::Note;
use crate::names::FIELD_MANAGER;
use crate::{labels, reasons};

/// The API server's code for an object that would not be valid.
const UNPROCESSABLE: u16 = 422;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The API server refused or did not answer.
    #[error("cannot {what}")]
    Api {
        /// The step.
        what: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// A broker refused or did not answer.
    #[error("cannot {what}")]
    Broker {
        /// The step.
        what: String,
        /// What the broker said.
        source: Unanswered,
    },
    /// The operating system has no randomness.
    #[error("cannot make a token")]
    Random(#[from] getrandom::Error),
}

/// Carries out the steps. `status` is what is in the API server, and is kept up to date with what
/// is recorded there.
///
/// # Errors
/// At the first step that fails.
pub(crate) async fn apply(
    ctx: &Context,
    cluster: &BrokerCluster,
    desired: &Desired,
    observed: &Observed,
    plan: Plan,
    status: &mut BrokerClusterStatus,
) -> Result<(), ApplyError> {
    let client = &ctx.client;
    for step in plan.steps {
        let what = name(&step);
        let api = |source| ApplyError::Api {
            what: what.clone(),
            source,
        };
        match step {
            Step::Record(record) => {
                let next = recorded(status, &record, Timestamp::now());
                write_status(ctx, cluster, &next).await.map_err(api)?;
                *status = next;
                announce(ctx, cluster, &record).await;
            }
            Step::CreateToken => {
                let mut random = [0; Token::BYTES];
                getrandom::fill(&mut random)?;
                create_token(client, desired, &Token::from_random(random))
                    .await
                    .map_err(api)?;
            }
            Step::Apply(object) => apply_object(client, desired, &object).await.map_err(api)?,
            Step::Adopt { claim, id, node_id } => {
                let adopted = adopt(client, desired, &claim, &id, node_id.as_deref()).await;
                adopted.map_err(api)?;
            }
            Step::Release { claim, id } => {
                let released = adopt(client, desired, &claim, &id, None).await;
                released.map_err(api)?;
            }
            Step::Bootstrap { pod, founding } => {
                let told = bootstrap(ctx, desired, observed, &pod, &founding).await;
                told.map_err(|source| ApplyError::Broker { what, source })?;
            }
            Step::Steer { act, node_id } => {
                let done = steer(ctx, desired, observed, act, &node_id).await;
                done.map_err(|source| ApplyError::Broker { what, source })?;
            }
            Step::RestartPod { name, uid, message } => {
                let pod = pod_ref(&desired.key.namespace, &name, &uid);
                restart(ctx, cluster, pod, &message).await.map_err(api)?;
            }
        }
        ctx.metrics.wrote();
    }
    Ok(())
}

/// What a step does, for errors.
fn name(step: &Step) -> String {
    match step {
        Step::Record(_) => "write status".to_owned(),
        Step::CreateToken => "create the control Secret".to_owned(),
        Step::Apply(object) => format!("apply {} {}", object.kind.name(), object.name),
        Step::Adopt { claim, .. } => format!("annotate claim {claim}"),
        Step::Release { claim, .. } => format!("take the node off claim {claim}"),
        Step::Bootstrap { pod, .. } => format!("tell pod {pod} to found the cluster"),
        Step::Steer { act, node_id } => format!("{} node {node_id}", act.verb()),
        Step::RestartPod { name, .. } => format!("delete pod {name}"),
    }
}

/// An event for what people should not have to look for.
async fn announce(ctx: &Context, cluster: &BrokerCluster, record: &Record) {
    if let Record::Emptying { pod, message, .. } = record {
        let note = Note {
            reason: reasons::REMOVING_BROKER,
            action: "ScaleDown",
            message: format!("Removing pod {pod} once its copies of shards have moved: {message}"),
            related: None,
        };
        ctx.events.normal(cluster, note).await;
    }
}

async fn apply_object(client: &Client, desired: &Desired, object: &Object) -> kube::Result<()> {
    let api: Api<DynamicObject> = Api::namespaced_with(
        client.clone(),
        &desired.key.namespace,
        &object.kind.api_resource(),
    );
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let applied = api
        .patch(&object.name, &parameters, &Patch::Apply(&object.body))
        .await;
    match applied {
        // Somebody changed the key of a list's item, as the number of a port: ours would stand
        // beside theirs, under the same name. Lists are then put in place as a whole.
        Err(kube::Error::Api(status)) if status.code == UNPROCESSABLE => {
            tracing::warn!(
                error = status.message,
                "object is merged, for it cannot be applied"
            );
            let parameters = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let merge = Patch::Merge(&object.body);
            // What is wrong with the object itself only the first answer says.
            if api.patch(&object.name, &parameters, &merge).await.is_err() {
                return Err(kube::Error::Api(status));
            }
        }
        other => drop(other?),
    }
    tracing::info!(
        cluster = %desired.key, kind = object.kind.name(), name = object.name, "object is applied"
    );
    Ok(())
}

/// Creates, never applies: a token that somebody else made in between stays.
async fn create_token(client: &Client, desired: &Desired, token: &Token) -> kube::Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &desired.key.namespace);
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let secret = build::control_secret(desired, token);
    match api.create(&parameters, &secret).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

/// Tells one broker; it is at the address it had when it was asked who it is.
async fn bootstrap(
    ctx: &Context,
    desired: &Desired,
    observed: &Observed,
    name: &str,
    founding: &FoundingStatus,
) -> Result<(), Unanswered> {
    let token = control_token(ctx, desired).await?;
    let pod = observed.pods.iter().find(|pod| pod.name == name);
    let address = pod.and_then(|pod| pod.address);
    let address = address.ok_or_else(|| Unanswered(format!("pod {name} has no address")))?;
    let id = &desired.cluster_id;
    tracing::info!(cluster = %desired.key, pod = name, "broker is told to found the cluster");
    ctx.brokers.bootstrap(address, &token, id, founding).await
}

/// Any broker takes it.
async fn steer(
    ctx: &Context,
    desired: &Desired,
    observed: &Observed,
    act: Act,
    node_id: &str,
) -> Result<(), Unanswered> {
    let token = control_token(ctx, desired).await?;
    let addresses = addresses(&observed.pods);
    tracing::info!(cluster = %desired.key, node_id, ?act, "a broker is asked to steer a node");
    first(&addresses, |at| ctx.brokers.act(at, &token, act, node_id)).await
}

async fn control_token(ctx: &Context, desired: &Desired) -> Result<Token, Unanswered> {
    let found = token(&ctx.client, &desired.key).await;
    let found = found.map_err(|error| Unanswered(crate::report(&error)))?;
    found.ok_or_else(|| Unanswered("there is no control token".to_owned()))
}

/// Applies the annotations of a claim; that of the node goes when there is none.
async fn adopt(
    client: &Client,
    desired: &Desired,
    claim: &str,
    id: &ClusterId,
    node_id: Option<&str>,
) -> kube::Result<()> {
    let namespace = &desired.key.namespace;
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let mut annotations = json!({ labels::CLUSTER_ID: id.as_str() });
    if let Some(node_id) = node_id {
        annotations[labels::NODE_ID] = json!(node_id);
    }
    let body = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": claim, "annotations": annotations },
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(claim, &parameters, &Patch::Apply(&body)).await?;
    Ok(())
}

fn pod_ref(namespace: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// Says what it does, then deletes the pod; in the background, so that its address works until it
/// has stopped. One that is gone or replaced meanwhile is what was wanted.
async fn restart(
    ctx: &Context,
    cluster: &BrokerCluster,
    pod: ObjectReference,
    why: &str,
) -> kube::Result<()> {
    let name = pod.name.clone().unwrap_or_default();
    let namespace = pod.namespace.clone().unwrap_or_default();
    let parameters = DeleteParams::background().preconditions(Preconditions {
        uid: pod.uid.clone(),
        resource_version: None,
    });
    let note = Note {
        reason: reasons::RESTARTING_POD,
        action: "Restart",
        message: format!("Restarting pod {name}: {why}"),
        related: Some(pod),
    };
    ctx.events.normal(cluster, note).await;
    tracing::info!(namespace, pod = name, why, "pod is restarted");
    let api: Api<KubePod> = Api::namespaced(ctx.client.clone(), &namespace);
    match api.delete(&name, &parameters).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        other => other.map(drop),
    }
}
