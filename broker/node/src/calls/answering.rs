//! Answers questions of other nodes. Orders only what this node leads: who asks looks for the
//! leader itself.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_engine::catalogue::{CatalogueCommand, Roster};
use millrace_engine::command::Command;
use millrace_engine::outcome::Outcome;
use millrace_storage::{Limits, ReadError, records};
use millrace_types::{BATCH_MESSAGES_MAX, ErrorCode, LogId, NodeId, Offset, Refusal, ShardId};
use serde::Serialize;

use super::{Cursors, Question, Records, asking, decode, encode_answer};
use crate::input::{Caller, Proposal};
use crate::leaders::Led;
use crate::logs::Extent;
use crate::node::{Node, not_leader};
use crate::options::RETRY_AFTER_MS;
use crate::pumps::{STEP_BYTES_MAX, STEP_MESSAGES_MAX};
use crate::reply::Reply;

/// Answers a question; with nothing when it is not understood.
pub(crate) fn answer(node: &Arc<Node>, from: NodeId, request: Bytes) -> BoxFuture<'static, Bytes> {
    let node = Arc::clone(node);
    async move {
        let Some((question, body)) = decode(&request) else {
            let bytes = request.len();
            tracing::warn!(%from, bytes, "a question of another node is not understood");
            return Bytes::new();
        };
        node.answer(from, question, body).await
    }
    .boxed()
}

impl Node {
    async fn answer(&self, from: NodeId, question: Question, body: Bytes) -> Bytes {
        match question {
            Question::Propose { shard, command } => {
                encoded(self.take_order(shard, command, body).await)
            }
            Question::Configure { shard, commands } => {
                encoded(self.take_orders(shard, commands).await)
            }
            Question::Catalogue(command) => encoded(self.take_catalogue_order(command).await),
            Question::Standing => encoded(Ok(self.standing_here().await)),
            Question::HandOver { shard, to } => encoded(self.take_hand_over(shard, to).await),
            Question::Room { shard, queue } => {
                let room = self.ask(shard, move |shard| {
                    shard.queue(queue).map(millrace_engine::Queue::room)
                });
                encoded(room.await)
            }
            Question::Sends { shard, queue } => {
                let sends = self.ask(shard, move |shard| asking::sends(shard, queue));
                encoded(sends.await)
            }
            Question::Read {
                shard,
                partition,
                from,
            } => encoded(self.read_for(shard, partition, from).await),
            Question::Extents { shard, partitions } => {
                encoded(self.extents_for(shard, &partitions))
            }
            Question::Cursors { shard, partitions } => {
                encoded(self.cursors_for(shard, partitions).await)
            }
            Question::Short {
                free_bytes,
                reserve_bytes,
            } => {
                let now = self.host.now();
                self.shortages.note(from, free_bytes, reserve_bytes, now);
                encoded(Ok(()))
            }
            Question::Revision => encoded(self.revision_here().await),
            Question::ReadIndex { shard } => encoded(self.read_index(shard).await),
            Question::Figures { shard, logs } => encoded(self.log_facts_for(shard, logs).await),
            Question::Roster { known } => encoded(self.roster_for(known)),
        }
    }

    async fn take_hand_over(&self, shard: ShardId, to: NodeId) -> Result<(), Refusal> {
        self.check_leads(shard)?;
        self.hand_over_here(shard, to).await
    }

    /// Refuses what has to be asked of the leader.
    pub(crate) fn check_leads(&self, shard: ShardId) -> Result<(), Refusal> {
        match self.led(shard) {
            Led::Here => Ok(()),
            Led::There(node) => Err(not_leader(shard, Some(node))),
            Led::Nobody => Err(not_leader(shard, None)),
        }
    }

    async fn take_order(
        &self,
        shard: ShardId,
        command: Command,
        body: Bytes,
    ) -> Result<Outcome, Refusal> {
        check_body(&command, &body)?;
        self.check_leads(shard)?;
        if !body.is_empty() {
            self.check_serving()?;
            self.check_room_of(shard)?;
        }
        // What came with the question must not stay in memory as long as one of its messages.
        let body = Bytes::copy_from_slice(&body);
        self.start(shard, command, body).answer().await
    }

    /// Orders them in one go: a shard's worker keeps their order.
    async fn take_orders(&self, shard: ShardId, commands: Vec<Command>) -> Result<(), Refusal> {
        self.check_leads(shard)?;
        let (mut pending, count) = (None, commands.len());
        for (at, command) in commands.into_iter().enumerate() {
            if at + 1 < count {
                self.propose(Proposal::silent(shard, command));
                continue;
            }
            let (reply, last) = Reply::channel();
            self.propose(Proposal {
                shard,
                command,
                body: Bytes::new(),
                caller: Caller::Reply(reply),
            });
            pending = Some(last);
        }
        match pending {
            Some(last) => last.answer().await.map(|_| ()),
            None => Ok(()),
        }
    }

    async fn take_catalogue_order(&self, command: CatalogueCommand) -> Result<u64, Refusal> {
        self.check_leads(ShardId::METADATA)?;
        self.propose_catalogue(command).await
    }

    async fn read_for(
        &self,
        shard: ShardId,
        partition: LogId,
        from: Offset,
    ) -> Result<Records, Refusal> {
        self.check_leads(shard)?;
        let bodies = self.bodies(shard)?;
        let extent = self.logs.extent(partition);
        let Some(extent) = extent.filter(|_| self.logs.shard(partition) == Some(shard)) else {
            let text = format!("partition {partition} is not configured yet");
            let refusal = Refusal::new(ErrorCode::ShardUnavailable, text);
            return Err(refusal.retry_after_millis(RETRY_AFTER_MS));
        };
        let extent = extent.borrow().clone();
        let from = from.max(extent.start);
        let limits = Limits {
            messages_max: STEP_MESSAGES_MAX,
            bytes_max: STEP_BYTES_MAX,
        };
        let found = match bodies.range(partition, from, extent.end, limits).await {
            Ok(found) => found,
            // Trimmed meanwhile: who asks again is told where what is left begins.
            Err(ReadError::Discarded { .. }) => Vec::new(),
            Err(error) => return Err(bodies.unreadable(&error)),
        };
        let messages = found.into_iter();
        let messages = messages.map(|record| (record.offset, record.message.to_vec()));
        Ok(Records {
            first: extent.start,
            end: extent.end,
            messages: messages.collect(),
        })
    }

    /// As its own catalogue has it: what it was told itself may be old.
    fn roster_for(&self, known: u64) -> Result<Option<Roster>, Refusal> {
        let view = self.view.borrow().clone();
        view.topology()?;
        let own = view.roster();
        Ok((own.revision() > known).then(|| Roster::clone(own)))
    }

    fn extents_for(
        &self,
        shard: ShardId,
        partitions: &[LogId],
    ) -> Result<Vec<Option<Extent>>, Refusal> {
        self.check_leads(shard)?;
        let extent = |log: &LogId| {
            let extent = self.logs.extent(*log)?;
            (self.logs.shard(*log) == Some(shard)).then(|| extent.borrow().clone())
        };
        Ok(partitions.iter().map(extent).collect())
    }

    async fn cursors_for(
        &self,
        shard: ShardId,
        partitions: Vec<LogId>,
    ) -> Result<Cursors, Refusal> {
        self.check_leads(shard)?;
        // First: what is configured by then is among the cursors.
        let configured = self.ask(shard, millrace_engine::Shard::configured_revision);
        let revision = configured.await?;
        let lowest = partitions.into_iter();
        let lowest = lowest.map(|log| self.logs.lowest_cursor_of(log, shard));
        Ok(Cursors {
            revision,
            lowest: lowest.collect(),
        })
    }
}

/// The engine and the store take a command's word for what its records are.
fn check_body(command: &Command, body: &[u8]) -> Result<(), Refusal> {
    let batch = match command {
        Command::Transfer { batch, .. } => batch.as_ref(),
        Command::Publish { batch, .. } | Command::AcceptDead { batch, .. } => Some(batch),
        _ => None,
    };
    let is_sound = match batch {
        None => body.is_empty(),
        Some(batch) => {
            (1..=BATCH_MESSAGES_MAX).contains(&batch.count)
                && batch.bytes == body.len() as u64
                && records::check(body, batch.count).is_ok()
        }
    };
    if is_sound {
        return Ok(());
    }
    let message = "the records are not what the command says of them";
    Err(Refusal::new(ErrorCode::InvalidArgument, message))
}

fn encoded<T: Serialize>(answer: Result<T, Refusal>) -> Bytes {
    encode_answer(&answer)
}

#[cfg(test)]
mod tests {
    use millrace_engine::command::BatchHeader;

    use super::*;

    #[test]
    fn records_that_are_not_what_their_command_says_are_refused() {
        let mut body = Vec::new();
        records::push_record(&mut body, b"letter");
        let accept = |count, bytes: usize| Command::AcceptDead {
            queue: LogId::new(1),
            source: LogId::new(2),
            number: 1,
            batch: BatchHeader {
                count,
                bytes: bytes as u64,
            },
        };
        let whole = body.len();
        check_body(&accept(1, whole), &body).unwrap();
        check_body(&Command::Tick, &[]).unwrap();
        for (command, body) in [
            (accept(2, whole), &body[..]),
            (accept(0, 0), &[]),
            (accept(1, whole + 1), &body),
            (accept(1, whole - 1), &body[..whole - 1]),
            (Command::Tick, &body),
        ] {
            let refusal = check_body(&command, body).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::InvalidArgument);
        }
    }
}
