//! What the tests of this crate share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use millrace_types::{LogIndex, ReplicaId, ShardId, Term};

use crate::{
    Damage, DataDir, Disk, DiskFailure, Expect, Journal, JournalHandle, JournalOptions,
    JournalRecord, OpenError, Random, RecordKind, TornTail, drive,
};

/// Longest wait for another thread: far beyond what any takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Where tests on the disk in memory keep their data.
pub(crate) fn data_path() -> PathBuf {
    PathBuf::from("/data")
}

/// Opens a directory of two data shards.
pub(crate) fn open_dir(disk: &(impl Disk + Clone)) -> DataDir {
    open_dir_at(disk, &data_path())
}

pub(crate) fn open_dir_at(disk: &(impl Disk + Clone), path: &Path) -> DataDir {
    let expect = Expect {
        cluster_id: None,
        shards: 2,
    };
    DataDir::open(Arc::new(disk.clone()), path, expect, random()).unwrap()
}

/// Waits for another thread to make something true.
pub(crate) fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is_true() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

/// Bits that differ from call to call.
pub(crate) fn random() -> Random {
    static CALLS: AtomicU64 = AtomicU64::new(1);
    Arc::new(|| {
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        Ok(call.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31))
    })
}

/// Files of a few batches.
pub(crate) fn small() -> JournalOptions {
    JournalOptions {
        file_bytes: 16 << 10,
        batch_records_max: 16,
        batch_bytes_max: 4 << 10,
        queued_bytes_max: 64 << 10,
        spare_files_max: 2,
    }
}

/// An entry whose content tells its place.
pub(crate) fn entry(shard: u32, index: u64, body_bytes: usize) -> JournalRecord {
    let fill = u8::try_from((index * 7 + u64::from(shard)) % 251).unwrap();
    JournalRecord {
        shard: ShardId::new(shard),
        replica: ReplicaId::new(u64::from(shard) + 100),
        kind: RecordKind::Entry,
        term: Term::new(1),
        index: LogIndex::new(index),
        header: Bytes::from(format!("command {shard}/{index}")),
        body: Bytes::from(vec![fill; body_bytes]),
    }
}

/// What a journal held.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) shards: BTreeMap<ShardId, RecoveredShard>,
    pub(crate) torn: Option<TornTail>,
}

#[derive(Debug, Default)]
pub(crate) struct RecoveredShard {
    pub(crate) records: Vec<JournalRecord>,
    pub(crate) damage: Option<Damage>,
}

/// Opens a journal and reads all of it.
pub(crate) fn open(
    dir: &DataDir,
    options: JournalOptions,
) -> Result<(Journal, Recovered), OpenError> {
    let (mut journal, recovery) = Journal::open(dir, options)?;
    let mut shards: BTreeMap<ShardId, RecoveredShard> = BTreeMap::new();
    for (shard, found) in recovery.shards {
        shards.entry(shard).or_default().damage = found.damage;
    }
    journal.replay(&mut |record| shards.entry(record.shard).or_default().records.push(record))?;
    let torn = recovery.torn;
    Ok((journal, Recovered { shards, torn }))
}

/// A started journal and what its failure was.
pub(crate) struct Running {
    pub(crate) journal: JournalHandle,
    pub(crate) failures: Arc<Mutex<Vec<DiskFailure>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Opens and starts a journal.
pub(crate) fn start(dir: &DataDir, options: JournalOptions) -> (Running, Recovered) {
    let (journal, recovery) = open(dir, options).unwrap();
    let failures: Arc<Mutex<Vec<DiskFailure>>> = Arc::default();
    let seen = Arc::clone(&failures);
    let on_failure = Box::new(move |failure| seen.lock().unwrap().push(failure));
    let mut threads = Vec::new();
    let journal = journal
        .start(on_failure, &mut |_, routine| {
            threads.push(std::thread::spawn(|| drive(routine)));
            Ok(())
        })
        .unwrap();
    let threads = Mutex::new(threads);
    let running = Running {
        journal,
        failures,
        threads,
    };
    (running, recovery)
}

impl Running {
    /// Appends; the receiver hears when it is durable, or that it never will be.
    pub(crate) fn append(&self, records: Vec<JournalRecord>) -> Receiver<()> {
        let (sender, receiver) = mpsc::channel();
        // A refused append drops the sender, which the receiver hears.
        drop(self.journal.append(
            records,
            Box::new(move || sender.send(()).unwrap_or_default()),
        ));
        receiver
    }

    /// Writes and answers what waits, then ends the threads.
    pub(crate) fn shutdown(&self) {
        self.journal.drain();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap());
        for thread in threads {
            // A panic is for the test to judge.
            drop(thread.join());
        }
    }

    /// Appends and waits until it is durable.
    pub(crate) fn append_durably(&self, records: Vec<JournalRecord>) {
        self.append(records).recv_timeout(PATIENCE).unwrap();
    }
}

/// Indexes of a shard's recovered records.
pub(crate) fn indexes(recovery: &Recovered, shard: u32) -> Vec<u64> {
    let shard = &recovery.shards[&ShardId::new(shard)];
    shard
        .records
        .iter()
        .map(|record| record.index.get())
        .collect()
}
