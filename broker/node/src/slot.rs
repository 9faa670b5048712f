//! One shard, seen from outside the worker that owns it: the way to that worker, the publishers'
//! gate, and what this node has of the shard. That changes while the node runs: a replica comes,
//! gets the state of another one, is found damaged, or goes.
//!
//! Promises: who holds a store reads on from it when another takes its place; damage found in one
//! says nothing about the next.

use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use millrace_storage::Store;
use millrace_types::{ErrorCode, Refusal, ShardId};

use super::gate::Gate;
use super::inbox::Inbox;
use super::input::Input;
use super::node::quarantined;
use super::options::RETRY_AFTER_MS;

/// One shard, seen from outside.
pub(super) struct Slot {
    shard: ShardId,
    /// Of the worker that owns it.
    pub(super) inbox: Arc<Inbox<Input>>,
    /// Its publishers.
    pub(super) gate: Arc<Gate>,
    content: RwLock<Content>,
}

/// What a node has of a shard.
#[derive(Clone)]
pub(super) enum Content {
    /// Nothing: its replicas are elsewhere.
    Absent,
    /// A replica that could not be opened, and why.
    Unusable(String),
    /// A replica.
    Replica(Hosted),
}

/// A replica that was opened.
#[derive(Clone)]
pub(super) struct Hosted {
    /// Its bodies.
    pub(super) store: Arc<Store>,
    /// Why it does not serve: found later, by the scrubber or a read.
    pub(super) damage: Damage,
}

/// The first reason why something does not serve, when there is one.
pub(super) type Damage = Arc<OnceLock<String>>;

impl Content {
    /// A sound replica.
    pub(super) fn replica(store: Arc<Store>) -> Self {
        let damage = Damage::default();
        Self::Replica(Hosted { store, damage })
    }
}

impl Slot {
    /// Of a shard that a worker with this inbox owns.
    pub(super) fn new(shard: ShardId, inbox: &Arc<Inbox<Input>>, content: Content) -> Self {
        Self {
            shard,
            inbox: Arc::clone(inbox),
            gate: Arc::default(),
            content: RwLock::new(content),
        }
    }

    /// The replica, if it serves.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE` when it is damaged, `NOT_LEADER` when there is none.
    pub(super) fn serving(&self) -> Result<Hosted, Refusal> {
        self.check()?;
        match &*self.read() {
            Content::Replica(hosted) => Ok(hosted.clone()),
            // It has changed this moment.
            Content::Absent | Content::Unusable(_) => Err(elsewhere(self.shard)),
        }
    }

    /// Whether there is a replica that serves.
    ///
    /// # Errors
    /// As `serving`.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let damage = match &*self.read() {
            Content::Absent => return Err(elsewhere(self.shard)),
            Content::Unusable(why) => Some(why.clone()),
            Content::Replica(hosted) => hosted.damage.get().cloned(),
        };
        damage.map_or(Ok(()), |why| Err(quarantined(self.shard, &why)))
    }

    /// The bodies, whether the replica serves or not.
    pub(super) fn store(&self) -> Option<Arc<Store>> {
        match &*self.read() {
            Content::Replica(hosted) => Some(Arc::clone(&hosted.store)),
            Content::Absent | Content::Unusable(_) => None,
        }
    }

    /// Bodies in memory: stored, read for somebody, or on their way to the disk.
    pub(super) fn resident_bytes(&self) -> u64 {
        let stored = match &*self.read() {
            Content::Replica(hosted) => hosted.store.pinned_bytes(),
            Content::Absent | Content::Unusable(_) => 0,
        };
        stored + self.gate.bytes()
    }

    /// Why the replica does not serve, if there is one.
    pub(super) fn damage(&self) -> Option<String> {
        match &*self.read() {
            Content::Absent => None,
            Content::Unusable(why) => Some(why.clone()),
            Content::Replica(hosted) => hosted.damage.get().cloned(),
        }
    }

    /// The replica must not serve any more; the first reason stays.
    pub(super) fn quarantine(&self, why: String) {
        if let Content::Replica(hosted) = &*self.read() {
            hosted.damage.set(why).ok();
        }
    }

    /// These bodies are damaged: the replica must not serve any more, if it is still theirs.
    pub(super) fn damaged(&self, store: &Arc<Store>, why: String) {
        if let Content::Replica(hosted) = &*self.read()
            && Arc::ptr_eq(&hosted.store, store)
        {
            hosted.damage.set(why).ok();
        }
    }

    /// Puts something in the place of what is there. Called by the shard's worker, or before it
    /// runs.
    pub(super) fn replace(&self, content: Content) {
        let old = std::mem::replace(&mut *self.write(), content);
        if let Content::Replica(hosted) = old {
            hosted.store.retire();
        }
    }

    // Nothing panics while holding either, so the content is whole even when poisoned.

    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client is told that asks for a shard of which this node has no replica.
fn elsewhere(shard: ShardId) -> Refusal {
    let message = format!("this node has no replica of shard {shard}");
    Refusal::new(ErrorCode::NotLeader, message)
        .with("shard", shard.to_string())
        .retry_after_millis(RETRY_AFTER_MS)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use millrace_storage::{DataDir, Disk, Expect, MemoryDisk};

    use super::*;

    const SHARD: ShardId = ShardId::new(1);

    fn store() -> Arc<Store> {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let expect = Expect {
            cluster_id: None,
            shards: 2,
        };
        let random = Arc::new(|| Ok(7));
        let dir = DataDir::open_alone(disk, Path::new("/data"), expect, random).unwrap();
        Store::open(&dir, SHARD, None).unwrap()
    }

    fn slot(content: Content) -> Slot {
        Slot::new(SHARD, &Arc::new(Inbox::new()), content)
    }

    #[test]
    fn damage_of_a_store_is_not_damage_of_the_one_that_takes_its_place() {
        let (old, new) = (store(), store());
        let slot = slot(Content::replica(Arc::clone(&old)));
        let before = slot.serving().unwrap();
        slot.replace(Content::replica(Arc::clone(&new)));
        assert!(old.is_retired() && !new.is_retired());

        slot.damaged(&old, "found by the scrubber".into());
        before.damage.set("found by a late reader".into()).unwrap();
        slot.check().unwrap();
        slot.damaged(&new, "found in the new one".into());
        slot.quarantine("found later".into());

        assert_eq!(slot.damage().as_deref(), Some("found in the new one"));
        assert_eq!(slot.check().unwrap_err().code, ErrorCode::ShardUnavailable);
        assert!(slot.store().is_some());
    }

    #[test]
    fn a_shard_without_a_replica_is_looked_for_elsewhere() {
        let slot = slot(Content::Absent);
        assert_eq!(slot.check().unwrap_err().code, ErrorCode::NotLeader);
        assert_eq!((slot.damage(), slot.resident_bytes()), (None, 0));
        slot.replace(Content::replica(store()));
        slot.check().unwrap();
        slot.replace(Content::Unusable("damaged".into()));
        assert_eq!(slot.damage().as_deref(), Some("damaged"));
    }
}
