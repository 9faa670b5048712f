//! Applies a delta that was checked: how objects come and go, on which shard of its class a new log
//! is put (the one with the fewest, the lowest of equals; a queue and its implicit dead-letter
//! queue share one, partitions of a topic are spread first), when a class gets another shard, and
//! which shards have to be told what.
//!
//! Looks at what the delta names, and at those who refer to an object whose logs or dead-letter
//! queue it changed; at nothing else, however much is declared.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use millrace_types::{Address, LogId, SHARDS_MAX, ShardId};

use super::Catalogue;
use super::class::{CLASS_SHARDS_MAX, ShardClass};
use super::compile;
use super::declared::{Declared, DeclaredSpec, DeletionPolicy, Removed};
use super::placed::{Lane, Place, Placed, PlacedState, Placement};
use super::problem::{self, DEAD_LETTER_HOPS_MAX};
use super::roster::REPLICATION_MAX;
use super::topology::{Before, Scene};

/// A delta under way.
pub(super) struct Change<'a> {
    catalogue: &'a mut Catalogue,
    /// What was behind each address that the delta has touched.
    before: Before,
    changed: bool,
}

/// What a delta did.
pub(super) struct Changed {
    /// Whether anything.
    pub(super) anything: bool,
    /// How many objects were looked at: the work it took.
    pub(super) objects_looked_at: usize,
}

impl<'a> Change<'a> {
    pub(super) const fn new(catalogue: &'a mut Catalogue) -> Self {
        Self {
            catalogue,
            before: Before::new(),
            changed: false,
        }
    }

    /// Lets an object go by its policy, if it is there.
    pub(super) fn remove(&mut self, removed: &Removed) {
        let address = &removed.address;
        let Some(old) = self.catalogue.topology.objects.get(address).cloned() else {
            return;
        };
        match old.spec.deletion() {
            DeletionPolicy::Delete => self.put(address, None),
            DeletionPolicy::Orphan if old.state == PlacedState::Active => {
                let state = PlacedState::Orphaned;
                let orphan = Placed {
                    state,
                    ..(*old).clone()
                };
                self.put(address, Some(Arc::new(orphan)));
            }
            DeletionPolicy::Orphan => {}
        }
    }

    /// Adds an object, changes one, or adopts an orphan with its logs.
    pub(super) fn declare(&mut self, declared: &Declared) {
        let address = &declared.address;
        let old = self.catalogue.topology.objects.get(address).cloned();
        // What is placed stays where it is.
        let class = old.as_ref().map(|old| old.class);
        let class = class.unwrap_or_else(|| declared.spec.class());
        let placed = Placed {
            address: Arc::new(address.clone()),
            uid: declared.uid.clone(),
            generation: declared.generation,
            spec: self.catalogue.specs.share(&declared.spec),
            class,
            placement: self.place(&declared.spec, class, old.as_deref()),
            state: PlacedState::Active,
            wire: declared.wire.clone(),
        };
        if old.as_deref() != Some(&placed) {
            self.put(address, Some(Arc::new(placed)));
        }
    }

    fn put(&mut self, address: &Address, placed: Option<Arc<Placed>>) {
        self.changed = true;
        let index = &mut self.catalogue.index;
        let objects = &mut self.catalogue.topology.objects;
        let old = match &placed {
            Some(placed) => objects.insert(Arc::clone(placed)),
            None => objects.remove(address),
        };
        if let Some(old) = &old {
            index.take(old);
        }
        if let Some(placed) = &placed {
            index.add(placed);
        }
        self.before.entry(address.clone()).or_insert(old);
    }

    fn place(&mut self, spec: &DeclaredSpec, class: ShardClass, old: Option<&Placed>) -> Placement {
        match (spec, old.map(|old| &old.placement)) {
            (DeclaredSpec::Queue(_), Some(placement @ Placement::Queue { .. })) => {
                placement.clone()
            }
            (DeclaredSpec::Queue(_), _) => {
                let shard = self.least_loaded(class, |_| (0, 0));
                Placement::Queue {
                    shard,
                    queue: Place::new(self.mint()),
                    dead: Place::new(self.mint()),
                }
            }
            (DeclaredSpec::Topic(topic), Some(Placement::Topic { partitions, told })) => {
                self.spread(class, (partitions.clone(), *told), topic.partitions)
            }
            (DeclaredSpec::Topic(topic), _) => {
                self.spread(class, (Vec::new(), 0), topic.partitions)
            }
        }
    }

    /// Adds partitions until there are so many.
    fn spread(
        &mut self,
        class: ShardClass,
        (mut partitions, told): (Vec<(ShardId, LogId)>, u64),
        wanted: u32,
    ) -> Placement {
        let mut own: BTreeMap<ShardId, usize> = BTreeMap::new();
        for (shard, _) in &partitions {
            *own.entry(*shard).or_default() += 1;
        }
        let counted = own.clone();
        let of = |counts: &BTreeMap<ShardId, usize>, shard| counts.get(&shard).copied();
        while partitions.len() < wanted as usize {
            let shard = self.least_loaded(class, |shard| {
                let own = of(&own, shard).unwrap_or(0);
                (own, own - of(&counted, shard).unwrap_or(0))
            });
            *own.entry(shard).or_default() += 1;
            partitions.push((shard, self.mint()));
        }
        Placement::Topic { partitions, told }
    }

    /// The shard of a class to put a log on. `own` tells how many logs of the same object a shard
    /// has, and how many of those it is not known to have yet.
    fn least_loaded(
        &mut self,
        class: ShardClass,
        own: impl Fn(ShardId) -> (usize, usize),
    ) -> ShardId {
        let load = |shard: ShardId| {
            let (own, new) = own(shard);
            (own, self.catalogue.index.load(shard) + new, shard)
        };
        let (shards, best) = {
            let shards = self.catalogue.shards_of(class).map(load);
            shards.fold((0, None), |(count, best), next| {
                let best = best.map_or(next, |best| next.min(best));
                (count + 1, Some(best))
            })
        };
        let is_free = |(own, load, _): (usize, usize, ShardId)| (own, load) == (0, 0);
        // Room is left for a first one of each other class.
        let may_grow = !class.is_ordinary()
            && shards < CLASS_SHARDS_MAX
            && self.catalogue.topology.data_shards < SHARDS_MAX - REPLICATION_MAX;
        match best {
            Some(best) if is_free(best) || !may_grow => best.2,
            None | Some(_) => self.catalogue.add_shard(class),
        }
    }

    fn mint(&mut self) -> LogId {
        let last = self.catalogue.last_log.get().saturating_add(1);
        self.catalogue.last_log = LogId::new(last);
        self.catalogue.last_log
    }

    /// Marks what shards have to be told as of a revision.
    pub(super) fn finish(self, revision: u64) -> Changed {
        let Self {
            catalogue,
            before,
            changed,
        } = self;
        let affected = affected(catalogue, &before);
        for address in &affected {
            let told = told(catalogue, &before, address);
            for lane in told.gone {
                catalogue.index.forget(lane.shard, lane.log);
                catalogue.removed.insert((lane.shard, lane.log), revision);
            }
            let objects = &catalogue.topology.objects;
            if let Some(owner) = objects.get(address).map(|placed| &placed.address) {
                for lane in &told.news {
                    catalogue.index.tell(*lane, owner, revision);
                }
            }
            if !told.news.is_empty() {
                catalogue
                    .topology
                    .objects
                    .mark(address, &told.news, revision);
            }
        }
        Changed {
            anything: changed,
            objects_looked_at: affected.len(),
        }
    }
}

/// What the shards of one object have to be told.
struct Told {
    news: Vec<Lane>,
    gone: Vec<Lane>,
}

/// Compares what shards were told about an object with what they should know.
fn told(catalogue: &Catalogue, before: &Before, address: &Address) -> Told {
    let objects = &catalogue.topology.objects;
    let (old_scene, scene) = (Scene::before(objects, before), Scene::now(objects));
    let (old, new) = (old_scene.declared(address), scene.declared(address));
    let is_gone = |lane: &Lane| new.is_none_or(|new| new.lane(lane.log).is_none());
    let old_lanes = old.into_iter().flat_map(Placed::lanes);
    let mut told = Told {
        news: Vec::new(),
        gone: old_lanes.filter(is_gone).collect(),
    };
    let Some(new) = new else {
        return told;
    };
    let is_news = |lane: &Lane| {
        let known = old.and_then(|old| Some((old, old.lane(lane.log)?)));
        known.is_none_or(|(old, old_lane)| {
            compile::spec(&old_scene, old, old_lane.part) != compile::spec(&scene, new, lane.part)
        })
    };
    told.news = new.lanes().filter(is_news).collect();
    if !told.news.is_empty() && !new.partitions().is_empty() {
        // Partitions of a topic have one revision.
        told.news = new.lanes().collect();
    }
    told
}

/// What the delta touched, and who refers to something whose logs or dead-letter queue changed. A
/// queue further up a chain of dead-letter queues may have become part of a circle, or none.
fn affected(catalogue: &Catalogue, before: &Before) -> BTreeSet<Address> {
    let objects = &catalogue.topology.objects;
    let scene = Scene::now(objects);
    let (mut front, mut found, mut climbed) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for (address, old) in before {
        if outward(old.as_deref()) != outward(scene.declared(address)) {
            front.push(address.clone());
            front.extend(address.dead_letter());
        }
    }
    for _ in 0..=DEAD_LETTER_HOPS_MAX {
        let mut next = Vec::new();
        for address in &front {
            for referrer in catalogue.index.referrers(address) {
                found.insert(referrer.clone());
                // Nothing follows for others from what a queue is bound to.
                if address.is_queue() && climbed.insert(referrer.clone()) {
                    next.push(referrer.clone());
                }
            }
        }
        front = next;
    }
    found.extend(before.keys().cloned());
    found
}

/// What others see of an object: its logs, and where its dead letters go.
fn outward(placed: Option<&Placed>) -> (Vec<LogId>, Option<Address>) {
    let Some(placed) = placed else {
        return (Vec::new(), None);
    };
    let next = match &*placed.spec {
        DeclaredSpec::Queue(queue) => problem::dead_letter_target(&placed.address, queue),
        DeclaredSpec::Topic(_) => None,
    };
    (placed.lanes().map(|lane| lane.log).collect(), next)
}
