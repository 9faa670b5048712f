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
use millrace_types::{LogId, NodeId, Refusal, ShardId};

use super::input::{Caller, Input, Proposal};
use super::leaders::Led;
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
    /// Tells its answers from those of an earlier one.
    number: u64,
    /// What it has done at the beginning, and in the end.
    revisions: Range<u64>,
    /// The log that it was told of last. It is told what there is to say when a log's turn comes:
    /// one that changes meanwhile is perhaps told twice, none is told too late.
    told: Option<LogId>,
    over: bool,
}

impl Round {
    /// What a shard lacks that did everything up to `done`; `go_on` comes next.
    pub(super) fn new(catalogue: &Catalogue, shard: ShardId, done: u64, number: u64) -> Self {
        Self {
            shard,
            number,
            revisions: done..catalogue.revision(),
            told: None,
            over: false,
        }
    }

    /// As it was given.
    pub(super) const fn number(&self) -> u64 {
        self.number
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
        match node.led(self.shard) {
            Led::There(leader) => self.send(node, leader, portion),
            Led::Here | Led::Nobody => self.propose(node, portion),
        }
    }

    fn propose(&self, node: &Arc<Node>, portion: Vec<Command>) {
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

    /// The same, to a shard that is led elsewhere. What arrives late or twice does nothing: a shard
    /// ignores what is older than what it has done.
    fn send(&self, node: &Arc<Node>, leader: NodeId, portion: Vec<Command>) {
        let (shard, number, asking) = (self.shard, self.number, Arc::clone(node));
        node.host.spawn(Box::pin(async move {
            let done = asking.order_all(leader, shard, portion).await;
            tell(&asking, (shard, number), done);
        }));
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
        let (node, round) = (Arc::clone(node), (self.shard, self.number));
        Reply::to(move |outcome: Result<_, Refusal>| tell(&node, round, outcome.map(|_| ())))
    }
}

/// Tells the metadata shard what came of a portion.
fn tell(node: &Node, (shard, number): (ShardId, u64), done: Result<(), Refusal>) {
    if let Ok(slot) = node.slot(ShardId::METADATA) {
        slot.inbox.send(Input::Configured(shard, number, done));
    }
}
