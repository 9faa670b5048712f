//! Tells one data shard what the catalogue has and it has not: in portions, each of which is on the
//! shard's disk before the next is sent, so that neither worker is held up however much there is,
//! and clients' commands come in between.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use millrace_engine::catalogue::Untold;
use millrace_engine::command::Command;
use millrace_engine::outcome::Outcome;
use millrace_engine::{CONFIGURE_BYTES_MAX, Catalogue};
use millrace_storage::JOURNAL_RECORD_BYTES_MAX;
use millrace_types::{LogId, Refusal, ShardId};

use super::input::{Caller, Input, Proposal};
use super::node::Node;
use super::reply::Reply;

/// Commands of a portion: well under a millisecond to make and to apply, and enough that syncs in
/// between do not count.
const PORTION_MAX: usize = 256;

/// Whatever is declared, a journal record has room for it.
const _: () = assert!((CONFIGURE_BYTES_MAX as u64) < JOURNAL_RECORD_BYTES_MAX);

/// One shard on its way to a revision.
#[derive(Debug)]
pub(super) struct Round {
    shard: ShardId,
    /// What it has done at the beginning, and in the end.
    revisions: Range<u64>,
    /// The log that it was told of last. It is told what there is to say when a log's turn comes:
    /// one that changes meanwhile is perhaps told twice, none is told too late.
    told: Option<LogId>,
    over: bool,
}

impl Round {
    /// What a shard lacks that did everything up to `done`; `go_on` comes next.
    pub(super) fn new(catalogue: &Catalogue, shard: ShardId, done: u64) -> Self {
        Self {
            shard,
            revisions: done..catalogue.revision(),
            told: None,
            over: false,
        }
    }

    /// The revision that the shard is brought to.
    pub(super) const fn revision(&self) -> u64 {
        self.revisions.end
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
        let done = self.revisions.start;
        let untold = catalogue.untold(self.shard, done, self.told, PORTION_MAX);
        self.told = untold.last().map(Untold::log);
        let commands = untold.iter();
        let commands = commands.filter_map(|log| catalogue.command_for(self.shard, log));
        let mut portion: Vec<Command> = commands.collect();
        if untold.len() < PORTION_MAX || portion.is_empty() {
            self.over = true;
            portion.push(Command::Configured {
                revision: self.revisions.end,
            });
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
