//! Leader of one data shard, on its worker's thread: stamps and orders commands, applies them once
//! they are synced, answers who waits, and carries out the effects.

mod connections;
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
use millrace_types::{Elapsed, ErrorCode, LogId, LogIndex, Refusal, SessionId, ShardId};
use tokio::sync::watch;

use super::checkpoint_plan::CheckpointPlan;
use super::clock::Clock;
use super::connection::Connection;
use super::input::{Caller, Proposal};
use super::logs::{Extent, Known};
use super::node::Node;
use super::options::{RETRY_AFTER_MS, WAITING_RECEIVES_MAX};
use super::outbound::Outbound;
use super::proposals::Proposals;
use super::pumps::{Job, Pumps};
use super::replica::Replica;
use super::turn::Turn;
use super::waiters::{Waiter, Waiters};
use connections::Begun;
use sweep::Sweep;
use waking::Waking;

/// One data shard and those who wait for it.
pub(super) struct DataShard {
    id: ShardId,
    node: Arc<Node>,
    replica: Replica,
    proposals: Proposals<(Entry, Caller)>,
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
}

impl DataShard {
    /// Takes over a recovered shard; `lead` comes next.
    pub(super) fn new(
        node: &Arc<Node>,
        replica: Replica,
        plan: CheckpointPlan,
        proposals: Proposals<(Entry, Caller)>,
        now: Instant,
    ) -> Self {
        let shard = &replica.shard;
        let shard_time = shard.elapsed();
        let clock = Clock::new(shard.wall(), shard_time, now);
        let mut this = Self {
            id: shard.id(),
            node: Arc::clone(node),
            clock,
            plan,
            proposals,
            connections: BTreeMap::new(),
            waiters: Waiters::default(),
            extents: BTreeMap::new(),
            tick: false,
            trims: 0,
            trimmed: None,
            sweep: Sweep::default(),
            noted: shard_time,
            waking: Waking::default(),
            replica,
        };
        let partitions = this
            .replica
            .shard
            .partitions()
            .map(millrace_engine::Partition::log);
        let queues = this.replica.shard.queues().map(millrace_engine::Queue::log);
        let departed = this.replica.shard.departed();
        for log in partitions.chain(queues).chain(departed).collect::<Vec<_>>() {
            this.publish_log(log);
        }
        this
    }

    /// The engine's state, for questions.
    pub(super) const fn shard(&self) -> &Shard {
        &self.replica.shard
    }

    /// First command of a leader; what is outstanding is found from here on.
    pub(super) fn lead(&mut self, now: Instant, out: &mut Outbound) {
        self.sweep.begin(now);
        self.propose(Proposal::silent(self.id, Command::Lead), now, out);
    }

    /// Puts a command on its way; what is due by its stamp ends with it.
    pub(super) fn propose(&mut self, proposal: Proposal, now: Instant, out: &mut Outbound) {
        self.note_sent(now, out);
        self.put_on_its_way(proposal, now, out);
    }

    fn put_on_its_way(&mut self, proposal: Proposal, now: Instant, out: &mut Outbound) {
        let stamp = self.clock.stamp(now, self.node.host.wall());
        let entry = Entry {
            stamp,
            command: proposal.command,
        };
        let header = entry.encode();
        out.push(
            self.proposals
                .propose(header, proposal.body, (entry, proposal.caller)),
        );
    }

    /// Applies what is synced up to an index, as much as the turn takes; whether that was all.
    pub(super) fn synced(
        &mut self,
        upto: LogIndex,
        turn: &mut Turn<'_>,
        now: Instant,
        out: &mut Outbound,
    ) -> bool {
        while turn.goes_on() {
            let Some(proposed) = self.proposals.next_synced(upto) else {
                return true;
            };
            let (entry, caller) = proposed.entry;
            self.plan.applied(proposed.bytes);
            let (outcome, effects) = self.replica.apply(proposed.index, &entry, proposed.body);
            self.note(&entry.command, &outcome);
            self.answer(&entry.command, caller, outcome, now, out);
            for effect in effects {
                if !self.node.loses_effect() {
                    self.carry_out(effect, now, out);
                }
            }
        }
        false
    }

    /// What a command changed outside the engine.
    fn note(&mut self, command: &Command, outcome: &Outcome) {
        match command {
            Command::Tick => self.tick = false,
            Command::Trim { partition, .. } => {
                self.trims = self.trims.saturating_sub(1);
                self.publish_extent(*partition);
            }
            Command::Publish { log, batch } => {
                if let Outcome::Appended(_) = outcome {
                    // Before the answer, so that who has it can read what it published.
                    self.publish_extent(*log);
                    self.node
                        .figures
                        .published_messages
                        .add(u64::from(batch.count));
                    self.node.figures.published_bytes.add(batch.bytes);
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
            Command::ForgetDead { queue, .. } => self.publish_departed(*queue),
            Command::Settle { settlements, .. } => {
                if let Outcome::Settled(results) = outcome {
                    self.settled(settlements, results);
                }
            }
            _ => {}
        }
    }

    fn answer(
        &mut self,
        command: &Command,
        caller: Caller,
        outcome: Outcome,
        now: Instant,
        out: &mut Outbound,
    ) {
        let answer = match outcome {
            Outcome::Refused(refusal) => Err(self.node.figures.refused(refusal)),
            outcome => Ok(outcome),
        };
        match caller {
            Caller::Reply(reply) | Caller::Publisher(reply, _) => reply.answer(answer),
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
                    self.attach(connection, &begun, now, out);
                }
                reply.answer(answer);
            }
            Caller::Receiver(waiter) => {
                if let Command::Acquire { queue, .. } = command {
                    self.received(*queue, waiter, answer, now, out);
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
        out: &mut Outbound,
    ) {
        let deliveries = match answer {
            Ok(Outcome::Acquired(deliveries)) => deliveries,
            Ok(_) => Vec::new(),
            Err(refusal) => return Caller::Receiver(waiter).refuse(refusal),
        };
        if !deliveries.is_empty() || waiter.until <= now {
            let owner = waiter.owner;
            if let Err(Ok(unwanted)) = waiter.reply.send(Ok(deliveries)) {
                self.give_back(queue, owner, &unwanted, now, out);
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
    fn give_back(
        &mut self,
        queue: LogId,
        owner: SessionId,
        deliveries: &[Delivery],
        now: Instant,
        out: &mut Outbound,
    ) {
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
            out,
        );
    }

    fn carry_out(&mut self, effect: Effect, now: Instant, out: &mut Outbound) {
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
                    self.acquire(queue, waiter, now, out);
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
    pub(super) fn acquire(
        &mut self,
        queue: LogId,
        waiter: Waiter,
        now: Instant,
        out: &mut Outbound,
    ) {
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
            out,
        );
    }

    fn reconfigured(&mut self, log: LogId) {
        let shard = self.id;
        if let Some(queue) = self.replica.shard.queue(log) {
            // Most have neither: of many queues, a pump for each would only find that out.
            if !queue.spec().bindings.is_empty() {
                Pumps::wake(&self.node, Job::Transfer { shard, queue: log });
            }
            if queue.stats().dying > 0 {
                Pumps::wake(&self.node, Job::Dead { shard, queue: log });
            }
            Pumps::room(&self.node, log);
        } else if self.replica.shard.partition(log).is_some() {
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
        if let Some(queue) = self.replica.shard.queue(log) {
            let cursors = queue.cursors().collect();
            self.node.logs.set_queue(self.id, log, cursors);
        } else if let Some(partition) = self.replica.shard.partition(log) {
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
            (self.extents.get(&log), self.replica.shard.partition(log))
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
