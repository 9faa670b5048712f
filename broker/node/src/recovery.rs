//! What a shard's checkpoint and journal records add up to. Damage of one shard is told apart from
//! trouble of the whole node.

use std::sync::Arc;

use millrace_engine::catalogue::{Catalogue, CatalogueEntry};
use millrace_engine::command::Entry;
use millrace_engine::{DecodeError, Shard};
use millrace_storage::{
    Checkpoint, DataDir, JournalRecord, OpenError, RecordKind, ShardRecovery, Store,
};
use millrace_types::{Elapsed, LogIndex, ShardId, Wall};

use super::checkpoint_plan::{CheckpointPlan, Thresholds};
use super::options::{CHECKPOINT_MEMORY_PARTS, NodeOptions};
use super::replica::Replica;

/// A known bug leaves out one entry of so many.
const REPLAY_SKIPS: u64 = 7;

/// A shard as its disk has it.
pub(super) struct Recovered<T> {
    /// Its state after the last entry.
    pub(super) state: T,
    /// The last entry.
    pub(super) last: LogIndex,
    /// The last one that the checkpoint covers.
    pub(super) covered: LogIndex,
    /// Bytes of those after it.
    journal_bytes: u64,
}

/// A data shard's state.
pub(super) struct Data {
    /// Engine and bodies.
    pub(super) replica: Replica,
}

/// The metadata shard's state.
pub(super) struct Metadata {
    /// The catalogue.
    pub(super) catalogue: Catalogue,
    /// Wall time of its last entry.
    pub(super) wall: Wall,
    /// Shard time of its last entry.
    pub(super) elapsed: Elapsed,
    /// Its store, without bodies.
    pub(super) store: Arc<Store>,
}

/// Why a shard cannot be used.
pub(super) enum Unusable {
    /// It is damaged; others may serve.
    Shard(String),
    /// The node cannot start.
    Node(OpenError),
}

impl From<OpenError> for Unusable {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Corrupt { .. } => Self::Shard(error.to_string()),
            // Not damage: the disk, the version, or somebody else's directory.
            error => Self::Node(error),
        }
    }
}

impl<T> Recovered<T> {
    /// When it makes its next checkpoint.
    pub(super) fn plan(&self, options: &NodeOptions) -> CheckpointPlan {
        let shards = u64::from(options.shards.max(1));
        let thresholds = Thresholds {
            journal_bytes: options.checkpoint_journal_bytes,
            entries: options.checkpoint_entries,
            resident_bytes: options.memory_bytes_max / CHECKPOINT_MEMORY_PARTS / shards,
        };
        CheckpointPlan::new(thresholds, self.covered, self.journal_bytes)
    }
}

/// What the journal's entries are applied to.
pub(super) trait Apply {
    /// Applies the next entry.
    ///
    /// # Errors
    /// When it cannot be read.
    fn apply(&mut self, record: JournalRecord) -> Result<(), DecodeError>;
}

impl Apply for Data {
    fn apply(&mut self, record: JournalRecord) -> Result<(), DecodeError> {
        let entry = Entry::decode(&record.header)?;
        self.replica.apply(record.index, &entry, record.body);
        Ok(())
    }
}

impl Apply for Metadata {
    fn apply(&mut self, record: JournalRecord) -> Result<(), DecodeError> {
        let entry = CatalogueEntry::decode(&record.header)?;
        (self.wall, self.elapsed) = (entry.stamp.wall, entry.stamp.elapsed);
        self.catalogue.apply(record.index, &entry);
        Ok(())
    }
}

impl<T: Apply> Recovered<T> {
    /// Takes the journal's next record of this shard, in order; applies what follows the
    /// checkpoint.
    ///
    /// # Errors
    /// Why the shard cannot be used.
    pub(super) fn replay(&mut self, record: JournalRecord) -> Result<(), String> {
        let (index, bytes) = (record.index, record.bytes());
        if record.kind != RecordKind::Entry || index <= self.covered {
            return Ok(());
        }
        if index != self.last.next() {
            let last = self.last;
            return Err(format!(
                "entries after {last} are missing from the journal: the next one is {index}"
            ));
        }
        let skipped = index.get().is_multiple_of(REPLAY_SKIPS);
        if millrace_types::mutant!(ReplaySkipsEntry) && skipped {
            self.last = index;
            return Ok(());
        }
        let applied = self.state.apply(record);
        applied.map_err(|error| format!("entry {index} of the journal cannot be read: {error}"))?;
        self.journal_bytes += bytes;
        self.last = index;
        Ok(())
    }
}

/// A data shard as its checkpoint has it.
pub(super) fn data(
    dir: &DataDir,
    id: ShardId,
    recovery: &ShardRecovery,
) -> Result<Recovered<Data>, Unusable> {
    check(recovery)?;
    let checkpoint = Checkpoint::load(dir, id)?;
    let store = Store::open(
        dir,
        id,
        checkpoint.as_ref().map(|checkpoint| &checkpoint.manifest),
    )?;
    let (shard, covered) = match &checkpoint {
        None => (Shard::new(id), LogIndex::default()),
        Some(checkpoint) => {
            let shard = Shard::restore(&checkpoint.snapshot).map_err(bad_snapshot)?;
            (shard, checkpoint.index)
        }
    };
    let replica = Replica { shard, store };
    Ok(Recovered {
        state: Data { replica },
        last: covered,
        covered,
        journal_bytes: 0,
    })
}

/// The metadata shard as its checkpoint has it.
pub(super) fn metadata(
    dir: &DataDir,
    recovery: &ShardRecovery,
) -> Result<Recovered<Metadata>, Unusable> {
    check(recovery)?;
    let checkpoint = Checkpoint::load(dir, ShardId::METADATA)?;
    let manifest = checkpoint.as_ref().map(|checkpoint| &checkpoint.manifest);
    let store = Store::open(dir, ShardId::METADATA, manifest)?;
    let (catalogue, covered) = match &checkpoint {
        None => (Catalogue::new(), LogIndex::default()),
        Some(checkpoint) => {
            let catalogue = Catalogue::restore(&checkpoint.snapshot).map_err(bad_snapshot)?;
            (catalogue, checkpoint.index)
        }
    };
    let (wall, elapsed) = (Wall::default(), Elapsed::default());
    Ok(Recovered {
        state: Metadata {
            catalogue,
            wall,
            elapsed,
            store,
        },
        last: covered,
        covered,
        journal_bytes: 0,
    })
}

fn check(recovery: &ShardRecovery) -> Result<(), Unusable> {
    match &recovery.damage {
        None => Ok(()),
        Some(damage) => Err(Unusable::Shard(format!(
            "{} is corrupt at byte {}: {}",
            damage.path.display(),
            damage.at,
            damage.kind
        ))),
    }
}

fn bad_snapshot(error: DecodeError) -> Unusable {
    Unusable::Shard(format!("the checkpoint's snapshot cannot be read: {error}"))
}
