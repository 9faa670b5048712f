//! How others speak to the journal.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_types::{LogIndex, ShardId};

use super::committer::{Committer, OnFailure};
use super::inbox::{Done, Inbox};
use super::live::Live;
use super::lookup::{self, Wanted};
use super::supply::{Preparer, Supply};
use super::writer::Writer;
use super::{JournalRecord, SyncTimes};
use crate::data_dir::DataDir;
use crate::error::{AppendError, DiskFailure};
use crate::routine::Starter;
use crate::signal::Signal;
use crate::times::{Times, TimesSeen};

/// A running journal. Clones speak to the same one.
#[derive(Clone)]
pub struct JournalHandle(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) inbox: Inbox,
    /// Without what `live` knows.
    stats: Mutex<JournalStats>,
    syncs: Times,
    live: Arc<Mutex<Live>>,
    dir: DataDir,
    supply: Arc<Supply>,
    pub(crate) signal: Arc<Signal>,
}

/// Counts since the start, and what is there now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Syncs of batches.
    pub fsyncs: u64,
    /// Batches written.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of them, headers and padding included.
    pub bytes: u64,
    /// How long the syncs took.
    pub sync: SyncTimes,
    /// The same as a histogram.
    pub syncs: TimesSeen,
    /// By shard, bytes that no checkpoint covers: checkpointing the shard releases them.
    pub live_bytes: BTreeMap<ShardId, u64>,
    /// Shards that keep the oldest file from being used again; empty with a single file.
    pub pinned_by: Vec<ShardId>,
    /// Files in use.
    pub files: usize,
    /// Their bytes.
    pub file_bytes: u64,
    /// Waiting to be written.
    pub queued_bytes: u64,
}

/// Whether there is room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Left on the disk, besides what the journal has prepared.
    pub free_bytes: u64,
    /// The file after the current one.
    pub next_file: NextFile,
}

/// The file in which the journal goes on when the current one is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextFile {
    /// There.
    Ready,
    /// On its way.
    Preparing,
    /// The disk refused it, most likely because it is full. Publishing should stop now: when the
    /// current file is full, the journal waits for room, and everything with it.
    Refused,
}

pub(crate) fn start(
    writer: Writer,
    on_failure: OnFailure,
    run: &mut Starter<'_>,
) -> io::Result<JournalHandle> {
    let supply = Arc::clone(&writer.supply);
    let signal = supply.journal_signal();
    let shared = Arc::new(Shared {
        inbox: Inbox::new(writer.options, Arc::clone(&signal)),
        stats: Mutex::default(),
        syncs: Times::default(),
        live: Arc::clone(&writer.live),
        dir: writer.dir.clone(),
        supply: Arc::clone(&supply),
        signal,
    });
    let preparer = Box::new(Preparer::new(Arc::clone(&supply)));
    let committer = Box::new(Committer::new(writer, Arc::clone(&shared), on_failure));
    // When the second one does not start it is dropped, which ends the first one.
    run("journal-files", preparer)?;
    run("journal", committer)?;
    Ok(JournalHandle(shared))
}

impl JournalHandle {
    /// Appends records; those of one shard must be in index order over all calls. `done` is called
    /// by the journal's routine once all of them are durable, after the `done` of every earlier
    /// call; after a failure it never is. It must neither block nor append. Never blocks itself and
    /// takes whatever comes: whoever appends asks `has_room` first.
    ///
    /// # Errors
    /// When the journal has stopped or a record is too large; nothing of the call is written then.
    pub fn append(
        &self,
        records: Vec<JournalRecord>,
        done: Box<dyn FnOnce() + Send>,
    ) -> Result<(), AppendError> {
        let done: Done = done;
        self.0.inbox.push(records, done)
    }

    /// Whether less than `queued_bytes_max` waits. Also true when the journal has stopped, which
    /// `append` tells.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.0.inbox.has_room()
    }

    /// Calls `wake` once, when `has_room` has become true: here if it is already, otherwise by the
    /// journal's routine. It must neither block nor append.
    pub fn when_room(&self, wake: Box<dyn FnOnce() + Send>) {
        self.0.inbox.when_room(wake);
    }

    /// A durable checkpoint covers everything of the shard up to and including this index.
    pub fn release(&self, shard: ShardId, upto: LogIndex) {
        self.0.inbox.release(shard, upto);
    }

    /// Reads entries once more that were written before: dense from the first on, fewer or none
    /// when they are not there any more. Blocks on the disk.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn entries(&self, wanted: &Wanted) -> Result<Vec<JournalRecord>, DiskFailure> {
        let live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        let (course, paths) = live.course(wanted.shard, wanted.indexes.start);
        drop(live);
        lookup::read(&**self.0.dir.disk(), wanted, &course, &paths)
    }

    /// A new replica of the shard begins: what was released of the one before says nothing about
    /// it. Called before anything of it is appended.
    pub fn restart(&self, shard: ShardId) {
        self.0.inbox.restart(shard);
    }

    /// Counts.
    #[must_use]
    pub fn stats(&self) -> JournalStats {
        let mut stats = self
            .0
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        stats.syncs = self.0.syncs.seen();
        stats.queued_bytes = self.0.inbox.queued_bytes();
        self.0
            .live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .describe(&mut stats);
        stats
    }

    /// Whether there is room for more.
    ///
    /// # Errors
    /// When the system does not say how much.
    pub fn room(&self) -> Result<Room, DiskFailure> {
        Ok(Room {
            free_bytes: self.0.dir.free_bytes()?,
            next_file: self.0.supply.next_file(),
        })
    }

    /// Lets the routines end once what waits is written and answered, and returns at once; later
    /// appends are refused. What finds no room on a full disk is dropped unanswered. Whoever runs
    /// the routines waits for them.
    pub fn drain(&self) {
        self.0.inbox.drain();
    }
}

impl Shared {
    pub(crate) fn count(&self, records: u64, bytes: u64, sync: Duration) {
        self.syncs.add(sync);
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.fsyncs += 1;
        stats.batches += 1;
        stats.records += records;
        stats.bytes += bytes;
        stats.sync.last = sync;
        stats.sync.total += sync;
        stats.sync.longest = stats.sync.longest.max(sync);
    }
}
