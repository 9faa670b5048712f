//! What a publish costs one node: so many publishers, each waiting for its acknowledgement, in
//! batches of one message and of a hundred. Prints figures; asserts nothing about time.
//!
//! `cargo run --release -p millrace-node --example publish -- 64 [/a/directory]`

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millrace_engine::catalogue::{
    Declared, DeclaredSpec, DeclaredTopic, DeletionPolicy, ShardClass,
};
use millrace_engine::spec::PartitionSpec;
use millrace_node::{Batch, Broker, NodeOptions, TopologyDelta};
use millrace_storage::records::push_record;
use millrace_types::{Address, Count};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long each size of batch is published.
const WATCH: Duration = Duration::from_secs(5);
const MESSAGE_BYTES: usize = 1 << 10;
const PARTITIONS: u32 = 4;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let dir = tempfile::tempdir()?;
    let (publishers, dir) = match arguments[..] {
        [publishers] => (publishers.parse()?, dir.path().join("data")),
        [publishers, dir] => (publishers.parse()?, Path::new(dir).join("data")),
        _ => return Err("how many publishers?".into()),
    };
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run(publishers, dir))
}

async fn run(publishers: u64, dir: PathBuf) -> Outcome<()> {
    let broker = Broker::start(NodeOptions::new(&dir))?;
    let address: Address = "topic/test/events".parse()?;
    let partition = PartitionSpec {
        age_ms_max: None,
        bytes_max: Some(64 << 20),
        messages_max: None,
        message_bytes_max: 1 << 20,
        dedup_ms: 120_000,
    };
    let declared = Declared {
        address: address.clone(),
        uid: "1".into(),
        generation: 1,
        wire: "1".into(),
        spec: DeclaredSpec::Topic(DeclaredTopic {
            partitions: PARTITIONS,
            partition,
            class: ShardClass::default(),
            deletion: DeletionPolicy::Orphan,
        }),
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
    for count in [1, 100] {
        let (start, used) = (Instant::now(), processor_ms()?);
        let tasks: Vec<_> = (0..publishers)
            .map(|number| tokio::spawn(publish(broker.clone(), address.clone(), number, count)))
            .collect();
        let mut batches = 0;
        for task in tasks {
            batches += task.await??;
        }
        let took = start.elapsed();
        let messages = batches * u64::from(count);
        println!(
            "{publishers} publishers, batches of {count}: {} messages/s, \
             {} us of processor a batch, {} syncs",
            u128::from(messages) * 1_000 / took.as_millis().max(1),
            (processor_ms()? - used) * 1_000 / batches.max(1),
            broker.stats(0).await.journal.fsyncs,
        );
    }
    broker.drain().await;
    Ok(())
}

/// Batches that were acknowledged.
async fn publish(broker: Broker, address: Address, number: u64, count: Count) -> Outcome<u64> {
    let mut records = Vec::new();
    for _ in 0..count {
        push_record(&mut records, &[7; MESSAGE_BYTES]);
    }
    let batch = Batch {
        partition: Some(u32::try_from(number)? % PARTITIONS),
        count,
        records: records.into(),
        dedup: None,
    };
    let (start, mut batches) = (Instant::now(), 0);
    while start.elapsed() < WATCH {
        match broker
            .publish(&address, vec![batch.clone()])
            .await
            .remove(0)
        {
            Ok(_) => batches += 1,
            // A checkpoint is on its way.
            Err(refusal) if refusal.retry_after_ms.is_some() => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(refusal) => return Err(refusal.to_string().into()),
        }
    }
    Ok(batches)
}

/// Processor time of this process so far.
fn processor_ms() -> Outcome<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse().unwrap_or(0)).sum::<u64>();
    Ok(ticks * 10)
}
