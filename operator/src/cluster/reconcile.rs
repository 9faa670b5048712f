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
use super::status::{Inputs, Outcome, status};
use super::validate::{Invalid, validate};
use crate::condition::{Truth, find};
use crate::context::{Context, Guarded};
use crate::events::Note;
use crate::names::{ClusterKey, STATUS_MANAGER};
use crate::reasons::{self, condition};

/// A cluster is looked at again after this long even if nothing seems to change: a watch may miss
/// something, and nobody waits for it.
const RESYNC: Duration = Duration::from_secs(300);
/// After writes, and while waiting for somebody who may not be watched.
const SOON: Duration = Duration::from_secs(5);

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
            reason: reasons::API_FAILED,
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
    Ok(next(&outcome))
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
    let observed = observe(&ctx.client, desired, cluster.status.clone())
        .await
        .map_err(Failure::Observe)?;
    let observed = course.observed.insert(observed);
    let plan = plan(desired, observed);
    let outcome = Outcome::done(&plan);
    apply(ctx, cluster, desired, plan, recorded).await?;
    Ok(outcome)
}

fn refused(invalid: &Invalid) -> Outcome {
    Outcome::Failed {
        reason: invalid.reason(),
        message: invalid.to_string(),
    }
}

/// When to look again without being woken.
fn next(outcome: &Outcome) -> Action {
    match outcome {
        // Only a change helps, and that wakes us.
        Outcome::Failed { .. } => Action::requeue(RESYNC),
        Outcome::Done {
            changed: false,
            waiting: None,
        } => Action::requeue(RESYNC),
        Outcome::Done { .. } => Action::requeue(SOON),
    }
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
        reasons::RESTARTING,
        reasons::POD_STOPPING,
    ];
    if is.status == Truth::True.as_str() || expected.contains(&is.reason.as_str()) {
        ctx.events.normal(cluster, note).await;
    } else {
        ctx.events.warn(cluster, note).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::fakes::{Api as FakeApi, cluster, context, failure};

    const CLUSTER: &str = "/apis/millrace.dev/v1alpha1/namespaces/shop/brokerclusters/main";
    const SERVICE: &str = "/api/v1/namespaces/shop/services/main";

    /// The `Ready` conditions written, in order.
    async fn ready_after(api: &FakeApi) -> (Result<Action, Failure>, Vec<(String, String)>) {
        let pods = serde_json::json!({ "metadata": {}, "items": [] });
        api.has("/api/v1/namespaces/shop/pods", pods);
        let (context, _listeners) = context(api, 1, &[]);
        let key = ClusterKey::new("shop", "main");
        let cached = context.stores.clusters.get(&key.object_ref()).unwrap();
        let result = reconcile(cached, Arc::new(context)).await;
        let written = api.asked(&Method::PATCH).into_iter();
        let statuses = written.filter(|asked| asked.path == format!("{CLUSTER}/status"));
        let ready = statuses.map(|asked| {
            let conditions = asked.body["status"]["conditions"]
                .as_array()
                .unwrap()
                .clone();
            let ready = conditions
                .into_iter()
                .find(|c| c["type"] == "Ready")
                .unwrap();
            let text = |field: &str| ready[field].as_str().unwrap().to_owned();
            (text("reason"), text("message"))
        });
        (result, ready.collect())
    }

    #[tokio::test]
    async fn status_says_what_failed_when_a_step_fails() {
        let api = FakeApi::default();
        api.has(CLUSTER, cluster());
        api.answer(
            Method::PATCH,
            SERVICE,
            403,
            failure(403, "Forbidden", "no right to services"),
        );

        let (result, ready) = ready_after(&api).await;

        assert!(result.is_err());
        let (reason, message) = ready.last().unwrap();
        assert_eq!(reason, reasons::API_FAILED);
        assert_eq!(message, "cannot apply Service main: no right to services");
    }

    #[tokio::test]
    async fn what_is_wrong_with_an_object_is_told_also_when_merging_it_fails() {
        let api = FakeApi::default();
        api.has(CLUSTER, cluster());
        let invalid = failure(422, "Invalid", "a name must start with a letter");
        let absent = failure(404, "NotFound", "not found");
        api.answer(Method::PATCH, SERVICE, 404, absent);
        api.answer_first(Method::PATCH, SERVICE, 422, invalid);

        let (_, ready) = ready_after(&api).await;

        let (_, message) = ready.last().unwrap();
        assert!(
            message.ends_with("a name must start with a letter"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn status_says_what_failed_when_reading_fails() {
        let api = FakeApi::default();
        api.has(CLUSTER, cluster());
        api.answer(
            Method::GET,
            SERVICE,
            500,
            failure(500, "InternalError", "etcd is away"),
        );

        let (result, ready) = ready_after(&api).await;

        assert!(result.is_err());
        let (reason, message) = ready.last().unwrap();
        assert_eq!(reason, reasons::API_FAILED);
        assert!(message.ends_with("etcd is away"), "{message}");
    }

    #[tokio::test]
    async fn a_cluster_that_cannot_be_read_gets_a_status_all_the_same() {
        let api = FakeApi::default();
        let mut broken = cluster();
        broken["spec"]["replicas"] = serde_json::json!("many");
        api.has(CLUSTER, broken);

        let (result, ready) = ready_after(&api).await;

        assert!(result.is_ok());
        assert_eq!(ready.last().unwrap().0, reasons::INVALID);
        let written = api.asked(&Method::PATCH).pop().unwrap();
        assert_eq!(written.body["status"]["image"], "millrace:1");
    }

    #[tokio::test]
    async fn a_cluster_being_deleted_is_left_alone() {
        let api = FakeApi::default();
        let mut leaving = cluster();
        leaving["metadata"]["deletionTimestamp"] = serde_json::json!("2026-01-01T00:00:00Z");
        api.has(CLUSTER, leaving);

        let (result, _) = ready_after(&api).await;

        assert!(result.is_ok());
        assert_eq!(api.asked(&Method::PATCH), []);
        assert_eq!(api.asked(&Method::POST), []);
    }

    #[tokio::test]
    async fn a_status_that_cannot_be_read_loses_neither_id_nor_image() {
        let api = FakeApi::default();
        let mut broken = cluster();
        broken["status"]["nodes"] = serde_json::json!("none");
        api.has(CLUSTER, broken);

        let (result, _) = ready_after(&api).await;

        assert!(result.is_ok());
        let written = api.asked(&Method::PATCH).pop().unwrap();
        assert_eq!(
            written.body["status"]["clusterID"],
            crate::fakes::CLUSTER_ID
        );
        assert_eq!(written.body["status"]["image"], "millrace:1");
    }

    #[tokio::test]
    async fn a_status_that_was_not_taken_is_written_again() {
        let conflict = failure(409, "Conflict", "the object has been modified");
        let api = FakeApi::default();
        api.has(CLUSTER, cluster());
        let status = format!("{CLUSTER}/status");
        api.answer(Method::PATCH, &status, 409, conflict);

        let (result, _) = ready_after(&api).await;

        assert!(matches!(result, Err(Failure::Status(_))), "{result:?}");
    }

    #[tokio::test]
    async fn nothing_is_made_while_the_id_could_not_be_written_down() {
        let api = FakeApi::default();
        let mut new = cluster();
        new["status"] = serde_json::json!({});
        api.has(CLUSTER, new);
        let conflict = failure(409, "Conflict", "the object has been modified");
        api.answer(Method::PATCH, &format!("{CLUSTER}/status"), 409, conflict);

        let (result, _) = ready_after(&api).await;

        assert!(matches!(result, Err(Failure::Apply(_))), "{result:?}");
        let made = api.asked(&Method::PATCH).into_iter();
        let made: Vec<String> = made.map(|asked| asked.path).collect();
        assert!(
            made.iter().all(|path| path.starts_with(CLUSTER)),
            "{made:?}"
        );
        assert_eq!(api.asked(&Method::POST), []);
    }
}
