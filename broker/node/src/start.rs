//! Brings a node up from its data directory: opens it, replays the journal over the checkpoints,
//! quarantines shards that are damaged, and starts the routines.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::time::Instant;

use millrace_storage::{
    Checkpointer, Damaged, DataDir, Disk, DiskFailure, Expect, Finding, Journal, JournalRecord,
    ReadError, Recovery, Routine, Scrubber, ScrubberHandle, ShardRecovery, Store,
};
use millrace_types::{Founding, LogIndex, SHARDS_MAX, ShardId};
use tokio::sync::{Notify, Semaphore, watch};

use super::data_shard::DataShard;
use super::figures::Figures;
use super::host::{Host, Join};
use super::inbox::Inbox;
use super::inlet::Inlet;
use super::input::Input;
use super::leaders::Leaders;
use super::loading::LOADS_MAX;
use super::logs::Logs;
use super::metadata_shard::MetadataShard;
use super::neighbours::Neighbours;
use super::network::Network;
use super::node::{DiskLook, Node, Phase, not_leader, quarantined};
use super::options::{NAMES_SOUGHT_MAX, NodeOptions, READERS_MAX, SHARDS_MIN, StartError};
use super::placement::learning::{self, Heard};
use super::placement::registering;
use super::pumps::Pumps;
use super::recovery::{self, Apply, Metadata, Opened, Recovered, Unusable};
use super::shard_log::ShardLog;
use super::shard_state::ShardState;
use super::shortages::Shortages;
use super::slot::{Content, Slot};
use super::snapshots::Snapshots;
use super::view::CatalogueView;
use super::worker::Worker;

/// A running node and its routines.
pub(super) struct Started {
    /// What everybody shares.
    pub(super) node: Arc<Node>,
    /// The workers.
    pub(super) workers: Vec<Box<dyn Join>>,
    /// Those that write to the disk; they end after the workers.
    pub(super) disk: Vec<Box<dyn Join>>,
    /// Stops the scrubber.
    pub(super) scrubber: ScrubberHandle,
}

/// What was found on disk of the shards of which a replica is here.
struct Found {
    metadata: Option<Result<Opened<Metadata>, String>>,
    data: BTreeMap<ShardId, Result<Opened<ShardState>, String>>,
}

/// Starts a node on a disk. Blocks on the disk.
///
/// # Errors
/// As `Broker::start`.
pub(super) fn start(
    disk: Arc<dyn Disk>,
    host: Arc<dyn Host>,
    network: Arc<dyn Network>,
    options: NodeOptions,
) -> Result<Started, StartError> {
    let dir = open(disk, &host, &options)?;
    let (mut journal, recovery) = Journal::open(&dir, options.journal)?;
    let found = recover(&dir, &mut journal, recovery, (&*host, &options))?;

    let workers = options.workers.max(1);
    let inboxes: Vec<Arc<Inbox<Input>>> = (0..workers).map(|_| Arc::new(Inbox::new())).collect();
    let phase = watch::Sender::new(Phase::Serving);
    let mut disk_routines = Vec::new();
    let mut run = |name: &str, routine: Box<dyn Routine>| -> io::Result<()> {
        disk_routines.push(host.routine(name, routine)?);
        Ok(())
    };
    let journal = journal
        .start(on_failure(&phase, &inboxes), &mut run)
        .map_err(StartError::Thread)?;
    let (routine, checkpointer) = Checkpointer::new(on_failure(&phase, &inboxes));
    let routine = routine.with_reserve(&dir, options.checkpoint_reserve_bytes());
    if let Err(error) = run("checkpointer", Box::new(routine)) {
        journal.drain();
        return Err(StartError::Thread(error));
    }
    let view = first_view(&found);
    let snapshots = Snapshots::new(&*host, &options);
    let node = Arc::new(Node {
        slots: slots(&found, &inboxes),
        slots_used: AtomicUsize::new(slots_used(&dir)),
        options,
        data_dir: dir,
        journal,
        checkpointer,
        inlets: inboxes.iter().map(Inlet::new).collect(),
        inboxes,
        network,
        logs: Logs::default(),
        leaders: Leaders::new(),
        neighbours: Neighbours::default(),
        directory: watch::Sender::default(),
        view: watch::Sender::new(Arc::new(view)),
        heard: Heard::default(),
        lost_more: Arc::new(Notify::new()),
        phase,
        figures: Figures::default(),
        pumps: Pumps::new(),
        snapshots,
        spread: AtomicU32::new(0),
        lobby: Arc::default(),
        readers: Arc::new(Semaphore::new(READERS_MAX)),
        seekers: Semaphore::new(NAMES_SOUGHT_MAX),
        loads: Semaphore::new(LOADS_MAX),
        disk: DiskLook::new(host.now()),
        shortages: Shortages::default(),
        host,
        #[cfg(test)]
        effects_lost: std::sync::atomic::AtomicBool::new(false),
    });
    run_node(node, found, disk_routines)
}

/// Starts what works on the node, beside what works on its disk.
fn run_node(
    node: Arc<Node>,
    found: Found,
    mut disk: Vec<Box<dyn Join>>,
) -> Result<Started, StartError> {
    let workers = run_workers(&node, workers_of(&node, found))?;
    registering::start(&node);
    learning::start(&node);
    let (scrubber, running) = scrub(&node)?;
    disk.push(running);
    Ok(Started {
        node,
        workers,
        disk,
        scrubber,
    })
}

/// Until the catalogue has been read.
fn first_view(found: &Found) -> CatalogueView {
    match &found.metadata {
        Some(Err(why)) => CatalogueView::unavailable(quarantined(ShardId::METADATA, why)),
        Some(Ok(_)) | None => CatalogueView::unavailable(not_leader(ShardId::METADATA, None)),
    }
}

/// Looks for damage as long as the node runs; a shard that has some does not serve any more.
fn scrub(node: &Arc<Node>) -> Result<(ScrubberHandle, Box<dyn Join>), StartError> {
    let found_by = Arc::downgrade(node);
    let read = Arc::downgrade(node);
    let stores = Box::new(move || {
        let node = read.upgrade();
        let slots = node.iter().flat_map(|node| node.used_slots());
        slots.filter_map(Slot::store).collect()
    });
    let on_damage = Box::new(move |store: &Arc<Store>, finding: Finding| {
        let Finding { shard, what, error } = finding;
        if what == Damaged::Index {
            tracing::warn!(%shard, %error, "an index is damaged; reads do without it");
            return;
        }
        if !matches!(error, ReadError::Corrupt { .. }) {
            // The disk may give it another time.
            tracing::error!(%shard, %error, "what is stored cannot be read");
            return;
        }
        let why = error.to_string();
        quarantine(shard, &why);
        if let Some(node) = found_by.upgrade() {
            let slot = node.slot_at_all(shard);
            slot.damaged(store, why);
            slot.inbox.send(Input::Roster);
        }
    });
    let bytes_per_second = node.options.scrub_bytes_per_second;
    let (routine, handle) = Scrubber::new(stores, bytes_per_second, on_damage);
    match node.host.routine("scrubber", Box::new(routine)) {
        Ok(running) => Ok((handle, running)),
        Err(error) => {
            node.inboxes
                .iter()
                .for_each(|inbox| inbox.send(Input::Stop));
            Err(StartError::Thread(error))
        }
    }
}

/// The directory, of this node and of the cluster that is meant.
fn open(
    disk: Arc<dyn Disk>,
    host: &Arc<dyn Host>,
    options: &NodeOptions,
) -> Result<DataDir, StartError> {
    let founding = options.founding.as_ref();
    let shards = founding.map_or(options.shards, Founding::shards);
    if !(SHARDS_MIN..=SHARDS_MAX).contains(&shards) {
        let (given, max) = (shards, SHARDS_MAX);
        return Err(StartError::Shards { given, max });
    }
    let expect = Expect {
        cluster_id: options.cluster_id.as_deref(),
        shards,
    };
    let host = Arc::clone(host);
    let random = Arc::new(move || host.random());
    let path = &options.data_dir;
    let Some(founding) = founding else {
        return Ok(DataDir::open_alone(disk, path, expect, random)?);
    };
    let dir = DataDir::open(disk, path, random)?;
    dir.check(expect)?;
    let founded = dir.found(founding);
    let path = || path.clone();
    founded.map_err(|source| StartError::Belong {
        path: path(),
        source,
    })?;
    Ok(dir)
}

/// Checkpoints first, then one pass over the journal for all shards.
fn recover(
    dir: &DataDir,
    journal: &mut Journal,
    recovery: Recovery,
    (host, options): (&dyn Host, &NodeOptions),
) -> Result<Found, StartError> {
    if let Some(torn) = &recovery.torn {
        tracing::info!(path = %torn.path.display(), at = torn.at, bytes = torn.bytes,
            "the journal's torn tail was cut; nothing in it was acknowledged");
    }
    let mut shards = recovery.shards;
    let mut take = |shard| shards.remove(&shard).unwrap_or_default();
    let is_here = |shard: &ShardId| dir.replica(*shard).is_some();
    let mut metadata = None;
    let mut data = BTreeMap::new();
    for shard in DataDir::shards().filter(is_here) {
        let found = take(shard);
        if shard == ShardId::METADATA {
            metadata = Some(usable(shard, recovery::metadata(dir, &found))?);
        } else {
            data.insert(shard, usable(shard, recovery::data(dir, shard, &found))?);
        }
    }
    journal.replay(&mut |record| {
        if dir.replica(record.shard) != Some(record.replica) {
            // Of one that was given up, perhaps before its successor wrote anything.
            return;
        }
        if record.shard == ShardId::METADATA {
            metadata
                .iter_mut()
                .for_each(|found| replay(found, record.clone()));
        } else if let Some(shard) = data.get_mut(&record.shard) {
            replay(shard, record);
        }
    })?;
    let mut found = BTreeMap::new();
    for (shard, recovered) in data {
        found.insert(shard, opened(recovered, dir, shard, (host, options))?);
    }
    let open = |found| opened(found, dir, ShardId::METADATA, (host, options));
    Ok(Found {
        metadata: metadata.map(open).transpose()?,
        data: found,
    })
}

/// Opens the log of a shard, unless that is quarantined.
fn opened<T: Apply>(
    found: Result<Recovered<T>, String>,
    dir: &DataDir,
    shard: ShardId,
    (host, options): (&dyn Host, &NodeOptions),
) -> Result<Result<Opened<T>, String>, StartError> {
    let recovered = match found {
        Ok(recovered) => recovered,
        Err(why) => return Ok(Err(why)),
    };
    let seed = host.random().map_err(StartError::Random)?;
    let opened = recovered.open(dir, shard, options, seed);
    if let Err(why) = &opened {
        quarantine(shard, why);
    }
    Ok(opened)
}

/// Hands a record to its shard, unless that is quarantined.
fn replay<T: Apply>(found: &mut Result<Recovered<T>, String>, record: JournalRecord) {
    let shard = record.shard;
    if let Ok(recovered) = found
        && let Err(why) = recovered.replay(record)
    {
        quarantine(shard, &why);
        *found = Err(why);
    }
}

/// A recovered shard, or why it is quarantined.
fn usable<T>(
    shard: ShardId,
    recovered: Result<Recovered<T>, Unusable>,
) -> Result<Result<Recovered<T>, String>, StartError> {
    match recovered {
        Ok(recovered) => Ok(Ok(recovered)),
        Err(Unusable::Node(error)) => Err(error.into()),
        Err(Unusable::Shard(why)) => {
            quarantine(shard, &why);
            Ok(Err(why))
        }
    }
}

/// Says that a shard does not serve.
pub(super) fn quarantine(shard: ShardId, why: &str) {
    tracing::error!(%shard, %why, "shard quarantined: it does not serve, the others do");
}

/// One handler for whatever fails on the disk: nothing more is acknowledged, the process has to
/// end.
fn on_failure(
    phase: &watch::Sender<Phase>,
    inboxes: &[Arc<Inbox<Input>>],
) -> Box<dyn FnOnce(DiskFailure) + Send> {
    let (phase, inboxes) = (phase.clone(), inboxes.to_vec());
    Box::new(move |failure| {
        let reason = format!("{failure}: {}", failure.source);
        super::node::fail(&phase, reason);
        for inbox in inboxes {
            inbox.send(Input::Stop);
        }
    })
}

/// The worker that owns a shard.
pub(super) fn worker_of(shard: ShardId, workers: usize) -> usize {
    usize::try_from(shard.get()).map_or(0, |shard| shard.saturating_sub(1) % workers)
}

/// One for each shard that there may be.
fn slots(found: &Found, inboxes: &[Arc<Inbox<Input>>]) -> Vec<Slot> {
    let slot = |shard| {
        let content = match shard {
            ShardId::METADATA => content(found.metadata.as_ref(), |found| &found.store),
            shard => content(found.data.get(&shard), |found| &found.store),
        };
        Slot::new(shard, &inboxes[worker_of(shard, inboxes.len())], content)
    };
    DataDir::shards().map(slot).collect()
}

/// One more than the place of the last slot with a replica.
fn slots_used(dir: &DataDir) -> usize {
    let is_here = |shard: &ShardId| dir.replica(*shard).is_some();
    let last = DataDir::shards().filter(is_here).last();
    last.and_then(|shard| usize::try_from(shard.get()).ok())
        .map_or(0, |place| place + 1)
}

fn content<T>(
    found: Option<&Result<Opened<T>, String>>,
    store: impl FnOnce(&T) -> &Arc<Store>,
) -> Content {
    match found {
        None => Content::Absent,
        Some(Ok(found)) => Content::replica(Arc::clone(store(&found.state))),
        Some(Err(why)) => Content::Unusable(why.clone()),
    }
}

fn workers_of(node: &Arc<Node>, found: Found) -> Vec<Worker> {
    let now = node.host.now();
    let mut workers: Vec<Worker> = node
        .inboxes
        .iter()
        .map(|inbox| Worker::new(node, inbox))
        .collect();
    let count = workers.len();
    for shard in DataDir::shards() {
        if node.data_dir.replica(shard).is_none() {
            // Of one that was given up: nobody needs it.
            node.journal.release(shard, LogIndex::new(u64::MAX));
        }
    }
    for (shard, found) in found.data {
        let Ok(found) = found else {
            continue;
        };
        node.journal.release(shard, found.covered);
        let log = ShardLog::new(found.log);
        let data = DataShard::new(node, found.state, found.plan, log, now);
        workers[worker_of(shard, count)].shards.insert(shard, data);
    }
    if let Some(Ok(found)) = found.metadata {
        let shard = ShardId::METADATA;
        node.journal.release(shard, found.covered);
        let log = ShardLog::new(found.log);
        let metadata = MetadataShard::new(node, found.state, found.plan, log, now);
        workers[worker_of(shard, count)].metadata = Some(metadata);
    }
    workers
}

/// A replica that was just opened, ready to be run by its worker.
pub(super) enum OpenedReplica {
    /// Of the metadata shard.
    Metadata(Box<MetadataShard>),
    /// Of a data shard.
    Data(Box<DataShard>),
}

/// Opens a replica that has just been begun; nothing of its shard runs here.
///
/// # Errors
/// Why it cannot be used.
pub(super) fn open_replica(
    node: &Arc<Node>,
    shard: ShardId,
    now: Instant,
) -> Result<OpenedReplica, String> {
    let (dir, slot) = (&node.data_dir, node.slot_at_all(shard));
    let seed = node.host.random();
    let seed = seed.map_err(|error| format!("no random bits: {error}"))?;
    let nothing = ShardRecovery::default();
    let unusable = |error| match error {
        Unusable::Shard(why) => why,
        Unusable::Node(error) => error.to_string(),
    };
    if shard == ShardId::METADATA {
        let recovered = recovery::metadata(dir, &nothing).map_err(unusable)?;
        let found = recovered.open(dir, shard, &node.options, seed)?;
        slot.replace(Content::replica(Arc::clone(&found.state.store)));
        let log = ShardLog::new(found.log);
        let metadata = MetadataShard::new(node, found.state, found.plan, log, now);
        return Ok(OpenedReplica::Metadata(Box::new(metadata)));
    }
    let recovered = recovery::data(dir, shard, &nothing).map_err(unusable)?;
    let found = recovered.open(dir, shard, &node.options, seed)?;
    slot.replace(Content::replica(Arc::clone(&found.state.store)));
    let log = ShardLog::new(found.log);
    let data = DataShard::new(node, found.state, found.plan, log, now);
    Ok(OpenedReplica::Data(Box::new(data)))
}

fn run_workers(node: &Arc<Node>, workers: Vec<Worker>) -> Result<Vec<Box<dyn Join>>, StartError> {
    let mut running = Vec::new();
    for (number, worker) in workers.into_iter().enumerate() {
        let name = format!("worker-{number}");
        match node.host.routine(&name, Box::new(worker)) {
            Ok(worker) => running.push(worker),
            Err(error) => {
                node.inboxes
                    .iter()
                    .for_each(|inbox| inbox.send(Input::Stop));
                node.journal.drain();
                return Err(StartError::Thread(error));
            }
        }
    }
    Ok(running)
}
