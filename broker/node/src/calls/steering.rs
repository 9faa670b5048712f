//! How shards stand, and handing them over, here and on other nodes.

use millrace_engine::catalogue::Roster;
use millrace_types::{ErrorCode, NodeId, Refusal, ShardId};

use super::Question;
use crate::input::Input;
use crate::leaders::Led;
use crate::node::{Node, not_leader};
use crate::placement::standing::ShardStanding;
use crate::reply::Reply;

impl Node {
    /// The shards that this node leads.
    pub(crate) async fn standing_here(&self) -> Vec<ShardStanding> {
        let mut all = Vec::new();
        let mut pending = Vec::new();
        for inbox in &self.inboxes {
            let (reply, answer) = Reply::channel();
            inbox.send(Input::Standing(reply));
            pending.push(answer);
        }
        for answer in pending {
            // A worker that has stopped, or hangs, leads nothing.
            let answer = self.soon(ShardId::METADATA, answer.answer());
            all.extend(answer.await.unwrap_or_default());
        }
        all
    }

    /// The shards that another node leads.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn standing_of(&self, node: NodeId) -> Result<Vec<ShardStanding>, Refusal> {
        let question = Question::Standing;
        self.ask_of(node, ShardId::METADATA, &question, &[]).await
    }

    /// What another node knows of nodes and replicas, if it is later than a revision.
    ///
    /// # Errors
    /// When it does not answer, or has no catalogue itself.
    pub(crate) async fn roster_of(
        &self,
        node: NodeId,
        known: u64,
    ) -> Result<Option<Roster>, Refusal> {
        let question = Question::Roster { known };
        self.ask_of(node, ShardId::METADATA, &question, &[]).await
    }

    /// Has a shard handed over to a node, wherever it is led. Does nothing when that leads already.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the node has no replica that votes; `NOT_LEADER`.
    pub(crate) async fn hand_over(&self, shard: ShardId, to: NodeId) -> Result<(), Refusal> {
        match self.led(shard) {
            Led::There(node) if node == to => Ok(()),
            Led::There(node) => {
                let question = Question::HandOver { shard, to };
                self.ask_of(node, shard, &question, &[]).await
            }
            Led::Here => self.hand_over_here(shard, to).await,
            Led::Nobody => Err(not_leader(shard, None)),
        }
    }

    /// The same of a shard that this node leads.
    ///
    /// # Errors
    /// As `hand_over`.
    pub(crate) async fn hand_over_here(&self, shard: ShardId, to: NodeId) -> Result<(), Refusal> {
        let slot = self.slot(shard)?;
        let (reply, pending) = Reply::channel();
        slot.inbox.send(Input::HandOver(shard, to, reply));
        pending.answer().await
    }
}

/// A shard cannot be handed over to a node.
pub(crate) fn no_voter(shard: ShardId, node: NodeId) -> Refusal {
    let name = crate::placement::standing::name(node);
    let text = format!("node {name} has no replica of shard {shard} that votes");
    Refusal::new(ErrorCode::InvalidArgument, text)
}
