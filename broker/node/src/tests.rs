//! A node on a real disk, from the handle's side: what is promised to clients, also over
//! restarts.

mod cluster;
mod consumers;
mod crashes;
mod damage;
mod dedup;
mod flow;
mod founding;
mod host;
mod leadership;
mod limits;
mod moving;
mod older;
mod restart;
mod simulated;
mod sweep;
mod unsent;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_engine::catalogue::{
    Declared, DeclaredBinding, DeclaredDeadLetter, DeclaredLimits, DeclaredQueue, DeclaredSpec,
    DeclaredTopic, DeletionPolicy, Removed, ShardClass,
};
use millrace_engine::command::{Settle, Window};
use millrace_engine::spec::{Filter, PartitionSpec};
use millrace_proto::v1::Message;
use millrace_storage::JournalOptions;
use millrace_storage::records::push_record;
use millrace_types::{Address, Refusal};
use prost::Message as _;
use tempfile::TempDir;

use super::{
    Acknowledged, Alone, Batch, Broker, CatalogueView, Consumer, ConsumerEvent, ConsumerEvents,
    Credit, Delivered, NodeOptions, OpenConsumer, PublishOptions, Receive, SettleTag,
    TopologyDelta,
};

/// Longer than anything takes, shorter than a person's patience.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker on a directory of its own.
struct Running {
    broker: Broker,
    options: NodeOptions,
    dir: TempDir,
}

fn options(dir: &TempDir) -> NodeOptions {
    options_at(dir.path())
}

fn options_at(path: impl Into<PathBuf>) -> NodeOptions {
    NodeOptions {
        shards: 2,
        workers: 2,
        disk_reserve_bytes: 0,
        journal: JournalOptions {
            file_bytes: 256 << 10,
            ..JournalOptions::default()
        },
        ..NodeOptions::new(path)
    }
}

fn running() -> Running {
    running_with(|_| {})
}

fn running_with(change: impl FnOnce(&mut NodeOptions)) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(&dir);
    change(&mut options);
    let broker = Broker::start(options.clone()).unwrap();
    Running {
        broker,
        options,
        dir,
    }
}

impl Running {
    /// Stops as `kill -9` does, and starts again.
    async fn killed(self) -> Self {
        let Self {
            broker,
            options,
            dir,
        } = self;
        broker.abort().await;
        let broker = Broker::start(options.clone()).unwrap();
        Self {
            broker,
            options,
            dir,
        }
    }

    /// Stops as SIGTERM does, and starts again.
    async fn restarted(self) -> Self {
        let Self {
            broker,
            options,
            dir,
        } = self;
        broker.drain().await;
        drop(broker);
        let broker = Broker::start(options.clone()).unwrap();
        Self {
            broker,
            options,
            dir,
        }
    }

    /// Declares objects and waits until every shard knows them.
    async fn declare(&self, upserts: Vec<Declared>) {
        self.change(upserts, Vec::new()).await;
    }

    async fn change(&self, upserts: Vec<Declared>, removals: Vec<Removed>) {
        let base_revision = self.broker.metadata().await.unwrap().revision;
        let delta = TopologyDelta {
            cluster_id: None,
            base_revision,
            upserts,
            removals,
        };
        let revision = self.broker.apply_topology(delta).await.unwrap();
        self.applied(revision).await;
    }

    async fn applied(&self, revision: u64) -> Arc<CatalogueView> {
        let mut view = self.broker.catalogue();
        let applied = view.wait_for(|view| view.applied_revision() >= revision);
        in_time(applied).await.unwrap().clone()
    }

    async fn publish(&self, to: &str, texts: &[&str]) -> Acknowledged {
        self.try_publish(to, texts).await.unwrap()
    }

    async fn try_publish(&self, to: &str, texts: &[&str]) -> Result<Acknowledged, Refusal> {
        let messages: Vec<Message> = texts.iter().map(|text| message(text, "")).collect();
        self.try_send(to, &messages).await
    }

    async fn try_send(&self, to: &str, messages: &[Message]) -> Result<Acknowledged, Refusal> {
        let sent = self.broker.publish(&address(to), vec![batch(messages)]);
        in_time(sent).await.remove(0)
    }

    /// Takes up to `count` messages, waiting for the first.
    async fn receive(&self, from: &str, count: u32) -> Vec<Delivered> {
        in_time(self.broker.receive(receive(from, count, PATIENCE / 2)))
            .await
            .unwrap()
    }

    /// Whatever is there now.
    async fn look(&self, from: &str) -> Vec<Delivered> {
        in_time(self.broker.receive(receive(from, 1000, Duration::ZERO)))
            .await
            .unwrap()
    }

    async fn settle(&self, delivered: &[Delivered], settle: Settle) -> Vec<Result<(), Refusal>> {
        let tags = delivered
            .iter()
            .map(|one| settle_tag(one, settle.clone()))
            .collect();
        in_time(self.broker.settle(None, tags)).await
    }

    async fn accept(&self, delivered: &[Delivered]) {
        for result in self.settle(delivered, Settle::Accept).await {
            result.unwrap();
        }
    }

    async fn open(&self, queue: &str, credit: Credit) -> (Consumer, ConsumerEvents) {
        in_time(self.broker.open_consumer(open(queue, credit)))
            .await
            .unwrap()
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it takes too long")
}

/// Waits for something that nobody announces.
async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await; // polls
    }
}

async fn deliveries(events: &mut ConsumerEvents) -> Vec<Delivered> {
    match in_time(events.next()).await {
        Some(ConsumerEvent::Deliveries(delivered)) => delivered,
        other => panic!("deliveries expected, not {other:?}"),
    }
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn message(text: &str, subject: &str) -> Message {
    Message {
        payload: Bytes::copy_from_slice(text.as_bytes()),
        subject: subject.into(),
        ..Message::default()
    }
}

fn batch(messages: &[Message]) -> Batch {
    let mut records = Vec::new();
    for message in messages {
        push_record(&mut records, &message.encode_to_vec());
    }
    let count = messages.len().try_into().unwrap();
    Batch {
        partition: None,
        count,
        records: records.into(),
        dedup: None,
    }
}

/// Waits for room.
fn patient(patience: Duration) -> PublishOptions {
    PublishOptions {
        patience,
        ..PublishOptions::default()
    }
}

fn receive(from: &str, messages_max: u32, wait: Duration) -> Receive {
    Receive {
        address: address(from),
        messages_max,
        bytes_max: 1 << 20,
        wait,
        lease: None,
    }
}

fn open(queue: &str, credit: Credit) -> OpenConsumer {
    OpenConsumer {
        address: address(queue),
        consumer: "test".into(),
        resume: None,
        in_flight: Window {
            messages: 0,
            bytes: 0,
        },
        credit,
    }
}

fn plenty() -> Credit {
    Credit {
        messages: 1_000,
        bytes: 1 << 30,
    }
}

fn settle_tag(delivered: &Delivered, settle: Settle) -> SettleTag {
    SettleTag {
        tag: delivered.tag.clone(),
        settle,
    }
}

fn decoded(delivered: &Delivered) -> Message {
    Message::decode(delivered.message.clone()).unwrap()
}

fn texts(delivered: &[Delivered]) -> Vec<String> {
    let text = |one| String::from_utf8(decoded(one).payload.to_vec()).unwrap();
    delivered.iter().map(text).collect()
}

fn declared(at: &str, spec: DeclaredSpec) -> Declared {
    let wire = format!("{at} {spec:?}").into();
    let uid = format!("uid-{at}");
    Declared {
        address: address(at),
        uid,
        generation: 1,
        wire,
        spec,
    }
}

fn queue(at: &str) -> Declared {
    queue_with(at, |_| {})
}

pub(crate) fn queue_with(at: &str, change: impl FnOnce(&mut DeclaredQueue)) -> Declared {
    let limits = DeclaredLimits {
        messages_max: None,
        bytes_max: None,
        message_bytes_max: 1 << 20,
    };
    let mut queue = DeclaredQueue {
        bindings: Vec::new(),
        lease_ms: 60_000,
        in_flight_max: 1_000,
        deliveries_max: 3,
        backoff_initial_ms: 0,
        backoff_max_ms: 0,
        backoff_factor_milli: 1_000,
        limits: limits.clone(),
        dedup_ms: 120_000,
        dead_letter: DeclaredDeadLetter {
            queue: None,
            limits,
        },
        class: ShardClass::default(),
        deletion: DeletionPolicy::Orphan,
    };
    change(&mut queue);
    declared(at, DeclaredSpec::Queue(queue))
}

fn bound(at: &str, topic: &str, pattern: &str) -> Declared {
    queue_with(at, |queue| queue.bindings.push(binding(topic, pattern)))
}

fn binding(topic: &str, pattern: &str) -> DeclaredBinding {
    let filter = Filter {
        pattern: pattern.into(),
        headers: Vec::new(),
        any: false,
    };
    DeclaredBinding {
        topic: address(topic),
        filter,
    }
}

fn topic(at: &str, partitions: u32) -> Declared {
    topic_with(at, partitions, |_| {})
}

fn topic_with(at: &str, partitions: u32, change: impl FnOnce(&mut PartitionSpec)) -> Declared {
    let mut partition = PartitionSpec {
        age_ms_max: None,
        bytes_max: None,
        messages_max: None,
        message_bytes_max: 1 << 20,
        dedup_ms: 120_000,
    };
    change(&mut partition);
    let deletion = DeletionPolicy::Orphan;
    declared(
        at,
        DeclaredSpec::Topic(DeclaredTopic {
            partitions,
            partition,
            class: ShardClass::default(),
            deletion,
        }),
    )
}
