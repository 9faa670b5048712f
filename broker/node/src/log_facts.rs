//! Figures of queues and partitions by their logs: of shards that have a replica here from that, of
//! others from their leaders. Every wait has an end.

use std::time::Duration;

use millrace_engine::Shard;
use millrace_engine::outcome::QueueStats;
use millrace_types::{ErrorCode, LogId, Refusal, ShardId};
use serde::{Deserialize, Serialize};

use super::calls::Question;
use super::facts::PartitionFacts;
use super::node::Node;
use super::options::{READ_WAIT_MAX, RETRY_AFTER_MS};

/// Logs that a shard is asked about at a time: a fraction of a millisecond on its thread.
pub(super) const LOGS_SLICE: usize = 1_000;
/// Nodes that are asked for a shard's leader: the one that is known, and the one it knows.
const ASKED_MAX: usize = 2;

/// Figures of one log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LogFacts {
    /// Of a queue.
    Queue(QueueStats),
    /// Of a topic's partition.
    Partition(PartitionFacts),
}

/// Figures, with whose they are.
pub(super) type LogFactsOf = Vec<(LogId, LogFacts)>;

/// Of those logs that a shard knows.
pub(super) fn of(shard: &Shard, logs: &[LogId]) -> LogFactsOf {
    let facts = |log: &LogId| Some((*log, of_log(shard, *log)?));
    logs.iter().filter_map(facts).collect()
}

fn of_log(shard: &Shard, log: LogId) -> Option<LogFacts> {
    if let Some(queue) = shard.queue(log) {
        return Some(LogFacts::Queue(queue.stats()));
    }
    let partition = shard.partition(log)?;
    Some(LogFacts::Partition(PartitionFacts {
        partition: partition.partition(),
        shard: shard.id(),
        offsets: partition.first()..partition.end(),
        bytes: partition.bytes(),
        oldest: partition.oldest(),
    }))
}

impl Node {
    /// Of at most `LOGS_SLICE` logs, as of everything acknowledged before. Of a shard that is
    /// damaged here and that nobody else leads there are none.
    ///
    /// # Errors
    /// When that cannot be known in about the time that an election takes.
    pub(super) async fn log_facts(
        &self,
        shard: ShardId,
        logs: Vec<LogId>,
    ) -> Result<LogFactsOf, Refusal> {
        if self.hosts(shard) {
            return self.ask_current(shard, move |shard| of(shard, &logs)).await;
        }
        let late = self.host.sleep(READ_WAIT_MAX);
        let facts = tokio::select! {
            biased;
            facts = self.log_facts_there(shard, logs) => facts,
            () = late => Err(nobody(shard, READ_WAIT_MAX)),
        };
        let is_damaged = || self.slot_at_all(shard).damage().is_some();
        match facts {
            Err(refusal) if refusal.code == ErrorCode::NotLeader && is_damaged() => Ok(Vec::new()),
            facts => facts,
        }
    }

    async fn log_facts_there(
        &self,
        shard: ShardId,
        logs: Vec<LogId>,
    ) -> Result<LogFactsOf, Refusal> {
        let question = Question::Figures { shard, logs };
        let mut asked = 0;
        loop {
            let node = self.leader_of(shard)?;
            asked += 1;
            match self.ask_of(node, shard, &question, &[]).await {
                Err(refusal) if refusal.code == ErrorCode::NotLeader && asked < ASKED_MAX => {}
                answer => return answer,
            }
        }
    }

    /// Answers the same for another node.
    ///
    /// # Errors
    /// When this node does not lead the shard, or cannot make sure that it does.
    pub(super) async fn log_facts_for(
        &self,
        shard: ShardId,
        logs: Vec<LogId>,
    ) -> Result<LogFactsOf, Refusal> {
        self.check_leads(shard)?;
        if logs.len() > LOGS_SLICE {
            let text = format!("at most {LOGS_SLICE} logs are looked at at a time");
            return Err(Refusal::new(ErrorCode::InvalidArgument, text));
        }
        self.ask_current(shard, move |shard| of(shard, &logs)).await
    }
}

fn nobody(shard: ShardId, waited: Duration) -> Refusal {
    let text = format!("nobody could be asked within {waited:?} what shard {shard} holds");
    Refusal::new(ErrorCode::ShardUnavailable, text)
        .with("shard", shard.to_string())
        .retry_after_millis(RETRY_AFTER_MS)
}
