//! Exchanges with a broker in memory, by an API server that answers what it is told to.

use axum::http::Method;
use serde_json::{Value, json};

use super::*;
use crate::fakes::{Api, Broker as FakeBroker, CLUSTER_UID, cluster, context, failure, queue};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NAMESPACE: &str = "/apis/millrace.dev/v1alpha1/namespaces/shop";

/// An API server with a pod, a token, established definitions, the cluster, and no queues.
fn api() -> Api {
    let api = Api::default();
    let pod = pod("main-0", "StatefulSet");
    api.has(
        "/api/v1/namespaces/shop/pods",
        list("v1", "PodList", &[pod]),
    );
    let secret = json!({ "metadata": {}, "data": { "token": "c2VjcmV0" } });
    api.has("/api/v1/namespaces/shop/secrets/main-control", secret);
    for kind in ["brokerclusters", "queues", "topics"] {
        let path = format!("{DEFINITIONS}/{kind}.millrace.dev");
        api.has(&path, json!({ "metadata": {} }));
    }
    api.has(&format!("{NAMESPACE}/brokerclusters/main"), cluster());
    api.has(&format!("{NAMESPACE}/queues"), list_of_queues(&[]));
    let claim = json!({ "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" } });
    let claims = "/api/v1/namespaces/shop/persistentvolumeclaims";
    api.has(&format!("{claims}/data-main-0"), claim);
    api
}

fn pod(name: &str, owner_kind: &str) -> Value {
    json!({
        "metadata": { "name": name, "uid": "pod-uid", "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": owner_kind, "name": "main", "uid": "set-uid",
            "controller": true,
        }] },
        "status": { "podIP": "127.0.0.1" },
    })
}

fn list(version: &str, kind: &str, items: &[Value]) -> Value {
    json!({ "apiVersion": version, "kind": kind, "metadata": {}, "items": items })
}

fn list_of_queues(items: &[Value]) -> Value {
    list("meta.k8s.io/v1", "PartialObjectMetadataList", items)
}

/// One exchange; returns what was reported.
async fn exchange(api: &Api, broker: &FakeBroker, queues: &[Value]) -> Arc<Report> {
    let port = broker.serve().await;
    let (context, _listeners) = context(api, port, queues);
    let key = ClusterKey::new("shop", "main");
    let cached = context.stores.clusters.get(&key.object_ref()).unwrap();
    let context = Arc::new(context);
    reconcile(cached, Arc::clone(&context)).await.unwrap();
    context.reports.of(&key).unwrap()
}

#[tokio::test]
async fn what_is_declared_reaches_the_broker_and_is_reported() {
    let (api, broker) = (api(), FakeBroker::default());

    let report = exchange(&api, &broker, &[queue("a"), queue("b")]).await;

    assert_eq!(broker.addresses(), ["queue/shop/a", "queue/shop/b"]);
    let answer = report.answer().unwrap();
    assert_eq!((answer.revision, answer.version.as_str()), (1, "0.1.0"));
    assert!(answer.objects["queue/shop/a"].applied);
    assert_eq!(report.frozen, None);
}

#[tokio::test]
async fn a_queue_that_is_certainly_gone_is_removed() {
    let (api, broker) = (api(), FakeBroker::default());
    broker.holds("queue/shop/gone", "u");

    let report = exchange(&api, &broker, &[]).await;

    assert_eq!(broker.addresses(), [""; 0]);
    assert_eq!(report.frozen, None);
}

#[tokio::test]
async fn nothing_is_removed_while_it_is_not_certain_that_it_is_gone() {
    let definition = format!("{DEFINITIONS}/queues.millrace.dev");
    let queues = format!("{NAMESPACE}/queues");
    let main = format!("{NAMESPACE}/brokerclusters/main");
    let leaving = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    let another = json!({ "metadata": { "uid": "another" } });
    let mut leaving_cluster = leaving.clone();
    leaving_cluster["metadata"]["uid"] = json!(CLUSTER_UID);
    let refused = failure(403, "Forbidden", "no right");
    let broken = failure(500, "InternalError", "broken");
    let young = json!({ "metadata": { "creationTimestamp": Timestamp::now().to_string() } });
    for (story, path, code, answer) in [
        ("the definition was made again", &definition, 200, young),
        (
            "the definition is gone",
            &definition,
            404,
            failure(404, "NotFound", "gone"),
        ),
        ("the definition is going", &definition, 200, leaving),
        ("the list is refused", &queues, 403, refused.clone()),
        ("the list fails", &queues, 500, broken),
        (
            "the kind is not served",
            &queues,
            404,
            failure(404, "NotFound", "no such kind"),
        ),
        (
            "the cluster is gone",
            &main,
            404,
            failure(404, "NotFound", "gone"),
        ),
        ("the cluster is going", &main, 200, leaving_cluster),
        ("the cluster is another one", &main, 200, another),
    ] {
        let (api, broker) = (api(), FakeBroker::default());
        broker.holds("queue/shop/gone", "u");
        api.answer(Method::GET, path, code, answer);

        let report = exchange(&api, &broker, &[queue("new")]).await;

        // What is new goes through all the same.
        assert_eq!(
            broker.addresses(),
            ["queue/shop/gone", "queue/shop/new"],
            "{story}"
        );
        assert!(report.frozen.is_some(), "{story}");
    }
}

#[tokio::test]
async fn a_queue_that_only_the_watch_has_not_seen_yet_stays() {
    let (api, broker) = (api(), FakeBroker::default());
    broker.holds("queue/shop/new", "uid-new");
    api.has(
        &format!("{NAMESPACE}/queues"),
        list_of_queues(&[queue("new")]),
    );

    exchange(&api, &broker, &[]).await;

    assert_eq!(broker.addresses(), ["queue/shop/new"]);
}

#[tokio::test]
async fn without_the_right_to_see_definitions_nothing_is_removed_at_once() {
    let (api, broker) = (api(), FakeBroker::default());
    broker.holds("queue/shop/gone", "u");
    let path = format!("{DEFINITIONS}/brokerclusters.millrace.dev");
    api.answer(
        Method::GET,
        &path,
        403,
        failure(403, "Forbidden", "no right"),
    );

    exchange(&api, &broker, &[]).await;

    assert_eq!(broker.addresses(), ["queue/shop/gone"]);
}

#[tokio::test]
async fn one_refused_object_does_not_hold_up_the_others() {
    let (api, broker) = (api(), FakeBroker::default());
    let queues = ["a", "b", "refused", "c", "d"].map(queue);

    let report = exchange(&api, &broker, &queues).await;

    let applied = [
        "queue/shop/a",
        "queue/shop/b",
        "queue/shop/c",
        "queue/shop/d",
    ];
    assert_eq!(broker.addresses(), applied);
    let refused: Vec<&String> = report.refused.keys().collect();
    assert_eq!(refused, ["queue/shop/refused"]);
}

#[tokio::test]
async fn a_broker_that_cannot_be_asked_is_a_report_not_an_error() {
    let without_pod = api();
    without_pod.has("/api/v1/namespaces/shop/pods", list("v1", "PodList", &[]));
    let without_token = api();
    let empty = json!({ "metadata": {}, "data": {} });
    without_token.has("/api/v1/namespaces/shop/secrets/main-control", empty);
    let wrong_token = api();
    let wrong = json!({ "metadata": {}, "data": { "token": "d3Jvbmc=" } });
    wrong_token.has("/api/v1/namespaces/shop/secrets/main-control", wrong);
    let foreign_pod = api();
    let pods = list("v1", "PodList", &[pod("main-0", "ReplicaSet")]);
    foreign_pod.has("/api/v1/namespaces/shop/pods", pods);
    for (api, expected) in [
        (without_pod, reasons::BROKER_UNAVAILABLE),
        (foreign_pod, reasons::BROKER_UNAVAILABLE),
        (without_token, reasons::CONTROL_TOKEN_MISSING),
        (wrong_token, reasons::BROKER_UNAVAILABLE),
    ] {
        let report = exchange(&api, &FakeBroker::default(), &[]).await;

        match &report.broker {
            Broker::Unavailable { reason, .. } => assert_eq!(*reason, expected),
            Broker::Answered(_) => panic!("the broker answered, though {expected}"),
        }
    }
}

#[test]
fn without_the_right_to_see_definitions_an_absence_has_to_last() {
    let absences = Absences::default();
    let key = ClusterKey::new("a", "c");
    let gone = |name: &str| Candidate {
        address: name.to_owned(),
        uid: "u".to_owned(),
    };
    let start = Instant::now();
    let later = start + ABSENCE_MIN;

    assert_eq!(absences.long(&key, &[gone("x"), gone("y")], start), []);
    // y came back in between and went again.
    assert_eq!(absences.long(&key, &[gone("x")], start), []);
    let long = absences.long(&key, &[gone("x"), gone("y")], later);
    assert_eq!(long, [gone("x")]);
}

#[tokio::test]
async fn what_came_back_in_between_has_to_be_absent_for_long_again() {
    let api = api();
    let definition = format!("{DEFINITIONS}/brokerclusters.millrace.dev");
    let refused = failure(403, "Forbidden", "no right");
    api.answer(Method::GET, &definition, 403, refused);
    let (context, _listeners) = context(&api, 1, &[]);
    let key = ClusterKey::new("shop", "main");
    let gone = vec![Candidate {
        address: "queue/shop/gone".to_owned(),
        uid: "u".to_owned(),
    }];
    let long_ago = Instant::now().checked_sub(ABSENCE_MIN).unwrap();
    assert_eq!(context.absences.long(&key, &gone, long_ago), []);

    let back = confirmed(&context, &key, CLUSTER_UID, Vec::new()).await;
    let removed = confirmed(&context, &key, CLUSTER_UID, gone).await;

    assert_eq!(back.unwrap(), []);
    assert_eq!(removed.unwrap(), []);
}

#[tokio::test]
async fn a_limit_keeps_out_what_is_beyond_it_and_nothing_else() {
    let (api, broker) = (api(), FakeBroker::default());
    broker.limit(3);
    let queues = ["a", "b", "c", "d", "e"].map(queue);

    let report = exchange(&api, &broker, &queues).await;

    assert_eq!(broker.addresses().len(), 3);
    assert_eq!(report.answer().unwrap().objects.len(), 3);
    assert_eq!(report.refused.len(), 2);
}

#[tokio::test]
async fn a_topology_that_changed_in_between_is_looked_at_again_at_once() {
    let (api, broker) = (api(), FakeBroker::default());
    broker.is_changed_in_between();

    let report = exchange(&api, &broker, &[queue("a")]).await;

    assert!(report.answer().is_some(), "{report:?}");
    assert_eq!(broker.addresses(), ["queue/shop/a"]);
}

#[tokio::test]
async fn many_refused_objects_do_not_make_an_exchange_without_end_and_hold_up_no_other() {
    let (api, broker) = (api(), FakeBroker::default());
    let mut queues: Vec<Value> = (0..2 * exchange::CALLS_MAX)
        .map(|n| queue(&format!("refused-{n:04}")))
        .collect();
    queues.push(queue("taken"));
    let port = broker.serve().await;
    let (context, _listeners) = context(&api, port, &queues);
    let context = Arc::new(context);
    let key = ClusterKey::new("shop", "main");
    let cached = context.stores.clusters.get(&key.object_ref()).unwrap();

    // Each exchange finds some of them; what is found comes last from then on.
    for exchanges in 1.. {
        reconcile(Arc::clone(&cached), Arc::clone(&context))
            .await
            .unwrap();
        assert!(broker.deltas() <= exchanges * exchange::CALLS_MAX);
        let report = context.reports.of(&key).unwrap();
        if report.answer().unwrap().objects.len() == 1 {
            break;
        }
        assert!(!report.is_settled());
        assert!(exchanges < 10, "{} refused", report.refused.len());
    }
}

#[tokio::test]
async fn a_broker_that_does_not_get_on_is_asked_ever_less_often() {
    let (context, _listeners) = context(&api(), 1, &[]);
    let key = ClusterKey::new("shop", "main");
    let report = |revision, applied_revision| Report {
        broker: Broker::Answered(Answer {
            revision,
            applied_revision,
            ..Answer::default()
        }),
        sent: revision,
        serves: true,
        refused: BTreeMap::new(),
        unsent: 0,
        resent_at: None,
        frozen: None,
    };
    let stuck = report(2, 1);
    let waits = |before: &Report, after: &Report| wait(&context, &key, Some(before), after);

    let first = waits(&report(1, 1), &stuck);
    let later: Vec<Duration> = (0..10).map(|_| waits(&stuck, &stuck)).collect();
    let gets_on = waits(&stuck, &report(3, 2));
    let done = waits(&stuck, &report(2, 2));

    assert!(first < Duration::from_secs(1), "{first:?}");
    assert!(later[9] > Duration::from_secs(5), "{later:?}");
    assert!(later[9] <= UNSETTLED_MAX, "{later:?}");
    assert!(gets_on < Duration::from_secs(1), "{gets_on:?}");
    assert_eq!(done, RESYNC);
}

#[tokio::test]
async fn another_broker_is_asked_when_the_first_is_silent() {
    let (api, broker) = (api(), FakeBroker::default());
    let mut silent = pod("main-0", "StatefulSet");
    // The broker listens at another address of this machine.
    silent["status"]["podIP"] = json!("127.0.0.2");
    let answering = pod("main-1", "StatefulSet");
    api.has(
        "/api/v1/namespaces/shop/pods",
        list("v1", "PodList", &[silent, answering]),
    );

    let report = exchange(&api, &broker, &[queue("a")]).await;

    assert!(report.is_settled());
    assert_eq!(broker.addresses(), ["queue/shop/a"]);
}

#[tokio::test]
async fn a_broker_that_encodes_otherwise_is_sent_everything_anew_only_once() {
    let (api, broker) = (api(), FakeBroker::default());
    broker.encodes_otherwise();
    broker.holds("queue/shop/a", "uid-a");
    let port = broker.serve().await;
    let (context, _listeners) = context(&api, port, &[queue("a")]);
    let context = Arc::new(context);
    let key = ClusterKey::new("shop", "main");
    let cached = context.stores.clusters.get(&key.object_ref()).unwrap();

    for _ in 0..3 {
        reconcile(Arc::clone(&cached), Arc::clone(&context))
            .await
            .unwrap();
    }

    assert_eq!(broker.deltas(), 1);
}

#[tokio::test]
async fn a_broker_that_shows_a_delta_late_is_looked_at_until_it_does() {
    let (api, broker) = (api(), FakeBroker::default());
    broker.shows_late(2);

    let report = exchange(&api, &broker, &[queue("a")]).await;

    assert!(report.is_settled());
    assert!(report.answer().unwrap().objects["queue/shop/a"].applied);
}

#[tokio::test]
async fn what_no_answer_shows_yet_is_not_settled_and_looked_at_again_soon() {
    let (api, broker) = (api(), FakeBroker::default());
    broker.shows_late(SETTLING_MS.len() + 2);
    let port = broker.serve().await;
    let (context, _listeners) = context(&api, port, &[queue("a")]);
    let context = Arc::new(context);
    let key = ClusterKey::new("shop", "main");
    let cached = context.stores.clusters.get(&key.object_ref()).unwrap();
    let round = || reconcile(Arc::clone(&cached), Arc::clone(&context));

    round().await.unwrap();
    let late = context.reports.of(&key).unwrap();
    let again = wait(&context, &key, None, &late);
    round().await.unwrap();
    let shown = context.reports.of(&key).unwrap();

    assert_eq!((late.answer().unwrap().revision, late.sent), (0, 1));
    assert!(!late.is_settled());
    assert!(again < Duration::from_secs(1), "{again:?}");
    assert!(shown.is_settled());
    assert_eq!(broker.deltas(), 1);
}

#[tokio::test]
async fn brokers_that_went_back_to_an_older_topology_are_believed_the_second_time() {
    let (api, broker) = (api(), FakeBroker::default());
    let port = broker.serve().await;
    let (context, _listeners) = context(&api, port, &[queue("a")]);
    let context = Arc::new(context);
    let key = ClusterKey::new("shop", "main");
    let cached = context.stores.clusters.get(&key.object_ref()).unwrap();
    let mut before = Report::unavailable(reasons::BROKER_UNAVAILABLE, "");
    before.broker = Broker::Answered(Answer {
        revision: 7,
        ..Answer::default()
    });
    context.reports.put(key.clone(), Arc::new(before));
    let round = || reconcile(Arc::clone(&cached), Arc::clone(&context));

    round().await.unwrap();
    let doubted = context.reports.of(&key).unwrap();
    round().await.unwrap();
    let believed = context.reports.of(&key).unwrap();

    assert!(doubted.answer().is_none());
    assert!(believed.is_settled());
    assert_eq!(broker.addresses(), ["queue/shop/a"]);
}
