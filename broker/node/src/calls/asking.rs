//! Asking another node, and ordering commands wherever their shard is led.

use bytes::Bytes;
use millrace_engine::catalogue::CatalogueCommand;
use millrace_engine::command::Command;
use millrace_engine::outcome::{Outcome, Room};
use millrace_types::{ErrorCode, LogId, NodeId, Offset, Refusal, ShardId};
use serde::de::DeserializeOwned;

use super::{CONFIGURE_BYTES_MAX, Cursors, Question, Records, Sends, decode_answer, encode};
use crate::input::Input;
use crate::leaders::Led;
use crate::logs::Extent;
use crate::network::Unreachable;
use crate::node::{Node, not_leader};
use crate::options::RETRY_AFTER_MS;
use crate::reply::Reply;

impl Node {
    /// Orders a command where its shard is led.
    ///
    /// # Errors
    /// The refusal; *unknown* when the leader did not answer or lost the lead.
    pub(crate) async fn order(
        &self,
        shard: ShardId,
        command: Command,
        body: Bytes,
    ) -> Result<Outcome, Refusal> {
        if let Led::There(node) = self.led(shard) {
            let question = Question::Propose { shard, command };
            return self.ask_of(node, shard, &question, &body).await;
        }
        // When nobody leads, the shard knows that best.
        self.start(shard, command, body).answer().await
    }

    /// Orders a change of the catalogue where that is led; gives its revision.
    ///
    /// # Errors
    /// As `order`.
    pub(crate) async fn order_catalogue(&self, command: CatalogueCommand) -> Result<u64, Refusal> {
        let shard = ShardId::METADATA;
        if let Led::There(node) = self.led(shard) {
            let question = Question::Catalogue(command);
            return self.ask_of(node, shard, &question, &[]).await;
        }
        self.propose_catalogue(command).await
    }

    /// Orders a change of the catalogue here.
    ///
    /// # Errors
    /// The refusal; `NOT_LEADER` when it is led elsewhere.
    pub(crate) async fn propose_catalogue(
        &self,
        command: CatalogueCommand,
    ) -> Result<u64, Refusal> {
        let slot = self.slot(ShardId::METADATA)?;
        let (reply, pending) = Reply::channel();
        slot.inbox.send(Input::ProposeCatalogue(command, reply));
        pending.answer().await
    }

    /// Has another node order commands of a shard that it leads, in their order.
    ///
    /// # Errors
    /// As `order`; those of a beginning of them may have been carried out.
    pub(crate) async fn order_all(
        &self,
        node: NodeId,
        shard: ShardId,
        commands: Vec<Command>,
    ) -> Result<(), Refusal> {
        let (mut portion, mut bytes) = (Vec::new(), 0);
        for command in commands {
            let more = postcard::to_allocvec(&command).map_or(0, |encoded| encoded.len());
            if bytes + more > CONFIGURE_BYTES_MAX && !portion.is_empty() {
                let commands = std::mem::take(&mut portion);
                let question = Question::Configure { shard, commands };
                let () = self.ask_of(node, shard, &question, &[]).await?;
                bytes = 0;
            }
            bytes += more;
            portion.push(command);
        }
        let commands = portion;
        let question = Question::Configure { shard, commands };
        self.ask_of(node, shard, &question, &[]).await
    }

    /// What a queue has room for, by what is applied where it is asked: an estimate.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub(crate) async fn room(&self, shard: ShardId, queue: LogId) -> Result<Option<Room>, Refusal> {
        if self.hosts(shard) {
            let room = move |shard: &millrace_engine::Shard| {
                shard.queue(queue).map(millrace_engine::Queue::room)
            };
            return self.ask(shard, room).await;
        }
        let node = self.leader_of(shard)?;
        let question = Question::Room { shard, queue };
        self.ask_of(node, shard, &question, &[]).await
    }

    /// Where a queue's dead letters go, by what is applied where it is asked.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub(crate) async fn sends(&self, shard: ShardId, queue: LogId) -> Result<Sends, Refusal> {
        if self.hosts(shard) {
            return self.ask(shard, move |shard| sends(shard, queue)).await;
        }
        let node = self.leader_of(shard)?;
        let question = Question::Sends { shard, queue };
        self.ask_of(node, shard, &question, &[]).await
    }

    /// What a partition holds that this node has no replica of.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub(crate) async fn read_there(
        &self,
        shard: ShardId,
        partition: LogId,
        from: Offset,
    ) -> Result<Records, Refusal> {
        let node = self.leader_of(shard)?;
        let question = Question::Read {
            shard,
            partition,
            from,
        };
        self.ask_of(node, shard, &question, &[]).await
    }

    /// Tells everybody who leads something that this node's disk has less than the reserve. Who is
    /// not reached is told again.
    pub(crate) fn tell_short(&self) {
        let (free_bytes, reserve_bytes) = (self.disk_free_bytes(), self.options.disk_reserve_bytes);
        let question = Question::Short {
            free_bytes,
            reserve_bytes,
        };
        let request = encode(&question, &[]);
        for leader in self.leaders.others() {
            let told = self.network.call(leader, request.clone());
            self.host.spawn(Box::pin(async move {
                if let Err(error) = told.await {
                    tracing::debug!(node = %leader, %error, "a leader was not told");
                }
            }));
        }
    }

    /// How far partitions go that this node has no replica of.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub(crate) async fn extents_there(
        &self,
        shard: ShardId,
        partitions: Vec<LogId>,
    ) -> Result<Vec<Option<Extent>>, Refusal> {
        let node = self.leader_of(shard)?;
        let question = Question::Extents { shard, partitions };
        self.ask_of(node, shard, &question, &[]).await
    }

    /// How far the queues of a shard have come that this node has no replica of.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub(crate) async fn cursors_there(
        &self,
        shard: ShardId,
        partitions: Vec<LogId>,
    ) -> Result<Cursors, Refusal> {
        let node = self.leader_of(shard)?;
        let question = Question::Cursors { shard, partitions };
        self.ask_of(node, shard, &question, &[]).await
    }

    pub(crate) fn leader_of(&self, shard: ShardId) -> Result<NodeId, Refusal> {
        match self.led(shard) {
            Led::There(node) => Ok(node),
            Led::Here | Led::Nobody => Err(not_leader(shard, None)),
        }
    }

    /// Asks a node about a shard; takes note of who leads it instead, if this node cannot know.
    pub(crate) async fn ask_of<T: DeserializeOwned>(
        &self,
        node: NodeId,
        shard: ShardId,
        question: &Question,
        body: &[u8],
    ) -> Result<T, Refusal> {
        let request = encode(question, body);
        let answer = match self.network.call(node, request).await {
            Ok(answer) => answer,
            Err(error) => {
                self.pass_over(shard, node);
                return Err(unreachable(shard, &error));
            }
        };
        let Some(answer) = decode_answer(&answer) else {
            let text = format!("node {node} does not understand what this one asks");
            let refusal = Refusal::new(ErrorCode::ShardUnavailable, text);
            return Err(refusal.unknown().retry_after_millis(RETRY_AFTER_MS));
        };
        answer.inspect_err(|refusal| self.note_leader(shard, refusal))
    }

    /// A node could not be asked about a shard: the next time, another one is that may know.
    fn pass_over(&self, shard: ShardId, node: NodeId) {
        if self.hosts(shard) {
            return;
        }
        if let Some(next) = self.candidate_after(shard, node) {
            self.leaders.set(shard, Led::There(next));
        }
    }

    /// Another node says who leads a shard: that is news if this node has no replica of it.
    fn note_leader(&self, shard: ShardId, refusal: &Refusal) {
        if refusal.code != ErrorCode::NotLeader || self.hosts(shard) {
            return;
        }
        let leader = refusal.metadata.get("leader");
        let leader = leader.and_then(|leader| leader.parse().ok());
        let led = leader.map_or(Led::Nobody, |leader| Led::There(NodeId::new(leader)));
        self.leaders.set(shard, led);
    }
}

/// Where a queue's dead letters go.
pub(super) fn sends(shard: &millrace_engine::Shard, queue: LogId) -> Sends {
    Sends {
        revision: shard.configured_revision(),
        to: shard.queue(queue).and_then(|q| q.dead_letter_target()),
    }
}

fn unreachable(shard: ShardId, error: &Unreachable) -> Refusal {
    let refusal = Refusal::new(ErrorCode::NotLeader, format!("shard {shard}: {error}"))
        .with("shard", shard.to_string())
        .retry_after_millis(RETRY_AFTER_MS);
    match error {
        Unreachable::NotSent { .. } => refusal,
        Unreachable::NoAnswer { .. } => refusal.unknown(),
    }
}
