//! How others speak to the journal's thread.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_types::{LogIndex, ShardId};

use super::files::Supply;
use super::inbox::{Done, Inbox};
use super::live::Live;
use super::writer::Writer;
use super::{JournalRecord, SyncTimes};
use crate::data_dir::DataDir;
use crate::error::{AppendError, DiskFailure};

/// A running journal. Clones speak to the same one.
#[derive(Clone)]
pub struct JournalHandle(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) inbox: Inbox,
    /// Without what `live` knows.
    stats: Mutex<JournalStats>,
    live: Arc<Mutex<Live>>,
    dir: DataDir,
    supply: Arc<Supply>,
    threads: Mutex<Vec<JoinHandle<()>>>,
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
    /// By shard, bytes that no checkpoint covers: checkpointing the shard releases them.
    pub live_bytes: BTreeMap<ShardId, u64>,
    /// Shards that keep the oldest file from being used again; empty with a single file.
    pub pinned_by: Vec<ShardId>,
    /// Files in use.
    pub files: usize,
    /// Their bytes.
    pub file_bytes: u64,
    /// Waiting for the thread.
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
    /// current file is full, the journal fails.
    Refused,
}

pub(crate) fn start(
    mut writer: Writer,
    on_failure: Box<dyn FnOnce(DiskFailure) + Send>,
) -> io::Result<JournalHandle> {
    let shared = Arc::new(Shared {
        inbox: Inbox::new(writer.options),
        stats: Mutex::default(),
        live: Arc::clone(&writer.live),
        dir: writer.dir.clone(),
        supply: Arc::clone(&writer.supply),
        threads: Mutex::default(),
    });
    let supply = Arc::clone(&writer.supply);
    let preparer = std::thread::Builder::new()
        .name("journal-files".into())
        .spawn(move || supply.run())?;
    shared
        .threads
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(preparer);
    let running = Arc::clone(&shared);
    let journal = std::thread::Builder::new()
        .name("journal".into())
        .spawn(move || {
            // Also when a callback panics: nobody may wait for a thread that is gone.
            let stop = StopOnDrop(&running);
            let result = writer.run(&running);
            drop(stop);
            if let Err(failure) = result {
                on_failure(failure);
            }
        });
    match journal {
        Ok(journal) => {
            shared
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(journal);
            Ok(JournalHandle(shared))
        }
        Err(error) => {
            shared.supply.stop();
            Err(error)
        }
    }
}

struct StopOnDrop<'a>(&'a Shared);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.inbox.stop();
        self.0.supply.stop();
    }
}

impl JournalHandle {
    /// Appends records; those of one shard must be in index order over all calls. `done` is called
    /// on the journal's thread once all of them are durable, after the `done` of every earlier
    /// call; after a failure it never is. It must neither block nor append. Blocks while
    /// `queued_bytes_max` are waiting.
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

    /// A durable checkpoint covers everything of the shard up to and including this index.
    pub fn release(&self, shard: ShardId, upto: LogIndex) {
        self.0.inbox.release(shard, upto);
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

    /// Writes and answers what waits, then ends the threads. Later appends are refused. Must not be
    /// called from a `done`.
    pub fn shutdown(&self) {
        self.0.inbox.drain();
        let threads = {
            let mut threads = self
                .0
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *threads)
        };
        // The journal's thread ends the other one when it is done.
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the journal panicked");
            }
        }
    }
}

impl Shared {
    pub(crate) fn count(&self, records: u64, bytes: u64, sync: Duration) {
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
