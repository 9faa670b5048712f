//! What follows from the objects and would take long to find: who refers to whom, how many logs
//! each shard has, and what each shard has still to be told. Never on disk; made anew from a
//! snapshot.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use millrace_types::{Address, LogId, ShardId};

use super::declared::DeclaredSpec;
use super::placed::Placed;
use super::topology::Topology;

/// See above.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    /// By address: the queues that are bound to it or send their dead letters there. Declared or
    /// not, and without the implicit dead-letter queue, to which only its own queue refers.
    referrers: BTreeMap<Address, BTreeSet<Address>>,
    loads: BTreeMap<ShardId, usize>,
    /// By shard: logs that changed after what it has done, and whose they are.
    untold: BTreeMap<ShardId, BTreeMap<LogId, Address>>,
}

impl Index {
    pub(super) fn of(topology: &Topology) -> Self {
        let mut index = Self::default();
        for placed in topology.objects.iter() {
            index.add(placed);
            for lane in placed.lanes() {
                if lane.told > topology.done(lane.shard) {
                    index.tell(lane.shard, lane.log, &placed.address);
                }
            }
        }
        index
    }

    pub(super) fn add(&mut self, placed: &Placed) {
        for to in references(&placed.spec) {
            let from = self.referrers.entry(to.clone()).or_default();
            from.insert(placed.address.clone());
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

    /// A shard has to be told about a log.
    pub(super) fn tell(&mut self, shard: ShardId, log: LogId, address: &Address) {
        let untold = self.untold.entry(shard).or_default();
        untold.insert(log, address.clone());
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

    /// A shard has done something: keeps what it has still to be told.
    pub(super) fn done(&mut self, shard: ShardId, is_untold: impl Fn(LogId, &Address) -> bool) {
        if let Some(untold) = self.untold.get_mut(&shard) {
            untold.retain(|log, address| is_untold(*log, address));
            if untold.is_empty() {
                self.untold.remove(&shard);
            }
        }
    }

    /// The logs that a shard has to be told about, and whose they are.
    pub(super) fn untold(&self, shard: ShardId) -> impl Iterator<Item = (LogId, &Address)> {
        let untold = self.untold.get(&shard).into_iter().flatten();
        untold.map(|(log, address)| (*log, address))
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
