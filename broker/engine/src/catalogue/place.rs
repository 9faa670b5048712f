//! How objects come and go in the catalogue, and on which shard a new log is put: the one with the
//! fewest, the lowest of equals. A queue and its implicit dead-letter queue share one; partitions
//! of a topic are spread first.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;
use millrace_types::{LogId, ShardId};

use super::{
    Catalogue, Declared, DeclaredSpec, DeletionPolicy, Placed, PlacedState, Placement, Removed,
};

impl Catalogue {
    /// Lets an object go by its policy; says whether there was one to let go.
    pub(super) fn remove(&mut self, removed: &Removed) -> bool {
        let Some(placed) = self.objects.get(&removed.address) else {
            return false;
        };
        let deletion = placed.spec.deletion();
        if deletion == DeletionPolicy::Orphan && placed.state == PlacedState::Orphaned {
            return false;
        }
        let addresses = [Some(removed.address.clone()), removed.address.dead_letter()];
        for address in addresses.into_iter().flatten() {
            match deletion {
                DeletionPolicy::Orphan => {
                    if let Some(placed) = self.objects.get_mut(&address) {
                        placed.state = PlacedState::Orphaned;
                    }
                }
                DeletionPolicy::Delete => {
                    self.objects.remove(&address);
                }
            }
        }
        true
    }
}

/// Declares objects, knowing how many logs each shard has.
pub(super) struct Placing<'a> {
    catalogue: &'a mut Catalogue,
    loads: BTreeMap<ShardId, usize>,
}

impl<'a> Placing<'a> {
    pub(super) fn new(catalogue: &'a mut Catalogue) -> Self {
        let mut loads = BTreeMap::new();
        for (shard, _) in catalogue.objects.values().flat_map(Placed::logs) {
            *loads.entry(shard).or_default() += 1;
        }
        Self { catalogue, loads }
    }

    /// Adds an object, changes one, or adopts an orphan with its logs; says whether that changed
    /// anything. The delta was checked.
    pub(super) fn declare(&mut self, declared: &Declared) -> bool {
        let shard = self.least_loaded(&BTreeMap::new());
        let mut changed = self.put(declared, shard);
        if let (DeclaredSpec::Queue(queue), Some(address)) =
            (&declared.spec, declared.address.dead_letter())
        {
            let implicit = Declared {
                address,
                wire: Bytes::new(),
                spec: DeclaredSpec::Queue(queue.implicit()),
                ..declared.clone()
            };
            changed |= self.put(&implicit, shard);
        }
        changed
    }

    fn put(&mut self, declared: &Declared, shard: ShardId) -> bool {
        let old = self.catalogue.objects.remove(&declared.address);
        let placement = match (&declared.spec, old.as_ref().map(|old| &old.placement)) {
            (DeclaredSpec::Queue(_), Some(placement @ Placement::Queue { .. })) => {
                placement.clone()
            }
            (DeclaredSpec::Queue(_), _) => Placement::Queue {
                shard,
                log: self.mint(shard),
            },
            (DeclaredSpec::Topic(topic), Some(Placement::Topic { partitions })) => {
                self.spread(partitions.clone(), topic.partitions)
            }
            (DeclaredSpec::Topic(topic), _) => self.spread(Vec::new(), topic.partitions),
        };
        let placed = Placed {
            address: declared.address.clone(),
            uid: declared.uid.clone(),
            generation: declared.generation,
            spec: declared.spec.clone(),
            placement,
            state: PlacedState::Active,
            wire: declared.wire.clone(),
        };
        let changed = old.as_ref() != Some(&placed);
        let address = declared.address.clone();
        self.catalogue.objects.insert(address, placed);
        changed
    }

    /// Adds partitions until there are so many.
    fn spread(&mut self, mut partitions: Vec<(ShardId, LogId)>, wanted: u32) -> Placement {
        let mut own: BTreeMap<ShardId, usize> = BTreeMap::new();
        for (shard, _) in &partitions {
            *own.entry(*shard).or_default() += 1;
        }
        while partitions.len() < wanted as usize {
            let shard = self.least_loaded(&own);
            *own.entry(shard).or_default() += 1;
            partitions.push((shard, self.mint(shard)));
        }
        Placement::Topic { partitions }
    }

    fn least_loaded(&self, own: &BTreeMap<ShardId, usize>) -> ShardId {
        let shards = (1..=self.catalogue.data_shards).map(ShardId::new);
        let load = |shard: &ShardId| {
            let own = own.get(shard).copied().unwrap_or(0);
            (own, self.loads.get(shard).copied().unwrap_or(0), *shard)
        };
        shards.min_by_key(load).unwrap_or(ShardId::new(1))
    }

    fn mint(&mut self, shard: ShardId) -> LogId {
        let last = self.catalogue.last_log.get().saturating_add(1);
        self.catalogue.last_log = LogId::new(last);
        *self.loads.entry(shard).or_default() += 1;
        self.catalogue.last_log
    }
}
