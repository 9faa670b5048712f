//! Where queues and partitions live, how far partitions reach, and which queues are bound to them:
//! what readers and pumps need to know without asking a shard. Kept current by the shards' threads,
//! which own what they publish here; never an authority over them.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use millrace_types::{LogId, Offset, ShardId};
use tokio::sync::watch;

/// What a partition holds: `first..end`, synced and applied.
pub(super) type Extent = Range<Offset>;

/// Everything that is configured on this node.
#[derive(Debug, Default)]
pub(super) struct Logs(RwLock<Maps>);

/// Whether a shard knows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It does.
    Yes,
    /// It does not.
    No,
}

#[derive(Debug, Default)]
struct Maps {
    shards: BTreeMap<LogId, ShardId>,
    /// Removed dead-letter queues whose shards still know what has arrived in them.
    departed: BTreeMap<LogId, ShardId>,
    extents: BTreeMap<LogId, watch::Sender<Extent>>,
    /// By partition: the bound queues, and how far each has come.
    bound: BTreeMap<LogId, BTreeMap<LogId, Offset>>,
    /// By queue: its partitions.
    bindings: BTreeMap<LogId, Vec<LogId>>,
    /// The topology revision that each shard's replica here has done.
    configured: BTreeMap<ShardId, u64>,
}

impl Logs {
    /// A partition exists; gives the place where its extent is published.
    pub(super) fn add_partition(
        &self,
        shard: ShardId,
        log: LogId,
        extent: Extent,
    ) -> watch::Sender<Extent> {
        let mut maps = self.write();
        maps.shards.insert(log, shard);
        maps.extents
            .entry(log)
            .or_insert_with(|| watch::Sender::new(extent))
            .clone()
    }

    /// A queue exists, bound to these partitions, where it has come this far.
    pub(super) fn set_queue(&self, shard: ShardId, queue: LogId, cursors: Vec<(LogId, Offset)>) {
        let mut maps = self.write();
        maps.unbind(queue);
        maps.shards.insert(queue, shard);
        for (partition, cursor) in &cursors {
            maps.bound
                .entry(*partition)
                .or_default()
                .insert(queue, *cursor);
        }
        if !cursors.is_empty() {
            let partitions = cursors
                .into_iter()
                .map(|(partition, _)| partition)
                .collect();
            maps.bindings.insert(queue, partitions);
        }
    }

    /// A queue has come this far with a partition.
    pub(super) fn set_cursor(&self, queue: LogId, partition: LogId, cursor: Offset) {
        let mut maps = self.write();
        if let Some(known) = maps
            .bound
            .get_mut(&partition)
            .and_then(|q| q.get_mut(&queue))
        {
            *known = cursor;
        }
    }

    /// The replica of a shard has done everything up to a topology revision.
    pub(super) fn set_configured(&self, shard: ShardId, revision: u64) {
        self.write().configured.insert(shard, revision);
    }

    /// What the replica of a shard has done here; 0 without one.
    pub(super) fn configured(&self, shard: ShardId) -> u64 {
        self.read().configured.get(&shard).copied().unwrap_or(0)
    }

    /// A removed dead-letter queue is known to its shard, or is no longer.
    pub(super) fn set_departed(&self, shard: ShardId, queue: LogId, known: Known) {
        let mut maps = self.write();
        match known {
            Known::Yes => maps.departed.insert(queue, shard),
            Known::No => maps.departed.remove(&queue),
        };
    }

    /// The shard that knows which dead letters have arrived in a queue, perhaps a removed one.
    pub(super) fn arrivals(&self, queue: LogId) -> Option<ShardId> {
        let maps = self.read();
        let place = maps.shards.get(&queue).or(maps.departed.get(&queue));
        place.copied()
    }

    /// A queue or partition is no more; those who wait for its extent are woken.
    pub(super) fn remove(&self, log: LogId) {
        self.write().remove(log);
    }

    /// There is no replica of a shard here any more: what was known of its logs is old from here
    /// on. Those who wait for an extent are woken.
    pub(super) fn leave(&self, shard: ShardId) {
        let mut maps = self.write();
        let homes = maps.shards.iter();
        let ours = homes.filter_map(|(log, home)| (*home == shard).then_some(*log));
        for log in ours.collect::<Vec<_>>() {
            maps.remove(log);
        }
        maps.departed.retain(|_, home| *home != shard);
        maps.configured.remove(&shard);
    }

    /// Where a queue or partition lives.
    pub(super) fn shard(&self, log: LogId) -> Option<ShardId> {
        self.read().shards.get(&log).copied()
    }

    /// What a partition holds, and a way to wait for more; `None` when it is not configured yet.
    pub(super) fn extent(&self, log: LogId) -> Option<watch::Receiver<Extent>> {
        self.read().extents.get(&log).map(watch::Sender::subscribe)
    }

    /// Up to `max` queues after one that are bound to a partition, and where they live, in order.
    pub(super) fn bound_queues(
        &self,
        partition: LogId,
        after: Option<LogId>,
        max: usize,
    ) -> Vec<(LogId, ShardId)> {
        let maps = self.read();
        let after = (
            after.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        let bound = maps.bound.get(&partition).into_iter();
        let queues = bound.flat_map(|queues| queues.range(after)).take(max);
        // A queue that is bound has a shard.
        let place = |(queue, _): (&LogId, _)| Some((*queue, *maps.shards.get(queue)?));
        queues.filter_map(place).collect()
    }

    /// How many queues are bound to a partition.
    pub(super) fn bound_len(&self, partition: LogId) -> usize {
        self.read().bound.get(&partition).map_or(0, BTreeMap::len)
    }

    /// The queues bound to a partition that have not come to its end, in order.
    pub(super) fn lagging_queues(&self, partition: LogId, end: Offset) -> Vec<LogId> {
        let maps = self.read();
        let bound = maps.bound.get(&partition).into_iter().flatten();
        let lagging = bound.filter(|(_, cursor)| **cursor < end);
        let mut queues: Vec<LogId> = lagging.map(|(queue, _)| *queue).collect();
        queues.sort_unstable();
        queues
    }

    /// Whether a queue has not come to the end of a partition that it is bound to.
    pub(super) fn is_behind(&self, queue: LogId) -> bool {
        let maps = self.read();
        let mut partitions = maps.bindings.get(&queue).into_iter().flatten();
        partitions.any(|partition| {
            let cursor = maps.bound.get(partition).and_then(|q| q.get(&queue));
            let extent = maps.extents.get(partition);
            let (Some(cursor), Some(extent)) = (cursor, extent) else {
                return false;
            };
            *cursor < extent.borrow().end
        })
    }

    /// The first offset of a partition that some bound queue has not looked at.
    pub(super) fn lowest_cursor(&self, partition: LogId) -> Option<Offset> {
        self.read().bound.get(&partition)?.values().copied().min()
    }

    /// The same, of queues of one shard.
    pub(super) fn lowest_cursor_of(&self, partition: LogId, shard: ShardId) -> Option<Offset> {
        let maps = self.read();
        let bound = maps.bound.get(&partition)?.iter();
        let of_shard = bound.filter(|(queue, _)| maps.shards.get(queue) == Some(&shard));
        of_shard.map(|(_, cursor)| *cursor).min()
    }

    fn read(&self) -> RwLockReadGuard<'_, Maps> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Maps> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maps {
    fn remove(&mut self, log: LogId) {
        self.unbind(log);
        self.shards.remove(&log);
        self.extents.remove(&log);
    }

    fn unbind(&mut self, queue: LogId) {
        for partition in self.bindings.remove(&queue).unwrap_or_default() {
            if let Some(queues) = self.bound.get_mut(&partition) {
                queues.remove(&queue);
                if queues.is_empty() {
                    self.bound.remove(&partition);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId::new(1);
    const OTHER: ShardId = ShardId::new(2);

    fn log(id: u64) -> LogId {
        LogId::new(id)
    }

    fn at(offset: u64) -> Offset {
        Offset::new(offset)
    }

    #[test]
    fn the_lowest_cursor_is_the_slowest_bound_queues() {
        let logs = Logs::default();
        logs.set_queue(SHARD, log(1), vec![(log(9), at(5))]);
        logs.set_queue(SHARD, log(2), vec![(log(9), at(3)), (log(8), at(0))]);
        assert_eq!(logs.lowest_cursor(log(9)), Some(at(3)));
        logs.set_cursor(log(2), log(9), at(7));
        assert_eq!(logs.lowest_cursor(log(9)), Some(at(5)));
        logs.set_queue(SHARD, log(1), Vec::new());
        assert_eq!(logs.lowest_cursor(log(9)), Some(at(7)));
        logs.remove(log(2));
        assert_eq!(logs.lowest_cursor(log(9)), None);
        assert!(logs.bound_queues(log(8), None, 9).is_empty());
        assert_eq!(logs.shard(log(1)), Some(SHARD));
    }

    #[test]
    fn nothing_is_known_of_a_shard_without_a_replica_here() {
        let logs = Logs::default();
        logs.add_partition(SHARD, log(9), at(0)..at(7));
        logs.set_queue(OTHER, log(1), vec![(log(9), at(3))]);
        logs.set_configured(OTHER, 4);

        logs.leave(OTHER);

        assert_eq!(logs.lowest_cursor(log(9)), None);
        assert_eq!(logs.shard(log(1)), None);
        assert_eq!(logs.configured(OTHER), 0);
        assert_eq!(logs.shard(log(9)), Some(SHARD));
    }

    #[tokio::test]
    async fn a_reader_learns_of_growth_and_of_removal() {
        let logs = Logs::default();
        let sender = logs.add_partition(SHARD, log(9), at(0)..at(0));
        let mut extent = logs.extent(log(9)).unwrap();
        sender.send_replace(at(0)..at(4));
        extent.wait_for(|extent| extent.end > at(3)).await.unwrap();
        logs.remove(log(9));
        drop(sender);
        assert!(extent.wait_for(|extent| extent.end > at(9)).await.is_err());
        assert!(logs.extent(log(9)).is_none());
    }
}
