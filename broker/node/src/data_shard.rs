//! One data shard, on its worker's thread: applies what is committed. While it leads, it stamps and
//! orders commands, answers who waits, and carries out the effects; while it follows, its state and
//! what others know of it change, and nothing else happens.

mod connections;
mod installing;
mod leading;
mod proposing;
mod reading;
mod sweep;
mod upkeep;
mod waking;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use millrace_engine::Shard;
use millrace_engine::command::{Command, Entry, Held, Settle, Settlement};
use millrace_engine::outcome::{Delivery, Effect, Outcome};
use millrace_types::{Elapsed, ErrorCode, LogId, Refusal, SessionId, ShardId};
use tokio::sync::watch;

use super::checkpoint_plan::CheckpointPlan;
use super::clock::Clock;
use super::connection::Connection;
use super::input::{Caller, Proposal, Question};
use super::logs::{Extent, Known};
use super::node::Node;
use super::options::{RETRY_AFTER_MS, WAITING_RECEIVES_MAX};
use super::placement::steering::Steering;
use super::pumps::{Job, Pumps};
use super::reading::Reading;
use super::reply::Reply;
use super::shard_log::{Committed, ShardLog, Standing};
use super::shard_state::ShardState;
use super::snapshots::Prepared;
use super::turn::Turn;
use super::waiters::{Waiter, Waiters};
use connections::Begun;
use sweep::Sweep;
use waking::Waking;

/// One data shard and those who wait for it.
pub(super) struct DataShard {
    id: ShardId,
    node: Arc<Node>,
    state: ShardState,
    log: ShardLog<(Entry, Caller)>,
    /// Proposed since this replica was elected; taken when it leads.
    held: Vec<Proposal>,
    clock: Clock,
    plan: CheckpointPlan,
    connections: BTreeMap<SessionId, Arc<Connection>>,
    waiters: Waiters,
    extents: BTreeMap<LogId, watch::Sender<Extent>>,
    /// Commands of our own under way: one is enough.
    tick: bool,
    trims: usize,
    /// The partition that retention looked at last; `None` at the end of a round.
    trimmed: Option<LogId>,
    sweep: Sweep,
    /// Leases that are due until then have been looked at: what was sent of them is noted.
    noted: Elapsed,
    waking: Waking,
    steering: Steering,
    reading: Reading<Question>,
    /// The state that takes the place of this one, while it is being installed.
    prepared: Option<Box<Prepared>>,
}

impl DataShard {
    /// Takes over a recovered shard; `gather` says whether it leads.
    pub(super) fn new(
        node: &Arc<Node>,
        state: ShardState,
        plan: CheckpointPlan,
        log: ShardLog<(Entry, Caller)>,
        now: Instant,
    ) -> Self {
        let shard = &state.shard;
        let shard_time = shard.elapsed();
        let clock = Clock::new(shard.wall(), shard_time, now);
        let mut this = Self {
            id: shard.id(),
            node: Arc::clone(node),
            clock,
            plan,
            log,
            held: Vec::new(),
            connections: BTreeMap::new(),
            waiters: Waiters::default(),
            extents: BTreeMap::new(),
            tick: false,
            trims: 0,
            trimmed: None,
            sweep: Sweep::default(),
            noted: shard_time,
            waking: Waking::default(),
            steering: Steering::default(),
            reading: Reading::default(),
            prepared: None,
            state,
        };
        this.publish_configured();
        for log in this.logs() {
            this.publish_log(log);
        }
        this
    }

    /// All logs that the state has, and those it knows of.
    fn logs(&self) -> Vec<LogId> {
        let shard = &self.state.shard;
        let partitions = shard.partitions().map(millrace_engine::Partition::log);
        let queues = shard.queues().map(millrace_engine::Queue::log);
        partitions.chain(queues).chain(shard.departed()).collect()
    }

    /// The engine's state, for questions.
    pub(super) const fn shard(&self) -> &Shard {
        &self.state.shard
    }

    /// Puts a command on its way; what is due by its stamp ends with it.
    pub(super) fn propose(&mut self, proposal: Proposal, now: Instant) {
        match self.log.standing() {
            Standing::Leads(_) => {
                self.note_sent(now);
                self.put_on_its_way(proposal, now);
            }
            Standing::Elected(_) => self.held.push(proposal),
            Standing::Follows => proposal.caller.refuse(self.log.not_leader()),
        }
    }

    /// Applies what is committed, as much as the turn takes.
    ///
    /// # Errors
    /// When a command cannot be read: the shard must not go on.
    pub(super) fn apply(&mut self, turn: &mut Turn<'_>, now: Instant) -> Result<(), String> {
        let mut applied = Ok(());
        while applied.is_ok() && turn.goes_on() {
            let Some(next) = self.log.next() else {
                break;
            };
            applied = self.apply_next(next, now);
        }
        self.log.applied();
        applied
    }

    fn apply_next(&mut self, next: Committed<(Entry, Caller)>, now: Instant) -> Result<(), String> {
        let (index, body, bytes, entry, caller) = match next {
            Committed::Own {
                index,
                body,
                bytes,
                entry: (entry, caller),
            } => (index, body, bytes, entry, caller),
            Committed::Others {
                index,
                header,
                body,
                bytes,
            } => {
                let entry = Entry::decode(&header)
                    .map_err(|error| format!("entry {index} cannot be read: {error}"))?;
                (index, body, bytes, entry, Caller::Reply(Reply::none()))
            }
            Committed::Pass { index } => {
                self.state.shard.pass(index);
                return Ok(());
            }
            Committed::Begin { index } => {
                self.state.shard.pass(index);
                self.begin(now);
                return Ok(());
            }
            Committed::Replaced((_, caller)) => {
                caller.refuse(self.log.not_leader());
                return Ok(());
            }
        };
        self.plan.applied(bytes);
        let (outcome, effects) = self.state.apply(index, &entry, body);
        self.note(&entry.command, &outcome);
        if !self.log.leads() {
            self.answer_late(caller, outcome);
            return Ok(());
        }
        self.answer(&entry.command, caller, outcome, now);
        for effect in effects {
            if !self.node.loses_effect() {
                self.carry_out(effect, now);
            }
        }
        Ok(())
    }

    /// What a command changed outside the engine.
    fn note(&mut self, command: &Command, outcome: &Outcome) {
        match command {
            Command::Tick => self.tick = false,
            Command::Trim { partition, .. } => {
                self.trims = self.trims.saturating_sub(1);
                self.publish_extent(*partition);
            }
            Command::Publish { log, batch, .. } => {
                if let Outcome::Appended(_) = outcome {
                    // Before the answer, so that who has it can read what it published.
                    let is_partition = self.publish_extent(*log);
                    if !self.log.leads() {
                        // Bound queues may be led here.
                        if is_partition {
                            self.waking.add(*log);
                        }
                    } else {
                        let figures = &self.node.figures;
                        figures.published_messages.add(u64::from(batch.count));
                        figures.published_bytes.add(batch.bytes);
                    }
                }
            }
            Command::Transfer {
                queue,
                partition,
                to,
                ..
            } => {
                if let Outcome::Done | Outcome::Appended(_) = outcome {
                    self.node.logs.set_cursor(*queue, *partition, *to);
                }
            }
            // Not left to an effect: others look here for what the state says.
            Command::ConfigureQueue { log, .. }
            | Command::ConfigurePartition { log, .. }
            | Command::Freeze { log, .. }
            | Command::Remove { log, .. } => self.publish_log(*log),
            Command::Configured { .. } => self.publish_configured(),
            Command::ForgetDead { queue, .. } => self.publish_departed(*queue),
            Command::Settle { settlements, .. } => {
                if let Outcome::Settled(results) = outcome
                    && self.log.leads()
                {
                    self.settled(settlements, results);
                }
            }
            _ => {}
        }
    }

    fn answer(&mut self, command: &Command, caller: Caller, outcome: Outcome, now: Instant) {
        let answer = match outcome {
            Outcome::Refused(refusal) => Err(self.node.figures.refused(refusal)),
            outcome => Ok(outcome),
        };
        match caller {
            Caller::Reply(reply) => reply.answer(answer),
            Caller::Publisher(publishing) => publishing.decided(answer, self.log.voters()),
            Caller::Connection(connection, reply) => {
                if let Ok(Outcome::Session { epoch, lost }) = &answer {
                    let claimed = match command {
                        Command::AttachSession { held, .. } => held.as_slice(),
                        _ => &[],
                    };
                    let begun = Begun {
                        epoch: *epoch,
                        claimed,
                        lost,
                    };
                    self.attach(connection, &begun, now);
                }
                reply.answer(answer);
            }
            Caller::Receiver(waiter) => {
                if let Command::Acquire { queue, .. } = command {
                    self.received(*queue, waiter, answer, now);
                }
            }
        }
    }

    fn received(
        &mut self,
        queue: LogId,
        waiter: Waiter,
        answer: Result<Outcome, Refusal>,
        now: Instant,
    ) {
        let deliveries = match answer {
            Ok(Outcome::Acquired(deliveries)) => deliveries,
            Ok(_) => Vec::new(),
            Err(refusal) => return Caller::Receiver(waiter).refuse(refusal),
        };
        if !deliveries.is_empty() || waiter.until <= now {
            let owner = waiter.owner;
            if let Err(Ok(unwanted)) = waiter.reply.send(Ok(deliveries)) {
                self.give_back(queue, owner, &unwanted, now);
            }
            return;
        }
        if let Err(waiter) = self.waiters.park(queue, waiter) {
            let refusal = Refusal::new(
                ErrorCode::LimitReached,
                format!("{WAITING_RECEIVES_MAX} calls wait for messages of this queue already"),
            )
            .with("limit", WAITING_RECEIVES_MAX.to_string())
            .retry_after_millis(RETRY_AFTER_MS);
            Caller::Receiver(waiter).refuse(self.node.figures.refused(refusal));
        }
    }

    /// Returns messages that never left the broker.
    fn give_back(&mut self, queue: LogId, owner: SessionId, deliveries: &[Delivery], now: Instant) {
        if deliveries.is_empty() {
            return;
        }
        let settlements = deliveries
            .iter()
            .map(|delivery| Settlement {
                owner,
                held: Held {
                    offset: delivery.offset,
                    acquired: delivery.acquired,
                },
                settle: Settle::Release { delay_ms: 0 },
            })
            .collect();
        self.propose(
            Proposal::silent(self.id, Command::Settle { queue, settlements }),
            now,
        );
    }

    fn carry_out(&mut self, effect: Effect, now: Instant) {
        let shard = self.id;
        match effect {
            Effect::Deliver {
                session,
                deliveries,
                ..
            } => {
                // Without a connection they wait: who attaches gets them again.
                if let Some(connection) = self.connections.get(&session) {
                    connection.deliver(&deliveries, now);
                }
            }
            Effect::LeasesLost { session, held, .. } => {
                if let Some(connection) = self.connections.get(&session) {
                    connection.lose(held);
                }
            }
            Effect::SessionClosed { session } => self.session_closed(session),
            Effect::Available { queue, ready } => {
                for waiter in self.waiters.take(queue, ready) {
                    self.acquire(queue, waiter, now);
                }
            }
            Effect::Appended { log, .. } => {
                if self.publish_extent(log) {
                    self.waking.add(log);
                }
            }
            Effect::TransferDue { queue } => {
                Pumps::wake(&self.node, Job::Transfer { shard, queue });
                Pumps::room(&self.node, queue);
            }
            Effect::DeadLettersDue { queue } => {
                Pumps::wake(&self.node, Job::Dead { shard, queue });
            }
            Effect::Reconfigured { log } => self.reconfigured(log),
        }
    }

    /// Asks the engine for what a `Receive` call wants.
    pub(super) fn acquire(&mut self, queue: LogId, waiter: Waiter, now: Instant) {
        let command = Command::Acquire {
            queue,
            owner: waiter.owner,
            messages_max: waiter.messages_max,
            bytes_max: waiter.bytes_max,
            lease_ms: waiter.lease_ms,
        };
        let (body, caller) = (Bytes::new(), Caller::Receiver(waiter));
        self.propose(
            Proposal {
                shard: self.id,
                command,
                body,
                caller,
            },
            now,
        );
    }

    fn reconfigured(&mut self, log: LogId) {
        let shard = self.id;
        if let Some(queue) = self.state.shard.queue(log) {
            // Most have neither: of many queues, a pump for each would only find that out.
            if !queue.spec().bindings.is_empty() {
                Pumps::wake(&self.node, Job::Transfer { shard, queue: log });
            }
            if queue.stats().dying > 0 {
                Pumps::wake(&self.node, Job::Dead { shard, queue: log });
            }
            Pumps::room(&self.node, log);
        } else if self.state.shard.partition(log).is_some() {
            self.waking.add(log);
        } else {
            for waiter in self.waiters.take(log, u64::MAX) {
                let gone = Refusal::new(ErrorCode::NoSuchQueue, "the queue was removed");
                Caller::Receiver(waiter).refuse(gone);
            }
        }
    }

    /// Wakes some of those that are bound to what has grown.
    fn wake_bound(&mut self) {
        for (queue, shard) in self.waking.next(&self.node.logs) {
            Pumps::wake(&self.node, Job::Transfer { shard, queue });
        }
    }

    /// Tells the others that a log is here, how it is bound, or that it is gone.
    fn publish_log(&mut self, log: LogId) {
        if let Some(queue) = self.state.shard.queue(log) {
            let cursors = queue.cursors().collect();
            self.node.logs.set_queue(self.id, log, cursors);
        } else if let Some(partition) = self.state.shard.partition(log) {
            let extent = partition.first()..partition.end();
            self.extents
                .insert(log, self.node.logs.add_partition(self.id, log, extent));
            self.publish_extent(log);
        } else {
            self.extents.remove(&log);
            // First, so that there is no moment at which nobody knows what has arrived in it.
            self.publish_departed(log);
            self.node.logs.remove(log);
        }
    }

    fn publish_configured(&self) {
        let revision = self.shard().configured_revision();
        self.node.logs.set_configured(self.id, revision);
    }

    /// Tells whether the shard knows what has arrived in a removed queue.
    fn publish_departed(&self, queue: LogId) {
        let known = if self.shard().is_departed(queue) {
            Known::Yes
        } else {
            Known::No
        };
        self.node.logs.set_departed(self.id, queue, known);
    }

    /// Tells readers what a partition holds; whether it is one.
    fn publish_extent(&self, log: LogId) -> bool {
        let (Some(sender), Some(partition)) =
            (self.extents.get(&log), self.state.shard.partition(log))
        else {
            return false;
        };
        let now = partition.first()..partition.end();
        sender.send_if_modified(|extent| {
            let changed = *extent != now;
            *extent = now;
            changed
        });
        true
    }
}
