//! What the tests of this crate share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_types::{LogIndex, ReplicaId, ShardId, Term};

use crate::journal::scan::Scan;
use crate::{
    Covered, Damage, DataDir, Disk, DiskFailure, Expect, Journal, JournalHandle, JournalOptions,
    JournalRecord, MemoryDisk, Next, OpenError, Random, RecordKind, Routine, TornTail, drive,
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
    DataDir::open_alone(Arc::new(disk.clone()), path, expect, random()).unwrap()
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

/// A checkpoint's end.
pub(crate) fn covered(index: u64) -> Covered {
    Covered {
        index: LogIndex::new(index),
        term: Term::new(1),
        members: Bytes::new(),
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

/// A journal whose routines take turns on this thread, on a clock of its own.
pub(crate) struct Turns {
    pub(crate) journal: JournalHandle,
    pub(crate) failures: Arc<Mutex<Vec<DiskFailure>>>,
    routines: Vec<Box<dyn Routine>>,
    now: Instant,
    directory: PathBuf,
}

impl Turns {
    /// Opens and starts a journal.
    pub(crate) fn start(dir: &DataDir, options: JournalOptions) -> Self {
        let (journal, _) = Journal::open(dir, options).unwrap();
        let failures: Arc<Mutex<Vec<DiskFailure>>> = Arc::default();
        let seen = Arc::clone(&failures);
        let on_failure = Box::new(move |failure| seen.lock().unwrap().push(failure));
        let mut routines = Vec::new();
        let journal = journal
            .start(on_failure, &mut |_, routine| {
                routines.push(routine);
                Ok(())
            })
            .unwrap();
        Self {
            journal,
            failures,
            routines,
            now: Instant::now(),
            directory: dir.journal_path(),
        }
    }

    /// One step of a routine: 0 prepares files, 1 writes.
    pub(crate) fn step(&mut self, routine: usize) -> Next {
        let now = self.now;
        self.routines
            .get_mut(routine)
            .map_or(Next::Ended, |routine| routine.step(now))
    }

    /// Lets all of them go on until none has anything to do.
    pub(crate) fn run(&mut self) {
        while [0, 1]
            .map(|routine| self.step(routine))
            .contains(&Next::Now)
        {}
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Appends; the receiver hears when it is durable, or that it never will be.
    pub(crate) fn append(&mut self, records: Vec<JournalRecord>) -> Receiver<()> {
        let (sender, receiver) = mpsc::channel();
        drop(self.journal.append(
            records,
            Box::new(move || sender.send(()).unwrap_or_default()),
        ));
        receiver
    }

    /// Appends and goes on until it is durable.
    pub(crate) fn append_durably(&mut self, records: Vec<JournalRecord>) {
        let answer = self.append(records);
        self.run();
        let failures = self.failures.lock().unwrap();
        assert!(answer.try_recv().is_ok(), "{failures:?}");
    }

    /// Releases what a checkpoint covers.
    pub(crate) fn release(&self, shard: u32, upto: u64) {
        self.journal
            .release(ShardId::new(shard), LogIndex::new(upto));
    }

    /// Writes and answers what waits, and ends.
    pub(crate) fn drain(&mut self) {
        self.journal.drain();
        self.run();
    }

    /// The file that is written to: the youngest one that holds batches.
    pub(crate) fn path_in_use(&self, disk: &MemoryDisk) -> PathBuf {
        let names = disk.list(&self.directory).unwrap();
        let files = names.iter().map(|name| self.directory.join(name));
        let used = files.filter(|path| {
            let scan = Scan::open(disk, path);
            scan.is_ok_and(|scan| scan.first.is_some())
        });
        used.max().unwrap()
    }
}
