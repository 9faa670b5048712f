//! What can go wrong, one type for each family of operations. Each names the file, and the byte
//! where that helps.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use millrace_types::{FoundingError, LogId, Offset};
use thiserror::Error;

use crate::data_dir::BelongError;

/// What is wrong with bytes on disk.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Corruption {
    /// The file is not there.
    #[error("it is missing")]
    Missing,
    /// Another kind of file.
    #[error("it does not start as such a file does")]
    Magic,
    /// Ends early.
    #[error("it ends early: {found} bytes of {expected}")]
    Short {
        /// Bytes needed.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// A length or count is out of its bounds.
    #[error("a length is out of bounds")]
    Length,
    /// The checksum is not the one of the bytes.
    #[error("the checksum does not match")]
    Checksum,
    /// The checksum matches, the content makes no sense.
    #[error("the content makes no sense")]
    Content,
    /// Batches are missing.
    #[error("batches {first} to {last} are missing")]
    BatchesMissing {
        /// The first missing sequence number.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// Entries of one shard are missing.
    #[error("entries after {after} are missing: the next one is {next}")]
    EntriesMissing {
        /// The last index before the gap.
        after: u64,
        /// The first one behind it.
        next: u64,
    },
}

/// Why stored data cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error("data directory {path} is in use by another process")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It belongs to another cluster.
    #[error("data directory {path} belongs to cluster {found}, not {expected}")]
    AnotherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster asked for.
        expected: String,
        /// The cluster it was made for.
        found: String,
    },
    /// It was written by a later version.
    #[error("{path} has format version {found}; this program reads up to {supported}")]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest we know.
        supported: u32,
    },
    /// It was made for another number of data shards, which cannot change yet.
    #[error(
        "data directory {path} has {found} data shards, not {expected}; the number cannot change"
    )]
    ShardCount {
        /// The directory.
        path: PathBuf,
        /// The number asked for.
        expected: u32,
        /// The number it was made with.
        found: u32,
    },
    /// It holds data but not whose.
    #[error("data directory {path} holds data but no identity file")]
    IdentityMissing {
        /// The directory.
        path: PathBuf,
    },
    /// A file is damaged.
    #[error("{path} is corrupt at byte {at}: {kind}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// How.
        kind: Corruption,
    },
    /// A number beyond its limit was asked for.
    #[error("{shards} data shards asked for; between 1 and {shards_max} are possible")]
    ShardsOutOfRange {
        /// What was asked for.
        shards: u32,
        /// The limit.
        shards_max: u32,
    },
    /// What a cluster shall be founded with makes no sense.
    #[error("the cluster cannot be founded")]
    Founding {
        /// Why not.
        #[source]
        source: FoundingError,
    },
    /// The directory cannot belong to the cluster as asked.
    #[error("the data directory keeps to what it is")]
    Belong {
        /// Why.
        #[source]
        source: BelongError,
    },
    /// The system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: Action,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What was tried with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Create a file or directory.
    Create,
    /// Open a file.
    Open,
    /// List a directory.
    List,
    /// Lock a file.
    Lock,
    /// Read.
    Read,
    /// Write.
    Write,
    /// Make durable.
    Sync,
    /// Change the length of a file.
    Resize,
    /// Rename.
    Rename,
    /// Remove.
    Remove,
    /// Gather random numbers.
    Random,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Open => "open",
            Self::List => "list",
            Self::Lock => "lock",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Resize => "resize",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::Random => "draw a random number for",
        })
    }
}

/// A failed operation after which what is on disk is unknown: the node stops and recovers.
#[derive(Debug, Error)]
#[error("cannot {action} {path}")]
pub struct DiskFailure {
    /// The file or directory.
    pub path: PathBuf,
    /// What was tried.
    pub action: Action,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl DiskFailure {
    /// Whether there is no room left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

impl From<DiskFailure> for OpenError {
    fn from(failure: DiskFailure) -> Self {
        let DiskFailure {
            path,
            action,
            source,
        } = failure;
        Self::Io {
            path,
            action,
            source,
        }
    }
}

/// Names the file and the action of a system error.
pub(crate) fn failed(action: Action, path: &Path) -> impl FnOnce(io::Error) -> DiskFailure {
    move |source| DiskFailure {
        path: path.into(),
        action,
        source,
    }
}

/// Why records were not taken into the journal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The journal has failed or was shut down. Whether anything unanswered is durable is unknown.
    #[error("the journal has stopped")]
    Stopped,
    /// A record exceeds what a journal takes; nothing of the request was taken.
    #[error("a record of {bytes} bytes exceeds the journal's limit of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
}

/// Why bodies cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It was there once.
    #[error("offset {offset} of log {log} was discarded")]
    Discarded {
        /// Queue or partition.
        log: LogId,
        /// Which message.
        offset: Offset,
    },
    /// It never was.
    #[error("offset {offset} of log {log} was never stored")]
    Missing {
        /// Queue or partition.
        log: LogId,
        /// Which message.
        offset: Offset,
    },
    /// What is stored is damaged.
    #[error("{path} is corrupt at byte {at}: {kind}")]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where.
        at: u64,
        /// How.
        kind: Corruption,
    },
    /// The system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// The segment.
        path: PathBuf,
        /// What was tried.
        action: Action,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl From<DiskFailure> for ReadError {
    fn from(failure: DiskFailure) -> Self {
        let DiskFailure {
            path,
            action,
            source,
        } = failure;
        Self::Io {
            path,
            action,
            source,
        }
    }
}

/// Why there is no new checkpoint. The previous one stays in force.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// The disk is full; try again when there is room.
    #[error("no room on disk for {path}")]
    Full {
        /// The file that did not fit.
        path: PathBuf,
    },
    /// The checkpointer has failed or was shut down.
    #[error("the checkpointer has stopped")]
    Stopped,
}
