//! Putting commands on their way, and telling those who want to know no more than that.

use std::time::Instant;

use millrace_engine::command::{Command, Entry};

use super::DataShard;
use crate::api::Taken;
use crate::input::{Proposal, Published};
use crate::shard_log::NotTaken;

impl DataShard {
    /// Orders a command, while this replica leads.
    pub(super) fn put_on_its_way(&mut self, mut proposal: Proposal, now: Instant) {
        let receipt = proposal.caller.take_receipt();
        if let (Some(_), Command::Publish { log, batch, .. }) = (&receipt, &proposal.command)
            && let Err(refusal) = self.state.shard.check_publish(*log, batch)
        {
            // As far as can be told now: later, nobody is told.
            let refusal = self.node.figures.refused(refusal);
            return receipt
                .into_iter()
                .for_each(|receipt| receipt.answer(Err(refusal.clone())));
        }
        let stamp = self.clock.stamp(now, self.node.host.wall());
        let entry = Entry {
            stamp,
            command: proposal.command,
        };
        let header = entry.encode();
        let taken = self
            .log
            .propose(header, proposal.body, (entry, proposal.caller));
        let answer = match taken {
            Ok(()) => Ok(Published {
                taken: Taken::Received,
                replicas: self.log.voters(),
            }),
            Err(NotTaken { refusal, entry }) => {
                let (entry, caller) = entry;
                match entry.command {
                    Command::Tick => self.tick = false,
                    Command::Trim { .. } => self.trims = self.trims.saturating_sub(1),
                    _ => {}
                }
                let refusal = self.node.figures.refused(refusal);
                caller.refuse(refusal.clone());
                Err(refusal)
            }
        };
        if let Some(receipt) = receipt {
            receipt.answer(answer);
        }
    }
}
