//! A thread that owns some of the node's shards: takes everything that waits in one wake-up, lets
//! the shards order it, hands all of it to the journal at once, and applies what has been synced.
//! Nothing else touches those shards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_types::{ErrorCode, LogIndex, Refusal, ShardId};

use super::data_shard::DataShard;
use super::facts::ShardFacts;
use super::inbox::Inbox;
use super::input::Input;
use super::metadata_shard::MetadataShard;
use super::node::Node;
use super::outbound::Outbound;
use super::reply::Reply;

/// How often connections, retention and old journal files are looked after, while there are any.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);
/// A shard that holds on to this many thresholds' worth of journal files makes a checkpoint though
/// it has written little itself.
const PINNED_FACTOR: u64 = 4;

/// One worker.
pub(super) struct Worker {
    pub(super) node: Arc<Node>,
    pub(super) inbox: Arc<Inbox<Input>>,
    pub(super) metadata: Option<MetadataShard>,
    pub(super) shards: BTreeMap<ShardId, DataShard>,
    pub(super) out: Outbound,
    pub(super) housekeeping_at: Option<Instant>,
    pub(super) draining: Option<Reply<()>>,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Stop,
}

impl Worker {
    /// Runs until it is told to stop or the journal has.
    pub(super) fn run(mut self) {
        self.lead();
        // Since when the worker has been busy, for `worker_turns`.
        let mut since = Instant::now();
        while self.turn(&mut since) == Flow::On {}
        // Whoever waits is told that the outcome is unknown when the shards are dropped.
        self.inbox.close();
    }

    fn lead(&mut self) {
        let now = Instant::now();
        if let Some(metadata) = &mut self.metadata {
            metadata.lead(now, &mut self.out);
        }
        for shard in self.shards.values_mut() {
            shard.lead(now, &mut self.out);
        }
    }

    fn turn(&mut self, since: &mut Instant) -> Flow {
        if self.out.submit(&self.node, &self.inbox).is_err() {
            // The journal's own handler says why the node fails.
            return Flow::Stop;
        }
        self.node.figures.worker_turns.add(since.elapsed());
        let inputs = self.inbox.wait(self.next_deadline());
        let now = Instant::now();
        *since = now;
        for input in inputs {
            if self.take(input, now) == Flow::Stop {
                return Flow::Stop;
            }
        }
        self.on_time(now);
        self.go_on_draining(now);
        Flow::On
    }

    fn take(&mut self, input: Input, now: Instant) -> Flow {
        let out = &mut self.out;
        match input {
            Input::Propose(proposal) => match self.shards.get_mut(&proposal.shard) {
                Some(shard) => shard.propose(proposal, now, out),
                None => proposal.caller.refuse(not_here(proposal.shard)),
            },
            Input::ProposeCatalogue(command, reply) => match &mut self.metadata {
                Some(metadata) => metadata.propose(command, reply, now, out),
                None => reply.answer(Err(not_here(ShardId::METADATA))),
            },
            Input::Ask(id, question) => {
                let shard = self.shards.get(&id).map(DataShard::shard);
                question(shard.ok_or_else(|| not_here(id)));
            }
            Input::AskCatalogue(question) => {
                let catalogue = self.metadata.as_ref().map(MetadataShard::catalogue);
                question(catalogue.ok_or_else(|| not_here(ShardId::METADATA)));
            }
            Input::Detach(connection) => {
                if let Some(shard) = self.shards.get_mut(&connection.shard) {
                    shard.detach(&connection, now, out);
                }
            }
            Input::Resume(connection) => {
                if let Some(shard) = self.shards.get_mut(&connection.shard) {
                    shard.resume(&connection, now, out);
                }
            }
            Input::Synced(marks) => {
                for (shard, upto) in marks {
                    self.synced(shard, upto, now);
                }
            }
            Input::Checkpointed(ShardId::METADATA, result) => {
                if let Some(metadata) = &mut self.metadata {
                    metadata.checkpointed(result, now);
                }
            }
            Input::Checkpointed(id, result) => {
                if let Some(shard) = self.shards.get_mut(&id) {
                    shard.checkpointed(result, now);
                }
            }
            Input::Configured(shard, result) => {
                if let Some(metadata) = &mut self.metadata {
                    metadata.configured(shard, result, now, out);
                }
            }
            Input::Facts(reply) => reply.answer(Ok(self.facts())),
            Input::BeginDrain => {
                for shard in self.shards.values_mut() {
                    shard.tell_drain();
                    shard.stop_waiting();
                }
            }
            Input::Drain(reply) => self.draining = Some(reply),
            Input::Stop => return Flow::Stop,
        }
        Flow::On
    }

    fn synced(&mut self, id: ShardId, upto: LogIndex, now: Instant) {
        if id == ShardId::METADATA {
            if let Some(metadata) = &mut self.metadata {
                metadata.synced(upto);
                metadata.checkpoint(false, now);
            }
        } else if let Some(shard) = self.shards.get_mut(&id) {
            shard.synced(upto, now, &mut self.out);
            shard.checkpoint(false, now);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let shards = self.shards.values().filter_map(DataShard::next_deadline);
        shards.chain(self.housekeeping_at).min()
    }

    fn on_time(&mut self, now: Instant) {
        for shard in self.shards.values_mut() {
            shard.on_time(now, &mut self.out);
        }
        if self.housekeeping_at.is_some_and(|at| at <= now) {
            self.housekeeping_at = None;
            self.housekeeping(now);
        }
        if self.housekeeping_at.is_none() && self.needs_housekeeping() {
            self.housekeeping_at = Some(now + HOUSEKEEPING_EVERY);
        }
    }

    fn needs_housekeeping(&self) -> bool {
        self.metadata
            .as_ref()
            .is_some_and(MetadataShard::needs_housekeeping)
            || self.shards.values().any(DataShard::needs_housekeeping)
    }

    fn housekeeping(&mut self, now: Instant) {
        let journal = self.node.journal.stats();
        let limit = self
            .node
            .options
            .checkpoint_journal_bytes
            .saturating_mul(PINNED_FACTOR);
        let crowded = journal.file_bytes > limit;
        // A checkpoint is what gives the room of settled messages back: a disk that is short of
        // room must not wait for publishes, which are refused, to make one due.
        let short = self.node.is_disk_short();
        let wanted = |id: &ShardId| short || (crowded && journal.pinned_by.contains(id));
        if let Some(metadata) = &mut self.metadata {
            metadata.housekeeping();
            metadata.checkpoint(wanted(&ShardId::METADATA), now);
        }
        for (id, shard) in &mut self.shards {
            shard.housekeeping(now, &mut self.out);
            shard.checkpoint(wanted(id), now);
        }
    }

    /// Once asked to: lets what is in flight finish, then makes last checkpoints, then answers. A
    /// checkpoint that cannot be made (the disk is full) is left out: the journal has everything.
    fn go_on_draining(&mut self, now: Instant) {
        let Some(reply) = self.draining.take() else {
            return;
        };
        if let Some(metadata) = self.metadata.as_mut().filter(|metadata| metadata.is_idle()) {
            metadata.checkpoint(true, now);
        }
        for shard in self.shards.values_mut().filter(|shard| shard.is_idle()) {
            shard.checkpoint(true, now);
        }
        let metadata_done = self
            .metadata
            .as_ref()
            .is_none_or(|metadata| metadata.is_idle() && metadata.is_covered(now));
        let done = metadata_done
            && self
                .shards
                .values()
                .all(|shard| shard.is_idle() && shard.is_covered(now));
        if done {
            reply.answer(Ok(()));
        } else {
            self.draining = Some(reply);
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
