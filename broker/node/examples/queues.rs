//! What many idle queues cost one node: declares them page by page, adds one more, looks at memory,
//! disk and processor, kills and starts again. Prints figures; asserts nothing about time.
//!
//! `cargo run --release -p millrace-node --example queues -- 100000 [/a/directory]`
//!
//! Each queue has its implicit dead-letter queue: bytes per queue cover both. Every step runs in a
//! process of its own, so that memory of one is not counted with the next.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_engine::catalogue::{
    DELTA_OBJECTS_MAX, Declared, DeclaredDeadLetter, DeclaredLimits, DeclaredQueue, DeclaredSpec,
    DeletionPolicy, ShardClass,
};
use millrace_node::{Batch, Broker, NodeOptions, TopologyDelta};
use millrace_storage::records::push_record;
use millrace_types::Address;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long the idle node's processor time is watched.
const IDLE_WATCH: Duration = Duration::from_secs(3);

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["declare", count, dir] => run(declare(count.parse()?, dir.into())),
        ["open", what, dir] => run(open(what.to_owned(), dir.into())),
        [count] => all(count, &tempfile::tempdir()?.path().join("data")),
        [count, dir] => all(count, &Path::new(dir).join("data")),
        _ => Err("how many queues?".into()),
    }
}

fn run(step: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(step)
}

/// Every step, each in a process of its own.
fn all(count: &str, dir: &Path) -> Outcome<()> {
    let dir = dir.to_str().ok_or("a directory with a plain name")?;
    for step in [
        &["declare", "1", &format!("{dir}-one")][..],
        &["declare", count, dir],
        &["open", "after a kill", dir],
        &["open", "after a drain", dir],
    ] {
        let status = Command::new(std::env::current_exe()?).args(step).status()?;
        if !status.success() {
            return Err(format!("{step:?} failed").into());
        }
    }
    Ok(())
}

async fn declare(count: usize, dir: PathBuf) -> Outcome<()> {
    let before = Resident::now()?;
    let broker = Broker::start(NodeOptions::new(&dir))?;
    let mut revision = apply(&broker, 0, vec![queue("bystander", "queue")]).await?;
    applied(&broker, revision).await?;
    let bystander = Bystander::start(broker.clone());
    let (start, mut longest) = (Instant::now(), Duration::ZERO);
    let names: Vec<usize> = (0..count).collect();
    for page in names.chunks(DELTA_OBJECTS_MAX) {
        let page = page
            .iter()
            .map(|n| queue("scale", &format!("queue-{n:06}")));
        let asked = Instant::now();
        revision = apply(&broker, revision, page.collect()).await?;
        longest = longest.max(asked.elapsed());
    }
    let answered = start.elapsed();
    applied(&broker, revision).await?;
    println!(
        "{count} queues: answered in {answered:?}, longest page {longest:?}, applied in {:?}",
        start.elapsed()
    );
    println!(
        "  publishes to another queue meanwhile: {}",
        bystander.stop().await?
    );
    let one = Instant::now();
    revision = apply(&broker, revision, vec![queue("scale", "one-more")]).await?;
    applied(&broker, revision).await?;
    println!("  one more queue, applied: {:?}", one.elapsed());
    let scrape = Instant::now();
    let stats = broker.stats(1_000).await;
    println!(
        "  figures of {} queues: {:?}",
        stats.queues.len(),
        scrape.elapsed()
    );
    drop(stats);
    let resident = Resident::now()?;
    println!(
        "  {resident}, {} bytes a queue",
        resident.since(before) / count as u64
    );
    idle()?;
    println!("  on disk: {}", Disk::of(&dir)?);
    // Like a kill: no checkpoint.
    std::process::exit(0);
}

async fn open(what: String, dir: PathBuf) -> Outcome<()> {
    let start = Instant::now();
    let broker = Broker::start(NodeOptions::new(&dir))?;
    let objects = broker.catalogue().borrow().iter().count();
    broker.metadata().await?;
    println!(
        "started {what} with {objects} objects in {:?}, {}",
        start.elapsed(),
        Resident::now()?
    );
    idle()?;
    let start = Instant::now();
    broker.drain().await;
    println!(
        "  drained in {:?}; on disk: {}",
        start.elapsed(),
        Disk::of(&dir)?
    );
    Ok(())
}

async fn apply(broker: &Broker, base_revision: u64, upserts: Vec<Declared>) -> Outcome<u64> {
    let delta = TopologyDelta {
        cluster_id: None,
        base_revision,
        upserts,
        removals: Vec::new(),
    };
    Ok(broker.apply_topology(delta).await?)
}

async fn applied(broker: &Broker, revision: u64) -> Outcome<()> {
    let mut view = broker.catalogue();
    view.wait_for(|view| view.applied_revision() >= revision)
        .await?;
    Ok(())
}

fn queue(namespace: &str, name: &str) -> Declared {
    let limits = DeclaredLimits {
        messages_max: Some(1_000_000),
        bytes_max: Some(1 << 30),
        message_bytes_max: 1 << 20,
    };
    Declared {
        address: Address::Queue {
            namespace: namespace.into(),
            name: name.into(),
        },
        uid: "6c4f5f6e-7b0c-4d8e-9a53-0d2c4ef1a001".into(),
        generation: 1,
        // About what an encoded declaration of a queue takes.
        wire: Bytes::from(vec![b'w'; 120]),
        spec: DeclaredSpec::Queue(DeclaredQueue {
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
        }),
    }
}

/// Publishes one message after the other to a queue of its own.
struct Bystander {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Outcome<Vec<Duration>>>,
}

impl Bystander {
    fn start(broker: Broker) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut took = Vec::new();
            let address = "queue/bystander/queue".parse()?;
            while !stopped.load(Ordering::Relaxed) {
                let mut records = Vec::new();
                push_record(&mut records, b"");
                let batch = Batch {
                    partition: None,
                    count: 1,
                    records: records.into(),
                    dedup: None,
                };
                let start = Instant::now();
                broker.publish(&address, vec![batch]).await.remove(0)?;
                took.push(start.elapsed());
            }
            Ok(took)
        });
        Self { stop, task }
    }

    async fn stop(self) -> Outcome<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut took = self.task.await??;
        took.sort_unstable();
        let at = |percent: usize| took.get((took.len() - 1) * percent / 100);
        let (half, most, all) = (at(50), at(99), took.last());
        Ok(format!(
            "{}, median {half:?}, 99 % {most:?}, longest {all:?}",
            took.len()
        ))
    }
}

/// Memory of this process, in bytes.
#[derive(Clone, Copy)]
struct Resident(u64);

impl Resident {
    fn now() -> Outcome<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(Self(kib.ok_or("no VmRSS")?.parse::<u64>()? * 1024))
    }

    const fn since(self, before: Self) -> u64 {
        self.0.saturating_sub(before.0)
    }
}

impl std::fmt::Display for Resident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} MiB resident", self.0 >> 20)
    }
}

/// Prints the processor time that doing nothing takes.
fn idle() -> Outcome<()> {
    let before = cpu_ticks()?;
    std::thread::sleep(IDLE_WATCH);
    let ticks = cpu_ticks()? - before;
    println!("  idle: {ticks} ticks of 10 ms in {IDLE_WATCH:?}");
    Ok(())
}

fn cpu_ticks() -> Outcome<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("no stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let tick = |place: usize| -> Outcome<u64> { Ok(fields.get(place).ok_or("no time")?.parse()?) };
    Ok(tick(11)? + tick(12)?)
}

/// Bytes of files by what they are.
struct Disk {
    journal: u64,
    shards: u64,
}

impl Disk {
    fn of(dir: &Path) -> Outcome<Self> {
        Ok(Self {
            journal: bytes(&dir.join("journal"))?,
            shards: bytes(&dir.join("shards"))?,
        })
    }
}

impl std::fmt::Display for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (journal, shards) = (self.journal >> 10, self.shards >> 10);
        write!(
            f,
            "journal {journal} KiB, checkpoints and segments {shards} KiB"
        )
    }
}

fn bytes(path: &Path) -> Outcome<u64> {
    if !path.is_dir() {
        return Ok(path.metadata()?.len());
    }
    let mut sum = 0;
    for entry in path.read_dir()? {
        sum += bytes(&entry?.path())?;
    }
    Ok(sum)
}
