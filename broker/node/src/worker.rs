//! The routine that owns some of the node's shards: takes everything that waits in one step, lets
//! the shards order it, hands all of it to the journal at once, and applies what is committed.
//! Nothing else touches those shards.
//!
//! While the journal has no room, nothing new is taken; what is committed is applied all the same.
//! A step is bounded: what is left over is for the next one.

mod draining;
mod hosting;
mod peers;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_storage::{CheckpointError, Next, Routine};
use millrace_types::{ErrorCode, LogIndex, Refusal, ShardId};

use super::data_shard::DataShard;
use super::facts::ShardFacts;
use super::inbox::Inbox;
use super::input::Input;
use super::leaders::Led;
use super::metadata_shard::MetadataShard;
use super::node::{Node, quarantined};
use super::outbound::{Outbound, SyncMark};
use super::shortages::TOLD_EVERY;
use super::turn::Turn;
use draining::Draining;
use hosting::Former;

/// How often connections, retention and old journal files are looked after, while there are any.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);
/// Time of consensus: what elections and heartbeats are counted in.
const TICK_EVERY: Duration = Duration::from_millis(100);
/// A shard that holds on to this many thresholds' worth of journal files makes a checkpoint though
/// it has written little itself.
const PINNED_FACTOR: u64 = 4;
/// One worker.
pub(super) struct Worker {
    node: Arc<Node>,
    inbox: Arc<Inbox<Input>>,
    pub(super) metadata: Option<MetadataShard>,
    pub(super) shards: BTreeMap<ShardId, DataShard>,
    /// Taken from the inbox, not looked at.
    waiting: VecDeque<Input>,
    out: Outbound,
    /// Whether the journal has been asked to tell when it has room.
    awaits_room: bool,
    housekeeping_at: Option<Instant>,
    /// When a shard with other members has its next tick.
    tick_at: Option<Instant>,
    /// How many there were.
    ticks: u64,
    /// When the others are next told, if the disk is short of room.
    short_at: Option<Instant>,
    draining: Option<Draining>,
    /// Shards let go of while a checkpoint of them was being made, which is not done yet.
    ghosts: BTreeSet<ShardId>,
    /// Whether what is here may differ from what the catalogue wants here.
    rehost: bool,
    /// The same, where the disk has refused: it is asked again with the next housekeeping.
    rehost_later: bool,
    former: Former,
}

/// Whether the worker goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Stop,
}

impl Routine for Worker {
    /// Ends when it is told to stop or the journal has.
    fn step(&mut self, now: Instant) -> Next {
        let next = self.turn(now);
        let took = self.node.host.now().saturating_duration_since(now);
        self.node.figures.worker_turns.add(took);
        next
    }

    fn wait(&mut self, deadline: Option<Instant>) {
        self.inbox.wait(deadline);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Whoever waits is told that the outcome is unknown when the shards are dropped.
        self.inbox.close();
        // A worker that panics takes its shards with it: the node cannot go on.
        if std::thread::panicking() {
            self.node.fail("a worker panicked".into());
        }
    }
}

impl Worker {
    /// A worker without shards.
    pub(super) fn new(node: &Arc<Node>, inbox: &Arc<Inbox<Input>>) -> Self {
        Self {
            node: Arc::clone(node),
            inbox: Arc::clone(inbox),
            metadata: None,
            shards: BTreeMap::new(),
            waiting: VecDeque::new(),
            out: Outbound::default(),
            awaits_room: false,
            housekeeping_at: None,
            tick_at: None,
            ticks: 0,
            short_at: None,
            draining: None,
            ghosts: BTreeSet::new(),
            rehost: false,
            rehost_later: false,
            former: Former::default(),
        }
    }

    fn turn(&mut self, now: Instant) -> Next {
        if self.look(now) == Flow::Stop {
            return Next::Ended;
        }
        self.gather(now);
        self.apply(now);
        if self.submit(now) == Flow::Stop {
            return Next::Ended;
        }
        if self.out.is_empty() {
            self.take_waiting(now);
        }
        if self.rehost {
            self.rehost(now);
        }
        // These go on: on a full disk, a checkpoint is what gives the journal room again.
        self.on_time(now);
        self.go_on_draining(now);
        if self.submit(now) == Flow::Stop {
            return Next::Ended;
        }
        let may_take = self.out.is_empty() && !self.waiting.is_empty();
        if may_take || self.has_committed() {
            return Next::Now;
        }
        Next::Wait(self.next_deadline())
    }

    /// Takes from the shards what is to be written.
    fn gather(&mut self, now: Instant) {
        let mut broken = Vec::new();
        if let Some(metadata) = &mut self.metadata
            && let Err(why) = metadata.gather(now, &mut self.out)
        {
            broken.push((ShardId::METADATA, why));
        }
        for (id, shard) in &mut self.shards {
            if let Err(why) = shard.gather(now, &mut self.out) {
                broken.push((*id, why));
            }
        }
        self.quarantine(broken);
    }

    fn synced(&mut self, marks: Vec<SyncMark>) {
        for mark in marks {
            if mark.shard == ShardId::METADATA {
                if let Some(metadata) = &mut self.metadata
                    && metadata.log().id() == mark.replica
                {
                    metadata.synced(mark.number);
                }
            } else if let Some(shard) = self.shards.get_mut(&mark.shard)
                && shard.log().id() == mark.replica
            {
                shard.synced(mark.number);
            }
        }
    }

    /// Empties the inbox. What does not add to what waits for the journal is done at once.
    fn look(&mut self, now: Instant) -> Flow {
        for input in self.inbox.take() {
            match input {
                Input::Stop => return Flow::Stop,
                Input::Room => self.awaits_room = false,
                Input::Synced(marks) => {
                    self.synced(marks);
                    if let Some(draining) = &mut self.draining {
                        draining.moved_at = now;
                    }
                }
                Input::Peer(arrived) => self.arrived(arrived),
                Input::Unreachable(node, lane) => self.unreachable(node, lane),
                Input::Loaded(shard, from, entries) => self.loaded(shard, from, entries),
                Input::SnapshotEnded(shard, to, fate) => self.snapshot_ended(shard, to, fate),
                Input::Promoted(shard, prepared) => self.promoted(shard, *prepared, now),
                Input::Checkpointed(shard, result) => self.checkpointed(shard, result, now),
                Input::Roster => self.roster_changed(),
                Input::Checkpoint => self.checkpoint(|_| true, now),
                Input::Drain(reply) => self.draining = Some(Draining::new(reply, now)),
                input => self.waiting.push_back(input),
            }
        }
        Flow::On
    }

    /// Every shard looks at what it should have.
    fn roster_changed(&mut self) {
        self.rehost = true;
        if let Some(metadata) = &mut self.metadata {
            metadata.upset();
        }
        for shard in self.shards.values_mut() {
            shard.upset();
        }
    }

    fn checkpointed(
        &mut self,
        id: ShardId,
        result: Result<LogIndex, CheckpointError>,
        now: Instant,
    ) {
        if self.ghosts.remove(&id) {
            return;
        }
        if id == ShardId::METADATA {
            if let Some(metadata) = &mut self.metadata {
                metadata.checkpointed(result, now);
            }
        } else if let Some(shard) = self.shards.get_mut(&id) {
            shard.checkpointed(result, now);
        }
        self.let_go();
    }

    /// Hands over what the shards have ordered, if the journal has room for it.
    fn submit(&mut self, now: Instant) -> Flow {
        self.gather(now);
        if self.out.submit(&self.node, &self.inbox).is_err() {
            // The journal's own handler says why the node fails.
            return Flow::Stop;
        }
        if !self.out.is_empty() && !self.awaits_room {
            self.awaits_room = true;
            let inbox = Arc::clone(&self.inbox);
            let wake = Box::new(move || inbox.send(Input::Room));
            self.node.journal.when_room(wake);
        }
        Flow::On
    }

    fn take_waiting(&mut self, now: Instant) {
        let node = Arc::clone(&self.node);
        let mut turn = Turn::new(&*node.host);
        while !self.waiting.is_empty() && turn.goes_on() {
            if let Some(input) = self.waiting.pop_front() {
                self.take(input, now);
            }
        }
    }

    fn take(&mut self, input: Input, now: Instant) {
        match input {
            Input::Propose(proposal) => match self.shards.get_mut(&proposal.shard) {
                Some(shard) => shard.propose(proposal, now),
                None => proposal.caller.refuse(not_here(proposal.shard)),
            },
            Input::ProposeCatalogue(command, reply) => match &mut self.metadata {
                Some(metadata) => metadata.propose(command, reply, now),
                None => reply.answer(Err(not_here(ShardId::METADATA))),
            },
            Input::Ask(id, question) => {
                let shard = self.shards.get(&id).map(DataShard::shard);
                question(shard.ok_or_else(|| not_here(id)));
            }
            // Not before the shard has heard that it leads.
            Input::AskCurrent(id, question) => match self.shards.get_mut(&id) {
                Some(shard) => shard.ask_current(question),
                None => question(Err(not_here(id))),
            },
            Input::AskRevision(reply) => match &mut self.metadata {
                Some(metadata) => metadata.ask_revision(reply),
                None => reply.answer(Err(not_here(ShardId::METADATA))),
            },
            Input::AskApplied(id, index, question) => match self.shards.get_mut(&id) {
                Some(shard) => shard.ask_applied(index, question),
                None => question(Err(not_here(id))),
            },
            Input::Detach(connection) => {
                if let Some(shard) = self.shards.get_mut(&connection.shard) {
                    shard.detach(&connection, now);
                }
            }
            Input::Resume(connection) => {
                if let Some(shard) = self.shards.get_mut(&connection.shard) {
                    shard.resume(&connection, now);
                }
            }
            Input::Configured(shard, round, result) => {
                if let Some(metadata) = &mut self.metadata {
                    metadata.configured(shard, (round, result), now);
                }
            }
            #[cfg(test)]
            Input::Drive(shard, drive) => self.drive(shard, drive),
            Input::Peer(arrived) => self.step(arrived.from, arrived.messages),
            Input::Facts(reply) => reply.answer(Ok(self.facts())),
            Input::Standing(reply) => reply.answer(Ok(self.standing())),
            Input::HandOver(shard, to, reply) => reply.answer(self.hand_over(shard, to)),
            Input::BeginDrain => {
                for shard in self.shards.values_mut() {
                    shard.tell_drain();
                    shard.stop_waiting();
                }
            }
            // Done when the inbox is emptied.
            Input::Synced(_)
            | Input::Unreachable(..)
            | Input::Loaded(..)
            | Input::Roster
            | Input::SnapshotEnded(..)
            | Input::Promoted(..)
            | Input::Checkpointed(..)
            | Input::Checkpoint
            | Input::Room
            | Input::Drain(_)
            | Input::Stop => {}
        }
    }

    /// Applies what is committed.
    fn apply(&mut self, now: Instant) {
        let node = Arc::clone(&self.node);
        let mut broken = Vec::new();
        if let Some(metadata) = self.metadata.as_mut().filter(|m| m.has_committed()) {
            match metadata.apply(now) {
                Ok(()) => metadata.checkpoint(false, now),
                Err(why) => broken.push((ShardId::METADATA, why)),
            }
        }
        for (id, shard) in &mut self.shards {
            if !shard.has_committed() {
                continue;
            }
            match shard.apply(&mut Turn::new(&*node.host), now) {
                Ok(()) => shard.checkpoint(false, now),
                Err(why) => broken.push((*id, why)),
            }
        }
        self.quarantine(broken);
    }

    /// Whether some shard has something to apply.
    fn has_committed(&self) -> bool {
        let metadata = self.metadata.as_ref();
        metadata.is_some_and(MetadataShard::has_committed)
            || self.shards.values().any(DataShard::has_committed)
    }

    /// Lets go of shards that must not go on; the others do.
    fn quarantine(&mut self, broken: Vec<(ShardId, String)>) {
        for (id, why) in broken {
            super::start::quarantine(id, &why);
            let refusal = quarantined(id, &why);
            // The first reason stays.
            self.node.slot_at_all(id).quarantine(why);
            self.node.snapshots.forget(id);
            self.node.leaders.set(id, Led::Nobody);
            if id == ShardId::METADATA {
                self.drop_metadata(&refusal);
            } else {
                self.drop_shard(id, &refusal);
            }
            self.rehost = true;
        }
    }

    /// Lets time pass for shards that are not alone.
    fn tick(&mut self, now: Instant) {
        let mut ticked = false;
        self.ticks += 1;
        if let Some(metadata) = self.metadata.as_mut().filter(|m| m.needs_ticks()) {
            metadata.tick(self.ticks);
            ticked = true;
        }
        for shard in self.shards.values_mut().filter(|s| s.needs_ticks()) {
            shard.tick(self.ticks);
            ticked = true;
        }
        self.tick_at = ticked.then(|| now + TICK_EVERY);
        // One worker speaks for the node: the one that has the metadata shard.
        let is_due = self.short_at.is_none_or(|at| at <= now);
        if ticked && is_due && self.metadata.is_some() {
            self.short_at = Some(now + TOLD_EVERY);
            if self.node.is_disk_short() {
                self.node.tell_short();
            }
        }
    }

    #[cfg(test)]
    fn drive(
        &mut self,
        id: ShardId,
        drive: Box<dyn FnOnce(&mut millrace_replica::Replica) + Send>,
    ) {
        if id == ShardId::METADATA {
            drive(self.metadata.as_mut().unwrap().log_replica());
        } else {
            drive(self.shards.get_mut(&id).unwrap().log_replica());
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let shards = self.shards.values().filter_map(DataShard::next_deadline);
        let draining = self.draining.as_ref().map(|draining| draining.look_at);
        let looks = self.housekeeping_at.into_iter().chain(self.tick_at);
        shards.chain(looks).chain(draining).min()
    }

    fn on_time(&mut self, now: Instant) {
        for shard in self.shards.values_mut() {
            shard.on_time(now);
        }
        if self.tick_at.is_none_or(|at| at <= now) {
            self.tick(now);
        }
        if self.housekeeping_at.is_some_and(|at| at <= now) {
            self.housekeeping_at = None;
            self.housekeeping(now);
        }
        if self.housekeeping_at.is_none() && (self.needs_housekeeping() || self.keeps_some()) {
            self.housekeeping_at = Some(now + HOUSEKEEPING_EVERY);
        }
    }

    fn needs_housekeeping(&self) -> bool {
        self.metadata
            .as_ref()
            .is_some_and(MetadataShard::needs_housekeeping)
            || self.shards.values().any(DataShard::needs_housekeeping)
            || self.rehost
            || self.rehost_later
    }

    fn housekeeping(&mut self, now: Instant) {
        // A read or the scrubber may have found damage.
        self.rehost = true;
        self.rehost_later = false;
        let journal = self.node.journal.stats();
        let limit = self
            .node
            .options
            .checkpoint_journal_bytes
            .saturating_mul(PINNED_FACTOR);
        let crowded = journal.file_bytes > limit;
        // A checkpoint is what gives the room of settled messages back: a disk that is short of
        // room must not wait for publishes, which are refused, to make one due.
        let short = self.node.is_disk_short() || self.node.is_journal_refused();
        let wanted = |id: &ShardId| short || (crowded && journal.pinned_by.contains(id));
        if let Some(metadata) = &mut self.metadata {
            metadata.housekeeping(now);
        }
        for shard in self.shards.values_mut() {
            shard.housekeeping(now);
        }
        if self.keeps_some() {
            self.let_go();
        }
        self.checkpoint(wanted, now);
    }

    /// Begins a checkpoint of each shard for which one is due, or possible and `wanted`.
    fn checkpoint(&mut self, wanted: impl Fn(&ShardId) -> bool, now: Instant) {
        if let Some(metadata) = &mut self.metadata {
            metadata.checkpoint(wanted(&ShardId::METADATA), now);
        }
        for (id, shard) in &mut self.shards {
            shard.checkpoint(wanted(id), now);
        }
    }

    fn facts(&self) -> Facts {
        let metadata = self
            .metadata
            .as_ref()
            .map(|m| (ShardId::METADATA, m.facts()));
        let shards = self.shards.iter().map(|(id, shard)| (*id, shard.facts()));
        Facts {
            shards: shards.chain(metadata).collect(),
            waiting_receives: self.shards.values().map(DataShard::waiting).sum(),
        }
    }
}

/// Figures of a worker's shards.
#[derive(Debug)]
pub(super) struct Facts {
    /// By shard.
    pub(super) shards: Vec<(ShardId, ShardFacts)>,
    /// `Receive` calls that wait.
    pub(super) waiting_receives: u64,
}

fn not_here(shard: ShardId) -> Refusal {
    Refusal::new(
        ErrorCode::ShardUnavailable,
        format!("shard {shard} does not serve"),
    )
}
