//! What all parts of a node share: the shards' inboxes and stores, the journal, the catalogue's
//! view and whether the node serves. Ways to propose, to ask and to read; decides nothing about
//! messages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_engine::Shard;
use millrace_engine::command::Command;
use millrace_engine::outcome::Outcome;
use millrace_storage::{CheckpointerHandle, DataDir, JournalHandle, NextFile};
use millrace_types::{ErrorCode, LogId, NodeId, Refusal, ShardId};
use tokio::sync::{Notify, Semaphore, watch};

use super::bodies::Bodies;
use super::calls;
use super::figures::Figures;
use super::gate::{self, Lobby, Permit};
use super::host::Host;
use super::inbox::Inbox;
use super::inlet::Inlet;
use super::input::{Caller, Input, Proposal};
use super::leaders::{Leaders, Led};
use super::logs::Logs;
use super::neighbours::Neighbours;
use super::network::Network;
use super::options::{
    ANSWER_WAIT_MAX, ASK_WAIT_MAX, CROWDED_QUARTERS, NodeOptions, RETRY_AFTER_MS,
};
use super::placement::learning::Heard;
use super::pumps::Pumps;
use super::reply::{Pending, Reply};
use super::shard_log::Keeps;
use super::shortages::Shortages;
use super::slot::Slot;
use super::snapshots::Snapshots;
use super::view::CatalogueView;

/// How long a look at the disk's free space is good for.
const DISK_LOOK_MS: u64 = 200;

/// Entries are kept for followers until the journal's files are this many thresholds large. Below
/// the size from which on shards are made to checkpoint, so that nobody has to for their sake.
const KEPT_FACTOR: u64 = 2;

/// One broker node's shared parts.
pub(super) struct Node {
    pub(super) host: Arc<dyn Host>,
    pub(super) network: Arc<dyn Network>,
    pub(super) options: NodeOptions,
    pub(super) data_dir: DataDir,
    pub(super) journal: JournalHandle,
    pub(super) checkpointer: CheckpointerHandle,
    /// By number, the metadata shard first: of every shard that there may be.
    pub(super) slots: Vec<Slot>,
    /// Only below this place has there been a replica here.
    pub(super) slots_used: AtomicUsize,
    /// One for each worker.
    pub(super) inboxes: Vec<Arc<Inbox<Input>>>,
    /// The same, for what other nodes send.
    pub(super) inlets: Vec<Inlet>,
    pub(super) logs: Logs,
    pub(super) leaders: Leaders,
    pub(super) neighbours: Neighbours,
    /// Where other nodes take calls of clients.
    pub(super) directory: watch::Sender<BTreeMap<NodeId, Arc<str>>>,
    pub(super) view: watch::Sender<Arc<CatalogueView>>,
    /// What others say of nodes and replicas.
    pub(super) heard: Heard,
    /// Told when a replica of this node was given up because it lost something.
    pub(super) lost_more: Arc<Notify>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) figures: Figures,
    pub(super) pumps: Pumps,
    pub(super) snapshots: Snapshots,
    /// Whose turn it is among the partitions of topics; one for all, as only the spread counts.
    pub(super) spread: AtomicU32,
    /// Publishes that wait for room.
    pub(super) lobby: Arc<Lobby>,
    /// Reads that hit the disk, at a time.
    pub(super) readers: Arc<Semaphore>,
    /// Calls that look for a name that is not known here, at a time.
    pub(super) seekers: Semaphore,
    /// Reads of the journal for followers, at a time.
    pub(super) loads: Semaphore,
    pub(super) disk: DiskLook,
    /// What others have said of theirs.
    pub(super) shortages: Shortages,
    /// All effects are lost.
    #[cfg(test)]
    pub(super) effects_lost: std::sync::atomic::AtomicBool,
}

/// What the node does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Everything.
    Serving,
    /// Nothing new.
    Draining,
    /// Nothing.
    Stopped,
    /// Nothing, and the process has to end.
    Failed(String),
}

/// The last look at the disk's free space.
#[derive(Debug)]
pub(super) struct DiskLook {
    start: Instant,
    /// Milliseconds since `start`, plus one; 0: never looked.
    looked: AtomicU64,
    free: AtomicU64,
}

impl DiskLook {
    /// Before the first look.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            start: now,
            looked: AtomicU64::new(0),
            free: AtomicU64::new(u64::MAX),
        }
    }
}

impl Node {
    /// A shard that serves.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE`, `NOT_LEADER` when this node has no replica of it.
    pub(super) fn slot(&self, shard: ShardId) -> Result<&Slot, Refusal> {
        let slot = usize::try_from(shard.get())
            .ok()
            .and_then(|place| self.slots.get(place));
        let Some(slot) = slot else {
            return Err(Refusal::new(
                ErrorCode::ShardUnavailable,
                format!("this node has no shard {shard}"),
            ));
        };
        slot.check()?;
        Ok(slot)
    }

    /// A shard of this node, whether it serves or not.
    pub(super) fn slot_at_all(&self, shard: ShardId) -> &Slot {
        let place = usize::try_from(shard.get()).unwrap_or(usize::MAX);
        self.slots
            .get(place)
            .expect("asked for a shard that a worker owns")
    }

    /// The way to the bodies of a shard that serves.
    ///
    /// # Errors
    /// As `slot`.
    pub(super) fn bodies(&self, shard: ShardId) -> Result<Bodies, Refusal> {
        let (host, readers) = (Arc::clone(&self.host), Arc::clone(&self.readers));
        let hosted = self.slot(shard)?.serving()?;
        Ok(Bodies::new(hosted, host, readers))
    }

    /// Refuses when the node takes no new work.
    ///
    /// # Errors
    /// `DRAINING`, `SHARD_UNAVAILABLE`.
    pub(super) fn check_serving(&self) -> Result<(), Refusal> {
        match &*self.phase.borrow() {
            Phase::Serving => Ok(()),
            Phase::Draining | Phase::Stopped => Err(draining()),
            Phase::Failed(reason) => Err(Refusal::new(
                ErrorCode::ShardUnavailable,
                format!("the node has failed: {reason}"),
            )
            .retry_after_millis(DRAIN_RETRY_MS)),
        }
    }

    /// Lets a publish in.
    ///
    /// # Errors
    /// `DRAINING`, `OVERLOADED`, `DISK_FULL`, `SHARD_UNAVAILABLE`.
    pub(super) fn admit(&self, shard: ShardId, bytes: u64) -> Result<Permit, Refusal> {
        self.check_serving()?;
        let slot = self.slot(shard)?;
        self.check_room_of(shard)?;
        slot.gate.enter(shard, bytes)
    }

    /// Whether there is room for more messages in memory and on disk.
    ///
    /// # Errors
    /// `OVERLOADED`, `DISK_FULL`.
    pub(super) fn check_room(&self) -> Result<(), Refusal> {
        gate::check_disk(self.disk_free_bytes(), self.options.disk_reserve_bytes)?;
        gate::check_memory(self.resident_bytes(), self.options.memory_bytes_max)
    }

    /// Whether there is, here and with everybody who votes in a shard, if it is led here.
    ///
    /// # Errors
    /// As `check_room`.
    pub(super) fn check_room_of(&self, shard: ShardId) -> Result<(), Refusal> {
        self.check_room()?;
        self.shortages.check(shard, self.host.now())
    }

    /// Whether bodies take so much memory that publishes are to be slowed down.
    pub(super) fn is_crowded(&self) -> bool {
        let high = self.options.memory_bytes_max / 4 * CROWDED_QUARTERS;
        self.resident_bytes() >= high
    }

    /// Whether the disk has less than the reserve, so that publishes are refused.
    pub(super) fn is_disk_short(&self) -> bool {
        self.disk_free_bytes() < self.options.disk_reserve_bytes
    }

    /// Whether entries that checkpoints cover are kept for followers that are behind.
    pub(super) fn keeps(&self) -> Keeps {
        let limit = self.options.checkpoint_journal_bytes;
        if self.journal.stats().file_bytes <= limit.saturating_mul(KEPT_FACTOR) {
            Keeps::ForFollowers
        } else {
            Keeps::Nothing
        }
    }

    /// Whether the journal can go on only in a file that the disk has no room for.
    pub(super) fn is_journal_refused(&self) -> bool {
        let room = self.journal.room();
        room.is_ok_and(|room| room.next_file == NextFile::Refused)
    }

    /// Bodies in memory, of all shards: stored, read for somebody, or on their way to the disk.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.used_slots().map(Slot::resident_bytes).sum()
    }

    /// Free on the disk, as of a moment ago; 0 when the journal cannot get its next file.
    pub(super) fn disk_free_bytes(&self) -> u64 {
        let disk = &self.disk;
        let elapsed = self.host.now().saturating_duration_since(disk.start);
        let elapsed = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let now = elapsed.saturating_add(1);
        let looked = disk.looked.load(Ordering::Acquire);
        if looked != 0 && now.saturating_sub(looked) < DISK_LOOK_MS {
            return disk.free.load(Ordering::Acquire);
        }
        let free = match self.journal.room() {
            Ok(room) if room.next_file == NextFile::Refused => 0,
            Ok(room) => room.free_bytes,
            Err(error) => {
                tracing::warn!(%error, "cannot tell how much of the disk is free");
                // Not knowing is no reason to refuse: a full disk makes itself felt.
                u64::MAX
            }
        };
        disk.free.store(free, Ordering::Release);
        disk.looked.store(now, Ordering::Release);
        free
    }

    /// Sends a command to its shard; the reply says what came of it, in any case.
    pub(super) fn propose(&self, proposal: Proposal) {
        match self.slot(proposal.shard) {
            Ok(slot) => slot.inbox.send(Input::Propose(proposal)),
            Err(refusal) => proposal.caller.refuse(refusal),
        }
    }

    /// Sends a command and gives the way to its outcome.
    pub(super) fn start(&self, shard: ShardId, command: Command, body: Bytes) -> Pending<Outcome> {
        let (reply, pending) = Reply::channel();
        self.propose(Proposal {
            shard,
            command,
            body,
            caller: Caller::Reply(reply),
        });
        pending
    }

    /// Waits for an answer as long as any call may take. Who waits in vain does not know.
    ///
    /// # Errors
    /// The refusal that comes, or `SHARD_UNAVAILABLE` when nothing does.
    pub(super) async fn in_time<T>(
        &self,
        wait: Duration,
        answer: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let late = self.host.sleep(wait.saturating_add(ANSWER_WAIT_MAX));
        tokio::select! {
            biased;
            answer = answer => answer,
            () = late => Err(unanswered()),
        }
    }

    /// Asks a data shard; the question must be short.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE`.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        shard: ShardId,
        question: impl FnOnce(&Shard) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let slot = self.slot(shard)?;
        let (reply, pending) = Reply::channel();
        let ask = move |shard: Result<&Shard, Refusal>| reply.answer(shard.map(question));
        slot.inbox.send(Input::Ask(shard, Box::new(ask)));
        self.soon(shard, pending.answer()).await
    }

    /// Waits for what a worker says, but not for one that hangs.
    ///
    /// # Errors
    /// What it says; `SHARD_UNAVAILABLE`.
    pub(super) async fn soon<T>(
        &self,
        shard: ShardId,
        answer: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let late = self.host.sleep(ASK_WAIT_MAX);
        tokio::select! {
            biased;
            answer = answer => answer,
            () = late => Err(calls::unsure(shard, ASK_WAIT_MAX)),
        }
    }

    /// Whether the next effect is not carried out: tests and simulations lose some, because none
    /// may be needed.
    pub(super) fn loses_effect(&self) -> bool {
        #[cfg(test)]
        if self.effects_lost.load(Ordering::Acquire) {
            return true;
        }
        self.host.loses_effect()
    }

    /// Who leads a shard, as its replica here says; of a shard without one that serves, somebody
    /// who knows. When nobody can be asked, this node has to say why its own does not serve.
    pub(super) fn led(&self, shard: ShardId) -> Led {
        let place = usize::try_from(shard.get()).unwrap_or(usize::MAX);
        // Clients' tags name any shard.
        let Some(slot) = self.slots.get(place) else {
            return Led::Here;
        };
        match self.leaders.get(shard) {
            Led::Nobody if slot.check().is_err() => match self.candidate(shard) {
                Some(node) => Led::There(node),
                None if slot.damage().is_some() => Led::Here,
                None => Led::Nobody,
            },
            led => led,
        }
    }

    /// Whether this node has a replica of a shard that serves.
    pub(super) fn hosts(&self, shard: ShardId) -> bool {
        self.slot(shard).is_ok()
    }

    /// Where a queue or partition lives, whether or not this node has a replica of its shard;
    /// `None` when it is nowhere, or not configured yet.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE` when the catalogue cannot be read.
    pub(super) fn home(&self, log: LogId) -> Result<Option<ShardId>, Refusal> {
        if let Some(shard) = self.logs.shard(log) {
            return Ok(Some(shard));
        }
        let view = self.view.borrow().clone();
        let home = view.topology()?.home(log);
        Ok(home.filter(|shard| !self.hosts(*shard) && self.led(*shard) != Led::Here))
    }

    /// A node that has a replica of a shard, and is not this one: it leads, or knows who does.
    fn candidate(&self, shard: ShardId) -> Option<NodeId> {
        let view = self.view.borrow();
        let replicas = view.roster().shard(shard)?;
        let own = self.data_dir.node();
        let preferred = replicas.target().leader();
        let preferred = preferred.filter(|node| replicas.nodes().any(|other| other == *node));
        let others = preferred.into_iter().chain(replicas.nodes());
        others.into_iter().find(|node| *node != own)
    }

    /// The next node after one that has a replica of a shard, by id, going round; not this one.
    pub(super) fn candidate_after(&self, shard: ShardId, node: NodeId) -> Option<NodeId> {
        let view = self.view.borrow();
        let own = self.data_dir.node();
        let others = view.roster().shard(shard)?.nodes();
        let others: BTreeSet<NodeId> = others.filter(|other| *other != own).collect();
        let after = others.range((Bound::Excluded(node), Bound::Unbounded));
        after.chain(&others).next().copied()
    }

    /// Where another node takes calls of clients, if that is known.
    pub(super) fn client_address(&self, node: NodeId) -> Option<Arc<str>> {
        if let Some(client) = self.directory.borrow().get(&node) {
            return Some(Arc::clone(client));
        }
        let view = self.view.borrow();
        let client = view.roster().node(node)?.facts.client_address.as_str();
        (!client.is_empty()).then(|| client.into())
    }

    /// The same of all of which it is known.
    pub(super) fn client_addresses(&self) -> BTreeMap<NodeId, Arc<str>> {
        let view = self.view.borrow().clone();
        let registered = view.roster().nodes().map(|(node, _)| node);
        let told: Vec<NodeId> = self.directory.borrow().keys().copied().collect();
        let all = registered.chain(told);
        all.filter_map(|node| Some((node, self.client_address(node)?)))
            .collect()
    }

    /// The node cannot go on; the first reason stays.
    pub(super) fn fail(&self, reason: String) {
        fail(&self.phase, reason);
    }

    /// The cluster it belongs to; a node does not run before there is one.
    pub(super) fn cluster_id(&self) -> String {
        let cluster = self.data_dir.cluster();
        cluster.map(|cluster| cluster.id).unwrap_or_default()
    }

    /// Number of data shards, as far as this node knows.
    pub(super) fn data_shards(&self) -> u32 {
        let known = self.view.borrow().data_shards();
        known.max(self.data_dir.data_shards())
    }

    /// Slots of shards that there has been a replica of here, and some others.
    pub(super) fn used_slots(&self) -> impl Iterator<Item = &Slot> {
        let used = self.slots_used.load(Ordering::Acquire);
        self.slots.iter().take(used)
    }

    /// There is a replica of a shard here.
    pub(super) fn use_slot(&self, shard: ShardId) {
        let place = usize::try_from(shard.get()).unwrap_or(0);
        self.slots_used.fetch_max(place + 1, Ordering::AcqRel);
    }
}

impl Caller {
    /// Answers without having asked the shard.
    pub(super) fn refuse(self, refusal: Refusal) {
        match self {
            Self::Reply(reply) | Self::Connection(_, reply) => reply.answer(Err(refusal)),
            Self::Publisher(publishing) => publishing.reply.answer(Err(refusal)),
            Self::Receiver(waiter) => {
                // A caller that has gone away does not want to know.
                waiter.reply.send(Err(refusal)).ok();
            }
        }
    }
}

/// Notes that the node cannot go on; the first reason stays.
pub(super) fn fail(phase: &watch::Sender<Phase>, reason: String) {
    phase.send_if_modified(|phase| {
        if matches!(phase, Phase::Failed(_)) {
            return false;
        }
        tracing::error!(%reason, "the node stops");
        *phase = Phase::Failed(reason);
        true
    });
}

/// What a client is told that waits no longer.
pub(super) fn unanswered() -> Refusal {
    let text = "no answer came in the time that a call may take";
    Refusal::new(ErrorCode::ShardUnavailable, text)
        .retry_after_millis(RETRY_AFTER_MS)
        .unknown()
}

/// What a client is told when the node takes nothing new.
pub(super) fn draining() -> Refusal {
    Refusal::new(ErrorCode::Draining, "the node is going down").retry_after_millis(DRAIN_RETRY_MS)
}

/// A restart takes about that long.
const DRAIN_RETRY_MS: u64 = 1_000;

/// What a client is told when another node leads a shard, or none does.
pub(super) fn not_leader(shard: ShardId, leader: Option<NodeId>) -> Refusal {
    let message = match leader {
        Some(leader) => format!("node {leader} leads shard {shard}"),
        None => format!("nobody leads shard {shard} at the moment"),
    };
    let refusal = Refusal::new(ErrorCode::NotLeader, message)
        .with("shard", shard.to_string())
        .retry_after_millis(RETRY_AFTER_MS);
    match leader {
        Some(leader) => refusal.with("leader", leader.to_string()),
        None => refusal,
    }
}

/// What a client is told about a damaged shard.
pub(super) fn quarantined(shard: ShardId, damage: &str) -> Refusal {
    Refusal::new(
        ErrorCode::ShardUnavailable,
        format!("shard {shard} is quarantined: {damage}"),
    )
    .with("shard", shard.to_string())
}
