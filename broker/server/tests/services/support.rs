//! Builders and helpers; tests assert.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use millrace_proto::v1;
use millrace_proto::v1::admin_client::AdminClient;
use millrace_proto::v1::cluster_client::ClusterClient;
use millrace_proto::v1::consumer_client::ConsumerClient;
use millrace_proto::v1::publisher_client::PublisherClient;
use millrace_proto::v1::stream_reader_client::StreamReaderClient;
use millrace_server::{Config, Running, Server};
use prost::Message as _;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// What everything here may take; more is a failure.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// Frames a test sends ahead.
const FRAMES: usize = 64;

/// A node on free ports with its own data directory.
pub(crate) struct Node {
    running: Option<Running>,
    config: Config,
    pub(crate) dir: TempDir,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::local(dir.path().join("data"));
        config.shards = 2;
        config.drain_timeout = Duration::from_secs(3);
        config.memory_limit = Some(64 << 20);
        change(&mut config);
        let running = Some(within(Server::start(config.clone())).await.unwrap());
        Self {
            running,
            config,
            dir,
        }
    }

    /// A node with these objects declared and applied.
    pub(crate) async fn declaring(objects: Vec<v1::TopologyObject>) -> Self {
        let node = Self::start().await;
        node.declare(objects).await;
        node
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            within(running.stop()).await;
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.running = Some(within(Server::start(self.config.clone())).await.unwrap());
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Takes the node out, to stop it while the test goes on.
    pub(crate) fn take(&mut self) -> Running {
        self.running.take().unwrap()
    }

    pub(crate) async fn clients(&self) -> Channel {
        channel(self.running().addresses().clients.to_string()).await
    }

    pub(crate) async fn publisher(&self) -> PublisherClient<Channel> {
        PublisherClient::new(self.clients().await)
    }

    pub(crate) async fn consumer(&self) -> ConsumerClient<Channel> {
        ConsumerClient::new(self.clients().await)
    }

    pub(crate) async fn reader(&self) -> StreamReaderClient<Channel> {
        StreamReaderClient::new(self.clients().await)
    }

    pub(crate) async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.clients().await)
    }

    pub(crate) async fn cluster(&self) -> ClusterClient<Channel> {
        let address = self.running().addresses().control;
        ClusterClient::new(channel(address.to_string()).await)
    }

    /// Applies a delta and waits until every shard has it.
    pub(crate) async fn declare(&self, upserts: Vec<v1::TopologyObject>) {
        let mut cluster = self.cluster().await;
        let base_revision = topology(&mut cluster).await.revision;
        let request = v1::ApplyTopologyRequest {
            base_revision,
            upserts,
            ..Default::default()
        };
        let revision = cluster
            .apply_topology(request)
            .await
            .unwrap()
            .into_inner()
            .revision;
        eventually("the topology is applied", || {
            let mut cluster = cluster.clone();
            async move { topology(&mut cluster).await.applied_revision >= revision }
        })
        .await;
    }

    pub(crate) async fn publish(&self, address: &str, messages: Vec<v1::Message>) {
        let mut publisher = self.publisher().await;
        let response = publisher
            .publish(publish_request(address, messages))
            .await
            .unwrap();
        for result in response.into_inner().results {
            acknowledged(&result);
        }
    }

    pub(crate) async fn receive(&self, address: &str, messages_max: u32) -> Vec<v1::Delivery> {
        let mut consumer = self.consumer().await;
        let request = receive_request(address, messages_max);
        let response = within(consumer.receive(request)).await.unwrap();
        response.into_inner().deliveries
    }

    /// Whether there is nothing to receive.
    pub(crate) async fn receive_none(&self, address: &str) -> bool {
        let request = v1::ReceiveRequest {
            wait: None,
            ..receive_request(address, 1)
        };
        let response = within(self.consumer().await.receive(request))
            .await
            .unwrap();
        response.into_inner().deliveries.is_empty()
    }

    /// An HTTP GET on the metrics port: status line and body.
    pub(crate) async fn get(&self, path: &str) -> (String, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let address = self.running().addresses().metrics;
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(socket.read_to_string(&mut answer)).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }
}

pub(crate) async fn channel(address: String) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    within(endpoint.connect()).await.unwrap()
}

pub(crate) async fn topology(cluster: &mut ClusterClient<Channel>) -> v1::TopologyState {
    let metadata = cluster.metadata(v1::MetadataRequest {}).await.unwrap();
    metadata.into_inner().topology.unwrap()
}

/// Waits for a future, with a limit.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("it takes too long")
}

/// Waits until a condition holds, with a limit.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let mut look = interval(Duration::from_millis(10));
    let wait = async {
        while !holds().await {
            look.tick().await;
        }
    };
    assert!(timeout(LIMIT, wait).await.is_ok(), "never: {what}");
}

/// A client's half of a stream: frames go in, the stream reads them.
pub(crate) fn frames<T>() -> (mpsc::Sender<T>, ReceiverStream<T>) {
    let (sender, receiver) = mpsc::channel(FRAMES);
    (sender, ReceiverStream::new(receiver))
}

/// The next reply of a stream.
pub(crate) async fn next<T>(replies: &mut Streaming<T>) -> T {
    within(replies.message())
        .await
        .unwrap()
        .expect("the stream has ended")
}

/// The error a stream ends with; replies before it are passed over.
pub(crate) async fn ending<T>(replies: &mut Streaming<T>) -> Status {
    let end = async {
        loop {
            match replies.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without an error"),
                Err(status) => return status,
            }
        }
    };
    within(end).await
}

/// The one detail of a status.
pub(crate) fn detail(status: &Status) -> v1::Error {
    let rich = tonic_types::pb::Status::decode(status.details()).unwrap();
    assert_eq!(rich.code, status.code() as i32);
    assert_eq!(rich.details.len(), 1, "{status:?} has one detail");
    assert_eq!(
        rich.details[0].type_url,
        "type.googleapis.com/millrace.v1.Error"
    );
    v1::Error::decode(rich.details[0].value.as_slice()).unwrap()
}

/// Asserts how a call failed, detail included.
pub(crate) fn assert_refused<T: Debug>(
    result: Result<T, Status>,
    code: Code,
    reason: &str,
) -> v1::Error {
    let status = result.expect_err("it was taken");
    assert_eq!(status.code(), code, "{status:?}");
    let error = detail(&status);
    assert_eq!(error.reason, reason, "{error:?}");
    assert_eq!(error.applied(), v1::Applied::NotApplied);
    assert!(!error.message.is_empty());
    error
}

pub(crate) fn acknowledged(result: &v1::PublishResult) -> v1::Acknowledgement {
    match &result.outcome {
        Some(v1::publish_result::Outcome::Acknowledged(acknowledgement)) => *acknowledgement,
        other => panic!("not acknowledged: {other:?}"),
    }
}

pub(crate) fn refused(result: &v1::PublishResult) -> &v1::Error {
    match &result.outcome {
        Some(v1::publish_result::Outcome::Refused(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn message(payload: &str) -> v1::Message {
    v1::Message {
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        ..Default::default()
    }
}

pub(crate) fn keyed(key: &str, payload: &str) -> v1::Message {
    v1::Message {
        key: key.to_owned(),
        ..message(payload)
    }
}

pub(crate) fn payload(message: &Option<v1::Message>) -> String {
    let payload = &message.as_ref().expect("there is a message").payload;
    String::from_utf8(payload.to_vec()).unwrap()
}

pub(crate) fn payloads(deliveries: &[v1::Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|delivery| payload(&delivery.message))
        .collect()
}

pub(crate) fn batch(messages: &[v1::Message]) -> v1::RecordBatch {
    let mut records = Vec::new();
    for message in messages {
        message.encode_length_delimited(&mut records).unwrap();
    }
    v1::RecordBatch {
        count: u32::try_from(messages.len()).unwrap(),
        crc32c: crc32c::crc32c(&records),
        records: records.into(),
        codec: v1::record_batch::Codec::None.into(),
        ..v1::RecordBatch::default()
    }
}

pub(crate) fn publish_request(address: &str, messages: Vec<v1::Message>) -> v1::PublishRequest {
    v1::PublishRequest {
        address: address.to_owned(),
        messages,
        batches: Vec::new(),
        ..v1::PublishRequest::default()
    }
}

pub(crate) fn receive_request(address: &str, messages_max: u32) -> v1::ReceiveRequest {
    v1::ReceiveRequest {
        address: address.to_owned(),
        messages_max,
        wait: Some(seconds(10)),
        ..Default::default()
    }
}

pub(crate) fn settlement(
    outcome: v1::settlement::Outcome,
    deliveries: &[v1::Delivery],
) -> v1::Settlement {
    v1::Settlement {
        tags: deliveries
            .iter()
            .map(|delivery| delivery.tag.clone())
            .collect(),
        outcome: outcome.into(),
        ..Default::default()
    }
}

pub(crate) const fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// A queue with defaults, `queue/test/NAME`.
pub(crate) fn queue(name: &str) -> v1::TopologyObject {
    queue_with(name, |_| {})
}

pub(crate) fn queue_with(
    name: &str,
    change: impl FnOnce(&mut v1::QueueSpec),
) -> v1::TopologyObject {
    let mut spec = v1::QueueSpec {
        bindings: Vec::new(),
        delivery: Some(v1::queue_spec::Delivery {
            ack_deadline: Some(seconds(30)),
            max_in_flight: 1000,
            max_deliveries: 3,
            backoff: Some(v1::queue_spec::Backoff {
                initial: Some(seconds(0)),
                max: Some(seconds(0)),
                factor_milli: 1000,
            }),
        }),
        limits: Some(v1::QueueLimits {
            max_messages: 0,
            max_bytes: 0,
            max_message_bytes: 1 << 20,
        }),
        dead_letter: None,
        deletion_policy: v1::DeletionPolicy::Orphan.into(),
        dedup_window: None,
        replication: None,
    };
    change(&mut spec);
    object(
        format!("queue/test/{name}"),
        v1::topology_object::Spec::Queue(spec),
    )
}

/// A topic with defaults, `topic/test/NAME`.
pub(crate) fn topic(name: &str, partitions: u32) -> v1::TopologyObject {
    let spec = v1::TopicSpec {
        partitions,
        retention: None,
        max_message_bytes: 1 << 20,
        deletion_policy: v1::DeletionPolicy::Orphan.into(),
        dedup_window: None,
        replication: None,
    };
    object(
        format!("topic/test/{name}"),
        v1::topology_object::Spec::Topic(spec),
    )
}

fn object(address: String, spec: v1::topology_object::Spec) -> v1::TopologyObject {
    v1::TopologyObject {
        uid: format!("uid-{address}"),
        address,
        generation: 1,
        spec: Some(spec),
    }
}
