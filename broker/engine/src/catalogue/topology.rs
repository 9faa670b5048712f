//! What is declared at one revision, where it lives, and which shards have taken it on: everything
//! that can be asked of the catalogue. A value that is cheap to copy, so that whoever asks has one
//! and takes as long as it likes.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use millrace_types::{Address, LogId, ShardId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::objects::Objects;
use super::placed::{Object, Part, Placed, PlacedState};
use super::problem::{self, Problem};

/// Everything declared, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    pub(super) revision: u64,
    pub(super) data_shards: u32,
    pub(super) objects: Objects,
    /// What each data shard has done.
    pub(super) configured: BTreeMap<ShardId, u64>,
}

impl Topology {
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
        shards.map(|shard| self.done(shard)).min().unwrap_or(0)
    }

    /// What one data shard has done.
    #[must_use]
    pub fn done(&self, shard: ShardId) -> u64 {
        self.configured.get(&shard).copied().unwrap_or(0)
    }

    /// Whether every shard that holds a part of an object has done what is declared now.
    #[must_use]
    pub fn is_applied(&self, address: &Address) -> bool {
        let Some((placed, is_dead)) = self.placed(address) else {
            return false;
        };
        let mut lanes = placed
            .lanes()
            .filter(|lane| (lane.part == Part::Dead) == is_dead);
        lanes.all(|lane| lane.told <= self.done(lane.shard))
    }

    /// An object by its address; implicit dead-letter queues have theirs.
    #[must_use]
    pub fn lookup(&self, address: &Address) -> Option<Object<'_>> {
        match self.placed(address)? {
            (placed, false) => Some(placed.object()),
            (placed, true) => placed.dead_letter_object(),
        }
    }

    /// The declared object behind an address, and whether its dead-letter queue is meant.
    fn placed(&self, address: &Address) -> Option<(&Placed, bool)> {
        if let Some(declared) = declared_of(address) {
            return Some((self.objects.get(&declared)?, true));
        }
        Some((self.objects.get(address)?, false))
    }

    /// How many objects are declared or kept; implicit dead-letter queues are not counted.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing is declared or kept.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.objects.len() == 0
    }

    /// Everything declared or kept, in order of addresses: queues, then topics. Implicit
    /// dead-letter queues are left out: each queue has one.
    pub fn iter(&self) -> impl Iterator<Item = (&Address, Object<'_>)> {
        self.objects.iter().map(|p| (&*p.address, p.object()))
    }

    /// The same from behind an address on.
    pub fn iter_after(&self, address: &Address) -> impl Iterator<Item = (&Address, Object<'_>)> {
        let after = self.objects.iter_after(address);
        after.map(|placed| (&*placed.address, placed.object()))
    }

    /// Whether an object, or the dead-letter queue of one, has this log. Looks at all of them.
    #[must_use]
    pub fn has_log(&self, log: LogId) -> bool {
        self.objects.iter().any(|placed| placed.lane(log).is_some())
    }

    /// The topics that queues are bound to, each with where the queue lives. Looks at everything.
    pub fn bound(&self) -> impl Iterator<Item = (ShardId, &Address)> {
        let queues = self.objects.iter().filter_map(|placed| {
            let (shard, _) = placed.object().queue()?;
            Some((shard, placed.topics()))
        });
        queues.flat_map(|(shard, topics)| topics.map(move |topic| (shard, topic)))
    }

    /// The shard of a log, of an object or of the dead-letter queue of one. Looks at all of them.
    #[must_use]
    pub fn home(&self, log: LogId) -> Option<ShardId> {
        let mut lanes = self.objects.iter().filter_map(|placed| placed.lane(log));
        lanes.next().map(|lane| lane.shard)
    }

    /// What keeps an object from working as declared; empty for an unknown address.
    #[must_use]
    pub fn problems(&self, address: &Address) -> Vec<Problem> {
        problem::problems(&Scene::now(&self.objects), address)
    }

    /// SHA-256 over the encodings of all active declared objects, in order of their addresses as
    /// texts. Takes time with the number of objects.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let active = self.objects.iter();
        let active = active.filter(|placed| placed.state == PlacedState::Active);
        let mut sorted: Vec<&Placed> = active.collect();
        sorted.sort_by_cached_key(|placed| placed.address.to_string());
        let mut hash = Sha256::new();
        for placed in sorted {
            hash.update(&placed.wire);
        }
        hash.finalize().into()
    }
}

/// The queue that an implicit dead-letter queue belongs to; `None` for any other address.
pub(super) fn declared_of(address: &Address) -> Option<Address> {
    match address {
        Address::DeadLetter { namespace, name } => Some(Address::Queue {
            namespace: namespace.clone(),
            name: name.clone(),
        }),
        Address::Queue { .. } | Address::Topic { .. } => None,
    }
}

/// Objects as they were before a delta.
pub(super) type Before = BTreeMap<Address, Option<Arc<Placed>>>;

/// Objects that refer to each other by address: as they are, or as they were before a delta.
pub(super) struct Scene<'a> {
    objects: &'a Objects,
    before: Option<&'a Before>,
}

impl<'a> Scene<'a> {
    pub(super) const fn now(objects: &'a Objects) -> Self {
        Self {
            objects,
            before: None,
        }
    }

    pub(super) const fn before(objects: &'a Objects, before: &'a Before) -> Self {
        Self {
            objects,
            before: Some(before),
        }
    }

    /// A declared object.
    pub(super) fn declared(&self, address: &Address) -> Option<&'a Placed> {
        let changed = self.before.and_then(|before| before.get(address));
        match changed {
            Some(old) => old.as_deref(),
            None => self.objects.get(address).map(|placed| &**placed),
        }
    }

    /// Any object.
    pub(super) fn object(&self, address: &Address) -> Option<Object<'a>> {
        match declared_of(address) {
            Some(declared) => self.declared(&declared)?.dead_letter_object(),
            None => self.declared(address).map(Placed::object),
        }
    }

    /// Where a queue lives.
    pub(super) fn queue(&self, address: &Address) -> Option<LogId> {
        self.object(address)?.queue().map(|(_, log)| log)
    }
}
