//! What a shard's checkpoint and journal records add up to. Damage of one shard is told apart from
//! trouble of the whole node.
//!
//! Entries are applied while they are read, as far as they are known to be committed, and let go: a
//! start holds none of them in memory. What is known: who votes alone commits what it has synced;
//! others wrote down how far they knew. The rest is for the replica.

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_engine::catalogue::{Catalogue, CatalogueEntry};
use millrace_engine::command::Entry as Command;
use millrace_engine::{DecodeError, Shard};
use millrace_replica::{
    Entry, EntryKind, HardState, Mark, Members, Passed, Point, Recovered as Founded, Replica,
    ReplicaOptions,
};
use millrace_storage::{
    Checkpoint, DataDir, JournalRecord, OpenError, ShardRecovery, Store, complete_install,
};
use millrace_types::{Elapsed, LogIndex, ShardId, Wall};

use super::checkpoint_plan::{CheckpointPlan, Thresholds};
use super::options::{CHECKPOINT_MEMORY_PARTS, IN_FLIGHT_BYTES_MAX, NodeOptions};
use super::records::{self, Record};
use super::shard_state::ShardState;

/// A known bug leaves out one entry of so many.
const REPLAY_SKIPS: u64 = 7;
/// Commands that a shard has taken and not applied: what publishers may have under way, and as much
/// again three times for pumps, settlements and what a shard does by itself, so that none of those
/// is ever refused for want of room.
const UNAPPLIED_BYTES_MAX: u64 = 4 * IN_FLIGHT_BYTES_MAX;
/// What all shards together keep in memory for followers that are a little behind, as a part of
/// what bodies may take: the rest they get from the journal.
const WINDOW_MEMORY_PARTS: u64 = 32;
/// A shard's part of that: a few of the messages that carry entries,
const WINDOW_BYTES_MIN: u64 = 1 << 20;
/// and no more than a slow link has under way.
const WINDOW_BYTES_MAX: u64 = 16 << 20;

/// A shard as its disk has it.
pub(super) struct Recovered<T> {
    /// Its state after the last entry that is known to be committed.
    pub(super) state: T,
    /// The checkpoint.
    point: Point,
    hard_state: Option<HardState>,
    /// Applied since the checkpoint.
    passed: Passed,
    /// Not known to be committed.
    beyond: VecDeque<Entry>,
    upto: Upto,
    /// Bytes of entries after the checkpoint.
    journal_bytes: u64,
}

/// How far entries are known to be committed.
enum Upto {
    /// As far as they go: nobody else has a vote.
    Last,
    /// Up to here.
    Index(LogIndex),
}

/// A shard that can be run.
pub(super) struct Opened<T> {
    /// Its state.
    pub(super) state: T,
    /// Its log.
    pub(super) log: Replica,
    /// The last entry that the checkpoint covers.
    pub(super) covered: LogIndex,
    /// When it makes its next one.
    pub(super) plan: CheckpointPlan,
}

/// The metadata shard's state.
pub(super) struct Metadata {
    /// The catalogue.
    pub(super) catalogue: Catalogue,
    /// Wall time of its last command.
    pub(super) wall: Wall,
    /// Shard time of its last command.
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

/// What the journal's entries are applied to.
pub(super) trait Apply {
    /// Applies the next entry, nobody being told.
    ///
    /// # Errors
    /// When it cannot be read.
    fn apply(&mut self, entry: &Entry) -> Result<(), DecodeError>;

    /// Passes over an entry that is no command.
    fn pass(&mut self, index: LogIndex);
}

impl Apply for ShardState {
    fn apply(&mut self, entry: &Entry) -> Result<(), DecodeError> {
        let command = Command::decode(&entry.header)?;
        self.apply(entry.index, &command, entry.body.clone());
        Ok(())
    }

    fn pass(&mut self, index: LogIndex) {
        self.shard.pass(index);
    }
}

impl Apply for Metadata {
    fn apply(&mut self, entry: &Entry) -> Result<(), DecodeError> {
        let command = CatalogueEntry::decode(&entry.header)?;
        self.note(&command);
        self.catalogue.apply(entry.index, &command);
        Ok(())
    }

    fn pass(&mut self, index: LogIndex) {
        self.catalogue.pass(index);
    }
}

impl Metadata {
    /// Takes note of a command's time.
    pub(super) fn note(&mut self, command: &CatalogueEntry) {
        self.wall = self.wall.max(command.stamp.wall);
        self.elapsed = self.elapsed.max(command.stamp.elapsed);
    }
}

impl<T: Apply> Recovered<T> {
    fn new(state: T, point: Point, dir: &DataDir, shard: ShardId) -> Self {
        let own = dir.replica(shard).unwrap_or_default();
        let upto = if point.members.is_only_voter(own) {
            Upto::Last
        } else {
            Upto::Index(point.mark.index)
        };
        Self {
            state,
            point,
            hard_state: None,
            passed: Passed::default(),
            beyond: VecDeque::new(),
            upto,
            journal_bytes: 0,
        }
    }

    /// The last entry that a checkpoint covers.
    const fn covered(&self) -> LogIndex {
        self.point.mark.index
    }

    fn applied(&self) -> LogIndex {
        self.passed.last().unwrap_or(self.point.mark).index
    }

    fn last(&self) -> LogIndex {
        let last = self.beyond.back().map(|entry| entry.index);
        last.unwrap_or_else(|| self.applied())
    }

    /// Takes the journal's next record of this shard, in order; applies what follows the
    /// checkpoint.
    ///
    /// # Errors
    /// Why the shard cannot be used.
    pub(super) fn replay(&mut self, record: JournalRecord) -> Result<(), String> {
        let index = record.index;
        match records::read(record).ok_or("a record of the journal cannot be read")? {
            Record::HardState(state) => {
                self.hard_state = Some(state);
                if let Upto::Index(upto) = &mut self.upto {
                    *upto = state.commit.max(*upto);
                }
            }
            Record::Install(_) if index <= self.covered() => {}
            Record::Install(_) => {
                return Err(format!("the state of a snapshot at {index} is missing"));
            }
            Record::Entry(_) if index <= self.covered() => {}
            Record::Entry(entry) => {
                let last = self.last();
                if millrace_types::mutant!(QuarantinedVotes) && index != last.next() {
                    return Ok(());
                }
                if index != last.next() {
                    return Err(format!(
                        "entries after {last} are missing from the journal: the next one is {index}"
                    ));
                }
                self.journal_bytes += entry.bytes();
                self.beyond.push_back(entry);
            }
        }
        self.apply_committed()
    }

    fn apply_committed(&mut self) -> Result<(), String> {
        let is_committed = |upto: &Upto, entry: &Entry| match upto {
            Upto::Last => true,
            Upto::Index(upto) => entry.index <= *upto,
        };
        while let Some(entry) = self.beyond.pop_front_if(|e| is_committed(&self.upto, e)) {
            self.apply(&entry)?;
            self.passed.add(&entry);
            if entry.kind == EntryKind::Members {
                // The replica knows who votes now; what others have to agree to is for it.
                let known = self.hard_state.map_or(entry.index, |state| state.commit);
                self.upto = Upto::Index(known.max(entry.index));
            }
        }
        Ok(())
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        let index = entry.index;
        if entry.kind != EntryKind::Command {
            self.state.pass(index);
            return Ok(());
        }
        let skipped = index.get().is_multiple_of(REPLAY_SKIPS);
        if millrace_types::mutant!(ReplaySkipsEntry) && skipped {
            self.state.pass(index);
            return Ok(());
        }
        let applied = self.state.apply(entry);
        applied.map_err(|error| format!("entry {index} of the journal cannot be read: {error}"))
    }

    /// The shard with its log, when everything has been replayed; the seed is for elections.
    ///
    /// # Errors
    /// Why the shard cannot be used.
    pub(super) fn open(
        self,
        dir: &DataDir,
        shard: ShardId,
        options: &NodeOptions,
        seed: u64,
    ) -> Result<Opened<T>, String> {
        let (covered, applied) = (self.covered(), self.applied());
        let mut hard_state = self.hard_state;
        if millrace_types::mutant!(QuarantinedVotes)
            && let Some(state) = &mut hard_state
        {
            state.commit = state.commit.min(self.last());
        }
        let shards = u64::from(options.shards.max(1));
        let thresholds = Thresholds {
            journal_bytes: options.checkpoint_journal_bytes,
            entries: options.checkpoint_entries,
            resident_bytes: options.memory_bytes_max / CHECKPOINT_MEMORY_PARTS / shards,
        };
        let recovered = millrace_replica::Recovered {
            hard_state,
            point: self.point,
            passed: self.passed,
            entries: self.beyond.into(),
            applied,
        };
        let own = dir.replica(shard).unwrap_or_default();
        let window = options.memory_bytes_max / WINDOW_MEMORY_PARTS / shards;
        let options = ReplicaOptions {
            unapplied_bytes_max: UNAPPLIED_BYTES_MAX,
            window_bytes_max: window.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX),
            ..ReplicaOptions::new(shard, own)
        };
        let log = Replica::open(options, recovered, seed);
        Ok(Opened {
            state: self.state,
            log: log.map_err(|error| format!("its log cannot be gone on with: {error}"))?,
            covered,
            plan: CheckpointPlan::new(thresholds, covered, self.journal_bytes),
        })
    }
}

/// A data shard as its checkpoint has it.
pub(super) fn data(
    dir: &DataDir,
    id: ShardId,
    recovery: &ShardRecovery,
) -> Result<Recovered<ShardState>, Unusable> {
    check(dir, id, recovery)?;
    let checkpoint = Checkpoint::load(dir, id)?;
    let point = point(dir, id, checkpoint.as_ref())?;
    let manifest = checkpoint.as_ref().map(|checkpoint| &checkpoint.manifest);
    let store = Store::open(dir, id, manifest)?;
    let shard = match &checkpoint {
        None => {
            let mut shard = Shard::new(id);
            shard.pass(point.mark.index);
            shard
        }
        Some(checkpoint) => Shard::restore(&checkpoint.snapshot).map_err(bad_snapshot)?,
    };
    Ok(Recovered::new(ShardState { shard, store }, point, dir, id))
}

/// The metadata shard as its checkpoint has it.
pub(super) fn metadata(
    dir: &DataDir,
    recovery: &ShardRecovery,
) -> Result<Recovered<Metadata>, Unusable> {
    let id = ShardId::METADATA;
    check(dir, id, recovery)?;
    let checkpoint = Checkpoint::load(dir, id)?;
    let point = point(dir, id, checkpoint.as_ref())?;
    let manifest = checkpoint.as_ref().map(|checkpoint| &checkpoint.manifest);
    let store = Store::open(dir, id, manifest)?;
    let catalogue = match &checkpoint {
        None => {
            let mut catalogue = Catalogue::new();
            catalogue.pass(point.mark.index);
            catalogue
        }
        Some(checkpoint) => Catalogue::restore(&checkpoint.snapshot).map_err(bad_snapshot)?,
    };
    let state = Metadata {
        catalogue,
        wall: Wall::default(),
        elapsed: Elapsed::default(),
        store,
    };
    Ok(Recovered::new(state, point, dir, id))
}

/// Where the log goes on. Without a checkpoint: where its first members began, or nowhere, for a
/// replica that was added later and has to hear from a leader.
fn point(
    dir: &DataDir,
    shard: ShardId,
    checkpoint: Option<&Checkpoint>,
) -> Result<Point, Unusable> {
    let covered = checkpoint.map(|checkpoint| checkpoint.covered.clone());
    let covered = covered.unwrap_or_default();
    let founders = dir.founding_members(shard);
    let mut mark = Mark {
        index: covered.index,
        term: covered.term,
    };
    let members = match founders {
        _ if !covered.members.is_empty() => Members::decode(&covered.members),
        // Or a checkpoint from before there were others.
        Some(founders) if founders.len() == 1 => Members::founders(founders),
        founders => match founders.or_else(|| dir.born_members(shard)) {
            Some(first) => {
                let founded = Members::founders(first).and_then(Founded::founding);
                let point = founded.map(|founded| founded.point);
                point.map(|point| {
                    mark = point.mark;
                    point.members
                })
            }
            None => Ok(Members::default()),
        },
    };
    let unreadable = |error| Unusable::Shard(format!("the shard's members: {error}"));
    let members = members.map_err(unreadable)?;
    Ok(Point { mark, members })
}

/// What the journal says of a shard that is not in its records: damage, and a snapshot that was
/// installed and is perhaps not in force yet.
fn check(dir: &DataDir, shard: ShardId, recovery: &ShardRecovery) -> Result<(), Unusable> {
    if let Some(damage) = &recovery.damage
        && !millrace_types::mutant!(QuarantinedVotes)
    {
        let (path, at, kind) = (damage.path.display(), damage.at, &damage.kind);
        let why = format!("{path} is corrupt at byte {at}: {kind}");
        return Err(Unusable::Shard(why));
    }
    let own = dir.replica(shard);
    match recovery.installed.filter(|by| Some(by.replica) == own) {
        Some(installed) => Ok(complete_install(dir, shard, installed)?),
        None => Ok(()),
    }
}

fn bad_snapshot(error: DecodeError) -> Unusable {
    Unusable::Shard(format!("the checkpoint's snapshot cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_storage::RecordKind;
    use millrace_types::{NodeId, ReplicaId, Term};

    use super::*;

    /// Which entries were applied.
    #[derive(Default)]
    struct Seen(Vec<u64>);

    impl Apply for Seen {
        fn apply(&mut self, entry: &Entry) -> Result<(), DecodeError> {
            self.0.push(entry.index.get());
            Ok(())
        }

        fn pass(&mut self, index: LogIndex) {
            self.0.push(index.get());
        }
    }

    fn recovered(upto: Upto) -> Recovered<Seen> {
        let founders = [1, 2].map(|id| (ReplicaId::new(id), NodeId::new(id)));
        let members = Members::founders(founders).unwrap();
        Recovered {
            state: Seen::default(),
            point: Point {
                members,
                ..Point::default()
            },
            hard_state: None,
            passed: Passed::default(),
            beyond: VecDeque::new(),
            upto,
            journal_bytes: 0,
        }
    }

    fn record(kind: RecordKind, index: u64) -> JournalRecord {
        let header = match kind {
            RecordKind::HardState => Bytes::from_static(&[0; 8]),
            RecordKind::Lead => Bytes::new(),
            _ => Bytes::from_static(b"command"),
        };
        JournalRecord {
            shard: ShardId::new(1),
            replica: ReplicaId::new(1),
            kind,
            term: Term::new(1),
            index: LogIndex::new(index),
            header,
            body: Bytes::new(),
        }
    }

    fn replay(into: &mut Recovered<Seen>, records: &[(RecordKind, u64)]) {
        for (kind, index) in records {
            into.replay(record(*kind, *index)).unwrap();
        }
    }

    #[test]
    fn what_is_not_known_to_be_committed_is_left_to_the_replica() {
        let mut shard = recovered(Upto::Index(LogIndex::default()));
        let entry = RecordKind::Entry;
        replay(&mut shard, &[(RecordKind::Lead, 1), (entry, 2)]);
        assert_eq!(shard.state.0, [0; 0]);
        replay(
            &mut shard,
            &[(RecordKind::HardState, 2), (entry, 3), (entry, 4)],
        );
        assert_eq!(shard.state.0, [1, 2]);
        assert_eq!(shard.beyond.len(), 2);
        replay(&mut shard, &[(RecordKind::HardState, 4)]);
        assert_eq!(shard.state.0, [1, 2, 3, 4]);
        assert!(shard.beyond.is_empty());
        assert_eq!(shard.passed.last(), Some(Mark::new(4, 1)));
    }

    #[test]
    fn who_votes_alone_applies_everything_until_somebody_else_may_vote() {
        let mut shard = recovered(Upto::Last);
        let entry = RecordKind::Entry;
        replay(
            &mut shard,
            &[(entry, 1), (RecordKind::Members, 2), (entry, 3)],
        );
        assert_eq!(shard.state.0, [1, 2]);
        replay(&mut shard, &[(RecordKind::HardState, 3), (entry, 4)]);
        assert_eq!(shard.state.0, [1, 2, 3]);
        assert_eq!(shard.last(), LogIndex::new(4));
    }

    #[test]
    fn a_snapshot_without_its_state_and_a_gap_are_damage() {
        let mut shard = recovered(Upto::Last);
        assert!(shard.replay(record(RecordKind::Snapshot, 7)).is_err());
        replay(&mut shard, &[(RecordKind::Entry, 1)]);
        let why = shard.replay(record(RecordKind::Entry, 3)).unwrap_err();
        assert!(why.contains("entries after 1 are missing"), "{why}");
    }
}
