//! States of shards on their way between nodes: who is sent what, and what has come.
//!
//! A leader's replica names a follower that needs entries the log has no more. The shard's last
//! checkpoint is streamed to that node in chunks, a few under way at a time and no faster than all
//! of a node's snapshots together may be; then Raft's own message follows, and the replica is told
//! how it ended. The follower stages what comes, and gives it to its replica when all of it is
//! durable and checked.
//!
//! Promises: no more than a window of each transfer is in memory; every order ends, and its replica
//! hears of it; of each shard one state arrives at a time. Does not decide who needs one.

mod pace;
mod prepared;
mod receiving;
mod sending;
mod window;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_replica::{Next, SnapshotAck};
use millrace_types::{NodeId, ReplicaId, ShardId};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::host::Host;
use super::options::NodeOptions;
use pace::Pace;
pub(super) use prepared::{Prepared, State, promote, replaced};
use receiving::Incoming;
pub(super) use receiving::receive;
pub(super) use sending::{Fate, Order, send};

/// Snapshots that leave a node at a time: one alone fills what the pace allows, a few keep a slow
/// follower from holding up the others.
const SENT_MAX: usize = 4;
/// Events of one transfer that wait to be looked at: more than chunks are under way. What finds no
/// room is lost like anything on a network.
const EVENTS_MAX: usize = 64;

/// All transfers of a node.
pub(super) struct Snapshots {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// To send.
    places: Semaphore,
    pace: Mutex<Pace>,
    state: Mutex<Transfers>,
}

#[derive(Default)]
struct Transfers {
    outgoing: BTreeMap<(ShardId, ReplicaId), Outgoing>,
    incoming: BTreeMap<ShardId, Incoming>,
    /// For whoever writes the files of a shard's next state.
    files: BTreeMap<ShardId, Arc<tokio::sync::Mutex<()>>>,
}

/// A snapshot that leaves.
struct Outgoing {
    id: u64,
    /// The node it goes to.
    node: NodeId,
    own: ReplicaId,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
    /// How often it failed before.
    failures: u32,
}

/// What happens to a snapshot that leaves.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Its receiver says something.
    Ack(Next),
    /// What was sent was probably lost.
    Lost,
}

impl Snapshots {
    /// None under way.
    pub(super) fn new(host: &dyn Host, options: &NodeOptions) -> Self {
        let pace = Pace::new(options.snapshot_bytes_per_second, host.now());
        Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            places: Semaphore::new(SENT_MAX),
            pace: Mutex::new(pace),
            state: Mutex::default(),
        }
    }

    /// A receiver has answered.
    pub(super) fn acknowledged(&self, from: NodeId, shard: ShardId, ack: SnapshotAck) {
        let transfers = self.lock();
        let outgoing = transfers.outgoing.get(&(shard, ack.from));
        if let Some(outgoing) = outgoing
            .filter(|outgoing| (outgoing.node, outgoing.own, outgoing.id) == (from, ack.to, ack.id))
        {
            // Lost, it is told again.
            outgoing.events.try_send(Event::Ack(ack.next)).ok();
        }
    }

    /// What was sent to a node was probably lost.
    pub(super) fn unreachable(&self, node: NodeId) {
        let transfers = self.lock();
        for outgoing in transfers.outgoing.values().filter(|o| o.node == node) {
            outgoing.events.try_send(Event::Lost).ok();
        }
    }

    /// A shard is not led here any more: nothing of it is sent.
    pub(super) fn follow(&self, shard: ShardId) {
        self.lock().outgoing.retain(|(of, _), outgoing| {
            if *of == shard {
                outgoing.stop.cancel();
            }
            *of != shard
        });
    }

    /// There is no replica of a shard here any more that could send or install one.
    pub(super) fn forget(&self, shard: ShardId) {
        self.follow(shard);
        self.decline(shard);
    }

    /// How many leave, wait to leave, or come.
    pub(super) fn under_way(&self) -> usize {
        let transfers = self.lock();
        transfers.outgoing.len() + transfers.incoming.len()
    }

    /// Ends all of them; each after the step it is at.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, Transfers> {
        // Nothing panics while holding it, so the state is whole even when poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
