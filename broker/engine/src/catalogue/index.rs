//! What follows from the objects and would take long to find: who refers to whom, how many logs
//! each shard has, and what each shard has still to be told. Never on disk; made anew from a
//! snapshot.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use millrace_types::{Address, LogId, ShardId};

use super::declared::DeclaredSpec;
use super::placed::{Lane, Placed};
use super::topology::Topology;

/// See above.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    /// By address: the queues that are bound to it or send their dead letters there. Declared or
    /// not, and without the implicit dead-letter queue, to which only its own queue refers.
    referrers: BTreeMap<Address, BTreeSet<Address>>,
    loads: BTreeMap<ShardId, usize>,
    /// By shard: logs that changed after what it has done.
    untold: BTreeMap<ShardId, BTreeMap<LogId, Change>>,
}

/// A change of a log that its shard has to be told about.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    /// Whose log it is.
    pub(super) owner: Arc<Address>,
    /// The revision that made it.
    pub(super) told: u64,
}

impl Index {
    pub(super) fn of(topology: &Topology) -> Self {
        let mut index = Self::default();
        for placed in topology.objects.iter() {
            index.add(placed);
            for lane in placed.lanes() {
                if lane.told > topology.done(lane.shard) {
                    index.tell(lane, &placed.address, lane.told);
                }
            }
        }
        index
    }

    pub(super) fn add(&mut self, placed: &Placed) {
        for to in references(&placed.spec) {
            let from = self.referrers.entry(to.clone()).or_default();
            from.insert(Address::clone(&placed.address));
        }
        for lane in placed.lanes() {
            *self.loads.entry(lane.shard).or_default() += 1;
        }
    }

    pub(super) fn take(&mut self, placed: &Placed) {
        for to in references(&placed.spec) {
            if let Some(from) = self.referrers.get_mut(to) {
                from.remove(&placed.address);
                if from.is_empty() {
                    self.referrers.remove(to);
                }
            }
        }
        for lane in placed.lanes() {
            if let Some(load) = self.loads.get_mut(&lane.shard) {
                *load = load.saturating_sub(1);
                if *load == 0 {
                    self.loads.remove(&lane.shard);
                }
            }
        }
    }

    /// The queues that refer to an address.
    pub(super) fn referrers(&self, address: &Address) -> impl Iterator<Item = &Address> {
        self.referrers.get(address).into_iter().flatten()
    }

    /// Whether a queue refers to an address.
    pub(super) fn refers(&self, from: &Address, to: &Address) -> bool {
        let referrers = self.referrers.get(to);
        referrers.is_some_and(|referrers| referrers.contains(from))
    }

    /// How many refer to an address.
    pub(super) fn referrers_len(&self, address: &Address) -> usize {
        self.referrers.get(address).map_or(0, BTreeSet::len)
    }

    /// How many logs a shard has.
    pub(super) fn load(&self, shard: ShardId) -> usize {
        self.loads.get(&shard).copied().unwrap_or(0)
    }

    /// How many logs all shards have.
    pub(super) fn logs(&self) -> usize {
        self.loads.values().sum()
    }

    /// A shard has to be told about a log, as of a revision.
    pub(super) fn tell(&mut self, lane: Lane, owner: &Arc<Address>, told: u64) {
        let owner = Arc::clone(owner);
        let untold = self.untold.entry(lane.shard).or_default();
        untold.insert(lane.log, Change { owner, told });
    }

    /// A log is gone.
    pub(super) fn forget(&mut self, shard: ShardId, log: LogId) {
        if let Some(untold) = self.untold.get_mut(&shard) {
            untold.remove(&log);
            if untold.is_empty() {
                self.untold.remove(&shard);
            }
        }
    }

    /// A shard has done everything up to a revision: keeps what it has still to be told.
    pub(super) fn done(&mut self, shard: ShardId, revision: u64) {
        if let Some(untold) = self.untold.get_mut(&shard) {
            untold.retain(|_, change| change.told > revision);
            if untold.is_empty() {
                self.untold.remove(&shard);
            }
        }
    }

    /// The logs after one that a shard has to be told about, in order.
    pub(super) fn untold(
        &self,
        shard: ShardId,
        after: Option<LogId>,
    ) -> impl Iterator<Item = (LogId, &Change)> {
        let from = (
            after.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        let untold = self.untold.get(&shard).into_iter();
        let untold = untold.flat_map(move |untold| untold.range(from));
        untold.map(|(log, change)| (*log, change))
    }
}

/// Addresses that an object names, each once.
pub(super) fn references(spec: &DeclaredSpec) -> Vec<&Address> {
    let DeclaredSpec::Queue(queue) = spec else {
        return Vec::new();
    };
    let topics = queue.bindings.iter().map(|binding| &binding.topic);
    let mut named: Vec<&Address> = topics.chain(&queue.dead_letter.queue).collect();
    named.sort_unstable();
    named.dedup();
    named
}
