//! What one node asks of another over `Network::call`, and how that becomes bytes: a version, the
//! question in postcard, and behind it the records it carries, if any.
//!
//! Promises: a question that is not understood, of a later version or garbage, is answered with
//! nothing and has done nothing. Who asked and got no answer knows whether the question has left;
//! if it has, it may have been carried out. All of them can be asked twice.

mod answering;
mod asking;
mod current;
#[cfg(test)]
mod golden;
pub(super) mod steering;

use bytes::Bytes;
use millrace_engine::catalogue::CatalogueCommand;
use millrace_engine::command::Command;
use millrace_types::{LogId, NodeId, Offset, Refusal, ShardId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(super) use answering::answer;
pub(super) use current::unsure;

/// Of questions and answers; a new kind of question goes to the end of the enum and needs none.
const VERSION: u8 = 1;
/// Encoded commands of one `Configure`: small beside what a connection takes at once.
pub(super) const CONFIGURE_BYTES_MAX: usize = 1 << 20;

/// A question. Variants keep their place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Question {
    /// Order a command of a data shard; its records follow. Answer: `Outcome`.
    Propose {
        /// Which.
        shard: ShardId,
        /// What.
        command: Command,
    },
    /// Order these commands of a data shard, none before the one before it. Answer: `()`, when all
    /// of them are applied.
    Configure {
        /// Which.
        shard: ShardId,
        /// What.
        commands: Vec<Command>,
    },
    /// Order a change of the catalogue. Answer: `u64`, its revision.
    Catalogue(CatalogueCommand),
    /// What a queue has room for. Answer: `Option<Room>`; nothing when it is not configured.
    Room {
        /// Where.
        shard: ShardId,
        /// Which.
        queue: LogId,
    },
    /// Where a queue's dead letters go. Answer: `Sends`.
    Sends {
        /// Where.
        shard: ShardId,
        /// Which.
        queue: LogId,
    },
    /// What a partition holds from somewhere on. Answer: `Records`.
    Read {
        /// Where.
        shard: ShardId,
        /// Which.
        partition: LogId,
        /// The first offset.
        from: Offset,
    },
    /// How far partitions go. Answer: for each its `Extent`, if it is configured.
    Extents {
        /// Where.
        shard: ShardId,
        /// Which.
        partitions: Vec<LogId>,
    },
    /// How far the queues of a shard have come with partitions. Answer: `Cursors`.
    Cursors {
        /// Of whose queues.
        shard: ShardId,
        /// Which.
        partitions: Vec<LogId>,
    },
    /// How the shards stand that the node leads. Answer: `Vec<ShardStanding>`.
    Standing,
    /// Hand a shard over. Answer: `()`, when that has begun.
    HandOver {
        /// Which.
        shard: ShardId,
        /// To whom.
        to: NodeId,
    },
    /// Who asks has less free on its disk than it keeps in reserve. Answer: `()`.
    Short {
        /// Free.
        free_bytes: u64,
        /// The reserve.
        reserve_bytes: u64,
    },
    /// What has to be applied by who answers questions about a shard now. Answer: `u64`, an index.
    ReadIndex {
        /// Which.
        shard: ShardId,
    },
    /// What the node's catalogue says of nodes and replicas. Answer: `Option<Roster>`; nothing when
    /// that is not later than what is known.
    Roster {
        /// Its revision.
        known: u64,
    },
    /// Which revision the topology has now. Answer: `u64`.
    Revision,
    /// Figures of logs, as of everything acknowledged before. Answer: `LogFactsOf`.
    Figures {
        /// Which.
        shard: ShardId,
        /// Whose; a bounded number.
        logs: Vec<LogId>,
    },
}

/// Answer to `Sends`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sends {
    /// The topology revision that the answer is true of, at least.
    pub(super) revision: u64,
    /// Where the queue's dead letters go.
    pub(super) to: Option<LogId>,
}

/// Answer to `Read`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Records {
    /// What the partition holds.
    pub(super) first: Offset,
    /// One past its last message.
    pub(super) end: Offset,
    /// What is there from the offset asked for on, with the offsets.
    pub(super) messages: Vec<(Offset, Vec<u8>)>,
}

/// Answer to `Cursors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursors {
    /// The topology revision that the answer is true of, at least.
    pub(super) revision: u64,
    /// For each partition the first offset that some bound queue has not looked at.
    pub(super) lowest: Vec<Option<Offset>>,
}

/// A question as it travels.
fn encode(question: &Question, body: &[u8]) -> Bytes {
    let mut bytes = with_version(question);
    bytes.extend_from_slice(body);
    bytes.into()
}

/// A question that came, and the records behind it; `None` when it is not understood.
fn decode(request: &Bytes) -> Option<(Question, Bytes)> {
    let (&version, rest) = request.split_first()?;
    if version != VERSION {
        return None;
    }
    let (question, body) = postcard::take_from_bytes(rest).ok()?;
    let start = request.len().checked_sub(body.len())?;
    Some((question, request.slice(start..)))
}

/// An answer as it travels.
fn encode_answer<T: Serialize>(answer: &Result<T, Refusal>) -> Bytes {
    with_version(answer).into()
}

/// An answer that came; `None` when the question was not understood, or the answer is not.
fn decode_answer<T: DeserializeOwned>(answer: &[u8]) -> Option<Result<T, Refusal>> {
    let (&version, rest) = answer.split_first()?;
    if version != VERSION {
        return None;
    }
    postcard::from_bytes(rest).ok()
}

fn with_version<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, Vec::from([VERSION]))
        .expect("a vector grows and every collection knows its length")
}
