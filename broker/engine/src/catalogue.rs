//! The metadata shard's state: what is declared, where it lives, and what every data shard still
//! has to be told. Assigns log ids, which never return, and places logs on shards.
//!
//! It knows names; data shards know log ids. Whether a shard has done what it was told comes back
//! as `CatalogueCommand::ShardConfigured`.

mod check;
mod compile;
mod declared;
mod place;
mod problem;
mod snapshot;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use millrace_types::{Address, ErrorCode, LogId, LogIndex, Refusal, ShardId, Stamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::codec::DecodeError;
use crate::command::Command;
use crate::refusal;
use crate::spec::{PartitionSpec, QueueSpec};

pub use declared::{
    Declared, DeclaredBinding, DeclaredDeadLetter, DeclaredLimits, DeclaredQueue, DeclaredSpec,
    DeclaredTopic, DeletionPolicy, Removed,
};
pub use problem::{DEAD_LETTER_HOPS_MAX, Problem, ProblemKind};

/// Objects and removals of one delta: bounds the size of an entry.
pub const DELTA_OBJECTS_MAX: usize = 1000;

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
    /// How many data shards there are; they are numbered from 1 and never become fewer.
    Init {
        /// At least one.
        data_shards: u32,
    },
}

/// What applying an entry answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueApplied {
    /// The revision afterwards.
    pub outcome: Result<u64, Refusal>,
    /// Whether anything that can be asked has changed.
    pub changed: bool,
}

/// The catalogue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalogue {
    applied: LogIndex,
    revision: u64,
    data_shards: u32,
    /// The next log id is one higher.
    last_log: LogId,
    objects: BTreeMap<Address, Placed>,
    logs: BTreeMap<LogId, Log>,
    /// What each data shard has done.
    configured: BTreeMap<ShardId, u64>,
}

/// A declared object, or the implicit dead-letter queue of one, and where it lives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// How it is called.
    pub address: Address,
    /// Of its resource.
    pub uid: String,
    /// Of its resource.
    pub generation: i64,
    /// What is declared; for an implicit dead-letter queue, what follows from its queue.
    pub spec: DeclaredSpec,
    /// Where it lives.
    pub placement: Placement,
    /// Whether its resource is there.
    pub state: PlacedState,
    /// The encoded `TopologyObject`; empty for an implicit dead-letter queue.
    pub wire: Bytes,
}

/// Where an object lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Placement {
    /// A queue.
    Queue {
        /// On this shard,
        shard: ShardId,
        /// under this id.
        log: LogId,
    },
    /// A topic; the place in the list is the partition's number.
    Topic {
        /// Where each partition lives.
        partitions: Vec<(ShardId, LogId)>,
    },
}

/// Whether an object's resource is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlacedState {
    /// It is.
    Active,
    /// It was removed; the messages are kept, frozen.
    Orphaned,
}

/// What a data shard is told about one log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Log {
    shard: ShardId,
    address: Address,
    spec: LogSpec,
    state: LogState,
    /// Revision of its last change.
    revision: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum LogSpec {
    Queue(QueueSpec),
    Partition { number: u32, spec: PartitionSpec },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum LogState {
    Active,
    Frozen,
    /// Kept until its shard has removed it.
    Removed,
}

impl Placed {
    /// Whether it exists only because a queue does.
    #[must_use]
    pub const fn is_implicit(&self) -> bool {
        matches!(self.address, Address::DeadLetter { .. })
    }

    /// Where a queue lives; `None` for a topic.
    #[must_use]
    pub const fn queue(&self) -> Option<(ShardId, LogId)> {
        match &self.placement {
            Placement::Queue { shard, log } => Some((*shard, *log)),
            Placement::Topic { .. } => None,
        }
    }

    /// Where a topic's partitions live; empty for a queue.
    #[must_use]
    pub fn partitions(&self) -> &[(ShardId, LogId)] {
        match &self.placement {
            Placement::Queue { .. } => &[],
            Placement::Topic { partitions } => partitions,
        }
    }

    fn logs(&self) -> impl Iterator<Item = (ShardId, LogId)> {
        let partitions = self.partitions().iter().copied();
        self.queue().into_iter().chain(partitions)
    }
}

impl Log {
    fn command(&self, log: LogId) -> Command {
        let revision = self.revision;
        match (self.state, &self.spec) {
            (LogState::Removed, _) => Command::Remove { log, revision },
            (LogState::Frozen, _) => Command::Freeze { log, revision },
            (LogState::Active, LogSpec::Queue(spec)) => Command::ConfigureQueue {
                log,
                address: self.address.clone(),
                revision,
                spec: spec.clone(),
            },
            (LogState::Active, LogSpec::Partition { number, spec }) => {
                Command::ConfigurePartition {
                    log,
                    address: self.address.clone(),
                    partition: *number,
                    revision,
                    spec: spec.clone(),
                }
            }
        }
    }
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
        let changed = match &entry.command {
            CatalogueCommand::ApplyTopology {
                base_revision,
                upserts,
                removals,
            } => self.apply_topology(*base_revision, upserts, removals),
            CatalogueCommand::ShardConfigured { shard, revision } => {
                self.shard_configured(*shard, *revision)
            }
            CatalogueCommand::Init { data_shards } => self.init(*data_shards),
        };
        CatalogueApplied {
            changed: *changed.as_ref().unwrap_or(&false),
            outcome: changed.map(|_| self.revision),
        }
    }

    fn init(&mut self, data_shards: u32) -> Result<bool, Refusal> {
        if data_shards < self.data_shards.max(1) || data_shards > millrace_types::SHARDS_MAX {
            return Err(refusal::invalid(format!(
                "{data_shards} data shards: there are {} and at most {}, never fewer than before",
                self.data_shards,
                millrace_types::SHARDS_MAX
            )));
        }
        let grown = data_shards > self.data_shards;
        self.data_shards = data_shards;
        Ok(grown)
    }

    fn apply_topology(
        &mut self,
        base_revision: u64,
        upserts: &[Declared],
        removals: &[Removed],
    ) -> Result<bool, Refusal> {
        if self.data_shards == 0 {
            let message = "the catalogue has no data shards yet";
            return Err(Refusal::new(ErrorCode::ShardUnavailable, message));
        }
        if base_revision != self.revision {
            let message = format!(
                "the topology is at revision {}, the delta was made against {base_revision}",
                self.revision
            );
            return Err(Refusal::new(ErrorCode::RevisionConflict, message)
                .with("actual", self.revision.to_string()));
        }
        check::delta(self, upserts, removals)?;
        let mut changed = false;
        for removed in removals {
            changed |= self.remove(removed);
        }
        let mut placing = place::Placing::new(self);
        for declared in upserts {
            changed |= placing.declare(declared);
        }
        let next = self.revision.saturating_add(1);
        changed |= self.compile(next);
        if changed {
            self.revision = next;
        }
        Ok(changed)
    }

    fn shard_configured(&mut self, shard: ShardId, revision: u64) -> Result<bool, Refusal> {
        let known = (1..=self.data_shards).contains(&shard.get());
        if !known || revision > self.revision {
            return Err(refusal::invalid(format!(
                "shard {shard} cannot be at revision {revision}: there are {} data shards and \
                 the topology is at {}",
                self.data_shards, self.revision
            )));
        }
        let done = self.configured.entry(shard).or_default();
        if revision <= *done {
            return Ok(false);
        }
        *done = revision;
        self.logs.retain(|_, log| {
            log.state != LogState::Removed || log.shard != shard || log.revision > revision
        });
        Ok(true)
    }

    /// What a data shard has to be told that did everything up to `applied`: one command for each
    /// of its logs that changed since, in order of log id, and `Configured` at the end. Empty when
    /// it has done everything. Saying it twice does nothing.
    #[must_use]
    pub fn commands_for(&self, shard: ShardId, applied: u64) -> Vec<Command> {
        if applied >= self.revision {
            return Vec::new();
        }
        let changed = self.logs.iter();
        let changed = changed.filter(|(_, log)| log.shard == shard && log.revision > applied);
        let revision = self.revision;
        changed
            .map(|(id, log)| log.command(*id))
            .chain([Command::Configured { revision }])
            .collect()
    }
}

/// What can be asked.
impl Catalogue {
    /// Index of the last entry applied; 0 when none was.
    #[must_use]
    pub const fn applied(&self) -> LogIndex {
        self.applied
    }

    /// How many data shards there are; 0 before `Init`.
    #[must_use]
    pub const fn data_shards(&self) -> u32 {
        self.data_shards
    }

    /// Goes up by one with each delta that changes anything; 0 is the empty topology.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// What every data shard has done.
    #[must_use]
    pub fn applied_revision(&self) -> u64 {
        let shards = (1..=self.data_shards).map(ShardId::new);
        let done = shards.map(|shard| self.configured.get(&shard).copied().unwrap_or(0));
        done.min().unwrap_or(0)
    }

    /// Whether every shard that holds a part of an object has done what is declared now.
    #[must_use]
    pub fn is_applied(&self, address: &Address) -> bool {
        let done = |log: &Log| self.configured.get(&log.shard).copied().unwrap_or(0);
        self.objects.get(address).is_some_and(|placed| {
            let mut logs = placed.logs().filter_map(|(_, log)| self.logs.get(&log));
            logs.all(|log| log.revision <= done(log))
        })
    }

    /// An object by its address; implicit dead-letter queues have theirs.
    #[must_use]
    pub fn lookup(&self, address: &Address) -> Option<&Placed> {
        self.objects.get(address)
    }

    /// All objects, implicit dead-letter queues and orphans among them.
    pub fn objects(&self) -> impl Iterator<Item = &Placed> {
        self.objects.values()
    }

    /// What keeps an object from working as declared; empty for an unknown address.
    #[must_use]
    pub fn problems(&self, address: &Address) -> Vec<Problem> {
        problem::problems(self, address)
    }

    /// SHA-256 over the encodings of all active declared objects, in order of their addresses as
    /// texts.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let declared = self
            .objects
            .values()
            .filter(|placed| placed.state == PlacedState::Active && !placed.is_implicit());
        let sorted: BTreeMap<String, &Bytes> = declared
            .map(|placed| (placed.address.to_string(), &placed.wire))
            .collect();
        let mut hash = Sha256::new();
        for wire in sorted.values() {
            hash.update(wire);
        }
        hash.finalize().into()
    }

    /// The whole state as bytes; equal states have equal bytes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        snapshot::encode(self)
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
