//! Which replicas are on this node, of the shards that this worker owns: a new one is opened when
//! the catalogue wants it here, one is let go of when the catalogue has no use for it any more, and
//! one that has lost something is given up as soon as others have the shard.
//!
//! Promises: what the disk has of a former replica is never read as the next one's; nothing is let
//! go of before the catalogue says that nobody wants or has it; what is given up never votes again,
//! not even after a restart; its files go when others have what it had and nobody reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use millrace_engine::catalogue::Roster;
use millrace_storage::{DataDir, Store};
use millrace_types::{LogIndex, NodeId, Refusal, ReplicaId, ShardId};

use super::Worker;
use crate::data_shard::DataShard;
use crate::leaders::Led;
use crate::metadata_shard::MetadataShard;
use crate::node::not_leader;
use crate::placement::standing::ShardStanding;
use crate::slot::Content;
use crate::start::{self, OpenedReplica};
use crate::view::CatalogueView;

/// A read takes less. Who has the bodies of a former replica in hand for longer waits for something
/// else, as an idle consumer or a pump does, and gets an error if it ever reads.
const READ_AT_MOST: Duration = Duration::from_secs(10);

/// Replicas that this node has given up.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// Bodies of those that somebody may still read, and since when no more than that.
    stores: BTreeMap<ShardId, (Weak<Store>, Instant)>,
    /// Shards of which nothing is left on the disk.
    cleared: BTreeSet<ShardId>,
}

impl Former {
    fn is_read(&self, shard: ShardId, now: Instant) -> bool {
        let store = self.stores.get(&shard);
        store.is_some_and(|(store, since)| {
            let late = now.saturating_duration_since(*since) >= READ_AT_MOST;
            store.strong_count() > 0 && !late
        })
    }
}

impl Worker {
    /// Looks at all shards of this worker. What cannot be done yet is looked at again.
    pub(super) fn rehost(&mut self, now: Instant) {
        self.rehost = false;
        let roster = self.node.roster();
        if !roster.is_founded() {
            return;
        }
        for shard in DataDir::shards() {
            let is_own = Arc::ptr_eq(&self.node.slot_at_all(shard).inbox, &self.inbox);
            let is_there = || roster.shard(shard).is_some();
            if is_own && (is_there() || self.node.data_dir.replica(shard).is_some()) {
                self.rehost_shard(shard, &roster, now);
            }
        }
    }

    fn rehost_shard(&mut self, shard: ShardId, roster: &Roster, now: Instant) {
        let dir = &self.node.data_dir;
        if let Some(held) = dir.replica(shard) {
            let is_damaged = self.node.slot_at_all(shard).damage().is_some();
            let is_lost = is_damaged && has_others(roster, shard, held);
            if !is_lost && !roster.is_gone(shard, held) {
                return;
            }
            if self.is_checkpointing(shard) {
                // It would write where the next replica begins.
                self.rehost = true;
                return;
            }
            self.give_up(shard, now);
            self.node.snapshots.forget(shard);
        }
        if self.node.data_dir.replica(shard).is_some() {
            return;
        }
        let wanted = roster.wanted(shard, self.node.data_dir.node());
        match wanted.filter(|wanted| self.node.data_dir.may_hold(shard, *wanted)) {
            // The same holds for a state that was on its way to the former one.
            Some(_) if self.is_in_use(shard, now) => self.rehost = true,
            Some(wanted) => self.open(shard, wanted, roster, now),
            None => self.clear(shard, roster, now),
        }
    }

    /// Whether somebody still writes or reads what a former replica has left behind.
    fn is_in_use(&self, shard: ShardId, now: Instant) -> bool {
        self.ghosts.contains(&shard)
            || self.node.snapshots.has_files(shard)
            || self.former.is_read(shard, now)
    }

    /// Removes what a former replica has left behind, when others have what it had. Blocks on the
    /// disk, which happens rarely.
    fn clear(&mut self, shard: ShardId, roster: &Roster, now: Instant) {
        let former = self.node.data_dir.retired(shard);
        let is_gone = former.is_some_and(|former| roster.is_gone(shard, former));
        if !is_gone || self.former.cleared.contains(&shard) {
            return;
        }
        if self.is_in_use(shard, now) {
            self.rehost = true;
            return;
        }
        match self.node.data_dir.clear_retired(shard) {
            Ok(()) => {
                self.former.cleared.insert(shard);
            }
            Err(error) => {
                tracing::error!(%shard, %error, "what a former replica has left is still there");
                self.rehost_later = true;
            }
        }
    }

    fn is_checkpointing(&self, shard: ShardId) -> bool {
        if shard == ShardId::METADATA {
            let metadata = self.metadata.as_ref();
            return metadata.is_some_and(MetadataShard::is_checkpointing)
                || self.ghosts.contains(&shard);
        }
        let here = self.shards.get(&shard);
        here.is_some_and(DataShard::is_checkpointing) || self.ghosts.contains(&shard)
    }

    /// Never again this replica. Its files stay until somebody else has what it had.
    fn give_up(&mut self, shard: ShardId, now: Instant) {
        if let Err(error) = self.node.data_dir.retire(shard) {
            tracing::error!(%shard, %error, "a replica cannot be given up");
            self.rehost_later = true;
            return;
        }
        tracing::info!(%shard, "this node has no replica of the shard any more");
        let refusal = not_leader(shard, None);
        if shard == ShardId::METADATA {
            self.drop_metadata(&refusal);
        } else {
            self.drop_shard(shard, &refusal);
        }
        self.node.leaders.set(shard, Led::Nobody);
        let slot = self.node.slot_at_all(shard);
        if let Some(store) = slot.store() {
            let store = (Arc::downgrade(&store), now);
            self.former.stores.insert(shard, store);
        }
        slot.replace(Content::Absent);
        // Last: who waits for a partition is woken, and looks whether it is still here.
        self.node.logs.leave(shard);
        self.former.cleared.remove(&shard);
        self.node.journal.release(shard, LogIndex::new(u64::MAX));
        self.node.lost_more.notify_one();
    }

    /// Begins a new replica, with nothing: a leader will tell it everything, unless it is one of
    /// those that the shard begins with. Blocks on the disk, which happens rarely.
    fn open(&mut self, shard: ShardId, replica: ReplicaId, roster: &Roster, now: Instant) {
        let dir = &self.node.data_dir;
        let born = roster.shard(shard).and_then(|it| it.born(replica));
        let begun = match born {
            Some(born) => {
                let members = born.iter().map(|it| (it.replica, it.node)).collect();
                dir.hold_first(shard, replica, members)
            }
            None => dir.hold(shard, replica),
        };
        if let Err(error) = begun {
            tracing::error!(%shard, %replica, %error, "a new replica cannot be begun");
            self.rehost_later = true;
            return;
        }
        self.node.journal.restart(shard);
        self.former.cleared.remove(&shard);
        self.node.use_slot(shard);
        match start::open_replica(&self.node, shard, now) {
            Ok(OpenedReplica::Metadata(metadata)) => self.metadata = Some(*metadata),
            Ok(OpenedReplica::Data(data)) => {
                self.shards.insert(shard, *data);
            }
            Err(why) => {
                start::quarantine(shard, &why);
                let slot = self.node.slot_at_all(shard);
                slot.replace(Content::Unusable(why));
                return;
            }
        }
        tracing::info!(%shard, %replica, "this node has a new replica of the shard");
    }

    /// How the shards stand that are led here.
    pub(super) fn standing(&mut self) -> Vec<ShardStanding> {
        let own = self.node.data_dir.node();
        let metadata = self.metadata.iter_mut();
        let metadata = metadata.filter_map(|shard| shard.log().standing_of_shard(own));
        let data = self.shards.values_mut();
        let data = data.filter_map(|shard| shard.log().standing_of_shard(own));
        metadata.chain(data).collect()
    }

    /// Has a shard handed over to a node.
    ///
    /// # Errors
    /// When this node does not lead it, or the other has no replica that votes.
    pub(super) fn hand_over(&mut self, shard: ShardId, to: NodeId) -> Result<(), Refusal> {
        if shard == ShardId::METADATA {
            let metadata = self.metadata.as_mut();
            let metadata = metadata.ok_or_else(|| not_leader(shard, None))?;
            return metadata.log().hand_over_to(to);
        }
        let data = self.shards.get_mut(&shard);
        data.ok_or_else(|| not_leader(shard, None))?
            .log()
            .hand_over_to(to)
    }

    /// Ends a data shard here.
    pub(super) fn drop_shard(&mut self, shard: ShardId, refusal: &Refusal) {
        if let Some(mut dropped) = self.shards.remove(&shard) {
            if dropped.is_checkpointing() {
                self.ghosts.insert(shard);
            }
            dropped.abandon_install();
            dropped.close(refusal);
        }
    }

    /// Ends the metadata shard here. Who the others are is remembered: one of them knows more.
    pub(super) fn drop_metadata(&mut self, refusal: &Refusal) {
        if let Some(mut dropped) = self.metadata.take() {
            if dropped.is_checkpointing() {
                self.ghosts.insert(ShardId::METADATA);
            }
            dropped.abandon_install();
            dropped.close(refusal);
        }
        let refusal = refusal.clone();
        self.node
            .view
            .send_modify(|view| *view = Arc::new(CatalogueView::lost(refusal, view)));
    }
}

/// Whether others have what a replica had: alone, it stays what it is until somebody repairs it.
fn has_others(roster: &Roster, shard: ShardId, replica: ReplicaId) -> bool {
    let replicas = roster.shard(shard);
    let members = replicas.map(|replicas| replicas.actual().members());
    members.is_some_and(|all| all.iter().any(|member| member.replica != replica))
}
