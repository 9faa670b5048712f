//! What this node has to know of shards that it has no replica of. For partitions it leads: how far
//! the queues there have come that are bound to them, because retention waits for them. For queues
//! it leads: how far the partitions there go that they are bound to, because their pumps have to be
//! woken.
//!
//! Promises: a bound queue of which nothing is known, here or elsewhere, holds retention back as
//! one does that has not looked at anything. Asks while there is something to ask, about leaders
//! elsewhere; decides nothing about trimming.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_types::{LogId, Offset, ShardId};

use super::node::Node;
use super::pumps::{Job, Pumps};

/// Between two rounds: what a message waits at most before it goes on to a queue whose node has no
/// replica of its partition.
const ROUND_EVERY: Duration = Duration::from_millis(200);
/// Rounds before housekeeping has to ask for more.
const ROUNDS: usize = 5;
/// Partitions of one question.
const PARTITIONS_MAX: usize = 10_000;

/// See above.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    state: Mutex<State>,
    running: AtomicBool,
}

/// What retention has to wait for, besides the queues whose replicas are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nothing.
    Nothing,
    /// Everything from here on.
    From(Offset),
}

#[derive(Debug, Default)]
struct State {
    plan: Arc<Plan>,
    /// How far the queues of a shard have come with a partition; missing: nobody knows.
    cursors: BTreeMap<(LogId, ShardId), Option<Offset>>,
}

/// What there is to ask, of one topology and with these replicas.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    revision: u64,
    /// Without a replica here.
    elsewhere: BTreeSet<ShardId>,
    /// By partition: those of them where queues are bound to it.
    bound: BTreeMap<LogId, BTreeSet<ShardId>>,
    /// By those of them: their partitions that queues here are bound to.
    partitions: BTreeMap<ShardId, Vec<LogId>>,
}

impl Neighbours {
    /// What retention of a partition has to wait for elsewhere.
    pub(super) fn hold(&self, node: &Node, partition: LogId) -> Hold {
        let revision = node.view.borrow().revision();
        let (here, elsewhere) = shards(node);
        if here
            .iter()
            .any(|shard| node.logs.configured(*shard) < revision)
        {
            // A replica that has just come, or is behind, may not know of a queue yet.
            return Hold::From(Offset::default());
        }
        if elsewhere.is_empty() {
            return Hold::Nothing;
        }
        let state = self.lock();
        let is_current = state.plan.revision == revision;
        if !is_current || state.plan.elsewhere != elsewhere {
            return Hold::From(Offset::default());
        }
        let mut lowest: Option<Offset> = None;
        for shard in state.plan.bound.get(&partition).into_iter().flatten() {
            let cursor = match state.cursors.get(&(partition, *shard)) {
                Some(Some(cursor)) => *cursor,
                // No queue of that shard is bound to it any more.
                Some(None) => continue,
                None => Offset::default(),
            };
            lowest = Some(lowest.map_or(cursor, |lowest| lowest.min(cursor)));
        }
        lowest.map_or(Hold::Nothing, Hold::From)
    }

    /// Whether there is anything to ask, or nobody knows yet.
    pub(super) fn asks(&self, node: &Node) -> bool {
        let elsewhere = shards_elsewhere(node);
        if elsewhere.is_empty() {
            return false;
        }
        let plan = Arc::clone(&self.lock().plan);
        let is_current = plan.revision == node.view.borrow().revision();
        !is_current
            || plan.elsewhere != elsewhere
            || !plan.bound.is_empty()
            || !plan.partitions.is_empty()
    }

    /// Asks what there is to ask, for a while; called about once a second.
    pub(super) fn look(node: &Arc<Node>) {
        if shards_elsewhere(node).is_empty() {
            return;
        }
        if node.neighbours.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let node = Arc::clone(node);
        let host = Arc::clone(&node.host);
        host.spawn(Box::pin(async move {
            for _ in 0..ROUNDS {
                if node.check_serving().is_err() {
                    break;
                }
                node.neighbours.round(&node).await;
                node.host.sleep(ROUND_EVERY).await;
            }
            node.neighbours.running.store(false, Ordering::Release);
        }));
    }

    async fn round(&self, node: &Arc<Node>) {
        let plan = self.plan(node);
        let mut by_shard: BTreeMap<ShardId, Vec<LogId>> = BTreeMap::new();
        for (partition, shards) in &plan.bound {
            for shard in shards {
                by_shard.entry(*shard).or_default().push(*partition);
            }
        }
        for (shard, partitions) in by_shard {
            for some in partitions.chunks(PARTITIONS_MAX) {
                self.ask_cursors(node, &plan, shard, some).await;
            }
        }
        for (shard, partitions) in &plan.partitions {
            for some in partitions.chunks(PARTITIONS_MAX) {
                wake(node, *shard, some).await;
            }
        }
    }

    async fn ask_cursors(&self, node: &Node, plan: &Plan, shard: ShardId, partitions: &[LogId]) {
        let answer = node.cursors_there(shard, partitions.to_vec()).await;
        let mut state = self.lock();
        let known = answer.ok().filter(|answer| {
            // An older state may not know of a queue that is bound since.
            answer.revision >= plan.revision && answer.lowest.len() == partitions.len()
        });
        let Some(known) = known else {
            // What was true stays true: a cursor never goes back. Of a queue that came since,
            // nothing is known until the plan's revision has arrived there.
            return;
        };
        for (partition, cursor) in partitions.iter().zip(known.lowest) {
            state.cursors.insert((*partition, shard), cursor);
        }
    }

    /// What there is to ask now; what was known is forgotten when that changes.
    fn plan(&self, node: &Node) -> Arc<Plan> {
        let view = node.view.borrow().clone();
        let elsewhere = shards_elsewhere(node);
        let known = Arc::clone(&self.lock().plan);
        if known.revision == view.revision() && known.elsewhere == elsewhere {
            return known;
        }
        let mut plan = Plan {
            revision: view.revision(),
            elsewhere,
            ..Plan::default()
        };
        let topology = view.topology().ok();
        for (queue_shard, topic) in topology.iter().flat_map(|topology| topology.bound()) {
            let topic = view.lookup(topic);
            for (shard, partition) in topic.iter().flat_map(|topic| topic.partitions()) {
                match (
                    plan.elsewhere.contains(&queue_shard),
                    plan.elsewhere.contains(shard),
                ) {
                    (true, false) => {
                        plan.bound
                            .entry(*partition)
                            .or_default()
                            .insert(queue_shard);
                    }
                    (false, true) => plan.partitions.entry(*shard).or_default().push(*partition),
                    (true, true) | (false, false) => {}
                }
            }
        }
        for partitions in plan.partitions.values_mut() {
            partitions.sort_unstable();
            partitions.dedup();
        }
        let plan = Arc::new(plan);
        let mut state = self.lock();
        state.plan = Arc::clone(&plan);
        state.cursors.clear();
        plan
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the pumps of queues that have not come to the end of partitions elsewhere.
async fn wake(node: &Arc<Node>, home: ShardId, partitions: &[LogId]) {
    let Ok(extents) = node.extents_there(home, partitions.to_vec()).await else {
        return;
    };
    for (partition, extent) in partitions.iter().zip(extents) {
        let Some(extent) = extent else {
            continue;
        };
        for queue in node.logs.lagging_queues(*partition, extent.end) {
            if let Some(shard) = node.logs.shard(queue) {
                Pumps::retry(node, Job::Transfer { shard, queue });
            }
        }
    }
}

/// Data shards that this node has no replica of that serves.
fn shards_elsewhere(node: &Node) -> BTreeSet<ShardId> {
    shards(node).1
}

/// Data shards of which this node has a replica that serves, and all others.
fn shards(node: &Node) -> (BTreeSet<ShardId>, BTreeSet<ShardId>) {
    let shards = (1..=node.data_shards()).map(ShardId::new);
    shards.partition(|shard| node.hosts(*shard))
}
