//! How fast one consumer drains a long backlog in process: publishes 1 KiB messages to a queue and
//! consumes all of them, with a client's usual credit, each settled; first from memory, then from
//! the disk after a restart. Prints figures; asserts nothing about time.
//!
//! `cargo run --release -p millrace-node --example drain -- 50000`

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use millrace_engine::catalogue::{
    Declared, DeclaredDeadLetter, DeclaredLimits, DeclaredQueue, DeclaredSpec, DeletionPolicy,
    ShardClass,
};
use millrace_engine::command::{Settle, Window};
use millrace_node::{
    Batch, Broker, Consumer, ConsumerEvent, ConsumerEvents, Credit, Delivered, NodeOptions,
    OpenConsumer, SettleTag, TopologyDelta,
};
use millrace_storage::records::push_record;
use millrace_types::Address;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const MESSAGE_BYTES: usize = 1_024;
/// Messages of a batch, and of a client's credit and half of it.
const BATCH: u32 = 1_000;
const CREDIT: u64 = 256;
const CREDIT_BYTES: u64 = 8 << 20;

fn main() -> Outcome<()> {
    let count = std::env::args().nth(1).ok_or("how many messages?")?;
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(count.parse()?, dir.path()))
}

async fn run(count: u64, dir: &Path) -> Outcome<()> {
    let address: Address = "queue/test/drain".parse()?;
    let broker = Broker::start(NodeOptions::new(dir))?;
    declare(&broker, &address).await?;
    fill(&broker, &address, count).await?;
    drain(&broker, &address, count, "from memory").await?;
    fill(&broker, &address, count).await?;
    broker.drain().await;
    drop(broker);
    let broker = Broker::start(NodeOptions::new(dir))?;
    drain(&broker, &address, count, "from the disk").await?;
    broker.drain().await;
    Ok(())
}

async fn declare(broker: &Broker, address: &Address) -> Outcome<()> {
    let limits = DeclaredLimits {
        messages_max: None,
        bytes_max: None,
        message_bytes_max: 1 << 20,
    };
    let queue = DeclaredQueue {
        bindings: Vec::new(),
        lease_ms: 30_000,
        in_flight_max: 1_000,
        deliveries_max: 5,
        backoff_initial_ms: 1_000,
        backoff_max_ms: 60_000,
        backoff_factor_milli: 2_000,
        limits: limits.clone(),
        dedup_ms: 120_000,
        dead_letter: DeclaredDeadLetter {
            queue: None,
            limits,
        },
        class: ShardClass::default(),
        deletion: DeletionPolicy::Delete,
    };
    let declared = Declared {
        address: address.clone(),
        uid: "6c4f5f6e-7b0c-4d8e-9a53-0d2c4ef1a001".into(),
        generation: 1,
        wire: Bytes::new(),
        spec: DeclaredSpec::Queue(queue),
    };
    let delta = TopologyDelta {
        cluster_id: None,
        base_revision: 0,
        upserts: vec![declared],
        removals: Vec::new(),
    };
    let revision = broker.apply_topology(delta).await?;
    let mut view = broker.catalogue();
    view.wait_for(|view| view.applied_revision() >= revision)
        .await?;
    Ok(())
}

async fn fill(broker: &Broker, address: &Address, count: u64) -> Outcome<()> {
    let mut records = Vec::new();
    for _ in 0..BATCH {
        push_record(&mut records, &[b'x'; MESSAGE_BYTES]);
    }
    let batch = Batch {
        partition: None,
        count: BATCH,
        records: records.into(),
        dedup: None,
    };
    for _ in 0..count / u64::from(BATCH) {
        let mut results = broker.publish(address, vec![batch.clone()]).await;
        results.pop().ok_or("no result")??;
    }
    Ok(())
}

async fn drain(broker: &Broker, address: &Address, count: u64, from: &str) -> Outcome<()> {
    let count = count / u64::from(BATCH) * u64::from(BATCH);
    let start = Instant::now();
    let open = OpenConsumer {
        address: address.clone(),
        consumer: "drain".into(),
        resume: None,
        in_flight: Window {
            messages: 0,
            bytes: 0,
        },
        credit: Credit {
            messages: CREDIT,
            bytes: CREDIT_BYTES,
        },
    };
    let (consumer, mut events) = broker.open_consumer(open).await?;
    let commands = consume(&consumer, &mut events, count).await?;
    let took = start.elapsed();
    consumer.close().await?;
    println!(
        "{from}: {count} messages in {took:?}, {:.0} a second, {commands} settlements",
        count as f64 / took.as_secs_f64()
    );
    Ok(())
}

async fn consume(consumer: &Consumer, events: &mut ConsumerEvents, count: u64) -> Outcome<u64> {
    let (mut settled, mut sequence, mut owed) = (0, 0, 0);
    while settled < count {
        match events.next().await.ok_or("the session has ended")? {
            ConsumerEvent::Deliveries(got) => {
                sequence += 1;
                owed += got.len() as u64;
                consumer.settle(sequence, got.iter().map(accept).collect());
                if owed >= CREDIT / 2 {
                    let bytes = owed * MESSAGE_BYTES as u64;
                    let messages = std::mem::take(&mut owed);
                    consumer.credit(Credit { messages, bytes });
                }
            }
            ConsumerEvent::Settled(results) => settled += u64::from(results.settled),
            ConsumerEvent::LeasesLost(_) | ConsumerEvent::Drain => {}
            ConsumerEvent::Closed(refusal) => return Err(refusal.into()),
        }
    }
    Ok(sequence)
}

fn accept(one: &Delivered) -> SettleTag {
    SettleTag {
        tag: one.tag.clone(),
        settle: Settle::Accept,
    }
}
