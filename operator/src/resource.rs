//! A Queue or Topic: which cluster it belongs to, and what that cluster's broker has of it, as
//! status. Does not talk to brokers; that is `topology`.

mod standing;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::condition::{Truth, find};
use crate::context::{Context, Guarded};
use crate::events::Note;
use crate::names::{ClusterKey, STATUS_MANAGER};
use crate::reasons::{self, condition};
use crate::topology::declared::Declares;
use crate::topology::resolve::resolve;

pub(crate) use standing::{Place, Previous, Standing, standing};

/// A resource is looked at again after this long even if nothing seems to change.
const RESYNC: Duration = Duration::from_secs(600);

/// Why status could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write status")]
pub(crate) struct Failure(#[from] kube::Error);

/// A resource with a status of ours.
pub(crate) trait HasStanding: Declares {
    /// What its status says.
    fn previous(&self) -> Previous;
}

/// Reconciles the status of a resource.
///
/// # Errors
/// When the API server fails.
pub(crate) async fn reconcile<K>(
    resource: Arc<Guarded<K>>,
    ctx: Arc<Context>,
) -> Result<Action, Failure>
where
    K: HasStanding + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned,
{
    let meta = resource.meta();
    if meta.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let namespace = meta.namespace.clone().unwrap_or_default();
    let place = place(&resource, &ctx, &namespace);
    let previous = match &resource.0 {
        Ok(readable) => readable.previous(),
        Err(_) => Previous::default(),
    };
    let after = standing::<K>(meta, &place, &previous, Timestamp::now());
    if previous.standing.as_ref() != Some(&after) {
        write(&ctx, &*resource, &namespace, &after).await?;
        ctx.metrics.wrote();
        announce(&ctx, &*resource, &previous, &after).await;
    }
    Ok(Action::requeue(RESYNC))
}

/// Where the resource belongs, and what is known there.
fn place<K: Declares>(resource: &Guarded<K>, ctx: &Context, namespace: &str) -> Place {
    let readable = match &resource.0 {
        Ok(readable) => readable,
        Err(invalid) => return Place::Invalid(invalid.error.clone()),
    };
    let resolved = resolve(readable.cluster_ref(), &ctx.stores.candidates(namespace));
    let cluster = match resolved {
        Ok(cluster) => cluster,
        Err(unresolved) => return Place::Nowhere(unresolved),
    };
    if let Err(problem) = readable.compile() {
        return Place::Invalid(problem);
    }
    let report = ctx.reports.of(&ClusterKey::new(namespace, &cluster));
    Place::In { cluster, report }
}

/// Writes all of status, with the uid: a resource created again meanwhile is not meant. One that is
/// gone needs none.
async fn write<K>(
    ctx: &Context,
    resource: &Guarded<K>,
    namespace: &str,
    standing: &Standing,
) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned,
{
    let name = resource.name_any();
    let api: Api<Guarded<K>> = Api::namespaced(ctx.client.clone(), namespace);
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name, "uid": resource.uid() },
        "status": standing,
    });
    let parameters = PatchParams::apply(STATUS_MANAGER).force();
    match api
        .patch_status(&name, &parameters, &Patch::Apply(&body))
        .await
    {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

/// Reasons that are about the cluster: it tells them once, not each of its resources.
const OF_THE_CLUSTER: [&str; 4] = [
    reasons::BROKER_UNAVAILABLE,
    reasons::WRONG_CLUSTER,
    reasons::CONTROL_TOKEN_MISSING,
    reasons::CLUSTER_LEAVING,
];
/// Reasons on the way to being ready.
const ON_THE_WAY: [&str; 2] = [reasons::NOT_RECONCILED, reasons::SYNCING];

/// An event when something keeps it from being ready that is its own, and when that is over.
async fn announce<K: Resource<DynamicType = ()>>(
    ctx: &Context,
    resource: &K,
    previous: &Previous,
    after: &Standing,
) {
    let was = previous
        .standing
        .as_ref()
        .map(|standing| standing.conditions.as_slice());
    let was = find(was.unwrap_or_default(), condition::READY);
    let Some(is) = find(&after.conditions, condition::READY) else {
        return;
    };
    let Some(tone) = news(was, is) else { return };
    let note = Note {
        reason: &is.reason,
        action: "Reconcile",
        message: is.message.clone(),
        related: None,
    };
    match tone {
        Tone::Normal => ctx.events.normal(resource, note).await,
        Tone::Warning => ctx.events.warn(resource, note).await,
    }
}

/// How an event is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Normal,
    Warning,
}

/// Whether a change of `Ready` is worth an event, and which.
fn news(was: Option<&Condition>, is: &Condition) -> Option<Tone> {
    let own = |condition: &Condition| {
        let reason = condition.reason.as_str();
        condition.status != Truth::True.as_str()
            && !OF_THE_CLUSTER.contains(&reason)
            && !ON_THE_WAY.contains(&reason)
    };
    let same = was.is_some_and(|was| was.status == is.status && was.reason == is.reason);
    if same {
        None
    } else if own(is) {
        Some(Tone::Warning)
    } else {
        let over = is.status == Truth::True.as_str() && was.is_some_and(own);
        over.then_some(Tone::Normal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::{Verdict, conditions};

    fn ready(reason: &str) -> Condition {
        let truth = if reason == reasons::READY {
            Truth::True
        } else {
            Truth::False
        };
        let verdict = Verdict::new(condition::READY, truth, reason, "");
        conditions(&[], vec![verdict], 1, Timestamp::UNIX_EPOCH).remove(0)
    }

    #[test]
    fn only_what_is_a_resources_own_is_an_event_of_it() {
        for (was, is, expected) in [
            (Some(reasons::READY), "TopicNotFound", Some(Tone::Warning)),
            (
                Some(reasons::SYNCING),
                reasons::REFUSED,
                Some(Tone::Warning),
            ),
            (None, reasons::CLUSTER_NOT_FOUND, Some(Tone::Warning)),
            (Some("TopicNotFound"), "TopicNotFound", None),
            (Some("TopicNotFound"), reasons::READY, Some(Tone::Normal)),
            (Some(reasons::NOT_RECONCILED), reasons::SYNCING, None),
            (Some(reasons::SYNCING), reasons::READY, None),
            // A broker that restarts would be twice as many events as there are resources.
            (Some(reasons::READY), reasons::BROKER_UNAVAILABLE, None),
            (Some(reasons::BROKER_UNAVAILABLE), reasons::READY, None),
        ] {
            let (before, after) = (was.map(ready), ready(is));

            assert_eq!(news(before.as_ref(), &after), expected, "{was:?}, {is}");
        }
    }
}
