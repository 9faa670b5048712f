//! Disk, journal, segments, checkpoints and recovery.
//!
//! A node's data directory (`DataDir`) holds one journal for all its shards (`Journal`) and, for
//! each shard, a checkpoint (`Checkpoint`) and the bodies it covers (`Store`). Start: open the
//! directory, then the journal; for each shard load its checkpoint, open its store with the
//! checkpoint's manifest, apply the journal's records behind the checkpoint's index, and release
//! what the checkpoint covers. Plain threads, no async runtime.

mod checkpoint;
mod checkpointer;
mod data_dir;
mod disk;
mod envelope;
mod error;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod golden_tests;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod inspect;
mod journal;
#[cfg(test)]
mod node_tests;
mod range_set;
pub mod records;
mod routine;
mod scrubber;
mod signal;
mod size;
mod snapshot;
mod store;
#[cfg(test)]
mod testing;
mod times;

pub use checkpoint::{Checkpoint, Covered, Manifest};
pub use checkpointer::{CheckpointDone, Checkpointer, CheckpointerHandle, EncodeSnapshot};
pub use data_dir::{BelongError, Cluster, DataDir, Expect, Random};
pub use disk::{Area, CountedDisk, Disk, DiskFile, Lock, OpenMode, RealDisk, Traffic};
#[cfg(any(test, feature = "test-util"))]
pub use disk::{Crash, Fault, FaultyDisk, MemoryDisk, Operation};
pub use error::{
    Action, AppendError, CheckpointError, Corruption, DiskFailure, OpenError, ReadError,
};
pub use journal::{
    Damage, Installed, JOURNAL_RECORD_BYTES_MAX, Journal, JournalHandle, JournalOptions,
    JournalRecord, JournalStats, NextFile, RecordKind, Recovery, Room, ShardRecovery, SyncTimes,
    TornTail, Wanted,
};
pub use millrace_types::CLUSTER_ID_BYTES_MAX;
pub use routine::{Next, Routine, Starter, drive};
pub use scrubber::{
    Damaged, Finding, OnDamage, SCRUB_BYTES_PER_SECOND_DEFAULT, ScrubStats, Scrubber,
    ScrubberHandle, Stores,
};
pub use signal::Signal;
pub use snapshot::{Export, Import, ImportError, Staged, complete_install};
pub use store::{Limits, Store, StoreStats, StoredRecord};
pub use times::{Times, TimesSeen};
