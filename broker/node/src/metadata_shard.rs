//! The metadata shard: applies changes of the catalogue and publishes its view. While it leads, it
//! orders them, and tells every data shard what it still lacks until all have logged it.

mod installing;
mod placing;
mod reading;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use millrace_engine::catalogue::{CatalogueCommand, CatalogueEntry};
use millrace_replica::ReadyNumber;
use millrace_storage::CheckpointError;
use millrace_types::{ErrorCode, LogIndex, Refusal, ShardId};

use super::checkpoint_plan::{self, CheckpointPlan};
use super::clock::Clock;
use super::configuring::Round;
use super::facts::ShardFacts;
use super::input::Input;
use super::leaders::Led;
use super::node::Node;
use super::outbound::Outbound;
use super::placement::steering::Steering;
use super::reading::Reading;
use super::recovery::Metadata;
use super::reply::Reply;
use super::shard_log::{Committed, Lost, NotTaken, ShardLog, Standing};
use super::snapshots::{self, Prepared};

/// The catalogue and those who change it.
pub(super) struct MetadataShard {
    node: Arc<Node>,
    state: Metadata,
    log: ShardLog<(CatalogueEntry, Reply<u64>)>,
    /// Proposed since this replica was elected; taken when it leads.
    held: Vec<(CatalogueCommand, Reply<u64>)>,
    clock: Clock,
    plan: CheckpointPlan,
    /// Who wants to know what is declared now.
    reading: Reading<Reply<u64>>,
    /// What data shards are being told.
    rounds: BTreeMap<ShardId, Round>,
    /// How many rounds there were.
    round: u64,
    /// What data shards have done, as far as it was put on its way into the catalogue.
    noted: BTreeMap<ShardId, u64>,
    /// Nodes or replicas may belong elsewhere than was planned last.
    replan: bool,
    steering: Steering,
    /// The state that takes the place of this one, while it is being installed.
    prepared: Option<Box<Prepared>>,
}

impl MetadataShard {
    /// Takes over a recovered catalogue.
    pub(super) fn new(
        node: &Arc<Node>,
        state: Metadata,
        plan: CheckpointPlan,
        log: ShardLog<(CatalogueEntry, Reply<u64>)>,
        now: Instant,
    ) -> Self {
        let mut this = Self {
            node: Arc::clone(node),
            clock: Clock::new(state.wall, state.elapsed, now),
            state,
            log,
            held: Vec::new(),
            plan,
            reading: Reading::default(),
            rounds: BTreeMap::new(),
            round: 0,
            noted: BTreeMap::new(),
            replan: false,
            steering: Steering::default(),
            prepared: None,
        };
        // A replica that has nothing yet must not say that nothing is declared.
        if this.state.catalogue.applied() > LogIndex::default() {
            this.publish();
        }
        this
    }

    /// A write has reached the disk, and all before it.
    pub(super) fn synced(&mut self, number: ReadyNumber) {
        if self.log.synced(number)
            && let Some(prepared) = self.prepared.take()
        {
            snapshots::promote(&self.node, ShardId::METADATA, prepared);
        }
    }

    /// Whether there is something to apply.
    pub(super) fn has_committed(&self) -> bool {
        self.log.has_committed()
    }

    /// Hands over what is to be written; takes note of who leads.
    ///
    /// # Errors
    /// Why the shard must not go on.
    pub(super) fn gather(&mut self, now: Instant, out: &mut Outbound) -> Result<(), String> {
        self.steer(now);
        self.ask_for_reads();
        self.take_offered()?;
        if let Some(lost) = self.log.gather(out) {
            self.step_down(lost);
        }
        self.return_unwanted();
        self.answer_reads();
        if let Some(led) = self.log.moved() {
            self.node.leaders.set(ShardId::METADATA, led);
        }
        if self.log.wants_checkpoint() {
            self.checkpoint(true, now);
        }
        Ok(())
    }

    /// Everything of earlier terms is applied. First commands of a leader: the number of shards,
    /// and what they have done already.
    fn begin(&mut self, now: Instant) {
        self.clock = Clock::new(self.state.wall, self.state.elapsed, now);
        let data_shards = self.node.data_shards();
        if self.state.catalogue.topology().data_shards() < data_shards {
            self.propose(CatalogueCommand::Init { data_shards }, Reply::none(), now);
        }
        self.begin_placing(now);
        self.noted.clear();
        for (command, reply) in std::mem::take(&mut self.held) {
            self.propose(command, reply, now);
        }
        self.push(now);
    }

    /// Another replica decides from here on, or none does.
    fn step_down(&mut self, lost: Lost<(CatalogueEntry, Reply<u64>)>) {
        let refusal = self.log.not_leader();
        tracing::info!(why = %refusal.message, "the metadata shard is not led here any more");
        for (_, reply) in lost.0 {
            reply.answer(Err(refusal.clone().unknown()));
        }
        self.close(&refusal);
    }

    /// Ends everything that waits.
    pub(super) fn close(&mut self, refusal: &Refusal) {
        self.end_reads(refusal);
        for (_, reply) in std::mem::take(&mut self.held) {
            reply.answer(Err(refusal.clone()));
        }
        self.rounds.clear();
    }

    /// Puts a change on its way.
    pub(super) fn propose(&mut self, command: CatalogueCommand, reply: Reply<u64>, now: Instant) {
        match self.log.standing() {
            Standing::Leads(_) => {}
            Standing::Elected(_) => return self.held.push((command, reply)),
            Standing::Follows => return reply.answer(Err(self.log.not_leader())),
        }
        let stamp = self.clock.stamp(now, self.node.host.wall());
        let entry = CatalogueEntry { stamp, command };
        let taken = self
            .log
            .propose(entry.encode(), Bytes::new(), (entry, reply));
        if let Err(NotTaken { refusal, entry }) = taken {
            entry.1.answer(Err(self.node.figures.refused(refusal)));
        }
    }

    /// Applies everything that is committed.
    ///
    /// # Errors
    /// When a command cannot be read: the shard must not go on.
    pub(super) fn apply(&mut self, now: Instant) -> Result<(), String> {
        let (mut changed, mut applied) = (false, Ok(()));
        while let Some(next) = self.log.next() {
            match self.apply_next(next, now) {
                Ok(also) => changed |= also,
                Err(why) => {
                    applied = Err(why);
                    break;
                }
            }
        }
        self.log.applied();
        if changed {
            self.push(now);
        }
        self.place(now);
        applied
    }

    /// Whether it changed what can be asked.
    fn apply_next(
        &mut self,
        next: Committed<(CatalogueEntry, Reply<u64>)>,
        now: Instant,
    ) -> Result<bool, String> {
        let (index, bytes, entry, reply) = match next {
            Committed::Own {
                index,
                bytes,
                entry: (entry, reply),
                ..
            } => (index, bytes, entry, reply),
            Committed::Others {
                index,
                header,
                bytes,
                ..
            } => {
                let entry = CatalogueEntry::decode(&header)
                    .map_err(|error| format!("entry {index} cannot be read: {error}"))?;
                (index, bytes, entry, Reply::none())
            }
            Committed::Pass { index } => {
                self.state.catalogue.pass(index);
                return Ok(false);
            }
            Committed::Begin { index } => {
                self.state.catalogue.pass(index);
                self.begin(now);
                return Ok(false);
            }
            Committed::Replaced((_, reply)) => {
                reply.answer(Err(self.log.not_leader()));
                return Ok(false);
            }
        };
        self.plan.applied(bytes);
        self.state.note(&entry);
        let applied = self.state.catalogue.apply(index, &entry);
        if applied.changed {
            // Before the answer, so that who has it finds what it declared.
            self.publish();
        }
        let outcome = applied.outcome;
        reply.answer(outcome.map_err(|refusal| self.node.figures.refused(refusal)));
        Ok(applied.changed)
    }

    /// A data shard has, or has not, logged what it was told last in a round.
    pub(super) fn configured(
        &mut self,
        shard: ShardId,
        (number, result): (u64, Result<(), Refusal>),
        now: Instant,
    ) {
        let round = self.rounds.get_mut(&shard);
        let Some(round) = round.filter(|round| round.number() == number) else {
            return;
        };
        match result {
            Ok(()) if round.is_over() => {
                let revision = round.revision();
                self.rounds.remove(&shard);
                self.note_configured(shard, revision, now);
                self.push(now);
            }
            Ok(()) => round.go_on(&self.node, &self.state.catalogue),
            Err(refusal) => {
                self.rounds.remove(&shard);
                if refusal.code == ErrorCode::NotLeader {
                    tracing::debug!(%shard, %refusal, "a shard is configured by and by");
                } else {
                    tracing::warn!(%shard, %refusal, "a shard was not configured");
                }
            }
        }
    }

    fn note_configured(&mut self, shard: ShardId, revision: u64, now: Instant) {
        self.noted.insert(shard, revision);
        let command = CatalogueCommand::ShardConfigured { shard, revision };
        self.propose(command, Reply::none(), now);
    }

    /// Begins to tell every data shard what it lacks; one that is being told follows afterwards.
    fn push(&mut self, now: Instant) {
        if !self.log.leads() {
            return;
        }
        let topology = self.state.catalogue.topology();
        let revision = topology.revision();
        for shard in (1..=topology.data_shards()).map(ShardId::new) {
            if self.rounds.contains_key(&shard) {
                continue;
            }
            let Some(done) = self.done(shard) else {
                continue;
            };
            if done < revision {
                self.round += 1;
                let mut round = Round::new(&self.state.catalogue, shard, done, self.round);
                round.go_on(&self.node, &self.state.catalogue);
                self.rounds.insert(shard, round);
            } else if self.known(shard) < done {
                self.note_configured(shard, done, now);
            }
        }
    }

    /// What a data shard has done, at least; `None` when it cannot be told anything.
    fn done(&self, shard: ShardId) -> Option<u64> {
        let here = self.node.logs.configured(shard);
        match self.node.led(shard) {
            Led::Here | Led::Nobody => self.node.hosts(shard).then_some(here),
            Led::There(_) => Some(here.max(self.known(shard))),
        }
    }

    /// What the catalogue has, or is about to have, of what a data shard has done.
    fn known(&self, shard: ShardId) -> u64 {
        let noted = self.noted.get(&shard).copied().unwrap_or(0);
        self.state.catalogue.topology().done(shard).max(noted)
    }

    /// Replaces the view that everybody else has.
    fn publish(&mut self) {
        let catalogue = &self.state.catalogue;
        let (topology, roster) = (catalogue.topology(), catalogue.roster());
        let revision = self.node.view.borrow().roster().revision();
        let is_other = revision != roster.revision();
        self.node
            .view
            .send_modify(|view| *view = Arc::new(view.next(topology, roster)));
        if is_other {
            self.replan = true;
            let inboxes = self.node.inboxes.iter();
            inboxes.for_each(|inbox| inbox.send(Input::Roster));
        }
    }

    /// Tries again what did not work; called about once a second.
    pub(super) fn housekeeping(&mut self, now: Instant) {
        self.place(now);
        if self.steering.is_restless() {
            self.steering.upset();
        }
        self.push(now);
    }

    /// Whether `housekeeping` has anything to look at.
    pub(super) fn needs_housekeeping(&self) -> bool {
        let topology = self.state.catalogue.topology();
        let can_be_told = |shard| self.node.led(shard) != Led::Here || self.node.hosts(shard);
        let mut shards = (1..=topology.data_shards()).map(ShardId::new);
        let mut behind =
            || shards.any(|shard| topology.done(shard) < topology.revision() && can_be_told(shard));
        self.plan.covered() < self.state.catalogue.applied()
            || (self.log.leads() && (self.replan || self.steering.is_restless() || behind()))
    }

    /// Starts a checkpoint when it is due, or possible and `wanted`.
    pub(super) fn checkpoint(&mut self, wanted: bool, now: Instant) {
        let applied = self.state.catalogue.applied();
        let start =
            self.plan.is_due(applied, 0, now) || (wanted && self.plan.is_possible(applied, now));
        if !start {
            return;
        }
        let Some(point) = self.log.begin_checkpoint() else {
            return;
        };
        assert_eq!(
            point.mark.index, applied,
            "the log and the state are at the same entry"
        );
        self.plan.started(now);
        let frozen = self.state.catalogue.freeze();
        checkpoint_plan::start(
            &self.node,
            &self.state.store,
            (ShardId::METADATA, &point),
            Box::new(move || frozen.encode().into()),
        );
    }

    /// A checkpoint is done, or is not.
    pub(super) fn checkpointed(&mut self, result: Result<LogIndex, CheckpointError>, now: Instant) {
        if result.is_ok() {
            self.log.checkpoint_made();
        }
        checkpoint_plan::finish(&self.node, ShardId::METADATA, &mut self.plan, result, now);
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.log.is_idle() && !self.plan.is_running()
    }

    /// Whether a checkpoint is being made.
    pub(super) const fn is_checkpointing(&self) -> bool {
        self.plan.is_running()
    }

    /// Whether anything is on its way to the disk.
    pub(super) fn is_writing(&self) -> bool {
        !self.log.is_idle()
    }

    /// Whether a checkpoint covers everything.
    pub(super) fn is_covered(&self, now: Instant) -> bool {
        !self.plan.is_possible(self.state.catalogue.applied(), now)
    }

    /// The log, for what other nodes say.
    pub(super) const fn log(&mut self) -> &mut ShardLog<(CatalogueEntry, Reply<u64>)> {
        &mut self.log
    }

    /// Time has passed for who is not alone.
    pub(super) fn tick(&mut self, number: u64) {
        self.log.tick(number);
    }

    /// Whether `tick` has to be called.
    pub(super) fn needs_ticks(&self) -> bool {
        self.log.needs_ticks()
    }

    /// For tests that are the other members.
    #[cfg(test)]
    pub(super) fn log_replica(&mut self) -> &mut millrace_replica::Replica {
        self.log.replica()
    }

    /// Figures for metrics.
    pub(super) fn facts(&self) -> ShardFacts {
        let reach = self.log.reach();
        ShardFacts {
            unavailable: None,
            replica: Some(self.log.id()),
            role: Some(self.log.role()),
            term: self.log.term(),
            last: reach.last,
            synced: reach.synced,
            committed: reach.committed,
            applied: self.state.catalogue.applied(),
            checkpoint: self.plan.covered(),
            in_flight_entries: self.log.len(),
            in_flight_bytes: self.log.bytes(),
            ..ShardFacts::default()
        }
    }
}
