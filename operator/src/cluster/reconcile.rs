//! One reconciliation of a BrokerCluster, from reading it to writing its status.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::dynamic::ParseDynamicObjectError;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use millrace_crds::{BrokerCluster, BrokerClusterStatus};
use serde_json::json;

use super::apply::{ApplyError, apply};
use super::dereference::{DereferenceError, dereference};
use super::desired::Desired;
use super::facts::Observed;
use super::observe::observe;
use super::plan::plan;
use super::size::size;
use super::status::{Inputs, Outcome, status};
use super::validate::{Invalid, validate};
use crate::condition::{Truth, find};
use crate::context::{Context, Guarded};
use crate::events::Note;
use crate::names::{ClusterKey, STATUS_MANAGER};
use crate::reasons::{self, condition};
use crate::topology::declared;

/// A cluster is looked at again after this long even if nothing seems to change: a watch may miss
/// something, and nobody waits for it.
const RESYNC: Duration = Duration::from_secs(300);
/// After writes, and while waiting for somebody who may not be watched.
const SOON: Duration = Duration::from_secs(5);
/// While brokers bring their copies up to what they should be: they tell nobody when they have.
const UNSTABLE: Duration = Duration::from_secs(10);

/// Why a reconciliation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot read the cluster")]
    Read(#[source] kube::Error),
    #[error(transparent)]
    Dereference(#[from] DereferenceError),
    #[error("cannot read what the cluster owns")]
    Observe(#[source] kube::Error),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("cannot write status")]
    Status(#[source] kube::Error),
}

impl Failure {
    /// The reason in the condition.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Apply(ApplyError::Broker { .. }) => reasons::BROKER_UNAVAILABLE,
            _ => reasons::API_FAILED,
        }
    }
}

/// How far a reconciliation came.
#[derive(Default)]
struct Course {
    desired: Option<Desired>,
    observed: Option<Observed>,
    adopted: bool,
}

/// Reconciles a cluster.
///
/// # Errors
/// When the API server fails; status says so if it can be written.
pub(crate) async fn reconcile(
    cached: Arc<Guarded<BrokerCluster>>,
    ctx: Arc<Context>,
) -> Result<Action, Failure> {
    let name = cached.name_any();
    let namespace = cached.namespace().unwrap_or_default();
    // The cache may not have the id pinned a moment ago yet; by it another one would be minted.
    let api: Api<DynamicObject> = Api::namespaced_with(
        ctx.client.clone(),
        &namespace,
        &ApiResource::erase::<BrokerCluster>(&()),
    );
    let Some(live) = api.get_opt(&name).await.map_err(Failure::Read)? else {
        return Ok(Action::await_change());
    };
    let cluster = match live.clone().try_parse::<BrokerCluster>() {
        Ok(cluster) => cluster,
        Err(invalid) => return unreadable(&ctx, live, &invalid).await,
    };
    let key = ClusterKey::new(namespace, name);
    if cluster.metadata.deletion_timestamp.is_some() {
        // What it owns is collected by Kubernetes; its claims stay.
        return Ok(Action::await_change());
    }
    let before = cluster.status.clone().unwrap_or_default();
    let mut recorded = before.clone();
    let mut course = Course::default();
    let result = steps(&ctx, &cluster, &mut course, &mut recorded).await;
    let outcome = match &result {
        Ok(outcome) => outcome.clone(),
        Err(failure) => Outcome::Failed {
            reason: failure.reason(),
            message: crate::report(failure),
        },
    };
    let report = ctx.reports.of(&key);
    let inputs = Inputs {
        previous: &recorded,
        generation: cluster.metadata.generation.unwrap_or_default(),
        desired: course.desired.as_ref(),
        observed: course.observed.as_ref(),
        outcome: &outcome,
        report: report.as_deref(),
    };
    let after = status(inputs, Timestamp::now());
    if recorded != after
        && let Err(unwritten) = report_status(&ctx, &cluster, &after).await
    {
        return Err(match result {
            Ok(_) => unwritten,
            // Of two failures the first is the cause; the other one is told here.
            Err(cause) => {
                let error = crate::report(&unwritten);
                tracing::warn!(cluster = %key, error, "status is not written");
                cause
            }
        });
    }
    announce(&ctx, &cluster, &before, &after, course.adopted).await;
    result?;
    Ok(next(&outcome, &after))
}

/// The pipeline up to the writes.
async fn steps(
    ctx: &Context,
    cluster: &BrokerCluster,
    course: &mut Course,
    recorded: &mut BrokerClusterStatus,
) -> Result<Outcome, Failure> {
    let references = dereference(&ctx.client, cluster, &ctx.default_image).await?;
    let has_claims = references
        .claims
        .iter()
        .any(|claim| claim.cluster_id.is_some());
    let desired = match validate(cluster, references) {
        Ok(desired) => course.desired.insert(desired),
        Err(invalid) => return Ok(refused(&invalid)),
    };
    course.adopted = has_claims && recorded.cluster_id.is_none();
    let observed = observe(&ctx.client, &*ctx.brokers, desired, cluster.status.clone())
        .await
        .map_err(Failure::Observe)?;
    let observed = course.observed.insert(observed);
    if size(desired, observed) > desired.replicas {
        observed.asked = declared(ctx, &desired.key).most_copies();
    }
    let plan = plan(desired, observed);
    let outcome = Outcome::done(&plan);
    apply(ctx, cluster, desired, observed, plan, recorded).await?;
    Ok(outcome)
}

fn refused(invalid: &Invalid) -> Outcome {
    Outcome::Failed {
        reason: invalid.reason(),
        message: invalid.to_string(),
    }
}

/// When to look again without being woken.
fn next(outcome: &Outcome, after: &BrokerClusterStatus) -> Action {
    let Outcome::Done { changed, waiting } = outcome else {
        // Only a change helps, and that wakes us.
        return Action::requeue(RESYNC);
    };
    let is_waiting = waiting.is_some();
    let stable = find(&after.conditions, condition::STABLE);
    let stable = stable.is_some_and(|stable| stable.status == Truth::True.as_str());
    Action::requeue(match (*changed, is_waiting) {
        (false, false) if stable => RESYNC,
        (false, false) => UNSTABLE,
        _ => SOON,
    })
}

/// An object that cannot be read gets a status all the same, and keeps what was pinned there.
async fn unreadable(
    ctx: &Context,
    live: DynamicObject,
    invalid: &ParseDynamicObjectError,
) -> Result<Action, Failure> {
    let previous = previous(&live);
    let mut cluster = BrokerCluster::new("", millrace_crds::BrokerClusterSpec::default());
    cluster.metadata = live.metadata;
    let outcome = Outcome::Failed {
        reason: reasons::INVALID,
        message: crate::report(invalid),
    };
    let inputs = Inputs {
        previous: &previous,
        generation: cluster.metadata.generation.unwrap_or_default(),
        desired: None,
        observed: None,
        outcome: &outcome,
        report: None,
    };
    let after = status(inputs, Timestamp::now());
    if previous != after {
        report_status(ctx, &cluster, &after).await?;
    }
    // Its status alone may have been at fault, and is readable now; writing it woke nobody.
    Ok(Action::requeue(RESYNC))
}

/// Status as last written; of one that cannot be read, what must outlive that.
fn previous(live: &DynamicObject) -> BrokerClusterStatus {
    let Some(status) = live.data.get("status") else {
        return BrokerClusterStatus::default();
    };
    let pinned = |field: &str| status[field].as_str().map(str::to_owned);
    serde_json::from_value(status.clone()).unwrap_or_else(|_| BrokerClusterStatus {
        cluster_id: pinned("clusterID"),
        image: pinned("image"),
        ..BrokerClusterStatus::default()
    })
}

/// Writes all of status, with the uid: a cluster created again meanwhile is not meant.
pub(super) async fn write_status(
    ctx: &Context,
    cluster: &BrokerCluster,
    status: &BrokerClusterStatus,
) -> kube::Result<()> {
    let name = cluster.name_any();
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<Guarded<BrokerCluster>> = Api::namespaced(ctx.client.clone(), &namespace);
    let body = json!({
        "apiVersion": BrokerCluster::api_version(&()),
        "kind": BrokerCluster::kind(&()),
        "metadata": { "name": name, "uid": cluster.metadata.uid },
        "status": status,
    });
    let parameters = PatchParams::apply(STATUS_MANAGER).force();
    api.patch_status(&name, &parameters, &Patch::Apply(&body))
        .await
        .map(drop)
}

/// The last write of a reconciliation. A cluster that is gone needs no status.
async fn report_status(
    ctx: &Context,
    cluster: &BrokerCluster,
    status: &BrokerClusterStatus,
) -> Result<(), Failure> {
    match write_status(ctx, cluster, status).await {
        Err(kube::Error::Api(gone)) if gone.is_not_found() => Ok(()),
        Err(error) => Err(Failure::Status(error)),
        Ok(()) => {
            ctx.metrics.wrote();
            Ok(())
        }
    }
}

/// Events for what changed between two statuses.
async fn announce(
    ctx: &Context,
    cluster: &BrokerCluster,
    before: &BrokerClusterStatus,
    after: &BrokerClusterStatus,
    adopted: bool,
) {
    if adopted {
        let id = after.cluster_id.as_deref().unwrap_or_default();
        let note = Note {
            reason: reasons::CLAIMS_ADOPTED,
            action: "Adopt",
            message: format!("Took over the claims that were there, of cluster {id}"),
            related: None,
        };
        ctx.events.normal(cluster, note).await;
    }
    let (was, is) = (
        find(&before.conditions, condition::READY),
        find(&after.conditions, condition::READY),
    );
    let Some(is) = is else { return };
    let same = was.is_some_and(|was| was.status == is.status && was.reason == is.reason);
    if same {
        return;
    }
    let note = Note {
        reason: &is.reason,
        action: "Reconcile",
        message: is.message.clone(),
        related: None,
    };
    let expected = [
        reasons::STARTING,
        reasons::FOUNDING,
        reasons::RESTARTING,
        reasons::POD_STOPPING,
    ];
    let serves = is.status == Truth::True.as_str() && is.reason != reasons::DEGRADED;
    if serves || expected.contains(&is.reason.as_str()) {
        ctx.events.normal(cluster, note).await;
    } else {
        ctx.events.warn(cluster, note).await;
    }
}

#[cfg(test)]
mod tests;
