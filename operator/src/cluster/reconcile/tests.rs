//! Reconciliations against an API server that answers what it is told to.

use axum::http::Method;

use super::*;
use crate::cluster::build;
use crate::cluster::desired::ClusterId;
use crate::cluster::facts::References;
use crate::fakes::{Api as FakeApi, CLUSTER_ID, Empty, cluster, context, failure};
use crate::labels;

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

/// An API server with everything that three brokers need, and their pods at 127.0.0.1 to 3.
fn three_pods(status: &serde_json::Value) -> FakeApi {
    let api = FakeApi::default();
    let mut three = cluster();
    three["spec"]["replicas"] = serde_json::json!(3);
    three["status"] = status.clone();
    let parsed: BrokerCluster = serde_json::from_value(three.clone()).unwrap();
    api.has(CLUSTER, three);
    let references = References {
        claims: Vec::new(),
        stateful_set_id: None,
        fresh_id: ClusterId::parse("unused").unwrap(),
        default_image: "millrace:1".to_owned(),
    };
    let desired = validate(&parsed, references).unwrap();
    for object in build::objects(&desired) {
        let resource = object.kind.api_resource();
        let prefix = match resource.group.as_str() {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/{}", resource.version),
        };
        let path = format!(
            "{prefix}/namespaces/shop/{}/{}",
            resource.plural, object.name
        );
        api.has(&path, object.body);
    }
    let secret = serde_json::json!({ "metadata": {}, "data": { "token": "c2VjcmV0" } });
    api.has("/api/v1/namespaces/shop/secrets/main-control", secret);
    let hash = build::template_hash(&desired);
    let pod = |ordinal: u32| {
        let claim = serde_json::json!({ "metadata": {
            "name": format!("data-main-{ordinal}"),
            "annotations": { labels::CLUSTER_ID: CLUSTER_ID },
        } });
        let claims = "/api/v1/namespaces/shop/persistentvolumeclaims";
        api.has(&format!("{claims}/data-main-{ordinal}"), claim);
        serde_json::json!({
            "metadata": {
                "name": format!("main-{ordinal}"), "uid": format!("uid-{ordinal}"),
                "annotations": { labels::TEMPLATE_HASH: hash },
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "main", "uid": "u",
                    "controller": true,
                }],
            },
            "status": { "podIP": format!("127.0.0.{}", ordinal + 1) },
        })
    };
    let pods: Vec<serde_json::Value> = (0..3).map(pod).collect();
    let pods = serde_json::json!({ "metadata": {}, "items": pods });
    api.has("/api/v1/namespaces/shop/pods", pods);
    api
}

/// One reconciliation with these brokers.
async fn with_brokers(api: &FakeApi, brokers: &Arc<Empty>) -> Result<Action, Failure> {
    let (context, _listeners) = context(api, 1, &[]);
    let context = Context {
        brokers: Arc::<Empty>::clone(brokers),
        ..context
    };
    let key = ClusterKey::new("shop", "main");
    let cached = context.stores.clusters.get(&key.object_ref()).unwrap();
    reconcile(cached, Arc::new(context)).await
}

fn written(api: &FakeApi) -> serde_json::Value {
    let mut patches = api.asked(&Method::PATCH).into_iter().rev();
    let status = format!("{CLUSTER}/status");
    let last = patches.find(|asked| asked.path == status);
    last.unwrap().body["status"].clone()
}

#[tokio::test]
async fn no_broker_is_told_of_a_founding_that_could_not_be_written_down() {
    let pinned = cluster()["status"].clone();
    let api = three_pods(&pinned);
    let conflict = failure(409, "Conflict", "the object has been modified");
    api.answer(Method::PATCH, &format!("{CLUSTER}/status"), 409, conflict);
    let brokers = Arc::new(Empty::default());

    let result = with_brokers(&api, &brokers).await;

    assert!(matches!(result, Err(Failure::Apply(_))), "{result:?}");
    assert_eq!(brokers.told(), []);
}

#[tokio::test]
async fn a_broker_that_was_not_reached_is_told_the_same_by_the_next_operator() {
    let pinned = cluster()["status"].clone();
    let api = three_pods(&pinned);
    let brokers = Arc::new(Empty::default());
    brokers.is_deaf_after(1);

    let failed = with_brokers(&api, &brokers).await;
    assert!(matches!(failed, Err(Failure::Apply(_))), "{failed:?}");
    let recorded = written(&api);
    assert_eq!(
        recorded["founding"]["founders"].as_array().map(Vec::len),
        Some(3)
    );

    brokers.is_deaf_after(9);
    let again = with_brokers(&three_pods(&recorded), &brokers).await;
    assert!(again.is_ok(), "{again:?}");
    let told = brokers.told();
    assert_eq!(told.len(), 3);
    assert!(told.windows(2).all(|two| two[0].1 == two[1].1));

    let api = three_pods(&recorded);
    with_brokers(&api, &brokers).await.unwrap();
    let named = api.asked(&Method::PATCH).into_iter();
    let named = named.filter(|asked| asked.path.contains("persistentvolumeclaims"));
    assert_eq!(named.count(), 3);
    assert_eq!(brokers.told().len(), 3);
}
