//! What a node is started with, the limits it keeps, and why a start can fail.

use std::path::PathBuf;
use std::time::Duration;

use millrace_storage::{BelongError, JournalOptions, OpenError, SCRUB_BYTES_PER_SECOND_DEFAULT};
use millrace_types::{Founding, SHARDS_DEFAULT};

/// Longest wait of a `Receive`: below the idle timeouts of common proxies.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Reads that hit the disk, at a time: a few keep it busy, many only wait for each other.
pub(super) const READERS_MAX: usize = 16;
/// Messages of one `Receive`, `Peek` or page of a list: bounds the work of one call.
pub const MESSAGES_MAX: u32 = 1_000;
/// `Receive` calls waiting at one queue: each holds memory and is looked at when a message arrives.
pub(super) const WAITING_RECEIVES_MAX: usize = 1_000;
/// Publishes on their way to the disk, in bytes, for one shard: several full journal batches, so
/// that the disk never starves, and no more than a small pod can hold.
pub(super) const IN_FLIGHT_BYTES_MAX: u64 = 64 << 20;
/// The same in entries: bounds what one sync has to apply.
pub(super) const IN_FLIGHT_ENTRIES_MAX: u64 = 10_000;
/// Publishes that wait for room, in bytes, over all calls and streams: four of the largest frames,
/// thousands of small ones. Beyond, what finds no room is refused at once.
pub(super) const LOBBY_BYTES_MAX: u64 = 68 << 20;
/// A client that is told to come back does so after about two syncs of a slow disk.
pub(super) const RETRY_AFTER_MS: u64 = 50;
/// A publish that finds no room waits this long at most before it is refused: longer than a
/// checkpoint takes to make some, shorter than callers' patience.
pub const PUBLISH_WAIT_MAX: Duration = Duration::from_secs(5);
/// A publish that was let in is answered within this at most, and be it that its outcome is
/// unknown: longer than an election and a full disk's checkpoint take.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);
/// Who asks what a shard holds now is answered, or refused, within this: an election's time, with
/// some for the way.
pub(super) const READ_WAIT_MAX: Duration = Duration::from_millis(1_500);
/// Who asks a worker what it has is answered, or goes without, within this: a worker that does not
/// come round for so long hangs, on the disk as a rule.
pub(super) const ASK_WAIT_MAX: Duration = Duration::from_secs(5);
/// A read of the disk that takes longer has failed for who waits for it: less than calls have time.
pub(super) const DISK_READ_WAIT_MAX: Duration = Duration::from_secs(15);
/// Questions of one shard that wait for its leader: each holds a call's memory.
pub(super) const READERS_WAITING_MAX: usize = 10_000;
/// Calls that ask who leads the catalogue about a name that this node does not know: each is a
/// question between nodes, and a client may ask for whatever it likes.
pub(super) const NAMES_SOUGHT_MAX: usize = 256;
/// How often it looks.
pub(super) const PUBLISH_LOOK: Duration = Duration::from_millis(10);
/// Parts of the memory for bodies, of four, from which on publishes are slowed down,
pub(super) const CROWDED_QUARTERS: u64 = 3;
/// each by as much as this: a fast publisher then sends less than a checkpoint writes.
pub(super) const CROWDED_WAIT: Duration = Duration::from_millis(100);
/// Free space kept for settling, deleting and one checkpoint.
pub(super) const DISK_RESERVE_BYTES_DEFAULT: u64 = 64 << 20;
/// Bodies kept in memory unless configured.
pub(super) const MEMORY_BYTES_DEFAULT: u64 = 512 << 20;
/// A session that hears nothing from its client for this long is detached, and closed when as much
/// time has passed again.
pub(super) const SESSION_TTL_DEFAULT: Duration = Duration::from_secs(30);
/// A consumer that takes nothing for this long gives back what waits for it.
pub(super) const STALL_DEFAULT: Duration = Duration::from_secs(10);

/// Data shards at least: so that what crosses shards is at work in every installation.
pub(super) const SHARDS_MIN: u32 = 2;
/// A checkpoint starts when bodies take this part of the memory limit: the rest is for what comes
/// while it is written.
pub(super) const CHECKPOINT_MEMORY_PARTS: u64 = 8;
/// Room on the disk that is kept for checkpoints, at most: what those of all shards need when the
/// memory they are for is at its default. Not more than half of what is to be left free anyway, or
/// a small disk would have room for little else.
const CHECKPOINT_RESERVE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of bodies that one event, `Receive` or `Peek` holds in memory, unless its first message
/// alone is larger: what clients with gRPC's default limit of 4 MiB can take.
pub(super) const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Bytes of snapshots that a node sends in a second: half of what a slow disk reads, so that those
/// who read messages from it notice little; a gigabyte takes a quarter of a minute.
const SNAPSHOT_BYTES_PER_SECOND_DEFAULT: u64 = 64 << 20;
/// Bytes in flight of one consumer at most, and unless it asks for less.
pub(super) const CONSUMER_BYTES_MAX: u64 = 64 << 20;

/// Where others find a node; what is empty is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    /// Other nodes, `HOST:PORT`.
    pub peer_address: String,
    /// Clients, `HOST:PORT`.
    pub client_address: String,
    /// What fails together with it.
    pub zone: String,
}

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Where everything is kept; created when missing.
    pub data_dir: PathBuf,
    /// The cluster this node belongs to: a directory of another one is refused. `None` takes what
    /// the directory says, or mints one.
    pub cluster_id: Option<String>,
    /// How the cluster began, for a node that is one of several founders or that may be opened for
    /// the first time as such. `None` on a directory without a cluster founds one alone.
    pub founding: Option<Founding>,
    /// Data shards; a directory that was made with another number is refused. A founding record has
    /// its own number.
    pub shards: u32,
    /// Threads that own the shards.
    pub workers: usize,
    /// Bodies in memory: a checkpoint starts at an eighth of it, publishes are refused beyond it.
    pub memory_bytes_max: u64,
    /// Publishes are refused when less is free; half as much, up to 64 MiB, is kept for checkpoints
    /// besides.
    pub disk_reserve_bytes: u64,
    /// Bytes a second read in search of damage; 0: none.
    pub scrub_bytes_per_second: u64,
    /// Bytes a second of all snapshots that leave for other nodes together; 0: as fast as it goes.
    pub snapshot_bytes_per_second: u64,
    /// Bytes of journal after which a shard makes a checkpoint.
    pub checkpoint_journal_bytes: u64,
    /// Entries after which a shard makes a checkpoint: bounds the time a start takes.
    pub checkpoint_entries: u64,
    /// Where others find this node.
    pub advertised: Advertised,
    /// Silence after which a session is detached.
    pub session_ttl: Duration,
    /// A consumer that takes nothing for this long gives back what waits for it.
    pub consumer_stall: Duration,
    /// Sizes of the journal.
    pub journal: JournalOptions,
}

impl NodeOptions {
    /// Defaults for a data directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            data_dir: data_dir.into(),
            cluster_id: None,
            founding: None,
            shards: SHARDS_DEFAULT,
            workers: (cores / 2).max(1),
            memory_bytes_max: MEMORY_BYTES_DEFAULT,
            disk_reserve_bytes: DISK_RESERVE_BYTES_DEFAULT,
            scrub_bytes_per_second: SCRUB_BYTES_PER_SECOND_DEFAULT,
            snapshot_bytes_per_second: SNAPSHOT_BYTES_PER_SECOND_DEFAULT,
            checkpoint_journal_bytes: 64 << 20,
            checkpoint_entries: 200_000,
            advertised: Advertised::default(),
            session_ttl: SESSION_TTL_DEFAULT,
            consumer_stall: STALL_DEFAULT,
            journal: JournalOptions::default(),
        }
    }

    /// Room on the disk that is kept for checkpoints.
    pub(super) fn checkpoint_reserve_bytes(&self) -> u64 {
        (self.disk_reserve_bytes / 2).min(CHECKPOINT_RESERVE_BYTES_MAX)
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Fewer than two data shards, or too many.
    #[error("shards must be {SHARDS_MIN}..={max}, not {given}")]
    Shards {
        /// What was asked for.
        given: u32,
        /// The limit.
        max: u32,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It does not belong to the cluster of the founding record.
    #[error("data directory {path} keeps to what it is")]
    Belong {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: BelongError,
    },
    /// The system gives no random bits.
    #[error("cannot get random bits")]
    Random(#[source] std::io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}
