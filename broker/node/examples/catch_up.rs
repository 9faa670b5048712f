//! How fast a follower that has nothing gets everything, and what that costs those who publish:
//! three nodes in one process on a real disk, the third of which starts last. Prints figures;
//! asserts nothing about time.
//!
//! `cargo run --release -p millrace-node --example catch_up -- MIB [MIB_PER_SECOND [/a/directory]]`

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use millrace_engine::catalogue::{
    Declared, DeclaredSpec, DeclaredTopic, DeletionPolicy, ShardClass,
};
use millrace_engine::spec::PartitionSpec;
use millrace_node::{Batch, Broker, Network, NodeOptions, SystemHost, TopologyDelta, Unreachable};
use millrace_replica::{Lane, ShardMessage};
use millrace_storage::records::push_record;
use millrace_storage::{CountedDisk, DataDir, RealDisk};
use millrace_types::{Address, Founder, Founding, FoundingDraft, NodeId};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;
type Link = mpsc::UnboundedSender<Vec<ShardMessage>>;
type Links = BTreeMap<(NodeId, NodeId, Lane), Link>;

const SHARDS: u32 = 2;
const MESSAGE_BYTES: usize = 4 << 10;
const BATCH: u32 = 64;
/// How long publishers are watched before the third node starts.
const WATCH: Duration = Duration::from_secs(5);
/// Messages a second of those who publish meanwhile: what a quiet cluster has.
const PUBLISHERS: u64 = 8;

/// The nodes of this process.
#[derive(Clone)]
struct Wires {
    /// Workers that send are not on it.
    runtime: Handle,
    brokers: Arc<Mutex<BTreeMap<NodeId, Broker>>>,
    links: Arc<Mutex<Links>>,
}

/// One node's end of them.
struct End(NodeId, Wires);

impl Wires {
    fn broker(&self, node: NodeId) -> Option<Broker> {
        let brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.get(&node).cloned()
    }

    fn link(&self, from: NodeId, to: NodeId, lane: Lane) -> Link {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || {
            let (link, mut bundles) = mpsc::unbounded_channel();
            let wires = self.clone();
            self.runtime.spawn(async move {
                while let Some(bundle) = bundles.recv().await {
                    if let Some(broker) = wires.broker(to) {
                        broker.received(from, lane, bundle).await;
                    }
                }
            });
            link
        };
        links.entry((from, to, lane)).or_insert_with(begin).clone()
    }
}

impl Network for End {
    fn send(&self, to: NodeId, lane: Lane, messages: Vec<ShardMessage>) {
        self.1.link(self.0, to, lane).send(messages).ok();
    }

    fn call(&self, to: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, Unreachable>> {
        let (from, broker) = (self.0, self.1.broker(to));
        Box::pin(async move {
            let why = "it does not run".into();
            let broker = broker.ok_or(Unreachable::NotSent { node: to, why })?;
            Ok(broker.answer(from, request).await)
        })
    }
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let dir = tempfile::tempdir()?;
    let (mib, pace, dir) = match arguments[..] {
        [mib] => (mib.parse()?, None, dir.path().into()),
        [mib, pace] => (mib.parse()?, Some(pace.parse()?), dir.path().into()),
        [mib, pace, dir] => (mib.parse()?, Some(pace.parse()?), PathBuf::from(dir)),
        _ => return Err("how many MiB?".into()),
    };
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run(mib, pace, &dir))
}

async fn run(mib: u64, pace: Option<u64>, dir: &Path) -> Outcome<()> {
    let paths: Vec<PathBuf> = (0..3)
        .map(|node| dir.join(format!("node-{node}")))
        .collect();
    let mut ids = Vec::new();
    for path in &paths {
        let random = Arc::new(|| getrandom::u64().map_err(std::io::Error::from));
        ids.push(DataDir::open(Arc::new(RealDisk), path, random)?.node());
    }
    let founders = ids.iter().map(|node| Founder {
        node: *node,
        peer: format!("{node}:1"),
    });
    let draft = FoundingDraft {
        cluster_id: "catch-up".into(),
        shards: SHARDS,
        replication: 3,
        founders: founders.collect(),
    };
    let founding: Founding = draft.try_into()?;
    let wires = Wires {
        runtime: Handle::current(),
        brokers: Arc::default(),
        links: Arc::default(),
    };
    let start = |node: usize| -> Outcome<Broker> {
        let mut options = NodeOptions::new(&paths[node]);
        options.founding = Some(founding.clone());
        options.shards = SHARDS;
        options.scrub_bytes_per_second = 0;
        if let Some(pace) = pace {
            options.snapshot_bytes_per_second = pace << 20;
        }
        let disk = Arc::new(CountedDisk::new(RealDisk));
        let network = Arc::new(End(ids[node], wires.clone()));
        let host = Arc::new(SystemHost::current());
        let broker = Broker::start_on(disk, host, network, options)?;
        let mut brokers = wires.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.insert(ids[node], broker.clone());
        Ok(broker)
    };
    let brokers = [start(0)?, start(1)?];
    let address: Address = "topic/test/events".parse()?;
    declare(&brokers, &address).await?;

    fill(&brokers, &address, mib).await?;
    watch(&brokers, &address, || start(2)).await
}

/// Publishes so much, and has it in checkpoints.
async fn fill(brokers: &[Broker; 2], address: &Address, mib: u64) -> Outcome<()> {
    let began = Instant::now();
    let batches = (mib << 20) / (MESSAGE_BYTES as u64 * u64::from(BATCH));
    let mut filling = Vec::new();
    for number in 0..PUBLISHERS {
        let (brokers, address) = (brokers.clone(), address.clone());
        filling.push(tokio::spawn(async move {
            for _ in 0..batches / PUBLISHERS {
                publish(&brokers, &address, number, BATCH).await?;
            }
            Outcome::Ok(())
        }));
    }
    for filled in filling {
        filled.await??;
    }
    settle(brokers).await;
    println!("{mib} MiB published in {:?}", began.elapsed());
    Ok(())
}

/// Publishes, and starts the third node while that goes on.
async fn watch(
    brokers: &[Broker; 2],
    address: &Address,
    start: impl Fn() -> Outcome<Broker>,
) -> Outcome<()> {
    let load = Load::start(brokers, address);
    tokio::time::sleep(WATCH).await;
    let before = load.take(WATCH);
    let (began, used) = (Instant::now(), processor_ms()?);
    let third = start()?;
    let all = applied(brokers).await;
    while applied(std::slice::from_ref(&third)).await < all {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = began.elapsed();
    let meanwhile = load.take(took);
    load.stop();
    let bytes: u64 = third
        .stats(0)
        .await
        .shards
        .values()
        .map(|f| f.segment_bytes)
        .sum();
    println!(
        "a blank follower has {} MiB of segments after {took:?}: {} MiB/s; {} ms of processor",
        bytes >> 20,
        u128::from(bytes >> 20) * 1_000 / took.as_millis().max(1),
        processor_ms()? - used,
    );
    println!("publishes acknowledged: {before}; while it caught up: {meanwhile}");
    for broker in brokers.iter().chain([&third]) {
        broker.drain().await;
    }
    Ok(())
}

async fn declare(brokers: &[Broker], address: &Address) -> Outcome<()> {
    let partition = PartitionSpec {
        age_ms_max: None,
        bytes_max: None,
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
            partitions: u32::try_from(PUBLISHERS)?,
            partition,
            class: ShardClass::default(),
            deletion: DeletionPolicy::Orphan,
        }),
    };
    loop {
        for broker in brokers {
            let delta = TopologyDelta {
                cluster_id: None,
                base_revision: 0,
                upserts: vec![declared.clone()],
                removals: Vec::new(),
            };
            if let Ok(revision) = broker.apply_topology(delta).await {
                let mut view = broker.catalogue();
                view.wait_for(|view| view.applied_revision() >= revision)
                    .await?;
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Publishes to whoever leads.
async fn publish(
    brokers: &[Broker],
    address: &Address,
    number: u64,
    count: u32,
) -> Outcome<Duration> {
    let mut records = Vec::new();
    for _ in 0..count {
        push_record(&mut records, &[7; MESSAGE_BYTES]);
    }
    let records = Bytes::from(records);
    let began = Instant::now();
    loop {
        for broker in brokers {
            let batch = Batch {
                partition: Some(u32::try_from(number)?),
                count,
                records: records.clone(),
                dedup: None,
            };
            if broker.publish(address, vec![batch]).await.remove(0).is_ok() {
                return Ok(began.elapsed());
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until checkpoints cover everything and nobody keeps entries for the third.
async fn settle(brokers: &[Broker]) {
    loop {
        let mut covered = true;
        for broker in brokers {
            broker.checkpoint();
            let stats = broker.stats(0).await;
            covered &= stats.shards.values().all(|f| f.checkpoint == f.applied);
        }
        if covered {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What has been applied of all shards by whoever has most.
async fn applied(brokers: &[Broker]) -> u64 {
    let mut most = 0;
    for broker in brokers {
        let stats = broker.stats(0).await;
        most = most.max(stats.shards.values().map(|f| f.applied.get()).sum());
    }
    most
}

/// Publishers at work.
struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    slowest_us: Arc<AtomicU64>,
}

impl Load {
    fn start(brokers: &[Broker; 2], address: &Address) -> Self {
        let load = Self {
            stop: Arc::default(),
            count: Arc::default(),
            slowest_us: Arc::default(),
        };
        for number in 0..PUBLISHERS {
            let (brokers, address) = (brokers.clone(), address.clone());
            let stop = Arc::clone(&load.stop);
            let (count, slowest) = (Arc::clone(&load.count), Arc::clone(&load.slowest_us));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(took) = publish(&brokers, &address, number, 1).await {
                        count.fetch_add(1, Ordering::Relaxed);
                        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                        slowest.fetch_max(took, Ordering::Relaxed);
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        }
        load
    }

    fn take(&self, over: Duration) -> String {
        let count = u128::from(self.count.swap(0, Ordering::Relaxed));
        let slowest = self.slowest_us.swap(0, Ordering::Relaxed);
        let per_second = count * 1_000 / over.as_millis().max(1);
        format!("{per_second} a second, the slowest after {slowest} us")
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Processor time of this process so far.
fn processor_ms() -> Outcome<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse().unwrap_or(0)).sum::<u64>();
    Ok(ticks * 10)
}
