//! Questions about a shard's state that must not miss anything acknowledged before, whichever
//! replica this node has. Every wait has an end.

use std::time::Duration;

use millrace_engine::Shard;
use millrace_types::{ErrorCode, LogIndex, NodeId, Refusal, ShardId};

use super::Question as Asked;
use crate::input::{Input, Question};
use crate::leaders::Led;
use crate::node::{Node, not_leader};
use crate::options::{READ_WAIT_MAX, RETRY_AFTER_MS};
use crate::reply::{Pending, Reply};

impl Node {
    /// Asks a data shard, as of what is committed now; the question must be short.
    ///
    /// # Errors
    /// `NOT_LEADER` or `SHARD_UNAVAILABLE`, to be tried again, when that cannot be known in about
    /// the time that an election takes.
    pub(crate) async fn ask_current<T: Send + 'static>(
        &self,
        shard: ShardId,
        question: impl FnOnce(&Shard) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let late = self.host.sleep(READ_WAIT_MAX);
        let answer = async {
            match self.led(shard) {
                Led::There(node) => self.ask_behind(node, shard, question).await,
                Led::Here | Led::Nobody => {
                    let (asked, answer) = pair(question);
                    self.slot(shard)?
                        .inbox
                        .send(Input::AskCurrent(shard, asked));
                    answer.answer().await
                }
            }
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = late => Err(unsure(shard, READ_WAIT_MAX)),
        }
    }

    /// Asks this node's replica of a shard that another node leads.
    async fn ask_behind<T: Send + 'static>(
        &self,
        node: NodeId,
        shard: ShardId,
        question: impl FnOnce(&Shard) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        if !self.hosts(shard) {
            return Err(not_leader(shard, Some(node)));
        }
        let index: u64 = self
            .ask_of(node, shard, &Asked::ReadIndex { shard }, &[])
            .await
            .map_err(harmless)?;
        let (asked, answer) = pair(question);
        let index = LogIndex::new(index);
        self.slot(shard)?
            .inbox
            .send(Input::AskApplied(shard, index, asked));
        answer.answer().await
    }

    /// The topology's revision by what is committed now, of who leads the metadata shard.
    ///
    /// # Errors
    /// When this node does not, or cannot make sure that it does.
    pub(crate) async fn revision_here(&self) -> Result<u64, Refusal> {
        self.check_leads(ShardId::METADATA)?;
        let (reply, revision) = Reply::channel();
        self.slot(ShardId::METADATA)?
            .inbox
            .send(Input::AskRevision(reply));
        let late = self.host.sleep(READ_WAIT_MAX);
        tokio::select! {
            biased;
            revision = revision.answer() => revision,
            () = late => Err(unsure(ShardId::METADATA, READ_WAIT_MAX)),
        }
    }

    /// The same, of another node.
    ///
    /// # Errors
    /// When that does not lead it, or cannot be asked.
    pub(crate) async fn revision_of(&self, node: NodeId) -> Result<u64, Refusal> {
        let asked = self.ask_of(node, ShardId::METADATA, &Asked::Revision, &[]);
        asked.await.map_err(harmless)
    }

    /// What has to be applied by who answers questions now.
    ///
    /// # Errors
    /// When this node does not lead the shard, or cannot make sure that it does.
    pub(super) async fn read_index(&self, shard: ShardId) -> Result<u64, Refusal> {
        self.check_leads(shard)?;
        self.ask_current(shard, |shard| shard.applied().get()).await
    }
}

/// A question, and the way to its answer.
fn pair<T: Send + 'static>(
    question: impl FnOnce(&Shard) -> T + Send + 'static,
) -> (Question, Pending<T>) {
    let (reply, pending) = Reply::channel();
    let asked = move |shard: Result<&Shard, Refusal>| reply.answer(shard.map(question));
    (Box::new(asked), pending)
}

/// A question changes nothing, whether it was answered or not.
fn harmless(refusal: Refusal) -> Refusal {
    Refusal {
        applied: millrace_types::Applied::No,
        ..refusal
    }
}

/// A question that nobody could be asked in time.
pub(crate) fn unsure(shard: ShardId, waited: Duration) -> Refusal {
    let text = format!("nobody could be asked within {waited:?} what shard {shard} holds now");
    Refusal::new(ErrorCode::ShardUnavailable, text)
        .with("shard", shard.to_string())
        .retry_after_millis(RETRY_AFTER_MS)
}
