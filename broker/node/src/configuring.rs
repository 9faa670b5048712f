//! Tells one data shard what the catalogue has and it has not: in portions, each of which is on the
//! shard's disk before the next is sent, so that neither worker is held up however much there is,
//! and clients' commands come in between.

use std::sync::Arc;
use std::vec;

use bytes::Bytes;
use millrace_engine::Catalogue;
use millrace_engine::catalogue::Untold;
use millrace_engine::command::Command;
use millrace_engine::outcome::Outcome;
use millrace_types::{Refusal, ShardId};

use super::input::{Caller, Input, Proposal};
use super::node::Node;
use super::reply::Reply;

/// Commands of a portion: well under a millisecond to make and to apply, and enough that syncs in
/// between do not count.
const PORTION_MAX: usize = 256;

/// One shard on its way to a revision.
#[derive(Debug)]
pub(super) struct Round {
    shard: ShardId,
    /// What it has done in the end.
    revision: u64,
    /// What it lacked when the round began. It is told what there is to say when its turn comes: a
    /// log that changes meanwhile is told twice, none is told too late.
    untold: vec::IntoIter<Untold>,
    over: bool,
}

impl Round {
    /// What a shard lacks that did everything up to `done`; `go_on` comes next.
    pub(super) fn new(catalogue: &Catalogue, shard: ShardId, done: u64) -> Self {
        Self {
            shard,
            revision: catalogue.revision(),
            untold: catalogue.untold(shard, done).into_iter(),
            over: false,
        }
    }

    /// The revision that the shard is brought to.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether everything has been sent.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// Sends the next portion; `Input::Configured` says when it is logged.
    pub(super) fn go_on(&mut self, node: &Arc<Node>, catalogue: &Catalogue) {
        let portion = self.portion(catalogue);
        let last = portion.len().saturating_sub(1);
        for (at, command) in portion.into_iter().enumerate() {
            if at < last {
                node.propose(Proposal::silent(self.shard, command));
                continue;
            }
            node.propose(Proposal {
                shard: self.shard,
                command,
                body: Bytes::new(),
                caller: Caller::Reply(self.reply(node)),
            });
        }
    }

    /// Never empty.
    fn portion(&mut self, catalogue: &Catalogue) -> Vec<Command> {
        let mut portion = Vec::new();
        while portion.len() < PORTION_MAX {
            let Some(untold) = self.untold.next() else {
                self.over = true;
                portion.push(Command::Configured {
                    revision: self.revision,
                });
                break;
            };
            portion.extend(catalogue.command_for(self.shard, &untold));
        }
        portion
    }

    fn reply(&self, node: &Arc<Node>) -> Reply<Outcome> {
        let (node, shard) = (Arc::clone(node), self.shard);
        Reply::to(move |outcome: Result<_, Refusal>| {
            if let Ok(slot) = node.slot(ShardId::METADATA) {
                slot.inbox
                    .send(Input::Configured(shard, outcome.map(|_| ())));
            }
        })
    }
}
