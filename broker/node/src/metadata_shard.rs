//! Leader of the metadata shard: orders changes of the catalogue, publishes its view, and tells
//! every data shard what it still lacks until all have logged it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use millrace_engine::Catalogue;
use millrace_engine::catalogue::{CatalogueCommand, CatalogueEntry};
use millrace_storage::{CheckpointError, Store};
use millrace_types::{LogIndex, Refusal, ShardId};

use super::checkpoint_plan::{self, CheckpointPlan};
use super::clock::Clock;
use super::configuring::Round;
use super::facts::ShardFacts;
use super::node::Node;
use super::outbound::Outbound;
use super::proposals::Proposals;
use super::recovery::Metadata;
use super::reply::Reply;

/// The catalogue and those who change it.
pub(super) struct MetadataShard {
    node: Arc<Node>,
    catalogue: Catalogue,
    /// Holds no bodies; a checkpoint wants one.
    store: Arc<Store>,
    proposals: Proposals<(CatalogueEntry, Reply<u64>)>,
    clock: Clock,
    plan: CheckpointPlan,
    /// What each data shard that serves has logged.
    configured: BTreeMap<ShardId, u64>,
    /// What data shards are being told.
    rounds: BTreeMap<ShardId, Round>,
}

impl MetadataShard {
    /// Takes over a recovered catalogue; `configured` is what each data shard that serves has
    /// logged.
    pub(super) fn new(
        node: &Arc<Node>,
        recovered: Metadata,
        plan: CheckpointPlan,
        proposals: Proposals<(CatalogueEntry, Reply<u64>)>,
        configured: BTreeMap<ShardId, u64>,
        now: Instant,
    ) -> Self {
        let this = Self {
            node: Arc::clone(node),
            catalogue: recovered.catalogue,
            store: recovered.store,
            proposals,
            clock: Clock::new(recovered.wall, recovered.elapsed, now),
            plan,
            configured,
            rounds: BTreeMap::new(),
        };
        this.publish();
        this
    }

    /// First commands of a leader: the number of shards, and what they have done already.
    pub(super) fn lead(&mut self, now: Instant, out: &mut Outbound) {
        let data_shards = self.node.data_shards();
        if self.catalogue.topology().data_shards() < data_shards {
            self.propose(
                CatalogueCommand::Init { data_shards },
                Reply::none(),
                now,
                out,
            );
        }
        if self.catalogue.topology().applied_revision() < self.catalogue.revision() {
            for (shard, revision) in self.configured.clone() {
                let command = CatalogueCommand::ShardConfigured { shard, revision };
                self.propose(command, Reply::none(), now, out);
            }
        }
        self.push();
    }

    /// Puts a change on its way.
    pub(super) fn propose(
        &mut self,
        command: CatalogueCommand,
        reply: Reply<u64>,
        now: Instant,
        out: &mut Outbound,
    ) {
        let stamp = self.clock.stamp(now, self.node.host.wall());
        let entry = CatalogueEntry { stamp, command };
        let header = entry.encode();
        out.push(self.proposals.propose(header, Bytes::new(), (entry, reply)));
    }

    /// Applies everything up to an index.
    pub(super) fn synced(&mut self, upto: LogIndex) {
        let mut changed = false;
        while let Some(proposed) = self.proposals.next_synced(upto) {
            let (entry, reply) = proposed.entry;
            self.plan.applied(proposed.bytes);
            let applied = self.catalogue.apply(proposed.index, &entry);
            if applied.changed {
                changed = true;
                // Before the answer, so that who has it finds what it declared.
                self.publish();
            }
            reply.answer(
                applied
                    .outcome
                    .map_err(|refusal| self.node.figures.refused(refusal)),
            );
        }
        if changed {
            self.push();
        }
    }

    /// A data shard has, or has not, logged what it was told last.
    pub(super) fn configured(
        &mut self,
        shard: ShardId,
        result: Result<(), Refusal>,
        now: Instant,
        out: &mut Outbound,
    ) {
        let Some(round) = self.rounds.get_mut(&shard) else {
            return;
        };
        match result {
            Ok(()) if round.is_over() => {
                let revision = round.revision();
                self.rounds.remove(&shard);
                self.configured.insert(shard, revision);
                let command = CatalogueCommand::ShardConfigured { shard, revision };
                self.propose(command, Reply::none(), now, out);
                self.push();
            }
            Ok(()) => round.go_on(&self.node, &self.catalogue),
            Err(refusal) => {
                self.rounds.remove(&shard);
                tracing::warn!(%shard, %refusal, "a shard was not configured");
            }
        }
    }

    /// Begins to tell every data shard what it lacks; one that is being told follows afterwards.
    fn push(&mut self) {
        let revision = self.catalogue.revision();
        for (shard, done) in &self.configured {
            if *done < revision && !self.rounds.contains_key(shard) {
                let mut round = Round::new(&self.catalogue, *shard, *done);
                round.go_on(&self.node, &self.catalogue);
                self.rounds.insert(*shard, round);
            }
        }
    }

    /// Replaces the view that everybody else has.
    fn publish(&self) {
        let topology = self.catalogue.topology();
        self.node
            .view
            .send_modify(|view| *view = Arc::new(view.next(topology)));
    }

    /// Tries again what did not work; called about once a second.
    pub(super) fn housekeeping(&mut self) {
        self.push();
    }

    /// Whether `housekeeping` has anything to look at.
    pub(super) fn needs_housekeeping(&self) -> bool {
        let revision = self.catalogue.revision();
        self.plan.covered() < self.catalogue.applied()
            || self.configured.values().any(|done| *done < revision)
    }

    /// Starts a checkpoint when it is due, or possible and `wanted`.
    pub(super) fn checkpoint(&mut self, wanted: bool, now: Instant) {
        let applied = self.catalogue.applied();
        let start =
            self.plan.is_due(applied, 0, now) || (wanted && self.plan.is_possible(applied, now));
        if !start {
            return;
        }
        self.plan.started(now);
        let frozen = self.catalogue.freeze();
        checkpoint_plan::start(
            &self.node,
            &self.store,
            (ShardId::METADATA, applied),
            Box::new(move || frozen.encode().into()),
        );
    }

    /// A checkpoint is done, or is not.
    pub(super) fn checkpointed(&mut self, result: Result<LogIndex, CheckpointError>, now: Instant) {
        checkpoint_plan::finish(&self.node, ShardId::METADATA, &mut self.plan, result, now);
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.proposals.is_empty() && !self.plan.is_running()
    }

    /// Whether anything is on its way to the disk.
    pub(super) fn is_writing(&self) -> bool {
        !self.proposals.is_empty()
    }

    /// Whether a checkpoint covers everything.
    pub(super) fn is_covered(&self, now: Instant) -> bool {
        !self.plan.is_possible(self.catalogue.applied(), now)
    }

    /// Figures for metrics.
    pub(super) fn facts(&self) -> ShardFacts {
        ShardFacts {
            unavailable: None,
            applied: self.catalogue.applied(),
            checkpoint: self.plan.covered(),
            in_flight_entries: self.proposals.len(),
            in_flight_bytes: self.proposals.bytes(),
            ..ShardFacts::default()
        }
    }
}
