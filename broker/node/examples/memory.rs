//! What a sustained load takes of memory, against what the node counts and its limit. Publishers
//! send as fast as they are let, nobody takes anything, bodies go to segments. Prints figures;
//! asserts nothing.
//!
//! `cargo run --release -p millrace-node --example memory -- 128 30 [/a/directory]`: a limit of
//! 128 MiB, 30 seconds.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use millrace_engine::catalogue::{
    Declared, DeclaredDeadLetter, DeclaredLimits, DeclaredQueue, DeclaredSpec, DeletionPolicy,
    ShardClass,
};
use millrace_node::{Batch, Broker, NodeOptions, TopologyDelta};
use millrace_storage::records::push_record;
use millrace_types::Address;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Bodies of messages, and messages of a batch: what clients under load send, and two extremes.
const SHAPES: [(usize, u32); 4] = [(1 << 10, 200), (100, 2000), (900_000, 1), (200, 1)];
/// Publishers of each shape.
const PUBLISHERS: usize = 4;
/// Time between looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a connection may have read beyond a batch, into the same buffer.
const FRAME_BYTES: usize = 16 << 10;
/// A refused publisher comes back after this.
const PAUSE: Duration = Duration::from_millis(20);

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let temporary = tempfile::tempdir()?;
    let (limit, seconds, dir) = match arguments[..] {
        [limit, seconds] => (limit, seconds, temporary.path()),
        [limit, seconds, dir] => (limit, seconds, Path::new(dir)),
        _ => return Err("how many MiB, and for how many seconds?".into()),
    };
    let limit = limit.parse::<u64>()? << 20;
    let time = Duration::from_secs(seconds.parse()?);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(load(limit, time, dir.join("data")))
}

async fn load(limit: u64, time: Duration, dir: PathBuf) -> Outcome<()> {
    let before = resident()?;
    let mut options = NodeOptions::new(&dir);
    options.memory_bytes_max = limit;
    let broker = Broker::start(options)?;
    declare(&broker).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let (sent, refused) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let publishers: Vec<_> = (0..SHAPES.len() * PUBLISHERS)
        .map(|number| {
            let (broker, stop) = (broker.clone(), Arc::clone(&stop));
            let counts = (Arc::clone(&sent), Arc::clone(&refused));
            tokio::spawn(publish(broker, number, stop, counts))
        })
        .collect();
    let (started, mut peak, mut counted) = (Instant::now(), 0, 0);
    while started.elapsed() < time {
        tokio::time::sleep(LOOK_EVERY).await;
        peak = peak.max(resident()?);
        let stats = broker.stats(0).await;
        let shards = stats.shards.values();
        let now = shards.map(|shard| shard.resident_bytes + shard.in_flight_bytes);
        counted = counted.max(now.sum());
    }
    stop.store(true, Ordering::Release);
    for publisher in publishers {
        publisher.await??;
    }
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "limit {} MiB: {} MiB stored in {time:?}, {} refusals; counted {} MiB at most, resident {} \
         MiB at most, {} MiB before",
        mib(limit),
        mib(sent.load(Ordering::Acquire)),
        refused.load(Ordering::Acquire),
        mib(counted),
        mib(peak),
        mib(before),
    );
    broker.drain().await;
    println!("  drained: {} MiB resident", mib(resident()?));
    Ok(())
}

async fn publish(
    broker: Broker,
    number: usize,
    stop: Arc<AtomicBool>,
    (sent, refused): (Arc<AtomicU64>, Arc<AtomicU64>),
) -> Outcome<()> {
    let (bytes, count) = SHAPES[number % SHAPES.len()];
    let address = address(number)?;
    let mut records = Vec::new();
    for _ in 0..count {
        push_record(&mut records, &vec![7; bytes]);
    }
    while !stop.load(Ordering::Acquire) {
        let mut read = BytesMut::with_capacity(records.len() + FRAME_BYTES);
        read.extend_from_slice(&records);
        read.resize(records.len() + FRAME_BYTES, 1);
        let batch = Batch {
            partition: None,
            count,
            records: read.split_to(records.len()).freeze(),
            dedup: None,
        };
        drop(read);
        let answers = broker.publish(&address, vec![batch]).await;
        match answers.into_iter().next() {
            Some(Ok(_)) => {
                sent.fetch_add(records.len() as u64, Ordering::AcqRel);
            }
            Some(Err(refusal)) if refusal.code.is_retryable() => {
                refused.fetch_add(1, Ordering::AcqRel);
                tokio::time::sleep(PAUSE).await;
            }
            Some(Err(refusal)) => return Err(refusal.to_string().into()),
            None => return Err("no answer".into()),
        }
    }
    Ok(())
}

fn address(number: usize) -> Outcome<Address> {
    let address: Result<Address, _> = format!("queue/load/q{number}").parse();
    address.map_err(|error| format!("{error:?}").into())
}

async fn declare(broker: &Broker) -> Outcome<()> {
    let limits = DeclaredLimits {
        messages_max: None,
        bytes_max: None,
        message_bytes_max: 1 << 20,
    };
    let mut upserts = Vec::new();
    for number in 0..SHAPES.len() * PUBLISHERS {
        let queue = DeclaredQueue {
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
                limits: limits.clone(),
            },
            class: ShardClass::default(),
            deletion: DeletionPolicy::Orphan,
        };
        upserts.push(Declared {
            address: address(number)?,
            uid: format!("uid-{number}"),
            generation: 1,
            wire: Bytes::new(),
            spec: DeclaredSpec::Queue(queue),
        });
    }
    let delta = TopologyDelta {
        cluster_id: None,
        base_revision: broker.metadata().await?.revision,
        upserts,
        removals: Vec::new(),
    };
    let revision = broker.apply_topology(delta).await?;
    let mut view = broker.catalogue();
    let applied = view.wait_for(|view| view.applied_revision() >= revision);
    applied.await?;
    Ok(())
}

/// Memory of this process, in bytes.
fn resident() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.ok_or("no VmRSS")?.parse::<u64>()? * 1024)
}
