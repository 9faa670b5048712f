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
use super::options::{CHECKPOINT_MEMORY_PARTS, CoreOptions};
use super::replica::Replica;

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
    pub(super) fn plan(&self, options: &CoreOptions) -> CheckpointPlan {
        let shards = u64::from(options.shards.max(1));
        let thresholds = Thresholds {
            journal_bytes: options.checkpoint_journal_bytes,
            entries: options.checkpoint_entries,
            resident_bytes: options.memory_bytes_max / CHECKPOINT_MEMORY_PARTS / shards,
        };
        CheckpointPlan::new(thresholds, self.covered, self.journal_bytes)
    }
}

/// Recovers a data shard.
pub(super) fn data(
    dir: &DataDir,
    id: ShardId,
    recovery: ShardRecovery,
) -> Result<Recovered<Data>, Unusable> {
    check(&recovery)?;
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
    let mut replica = Replica { shard, store };
    let (last, journal_bytes) = replay(covered, recovery, |record| {
        let entry = Entry::decode(&record.header)?;
        replica.apply(record.index, &entry, record.body);
        Ok(())
    })?;
    Ok(Recovered {
        state: Data { replica },
        last,
        covered,
        journal_bytes,
    })
}

/// Recovers the metadata shard.
pub(super) fn metadata(
    dir: &DataDir,
    recovery: ShardRecovery,
) -> Result<Recovered<Metadata>, Unusable> {
    check(&recovery)?;
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
    let mut state = Metadata {
        catalogue,
        wall,
        elapsed,
        store,
    };
    let (last, journal_bytes) = replay(covered, recovery, |record| {
        let entry = CatalogueEntry::decode(&record.header)?;
        (state.wall, state.elapsed) = (entry.stamp.wall, entry.stamp.elapsed);
        state.catalogue.apply(record.index, &entry);
        Ok(())
    })?;
    Ok(Recovered {
        state,
        last,
        covered,
        journal_bytes,
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

/// Applies what follows the checkpoint; the last index and the bytes applied.
fn replay(
    covered: LogIndex,
    recovery: ShardRecovery,
    mut apply: impl FnMut(JournalRecord) -> Result<(), DecodeError>,
) -> Result<(LogIndex, u64), Unusable> {
    let (mut last, mut bytes) = (covered, 0);
    for record in recovery.records {
        let index = record.index;
        if record.kind != RecordKind::Entry || index <= covered {
            continue;
        }
        if index != last.next() {
            return Err(Unusable::Shard(format!(
                "entries after {last} are missing from the journal: the next one is {index}"
            )));
        }
        bytes += record.bytes();
        apply(record).map_err(|error| {
            Unusable::Shard(format!(
                "entry {index} of the journal cannot be read: {error}"
            ))
        })?;
        last = index;
    }
    Ok((last, bytes))
}

fn bad_snapshot(error: DecodeError) -> Unusable {
    Unusable::Shard(format!("the checkpoint's snapshot cannot be read: {error}"))
}
