//! What a worker can be asked.

use std::sync::Arc;

use bytes::Bytes;
use millrace_engine::Shard;
use millrace_engine::catalogue::CatalogueCommand;
use millrace_engine::command::Command;
use millrace_engine::outcome::Outcome;
use millrace_replica::{Entry, Lane};
use millrace_storage::CheckpointError;
use millrace_types::{ErrorCode, LogIndex, NodeId, Refusal, ReplicaId, ShardId};

use super::api::{Acknowledge, Taken};
use super::connection::Connection;
use super::gate::Permit;
use super::inlet::Arrived;
use super::outbound::SyncMark;
use super::placement::standing::ShardStanding;
use super::reply::Reply;
use super::snapshots::{Fate, Prepared};
use super::waiters::Waiter;
use super::worker::Facts;

/// A question about a data shard, answered on its thread: it must be short.
pub(super) type Question = Box<dyn FnOnce(Result<&Shard, Refusal>) + Send>;

/// One thing to do.
#[expect(
    clippy::large_enum_variant,
    reason = "the largest is by far the most frequent; a box would cost an allocation each time"
)]
pub(super) enum Input {
    /// Propose a command.
    Propose(Proposal),
    /// Propose a change of the catalogue; the answer is its revision.
    ProposeCatalogue(CatalogueCommand, Reply<u64>),
    /// Answer a question.
    Ask(ShardId, Question),
    /// Answer a question by what is committed now; refused where the shard is not led.
    AskCurrent(ShardId, Question),
    /// Answer a question when this is applied.
    AskApplied(ShardId, LogIndex, Question),
    /// Say which revision the topology has by what is committed now; refused where the metadata
    /// shard is not led.
    AskRevision(Reply<u64>),
    /// A connection ended.
    Detach(Arc<Connection>),
    /// A paused connection takes messages again.
    Resume(Arc<Connection>),
    /// The journal takes records again.
    Room,
    /// These writes of these shards, and all before them, are synced.
    Synced(Vec<SyncMark>),
    /// Messages of other nodes' replicas.
    Peer(Arrived),
    /// Entries for a follower of a shard, from one on; none when they are gone.
    Loaded(ShardId, LogIndex, Vec<Entry>),
    /// What was sent to a node in a lane was probably lost.
    Unreachable(NodeId, Lane),
    /// Nodes or replicas have changed in the catalogue.
    Roster,
    /// A snapshot that was sent to a replica has arrived, or has not.
    SnapshotEnded(ShardId, ReplicaId, Fate),
    /// The state of a snapshot is in force on disk.
    Promoted(ShardId, Box<Prepared>),
    /// A checkpoint is done, or is not.
    Checkpointed(ShardId, Result<LogIndex, CheckpointError>),
    /// A data shard has, or has not, logged a portion of its configuration, of a round.
    Configured(ShardId, u64, Result<(), Refusal>),
    /// Give figures of all shards of the worker.
    Facts(Reply<Facts>),
    /// Say how the shards stand that are led here.
    Standing(Reply<Vec<ShardStanding>>),
    /// Hand a shard over to a node.
    HandOver(ShardId, NodeId, Reply<()>),
    /// Make a checkpoint of each shard that has anything new.
    Checkpoint,
    /// Tell consumers that the node is going down.
    BeginDrain,
    /// Finish what is in flight, make checkpoints, then answer.
    Drain(Reply<()>),
    /// End the thread at once.
    Stop,
    /// Be the other members of a shard.
    #[cfg(test)]
    Drive(
        ShardId,
        Box<dyn FnOnce(&mut millrace_replica::Replica) + Send>,
    ),
}

/// A command to propose.
pub(super) struct Proposal {
    /// To which data shard.
    pub(super) shard: ShardId,
    /// What.
    pub(super) command: Command,
    /// The records it carries; empty for most.
    pub(super) body: Bytes,
    /// Who waits.
    pub(super) caller: Caller,
}

/// Who waits for a command, and what that means when it is applied.
pub(super) enum Caller {
    /// Somebody, or nobody.
    Reply(Reply<Outcome>),
    /// A publisher.
    Publisher(Publishing),
    /// A `Receive` call, which may have to wait for a message.
    Receiver(Waiter),
    /// A connection that opens or attaches to a session.
    Connection(Arc<Connection>, Reply<Outcome>),
}

/// A publish under way.
pub(super) struct Publishing {
    /// Nobody, once it is answered.
    pub(super) reply: Reply<Published>,
    /// When it is.
    pub(super) acknowledge: Acknowledge,
    /// Makes room when it is dropped with the caller.
    pub(super) _permit: Permit,
}

/// A publish that was taken.
#[derive(Debug)]
pub(super) struct Published {
    /// What became of it.
    pub(super) taken: Taken,
    /// Voting replicas of the shard.
    pub(super) replicas: u32,
}

impl Publishing {
    /// Tells what came of it, unless that was told before.
    pub(super) fn decided(self, outcome: Result<Outcome, Refusal>, replicas: u32) {
        self.reply.answer(outcome.and_then(|outcome| {
            let taken = match outcome {
                Outcome::Appended(offsets) => Taken::Stored(offsets),
                Outcome::Repeated(offsets) => Taken::Repeated(offsets),
                other => {
                    let text = format!("a publish was answered with {other:?}");
                    return Err(Refusal::new(ErrorCode::Internal, text).unknown());
                }
            };
            Ok(Published { taken, replicas })
        }));
    }
}

impl Caller {
    /// The way to a publisher that wants to know no more than that its publish has been ordered.
    pub(super) fn take_receipt(&mut self) -> Option<Reply<Published>> {
        match self {
            Self::Publisher(publishing) if publishing.acknowledge == Acknowledge::OnReceipt => {
                Some(std::mem::replace(&mut publishing.reply, Reply::none()))
            }
            _ => None,
        }
    }
}

impl Proposal {
    /// A command without records that nobody waits for.
    pub(super) const fn silent(shard: ShardId, command: Command) -> Self {
        Self {
            shard,
            command,
            body: Bytes::new(),
            caller: Caller::Reply(Reply::none()),
        }
    }
}
