//! Beginning and ceasing to lead: the clock, connections and waiting calls are a leader's, and
//! start from the state; what others were promised ends with the lead.

use std::time::Instant;

use millrace_engine::command::{Command, Entry};
use millrace_engine::outcome::Outcome;
use millrace_replica::ReadyNumber;
use millrace_types::Refusal;

use super::DataShard;
use super::waking::Waking;
use crate::clock::Clock;
use crate::connection::Notice;
use crate::input::{Caller, Proposal};
use crate::outbound::Outbound;
use crate::shard_log::{Lost, ShardLog};

impl DataShard {
    /// A write has reached the disk, and all before it.
    pub(crate) fn synced(&mut self, number: ReadyNumber) {
        if self.log.synced(number) {
            self.promote();
        }
    }

    /// Whether there is something to apply.
    pub(crate) fn has_committed(&self) -> bool {
        self.log.has_committed()
    }

    /// Hands over what is to be written; takes note of who leads.
    ///
    /// # Errors
    /// Why the shard must not go on.
    pub(crate) fn gather(&mut self, now: Instant, out: &mut Outbound) -> Result<(), String> {
        self.steer(now);
        self.ask_for_reads();
        self.take_offered()?;
        if let Some(lost) = self.log.gather(out) {
            self.step_down(lost);
        }
        self.return_unwanted();
        let reads = self.log.take_reads();
        self.answer_reads(reads);
        if let Some(led) = self.log.moved() {
            self.node.leaders.set(self.id, led);
            self.node
                .shortages
                .set_voters(self.id, self.log.other_voters());
        }
        if self.log.wants_checkpoint() {
            self.checkpoint(true, now);
        }
        Ok(())
    }

    /// Everything of earlier terms is applied: from here on this replica decides.
    pub(super) fn begin(&mut self, now: Instant) {
        let (wall, elapsed) = (self.state.shard.wall(), self.state.shard.elapsed());
        self.clock = Clock::new(wall, elapsed, now);
        self.tick = false;
        self.trims = 0;
        self.trimmed = None;
        self.sweep.begin(now);
        self.noted = elapsed;
        self.waking = Waking::default();
        self.node.pumps.lead(self.id);
        // First: it detaches sessions, whose connections are gone.
        self.propose(Proposal::silent(self.id, Command::Lead), now);
        for proposal in std::mem::take(&mut self.held) {
            self.propose(proposal, now);
        }
    }

    /// Another replica decides from here on, or none does.
    fn step_down(&mut self, lost: Lost<(Entry, Caller)>) {
        let refusal = self.log.not_leader();
        let (shard, why) = (self.id, &refusal.message);
        tracing::info!(%shard, %why, "the shard is not led here any more");
        for (_, caller) in lost.0 {
            caller.refuse(refusal.clone().unknown());
        }
        self.close(&refusal);
    }

    /// Ends everything that waits or is connected.
    pub(crate) fn close(&mut self, refusal: &Refusal) {
        self.end_reads(refusal);
        for proposal in std::mem::take(&mut self.held) {
            proposal.caller.refuse(refusal.clone());
        }
        for connection in std::mem::take(&mut self.connections).into_values() {
            connection.tell(Notice::Closed(refusal.clone()));
        }
        for waiter in self.waiters.take_all() {
            Caller::Receiver(waiter).refuse(refusal.clone());
        }
        self.node.pumps.follow(self.id);
        self.node.snapshots.follow(self.id);
    }

    /// Answers who proposed while this replica led, now that it does not.
    pub(super) fn answer_late(&self, caller: Caller, outcome: Outcome) {
        let answer = match outcome {
            Outcome::Refused(refusal) => Err(self.node.figures.refused(refusal)),
            outcome => Ok(outcome),
        };
        match (caller, answer) {
            (Caller::Reply(reply), answer) => reply.answer(answer),
            (Caller::Publisher(publishing), answer) => {
                publishing.decided(answer, self.log.voters());
            }
            // It has a session that this node can do nothing for.
            (Caller::Connection(_, reply), Ok(_)) => {
                reply.answer(Err(self.log.not_leader().unknown()));
            }
            (Caller::Receiver(waiter), Ok(Outcome::Acquired(deliveries)))
                if !deliveries.is_empty() =>
            {
                // Unwanted, they come again when the lease has ended.
                waiter.reply.send(Ok(deliveries)).ok();
            }
            (caller, Err(refusal)) => caller.refuse(refusal),
            (caller, Ok(_)) => caller.refuse(self.log.not_leader()),
        }
    }

    /// The log, for what other nodes say.
    pub(crate) const fn log(&mut self) -> &mut ShardLog<(Entry, Caller)> {
        &mut self.log
    }

    /// Time has passed for who is not alone.
    pub(crate) fn tick(&mut self, number: u64) {
        self.log.tick(number);
    }

    /// Whether `tick` has to be called.
    pub(crate) fn needs_ticks(&self) -> bool {
        self.log.needs_ticks()
    }

    /// For tests that are the other members.
    #[cfg(test)]
    pub(crate) fn log_replica(&mut self) -> &mut millrace_replica::Replica {
        self.log.replica()
    }
}
