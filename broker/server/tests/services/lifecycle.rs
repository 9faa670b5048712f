//! Starting, being healthy, stopping, starting again.

use std::fs;
use std::time::Duration;

use millrace_proto::v1;
use millrace_proto::v1::settlement::Outcome;
use millrace_server::{Config, Server, StartError, exit};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::{
    Node, assert_refused, eventually, frames, message, next, payloads, publish_request, queue,
    receive_request, settlement, topic, topology, within,
};

const QUEUE: &str = "queue/test/q";

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_restart() {
    let mut node = Node::declaring(vec![queue("q"), topic("t", 2)]).await;
    node.publish(QUEUE, (0..10).map(|n| message(&n.to_string())).collect())
        .await;
    node.publish("topic/test/t", vec![message("kept")]).await;
    let settled = node.receive(QUEUE, 4).await;
    let settle = v1::SettleRequest {
        address: QUEUE.to_owned(),
        settlements: vec![
            settlement(Outcome::Accept, &settled[..3]),
            settlement(Outcome::Retry, &settled[3..]),
        ],
    };
    node.consumer().await.settle(settle).await.unwrap();
    let before = topology(&mut node.cluster().await).await;

    node.restart().await;
    assert_eq!(topology(&mut node.cluster().await).await, before);
    let rest = node.receive(QUEUE, 100).await;
    assert_eq!(payloads(&rest), ["3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!((rest[0].attempts, rest[0].acquired), (1, 2));
    let mut kept = 0;
    for partition in 0..2 {
        let read = v1::ReadRequest {
            address: "topic/test/t".to_owned(),
            partition,
            ..Default::default()
        };
        let answer = node.reader().await.read(read).await.unwrap().into_inner();
        kept += answer.messages.len();
    }
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn health_is_told_over_http_and_grpc_until_the_drain() {
    let mut node = Node::declaring(vec![queue("q")]).await;
    assert_eq!(node.get("/livez").await.0, "HTTP/1.1 200 OK");
    assert_eq!(node.get("/readyz").await.0, "HTTP/1.1 200 OK");
    let (status, metrics) = node.get("/metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    for name in [
        "millrace_node_serving 1.0",
        "millrace_journal_fsyncs_total",
        r#"millrace_queue_ready_messages{namespace="test",name="q",part="queue"}"#,
    ] {
        assert!(metrics.contains(name), "no {name} in {metrics}");
    }

    let mut health = HealthClient::new(node.clients().await);
    let service = "millrace.v1.Publisher".to_owned();
    let request = HealthCheckRequest { service };
    let now = health.check(request.clone()).await.unwrap().into_inner();
    assert_eq!(now.status(), ServingStatus::Serving);
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await.status(), ServingStatus::Serving);

    // A stream that stays open holds the drain long enough to look.
    let (sender, outbound) = frames::<v1::PublishFrame>();
    let mut replies = node
        .publisher()
        .await
        .publish_stream(outbound)
        .await
        .unwrap()
        .into_inner();
    next(&mut replies).await;
    let address = node.running().addresses().metrics;
    let stopping = tokio::spawn(node.take().stop());
    let told: HealthCheckResponse = next(&mut watch).await;
    assert_eq!(told.status(), ServingStatus::NotServing);
    let body = http_get(address, "/readyz").await;
    assert!(
        body.starts_with("HTTP/1.1 503") && body.contains("draining"),
        "{body}"
    );
    assert!(
        http_get(address, "/livez")
            .await
            .starts_with("HTTP/1.1 200")
    );
    drop((sender, watch));
    within(stopping).await.unwrap();
}

pub(crate) async fn http_get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(socket.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn a_drain_refuses_new_calls_on_open_connections_and_ends_waiting_ones() {
    let mut node = Node::declaring(vec![queue("q")]).await;
    let mut consumer = node.consumer().await;
    let mut waiting_consumer = consumer.clone();
    let waiting =
        tokio::spawn(async move { waiting_consumer.receive(receive_request(QUEUE, 1)).await });
    eventually("the receive waits", || async {
        node.get("/metrics")
            .await
            .1
            .contains("millrace_waiting_receives 1.0")
    })
    .await;
    within(node.take().stop()).await;
    let ended = within(waiting).await.unwrap();
    match ended {
        Ok(response) => assert_eq!(response.into_inner().deliveries, []),
        Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
    }
    let refused = within(consumer.receive(receive_request(QUEUE, 1)))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_client_that_does_not_go_is_ended_and_told_what_is_unknown() {
    let mut node = Node::with(|config| config.drain_timeout = Duration::from_millis(100)).await;
    let (sender, outbound) = frames::<v1::PublishFrame>();
    let mut replies = node
        .publisher()
        .await
        .publish_stream(outbound)
        .await
        .unwrap()
        .into_inner();
    next(&mut replies).await;
    within(node.take().stop()).await;
    let status = crate::support::ending(&mut replies).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let error = crate::support::detail(&status);
    assert_eq!(
        (error.reason.as_str(), error.applied()),
        ("DRAINING", v1::Applied::NotApplied)
    );
    drop(sender);
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_nothing_behind() {
    let node = Node::start().await;
    let dir = tempfile::tempdir().unwrap();
    let local = || Config::local(dir.path().join("data"));

    let mut taken = local();
    taken.listen = node.running().addresses().clients;
    let error = Server::start(taken).await.unwrap_err();
    assert_eq!(error.exit_code(), exit::LISTEN);
    assert!(error.to_string().contains("127.0.0.1"), "{error}");

    let mut locked = local();
    locked.data_dir = node.dir.path().join("data");
    let error = Server::start(locked).await.unwrap_err();
    assert_eq!(error.exit_code(), exit::DATA_DIR_LOCKED, "{error}");

    let blocker = dir.path().join("file");
    fs::write(&blocker, "x").unwrap();
    let mut unreadable = local();
    unreadable.data_dir = blocker.join("data");
    let error = Server::start(unreadable).await.unwrap_err();
    assert_eq!(error.exit_code(), exit::DATA_DIR, "{error}");

    let mut shards = local();
    shards.shards = 1;
    let error = Server::start(shards).await.unwrap_err();
    assert_eq!(error.exit_code(), exit::USAGE, "{error}");
}

#[tokio::test]
async fn a_data_directory_of_another_cluster_is_refused() {
    let mut node = Node::with(|config| config.cluster_id = Some("one".to_owned())).await;
    node.stop().await;
    let mut other = Config::local(node.dir.path().join("data"));
    other.shards = 2;
    other.cluster_id = Some("two".to_owned());
    let error = Server::start(other).await.unwrap_err();
    assert_eq!(error.exit_code(), exit::DATA_DIR_FOREIGN, "{error}");
    let text = millrace_server::report(&error);
    assert!(text.contains("one") && text.contains("two"), "{text}");
}

const TOPOLOGY: &str = "\
apiVersion: millrace.dev/v1alpha1
kind: Topic
metadata: {name: orders, namespace: test}
spec: {partitions: 2}
---
apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata: {name: q, namespace: test}
spec:
  bindings:
  - topic: {name: orders}
    subject: orders.#
";

#[tokio::test]
async fn a_topology_file_is_the_whole_truth_at_each_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("topology.yaml");
    fs::write(&file, TOPOLOGY).unwrap();
    let mut node = Node::with(|config| config.topology = Some(file.clone())).await;
    let first = topology(&mut node.cluster().await).await;
    assert_eq!(first.revision, first.applied_revision);
    assert_eq!(first.objects.len(), 2);
    let routed = v1::Message {
        subject: "orders.eu".to_owned(),
        ..message("routed")
    };
    node.publish("topic/test/orders", vec![routed]).await;
    assert_eq!(payloads(&node.receive(QUEUE, 1).await), ["routed"]);

    node.restart().await;
    assert_eq!(topology(&mut node.cluster().await).await, first);

    let changed = TOPOLOGY
        .replace("name: q,", "name: r,")
        .replace("partitions: 2", "partitions: 3");
    fs::write(&file, changed).unwrap();
    node.restart().await;
    let second = topology(&mut node.cluster().await).await;
    let state = |address: &str| {
        let object = second
            .objects
            .iter()
            .find(|object| object.address == address);
        object.map(|object| (object.generation, object.orphaned))
    };
    assert_eq!(state("topic/test/orders"), Some((2, false)));
    assert_eq!(state("queue/test/r"), Some((1, false)));
    assert_eq!(state(QUEUE), Some((1, true)));

    fs::write(&file, TOPOLOGY.replace("partitions: 2", "partitions: 3")).unwrap();
    node.restart().await;
    let third = topology(&mut node.cluster().await).await;
    let back = third
        .objects
        .iter()
        .find(|object| object.address == QUEUE)
        .unwrap();
    assert!(!back.orphaned, "an orphan returns with its resource");
}

#[tokio::test]
async fn the_longest_names_can_be_declared_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("topology.yaml");
    let (namespace, name) = ("n".repeat(63), "q".repeat(63));
    let text = TOPOLOGY.replace("namespace: test", &format!("namespace: {namespace}"));
    fs::write(&file, text.replace("name: q,", &format!("name: {name},"))).unwrap();
    let node = Node::with(|config| config.topology = Some(file)).await;
    let address = format!("queue/{namespace}/{name}");
    node.publish(&address, vec![message("a")]).await;
    assert_eq!(payloads(&node.receive(&address, 1).await), ["a"]);
}

#[tokio::test]
async fn a_wrong_topology_file_is_refused_with_line_and_field() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("topology.yaml");
    fs::write(&file, TOPOLOGY.replace("partitions: 2", "partitions: 0")).unwrap();
    let mut config = Config::local(dir.path().join("data"));
    config.topology = Some(file.clone());
    let error = Server::start(config).await.unwrap_err();
    assert_eq!(error.exit_code(), exit::TOPOLOGY);
    assert!(matches!(error, StartError::Topology(_)));
    let text = millrace_server::report(&error);
    for part in [file.to_str().unwrap(), "spec.partitions", "orders"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[tokio::test]
async fn the_ready_file_holds_the_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ready.json");
    let node = Node::with(|config| config.ready_file = Some(file.clone())).await;
    let text = fs::read_to_string(&file).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let clients = node.running().addresses().clients.to_string();
    assert_eq!(json["clients"], clients.as_str());
}

#[tokio::test]
async fn calls_are_refused_while_draining() {
    let mut node = Node::declaring(vec![queue("q")]).await;
    let mut publisher = node.publisher().await;
    let (sender, outbound) = frames::<v1::PublishFrame>();
    let mut replies = publisher
        .clone()
        .publish_stream(outbound)
        .await
        .unwrap()
        .into_inner();
    next(&mut replies).await;
    let stopping = tokio::spawn(node.take().stop());
    next(&mut replies).await;
    // The connection has been told to go away: the call finds nobody, or a refusal.
    let late = within(publisher.publish(publish_request(QUEUE, vec![message("late")]))).await;
    match late {
        Err(status) if status.details().is_empty() => {
            let lost = matches!(status.code(), Code::Unavailable | Code::Cancelled);
            assert!(lost, "{status:?}");
        }
        late => {
            assert_refused(late, Code::Unavailable, "DRAINING");
        }
    }
    drop(sender);
    within(stopping).await.unwrap();
}
