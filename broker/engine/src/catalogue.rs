//! The metadata shard's state: what is declared, where it lives, what every data shard still has to
//! be told, and which nodes have or should have replicas of which shards. Assigns log ids, which
//! never return, and places logs on shards.
//!
//! It knows names; data shards know log ids. Whether a shard has done what it was told comes back
//! as `CatalogueCommand::ShardConfigured`.

mod change;
mod check;
mod class;
mod compile;
mod declared;
mod index;
mod objects;
mod placed;
mod problem;
mod room;
mod roster;
mod snapshot;
mod topology;
mod untold;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use millrace_types::{Address, ErrorCode, LogId, LogIndex, Refusal, ShardId, Stamp};
use serde::{Deserialize, Serialize};

use crate::codec::DecodeError;
use crate::pool::Pool;
use crate::refusal;
use change::{Change, Changed};
use index::Index;

pub use check::size as check_size;
pub use class::{CLASS_SHARDS_MAX, ShardClass};
pub use declared::{
    Declared, DeclaredBinding, DeclaredDeadLetter, DeclaredLimits, DeclaredQueue, DeclaredSpec,
    DeclaredTopic, DeletionPolicy, Removed,
};
pub use placed::{Object, ObjectKind};
pub use problem::{DEAD_LETTER_HOPS_MAX, Problem, ProblemKind};
pub use roster::{
    Assigned, Founded, Hosting, KnownNode, Leading, NODES_MAX, NodeFacts, REPLICAS_MAX,
    REPLICATION_MAX, Registration, Replicas, Report, Role, Roster, RosterCommand, Target, Wish,
};
pub use snapshot::Frozen;
pub use topology::Topology;
pub use untold::Untold;

/// Objects and removals of one delta: bounds the size of an entry.
pub const DELTA_OBJECTS_MAX: usize = 1000;
/// Bytes of the declarations of one delta, as they came: with what is understood of them, a
/// fraction of what a journal record may have. A queue declared in ten lines has about 200.
pub const DELTA_BYTES_MAX: usize = 4 << 20;
/// Objects declared or kept, twice what the cluster is built for: each costs about 2 KiB of memory,
/// and all of them are read when a node starts.
pub const OBJECTS_MAX: usize = 200_000;
/// Logs of all objects: each partition is one, each queue has two with that of its dead letters.
pub const LOGS_MAX: usize = 500_000;
/// Queues bound to one topic: every message that it takes is offered to each of them.
pub const BOUND_QUEUES_MAX: usize = 10_000;

/// A proposed change of the catalogue, with the time it was proposed at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatalogueEntry {
    /// When it was proposed.
    pub stamp: Stamp,
    /// What to do.
    pub command: CatalogueCommand,
}

/// A change of the catalogue. Variants keep their place, as those of `Command` do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CatalogueCommand {
    /// Changes what is declared. All of it is applied, or nothing; what is not named stays.
    /// Removals come first, so one delta can remove an object and declare its successor.
    ApplyTopology {
        /// The revision that the delta was made against; another one is refused.
        base_revision: u64,
        /// New and changed objects.
        upserts: Vec<Declared>,
        /// Objects whose resource is gone.
        removals: Vec<Removed>,
    },
    /// A data shard has done everything up to a revision.
    ShardConfigured {
        /// Which.
        shard: ShardId,
        /// The revision.
        revision: u64,
    },
    /// How many data shards the cluster is founded with; they are numbered from 1. More come by
    /// themselves when something asks for another class.
    Init {
        /// At least one.
        data_shards: u32,
    },
    /// Changes nodes or replicas.
    Roster(Box<RosterCommand>),
}

impl From<RosterCommand> for CatalogueCommand {
    fn from(command: RosterCommand) -> Self {
        Self::Roster(Box::new(command))
    }
}

/// What applying an entry answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueApplied {
    /// The revision of what was changed afterwards: of the topology, or of the roster.
    pub outcome: Result<u64, Refusal>,
    /// Whether anything that can be asked has changed.
    pub changed: bool,
    /// Objects that were looked at: the work it took. It grows with what a delta names and with
    /// those who refer to that, not with what is declared.
    pub objects_looked_at: usize,
}

/// The catalogue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    applied: LogIndex,
    /// The next log id is one higher.
    last_log: LogId,
    topology: Topology,
    /// Shared with whoever asks.
    roster: Arc<Roster>,
    /// Logs that are no more, with the revision that removed them; kept until their shards have
    /// removed them, too.
    removed: BTreeMap<(ShardId, LogId), u64>,
    index: Index,
    specs: Pool<DeclaredSpec>,
}

impl Catalogue {
    /// An empty catalogue; it takes no objects before `Init`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one committed entry; the only function that changes the state.
    pub fn apply(&mut self, index: LogIndex, entry: &CatalogueEntry) -> CatalogueApplied {
        self.applied = index;
        let mut objects_looked_at = 0;
        let changed = match &entry.command {
            CatalogueCommand::ApplyTopology {
                base_revision,
                upserts,
                removals,
            } => {
                let changed = self.apply_topology(*base_revision, upserts, removals);
                changed.map(|changed| {
                    objects_looked_at = changed.objects_looked_at;
                    changed.anything
                })
            }
            CatalogueCommand::ShardConfigured { shard, revision } => {
                self.shard_configured(*shard, *revision)
            }
            CatalogueCommand::Init { data_shards } => self.init(*data_shards),
            CatalogueCommand::Roster(command) => Arc::make_mut(&mut self.roster).apply(command),
        };
        let revision = match entry.command {
            CatalogueCommand::Roster(_) => self.roster.revision(),
            _ => self.revision(),
        };
        CatalogueApplied {
            changed: *changed.as_ref().unwrap_or(&false),
            outcome: changed.map(|_| revision),
            objects_looked_at,
        }
    }

    /// Passes over a committed entry that is no command of ours: consensus has entries of its own.
    pub const fn pass(&mut self, index: LogIndex) {
        self.applied = index;
    }

    fn init(&mut self, data_shards: u32) -> Result<bool, Refusal> {
        let known = self.topology.data_shards;
        if data_shards < known.max(1) || data_shards > millrace_types::SHARDS_MAX {
            return Err(refusal::invalid(format!(
                "{data_shards} data shards: there are {known} and at most {}, never fewer \
                 than before",
                millrace_types::SHARDS_MAX
            )));
        }
        self.topology.data_shards = data_shards;
        Ok(data_shards > known)
    }

    fn apply_topology(
        &mut self,
        base_revision: u64,
        upserts: &[Declared],
        removals: &[Removed],
    ) -> Result<Changed, Refusal> {
        let revision = self.revision();
        if self.topology.data_shards == 0 {
            let message = "the catalogue has no data shards yet";
            return Err(Refusal::new(ErrorCode::ShardUnavailable, message));
        }
        if base_revision != revision {
            let message = format!(
                "the topology is at revision {revision}, the delta was made against {base_revision}"
            );
            return Err(Refusal::new(ErrorCode::RevisionConflict, message)
                .with("actual", revision.to_string()));
        }
        check::delta(self, upserts, removals)?;
        let mut change = Change::new(self);
        for removed in removals {
            change.remove(removed);
        }
        for declared in upserts {
            change.declare(declared);
        }
        let next = revision.saturating_add(1);
        let changed = change.finish(next);
        if changed.anything {
            self.topology.revision = next;
        }
        Ok(changed)
    }

    /// The data shards of a class, the lowest first.
    fn shards_of(&self, class: ShardClass) -> impl Iterator<Item = ShardId> {
        let all = (1..=self.topology.data_shards).map(ShardId::new);
        all.filter(move |shard| self.roster.class_of(*shard) == class)
    }

    /// One more data shard; there is room for it. Where its replicas are is decided later.
    fn add_shard(&mut self, class: ShardClass) -> ShardId {
        self.topology.data_shards = self.topology.data_shards.saturating_add(1);
        let shard = ShardId::new(self.topology.data_shards);
        Arc::make_mut(&mut self.roster).add_shard(shard, class);
        shard
    }

    fn shard_configured(&mut self, shard: ShardId, revision: u64) -> Result<bool, Refusal> {
        let topology = &mut self.topology;
        let known = (1..=topology.data_shards).contains(&shard.get());
        if !known || revision > topology.revision {
            return Err(refusal::invalid(format!(
                "shard {shard} cannot be at revision {revision}: there are {} data shards and \
                 the topology is at {}",
                topology.data_shards, topology.revision
            )));
        }
        if revision <= topology.done(shard) {
            return Ok(false);
        }
        topology.configured.insert(shard, revision);
        self.removed
            .retain(|(of, _), removed| *of != shard || *removed > revision);
        self.index.done(shard, revision);
        Ok(true)
    }
}

/// What can be asked.
impl Catalogue {
    /// Index of the last entry applied; 0 when none was.
    #[must_use]
    pub const fn applied(&self) -> LogIndex {
        self.applied
    }

    /// What is declared and where it lives: copy it to ask at leisure.
    #[must_use]
    pub const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Nodes and replicas: a value to keep.
    #[must_use]
    pub const fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// Goes up by one with each delta that changes anything; 0 is the empty topology.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.topology.revision
    }

    /// The state of now, to be encoded later.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        Frozen::of(self)
    }

    /// The whole state as bytes; equal states have equal bytes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.freeze().encode()
    }

    /// The state that a snapshot was made of.
    ///
    /// # Errors
    /// When the bytes are no snapshot of a known version, or one that contradicts itself.
    pub fn restore(bytes: &[u8]) -> Result<Self, DecodeError> {
        snapshot::decode(bytes)
    }

    /// A number to compare states by.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        snapshot::checksum(self)
    }
}
