//! One exchange with a cluster's broker, from what is declared to a report of what it has.
//!
//! Promises: whatever happens there is a report; nothing is removed by an incomplete view.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use millrace_crds::{BrokerCluster, Queue, Topic};
use millrace_proto::v1::TopologyObject;
use sha2::{Digest, Sha256};

use super::convert;
use super::declared::Declared;
use super::delta::{self, Candidate, Delta, Page, delta, pages};
use super::exchange::{self, Exchange, Looked, Pushed};
use super::removal::{Definitions, Frozen, confirm, data_since, definitions, is_returning};
use super::report::{Answer, Broker, Refused, Report};
use crate::brokers::addresses;
use crate::cluster::desired::ClusterId;
use crate::cluster::observe::{pods, token};
use crate::context::{Context, Guarded};
use crate::names::{self, ClusterKey};
use crate::reasons;

/// A broker that has everything is asked again after this long: it may have been restored from
/// older disks, and nobody would tell.
const RESYNC: Duration = Duration::from_secs(60);
/// Waits before an exchange is tried again because the topology changed in between: two operators
/// may both act for a moment, or the broker that was looked at had not heard of the last change.
const CONFLICTS_MS: [u64; 2] = [50, 250];
/// A broker that answers and has not done all that it was sent is asked again after this long at
/// most: nobody would tell, and people wait for their edits.
const UNSETTLED_MAX: Duration = Duration::from_secs(15);
/// Waits between looks at a broker that has just been sent something: shards need a few syncs, and
/// a broker that does not lead the metadata shard hears of it from the one that does.
const SETTLING_MS: [u64; 6] = [10, 20, 40, 80, 160, 320];
/// Without the right to see definitions go, a resource must be absent this long before it counts as
/// gone: by then the definition itself has disappeared, and lists fail.
const ABSENCE_MIN: Duration = Duration::from_secs(15);

/// Why an exchange failed before it came to the broker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot read what is needed to reach the broker")]
    Api(#[from] kube::Error),
}

/// Since when candidates for removal have been absent, by cluster.
#[derive(Default)]
pub(crate) struct Absences {
    since: Mutex<HashMap<ClusterKey, HashMap<Candidate, Instant>>>,
}

impl Absences {
    /// Keeps those that have been absent for long enough; forgets those that came back.
    fn long(&self, key: &ClusterKey, candidates: &[Candidate], now: Instant) -> Vec<Candidate> {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let before = since.remove(key).unwrap_or_default();
        let first = |gone: &Candidate| before.get(gone).copied().unwrap_or(now);
        let absent = |gone: &&Candidate| now.saturating_duration_since(first(gone)) >= ABSENCE_MIN;
        let long = candidates.iter().filter(absent).cloned().collect();
        if !candidates.is_empty() {
            let after = candidates.iter().map(|gone| (gone.clone(), first(gone)));
            since.insert(key.clone(), after.collect());
        }
        long
    }

    /// Nothing of a cluster is absent.
    fn forget(&self, key: &ClusterKey) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.remove(key);
    }
}

/// Brings a cluster's broker up to what is declared, as far as possible now.
///
/// # Errors
/// When the API server fails. A broker that does not answer is no error but a report.
pub(crate) async fn reconcile(
    cluster: Arc<Guarded<BrokerCluster>>,
    ctx: Arc<Context>,
) -> Result<Action, Failure> {
    let key = ClusterKey::new(cluster.namespace().unwrap_or_default(), cluster.name_any());
    let Ok(cluster) = &cluster.0 else {
        return Ok(Action::await_change());
    };
    if cluster.metadata.deletion_timestamp.is_some() {
        ctx.reports.forget(&key);
        ctx.absences.forget(&key);
        return Ok(Action::await_change());
    }
    let report = Arc::new(report(&ctx, &key, cluster).await?);
    let before = ctx.reports.put(key.clone(), Arc::clone(&report));
    if before.as_deref() != Some(&*report) {
        let reachable = report.answer().is_some();
        tracing::info!(cluster = %key, reachable, frozen = ?report.frozen, "broker reports");
        ctx.bells
            .report_changed(&key, before.as_deref(), &report, &ctx.stores);
    }
    Ok(Action::requeue(wait(
        &ctx,
        &key,
        before.as_deref(),
        &report,
    )))
}

/// How long to wait before looking again without being woken: backing off while something does not
/// work or does not get on.
fn wait(ctx: &Context, key: &ClusterKey, before: Option<&Report>, report: &Report) -> Duration {
    let object = ("topology", key.to_string());
    let revisions = |report: &Report| {
        let answer = report.answer()?;
        Some((answer.revision, answer.applied_revision))
    };
    let gets_on = revisions(report).is_some() && before.and_then(revisions) != revisions(report);
    let is_done = report.is_settled() && report.frozen.is_none();
    if gets_on || is_done {
        ctx.backoffs.reset(&object);
    }
    if is_done {
        return RESYNC;
    }
    let pause = ctx.backoffs.fail(object);
    match report.answer() {
        Some(_) => pause.min(UNSETTLED_MAX),
        None => pause,
    }
}

async fn report(
    ctx: &Context,
    key: &ClusterKey,
    cluster: &BrokerCluster,
) -> Result<Report, Failure> {
    let unavailable = |message: String| Report::unavailable(reasons::BROKER_UNAVAILABLE, message);
    let id = cluster
        .status
        .as_ref()
        .and_then(|status| status.cluster_id.as_deref());
    let Some(id) = id.and_then(ClusterId::parse) else {
        return Ok(unavailable("the cluster has no id yet".to_owned()));
    };
    let pods = pods(&ctx.client, key).await?;
    let addresses = addresses(&pods);
    if addresses.is_empty() {
        return Ok(unavailable("no broker pod runs".to_owned()));
    }
    let Some(token) = token(&ctx.client, key).await? else {
        let message = format!("Secret {} holds no token", key.control_secret());
        return Ok(Report::unavailable(reasons::CONTROL_TOKEN_MISSING, message));
    };
    let mut last = exchange::Failure::Conflict;
    // Any broker takes it to whom it concerns: the first that answers will do.
    for address in addresses {
        let url = names::pod_url(address, ctx.control_port);
        let exchanged = match Exchange::open(&url, &token, &id) {
            Ok(exchange) => agree(ctx, key, cluster, &exchange).await,
            Err(failure) => Err(failure),
        };
        match exchanged {
            Ok(report) => {
                let serves = pods.iter().any(|pod| pod.ready && !pod.leaving);
                return Ok(Report { serves, ..report });
            }
            Err(failure) => last = failure,
        }
    }
    Ok(match last {
        exchange::Failure::Unavailable { reason, message } => Report::unavailable(reason, message),
        exchange::Failure::Conflict | exchange::Failure::Behind { .. } => {
            unavailable(last.to_string())
        }
    })
}

/// An exchange; again when the topology changed in between.
async fn agree(
    ctx: &Context,
    key: &ClusterKey,
    cluster: &BrokerCluster,
    exchange: &Exchange<'_>,
) -> Result<Report, exchange::Failure> {
    for wait_ms in CONFLICTS_MS {
        match converse(ctx, key, cluster, exchange).await {
            Err(exchange::Failure::Conflict) => {}
            other => return other,
        }
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
    converse(ctx, key, cluster, exchange).await
}

/// Looks, sends what is missing, looks again. Whether the broker serves is for the caller to say.
async fn converse(
    ctx: &Context,
    key: &ClusterKey,
    cluster: &BrokerCluster,
    exchange: &Exchange<'_>,
) -> Result<Report, exchange::Failure> {
    let declared = declared(ctx, key);
    let before = ctx.reports.of(key);
    let newest = before.as_deref().map_or(0, Report::known_revision);
    let looked = look(exchange, newest).await?;
    let Delta {
        mut upserts,
        candidates,
    } = delta(&key.namespace, &declared, &looked.answer);
    let in_vain = before.as_ref().and_then(|before| before.resent_at.clone());
    let mut resent_at = in_vain.filter(|digest| *digest == looked.digest);
    let seems_same = upserts.is_empty() && candidates.is_empty() && resent_at.is_none();
    if seems_same && !agrees(&declared, &looked) {
        tracing::info!(cluster = %key, "broker has another encoding of what is declared");
        upserts = delta::everything(&declared);
        resent_at = Some(looked.digest.clone());
    }
    let uid = cluster.uid().unwrap_or_default();
    let (removals, frozen) = match confirmed(ctx, key, &uid, candidates).await {
        Ok(removals) => (removals, None),
        Err(frozen) => (Vec::new(), Some(crate::report(&frozen))),
    };
    if upserts.is_empty() && removals.is_empty() {
        return Ok(Report {
            sent: looked.answer.revision,
            broker: Broker::Answered(looked.answer),
            serves: false,
            refused: BTreeMap::new(),
            unsent: 0,
            resent_at,
            frozen,
        });
    }
    tracing::info!(
        cluster = %key, upserts = upserts.len(), removals = removals.len(), "topology is sent"
    );
    let known = before.as_deref().map(|report| &report.refused);
    // What was refused comes last: it must not use up the calls of what was not tried yet.
    let (again, new) = upserts
        .into_iter()
        .partition(|object| refusal(known, object).is_some());
    let mut pages = pages(new, removals);
    pages.extend(delta::pages(again, Vec::new()));
    let Pushed {
        revision,
        mut refused,
        unsent,
    } = exchange.push(looked.answer.revision, pages).await?;
    for object in unsent.iter().flat_map(|page| &page.upserts) {
        let refusal = refusal(known, object).cloned();
        refused.extend(refusal.map(|refusal| (object.address.clone(), refusal)));
    }
    Ok(Report {
        broker: Broker::Answered(settled(exchange, revision).await?),
        sent: revision,
        serves: false,
        refused,
        unsent: unsent.iter().map(Page::len).sum(),
        resent_at,
        frozen,
    })
}

/// What the broker said of this generation of an object when it refused it.
fn refusal<'a>(
    known: Option<&'a BTreeMap<String, Refused>>,
    object: &TopologyObject,
) -> Option<&'a Refused> {
    let refusal = known?.get(&object.address)?;
    (refusal.generation == object.generation).then_some(refusal)
}

/// What the broker has, once that is no older than what the cluster is known to have: a delta made
/// against a late view would be in vain, or worse, there would seem to be none.
async fn look(exchange: &Exchange<'_>, known: u64) -> Result<Looked, exchange::Failure> {
    let looked = look_until(exchange, |answer| answer.revision >= known).await?;
    let shown = looked.answer.revision;
    if shown < known {
        return Err(exchange::Failure::Behind { shown, known });
    }
    Ok(looked)
}

/// What the broker has once every shard works by what it was sent, or a moment later: a report of
/// each step on the way would be a write to every resource it is about.
async fn settled(exchange: &Exchange<'_>, sent: u64) -> Result<Answer, exchange::Failure> {
    let is_done = |answer: &Answer| answer.revision >= sent && answer.is_settled();
    Ok(look_until(exchange, is_done).await?.answer)
}

/// Looks until `is_enough`, a few times; then as it is.
async fn look_until(
    exchange: &Exchange<'_>,
    is_enough: impl Fn(&Answer) -> bool,
) -> Result<Looked, exchange::Failure> {
    for wait_ms in SETTLING_MS {
        let looked = exchange.look().await?;
        if is_enough(&looked.answer) {
            return Ok(looked);
        }
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
    exchange.look().await
}

/// What the resources of a cluster's namespace declare for it.
pub(crate) fn declared(ctx: &Context, key: &ClusterKey) -> Declared {
    let candidates = ctx.stores.candidates(&key.namespace);
    let mut declared = Declared::default();
    let here = |namespace: Option<&str>| namespace == Some(key.namespace.as_str());
    let topics = ctx.stores.topics.state_filter(|topic: &Guarded<Topic>| {
        here(kube::Resource::meta(topic).namespace.as_deref())
    });
    declared.add::<Topic>(&key.name, &candidates, topics);
    let queues = ctx.stores.queues.state_filter(|queue: &Guarded<Queue>| {
        here(kube::Resource::meta(queue).namespace.as_deref())
    });
    declared.add::<Queue>(&key.name, &candidates, queues);
    declared
}

/// Whether the broker's digest is that of what is declared. Only meant where it serves exactly
/// that: what it keeps besides is in its digest, too, and not known here.
fn agrees(declared: &Declared, looked: &Looked) -> bool {
    if looked.digest.is_empty() || !serves_exactly(declared, &looked.answer) {
        return true;
    }
    let mut hash = Sha256::new();
    for encoded in convert::encoded(&declared.objects) {
        hash.update(encoded);
    }
    hash.finalize().as_slice() == looked.digest
}

fn serves_exactly(declared: &Declared, answer: &Answer) -> bool {
    let own_dead_letters = |address: &str| address.split('/').count() > 3;
    let served = answer
        .objects
        .iter()
        .filter(|(address, held)| !held.orphaned && !own_dead_letters(address))
        .map(|(address, _)| address);
    served.eq(declared.objects.keys())
}

/// Candidates that are certainly gone.
async fn confirmed(
    ctx: &Context,
    key: &ClusterKey,
    uid: &str,
    candidates: Vec<Candidate>,
) -> Result<Vec<Candidate>, Frozen> {
    if candidates.is_empty() {
        ctx.absences.forget(key);
        return Ok(candidates);
    }
    let candidates = match definitions(&ctx.client).await? {
        Definitions::Established { youngest } => {
            let data_since = data_since(&ctx.client, key).await?;
            if is_returning(youngest, data_since, Timestamp::now()) {
                return Err(Frozen::Returning);
            }
            candidates
        }
        Definitions::Leaving(name) => return Err(Frozen::Definitions(name)),
        Definitions::Unreadable => ctx.absences.long(key, &candidates, Instant::now()),
    };
    confirm(&ctx.client, key, uid, candidates).await
}

#[cfg(test)]
mod tests;
