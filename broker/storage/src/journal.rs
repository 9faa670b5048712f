//! The write-ahead log that all shards of a node share.
//!
//! Decides in which batch and file a record goes, and when a file may be used again. Promises:
//! `done` is called after the sync that covers its records, in the order of the requests; batch
//! n+1 is written only after the sync of batch n returned; after a failed write or sync nothing is
//! acknowledged any more; without room for its next file the journal waits. Recovery returns every
//! acknowledged record, cuts what a crash left incomplete at the very end, and names the shards of
//! any damage before that. Does not look into records, and does not know what an entry means.
//!
//! Runs as two routines, one that writes (`journal/committer.rs`: how batches are made) and one
//! that prepares files (`journal/supply.rs`); neither blocks. Nothing it does for a batch grows
//! with the number of shards.
//!
//! Files (`DIR/journal/NUMBER.journal`) are zero-filled once, have a fixed size, and are used again
//! under a new number. Each start begins a new file, so nothing is ever written behind bytes whose
//! fate is unknown. A seal behind the last batch tells its damage from a torn tail
//! (`docs/decisions/2026-11-21-torn-tail-or-damage.md`). The formats are in `journal/format.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use millrace_types::{LogIndex, ReplicaId, ShardId, Term};

use crate::data_dir::DataDir;
use crate::error::{Corruption, DiskFailure, OpenError};
use crate::routine::Starter;

mod committer;
mod files;
mod fold;
pub(crate) mod format;
mod handle;
mod inbox;
mod live;
mod lookup;
mod places;
mod recovery;
mod replay;
pub(crate) mod scan;
mod supply;
#[cfg(test)]
mod tests;
mod writer;

pub use handle::{JournalHandle, JournalStats, NextFile, Room};
pub use lookup::Wanted;

/// A record, header and body, in bytes: the largest batch of messages and a generous command.
pub const JOURNAL_RECORD_BYTES_MAX: u64 = 32 << 20;
/// Smallest journal file: its header and a few batches.
const FILE_BYTES_MIN: u64 = 16 << 10;

/// Sizes; the defaults suit a broker, tests want smaller ones.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// Of one file. Small enough that an idle broker occupies little, large enough that a new one
    /// is needed rarely.
    pub file_bytes: u64,
    /// Records gathered in one batch: one fsync carries them all, one buffer describes them.
    pub batch_records_max: usize,
    /// Their bytes; a single record may exceed it.
    pub batch_bytes_max: u64,
    /// Waiting to be written; beyond, `has_room` asks the workers to hold back.
    pub queued_bytes_max: u64,
    /// Released files kept for later; what is beyond is deleted.
    pub spare_files_max: usize,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            batch_records_max: 16 << 10,
            batch_bytes_max: 8 << 20,
            queued_bytes_max: 64 << 20,
            spare_files_max: 2,
        }
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// An entry with a command: header = the command, body = the client's bytes.
    Entry = 1,
    /// Raft's hard state: its term; index = how far the log is committed; header = the vote.
    HardState = 2,
    /// A snapshot was installed: the state at this index and term; header = where it is. Every
    /// entry before it is replaced.
    Snapshot = 3,
    /// An entry that is a new leader's first one: empty.
    Lead = 4,
    /// An entry that changes who the shard's members are: header = the change.
    Members = 5,
}

impl RecordKind {
    /// Whether it is an entry of a shard's log, whatever is in it.
    #[must_use]
    pub const fn is_entry(self) -> bool {
        matches!(self, Self::Entry | Self::Lead | Self::Members)
    }
}

/// What the journal carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    /// Whose log it belongs to.
    pub shard: ShardId,
    /// Which replica wrote it.
    pub replica: ReplicaId,
    /// What it is.
    pub kind: RecordKind,
    /// Raft's term.
    pub term: Term,
    /// An entry's place in the shard's log; a snapshot's last entry.
    pub index: LogIndex,
    /// Small; copied.
    pub header: Bytes,
    /// As large as `JOURNAL_RECORD_BYTES_MAX` allows; written without copying.
    pub body: Bytes,
}

impl JournalRecord {
    /// Header and body.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.header.len() as u64 + self.body.len() as u64
    }
}

/// What an opened journal says about its shards; `replay` has the records.
#[derive(Debug)]
pub struct Recovery {
    /// Every shard of the data directory, even without records.
    pub shards: BTreeMap<ShardId, ShardRecovery>,
    /// What a crash left at the end and was cut.
    pub torn: Option<TornTail>,
}

/// What an opened journal says about one shard.
#[derive(Clone, Debug, Default)]
pub struct ShardRecovery {
    /// Something synced is lost: the shard must not be served from its records.
    pub damage: Option<Damage>,
    /// The last snapshot that was installed and counts: what it stands for is in no record
    /// (`complete_install`).
    pub installed: Option<Installed>,
}

/// A snapshot that was installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// By this replica.
    pub replica: ReplicaId,
    /// The last entry it includes.
    pub index: LogIndex,
    /// Of that entry.
    pub term: Term,
}

/// Damage before the end of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The first bad byte.
    pub at: u64,
    /// How it is bad.
    pub kind: Corruption,
}

/// An incomplete last batch. Nobody was told that its records are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub path: PathBuf,
    /// Where the cut is.
    pub at: u64,
    /// What was cut; 0 when the length itself is unreadable.
    pub bytes: u64,
}

/// The journal before its thread runs.
pub struct Journal {
    writer: writer::Writer,
    replay: replay::Replay,
}

impl Journal {
    /// Reads what is there and prepares a new file to go on in.
    ///
    /// # Errors
    /// When the system refuses, a file is of a later version, or there is no room for a file.
    /// Damage is not an error but stated in `Recovery`.
    ///
    /// # Panics
    /// When an option is too small to work with.
    pub fn open(dir: &DataDir, options: JournalOptions) -> Result<(Self, Recovery), OpenError> {
        assert!(
            options.file_bytes >= FILE_BYTES_MIN,
            "journal files are too small"
        );
        assert!(options.batch_records_max > 0, "a batch needs a record");
        let (recovery, found, replay) = recovery::recover(dir, options)?;
        let writer = writer::Writer::new(dir.clone(), options, found)?;
        Ok((Self { writer, replay }, recovery))
    }

    /// Hands out every record that counts, of all shards in the order they were appended, also of
    /// damaged ones: of each shard entries ascending by index without a gap (where there is no
    /// damage), a snapshot before the entries that follow it, hard states where they were. Entries
    /// that a checkpoint covers may be among them. One batch is in memory at a time.
    ///
    /// # Errors
    /// When the system refuses, or something reads otherwise than a moment ago.
    pub fn replay(&mut self, each: &mut dyn FnMut(JournalRecord)) -> Result<(), OpenError> {
        self.replay.run(each)
    }

    /// Starts the journal's routines: the one that writes, `journal`, and the one that prepares
    /// files, `journal-files`. `run` takes each of them and runs it to its end, on a thread of its
    /// own (`drive`) or in turns. `on_failure` is called by one of them, at most once, when writing
    /// fails: what was not acknowledged by then never will be.
    ///
    /// # Errors
    /// When `run` does.
    pub fn start(
        self,
        on_failure: Box<dyn FnOnce(DiskFailure) + Send>,
        run: &mut Starter<'_>,
    ) -> std::io::Result<JournalHandle> {
        handle::start(self.writer, on_failure, run)
    }
}

/// Time spent in syncs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// The last one.
    pub last: Duration,
    /// All together.
    pub total: Duration,
    /// The longest one.
    pub longest: Duration,
}
