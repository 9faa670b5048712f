//! Publishing: where a batch goes, whether it may, and what came of it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_engine::command::{BatchHeader, Command, DedupId};
use millrace_storage::records;
use millrace_types::{
    Address, BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, ErrorCode, LogId, Refusal, ShardId,
};

use super::Broker;
use crate::api::{Acknowledge, Acknowledged, Batch, PublishOptions};
use crate::gate::Permit;
use crate::input::{Caller, Proposal, Published, Publishing};
use crate::node::unanswered;
use crate::options::{ANSWER_WAIT_MAX, CROWDED_WAIT, PUBLISH_LOOK, PUBLISH_WAIT_MAX};
use crate::reply::{Pending, Reply};
use crate::view::{CatalogueView, Object, ObjectKind};

/// What came of each batch, in their order.
type Results = Vec<Result<Acknowledged, Refusal>>;

/// One result for each batch, in their order.
pub struct PublishFuture(Pin<Box<dyn Future<Output = Results> + Send>>);

impl Future for PublishFuture {
    type Output = Results;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

/// A batch that is as it should be.
struct Checked {
    partition: u32,
    shard: ShardId,
    log: LogId,
    batch: Batch,
}

/// A batch on its way.
struct Sent {
    partition: u32,
    pending: Pending<Published>,
}

impl Broker {
    /// Publishes batches; each is decided on its own. They are on their way when this returns: two
    /// calls one after the other keep their order for one queue or partition, without waiting.
    /// Dropping the future does not take them back.
    pub fn publish(&self, address: &Address, batches: Vec<Batch>) -> PublishFuture {
        let options = PublishOptions::default();
        let view = self.node.view.borrow().clone();
        let sent = batches.into_iter().map(|batch| {
            let checked = self.check(&view, address, batch)?;
            let permit = self.admit(&checked)?;
            Ok(self.send(checked, permit, options.acknowledge))
        });
        let until = self.node.host.now() + options.answer_within;
        self.answers(address, sent.collect(), until)
    }

    /// The same, at the pace at which the node gets room: waits a moment while memory is getting
    /// short, and up to `patience` instead of being refused as overloaded. The batches are on their
    /// way, or refused, when this is ready.
    pub async fn publish_paced(
        &self,
        address: &Address,
        batches: Vec<Batch>,
        options: PublishOptions,
    ) -> PublishFuture {
        let view = self.node.view.borrow().clone();
        let host = &self.node.host;
        let start = host.now();
        let bytes = batches.iter().map(|batch| batch.records.len() as u64);
        let seat = self.node.lobby.enter(bytes.sum());
        // Who has no place to wait in does not.
        let patience = seat.as_ref().map_or(Duration::ZERO, |_| options.patience);
        let until = start + patience.min(PUBLISH_WAIT_MAX);
        let slowed = (start + CROWDED_WAIT).min(until);
        while host.now() < slowed && self.node.is_crowded() {
            host.sleep(PUBLISH_LOOK).await;
        }
        let mut sent = Vec::with_capacity(batches.len());
        for batch in batches {
            sent.push(match self.check(&view, address, batch) {
                Ok(checked) => self
                    .admit_in_time(&checked, until)
                    .await
                    .map(|permit| self.send(checked, permit, options.acknowledge)),
                Err(refusal) => Err(refusal),
            });
        }
        drop(seat);
        let until = start + options.answer_within.min(ANSWER_WAIT_MAX);
        self.answers(address, sent, until)
    }

    /// Decides where a batch goes: its shard and partition. Publishing it keeps to that.
    ///
    /// # Errors
    /// `NO_SUCH_QUEUE`, `NO_SUCH_TOPIC`, `NO_SUCH_PARTITION`, `SHARD_UNAVAILABLE`.
    pub fn aim(&self, address: &Address, batch: &mut Batch) -> Result<(ShardId, u32), Refusal> {
        let view = self.node.view.borrow().clone();
        let object = view.require(address)?;
        let (partition, shard, _) = self.place(address, &object, batch)?;
        batch.partition = Some(partition);
        Ok((shard, partition))
    }

    fn answers(
        &self,
        address: &Address,
        sent: Vec<Result<Sent, Refusal>>,
        until: Instant,
    ) -> PublishFuture {
        let refused = |refusal| self.node.figures.refused(refusal);
        let sent: Vec<_> = sent.into_iter().map(|sent| sent.map_err(refused)).collect();
        let (broker, address) = (self.clone(), address.clone());
        PublishFuture(Box::pin(async move {
            let host = &broker.node.host;
            let left = until.saturating_duration_since(host.now());
            let mut late = pin!(host.sleep(left));
            let mut is_late = false;
            let mut results = Vec::with_capacity(sent.len());
            for sent in sent {
                let sent = match sent {
                    Ok(sent) => sent,
                    Err(refusal) => {
                        results.push(Err(refusal));
                        continue;
                    }
                };
                let partition = sent.partition;
                let answer = tokio::select! {
                    biased;
                    answer = sent.pending.answer() => answer,
                    () = &mut late, if !is_late => {
                        is_late = true;
                        Err(unanswered())
                    }
                    () = std::future::ready(()), if is_late => Err(unanswered()),
                };
                results.push(broker.acknowledged(&address, partition, answer));
            }
            results
        }))
    }

    fn check(
        &self,
        view: &CatalogueView,
        address: &Address,
        batch: Batch,
    ) -> Result<Checked, Refusal> {
        let object = view.require(address)?;
        let (partition, shard, log) = self.place(address, &object, &batch)?;
        check(address, &object, &batch)?;
        Ok(Checked {
            partition,
            shard,
            log,
            batch,
        })
    }

    fn admit(&self, checked: &Checked) -> Result<Permit, Refusal> {
        let bytes = checked.batch.records.len() as u64;
        self.node.admit(checked.shard, bytes)
    }

    async fn admit_in_time(&self, checked: &Checked, until: Instant) -> Result<Permit, Refusal> {
        let host = &self.node.host;
        loop {
            match self.admit(checked) {
                Err(refusal) if refusal.code == ErrorCode::Overloaded && host.now() < until => {
                    host.sleep(PUBLISH_LOOK).await;
                }
                decided => return decided,
            }
        }
    }

    fn send(&self, checked: Checked, permit: Permit, acknowledge: Acknowledge) -> Sent {
        let Checked {
            partition,
            shard,
            log,
            batch,
        } = checked;
        let (reply, pending) = Reply::channel();
        let batch_header = BatchHeader {
            count: batch.count,
            bytes: batch.records.len() as u64,
        };
        // The caller's may be a slice of whatever came in with it, and all of that would stay in
        // memory as long as one of the messages.
        let body = Bytes::copy_from_slice(&batch.records);
        self.node.propose(Proposal {
            shard,
            command: Command::Publish {
                log,
                batch: batch_header,
                dedup: batch.dedup,
            },
            body,
            caller: Caller::Publisher(Publishing {
                reply,
                acknowledge,
                _permit: permit,
            }),
        });
        Sent { partition, pending }
    }

    fn place(
        &self,
        address: &Address,
        object: &Object<'_>,
        batch: &Batch,
    ) -> Result<(u32, ShardId, LogId), Refusal> {
        let no_partition = |partition: u32, partitions: usize| {
            Refusal::new(
                ErrorCode::NoSuchPartition,
                format!("{address} has {partitions} partitions, none is number {partition}"),
            )
            .with("address", address.to_string())
        };
        match object.kind {
            ObjectKind::Queue { shard, log, .. } => match batch.partition {
                None | Some(0) => Ok((0, shard, log)),
                Some(partition) => Err(no_partition(partition, 1)),
            },
            ObjectKind::Topic { partitions } => {
                let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX).max(1);
                let partition = match (batch.partition, &batch.dedup) {
                    (Some(partition), _) => partition,
                    (None, Some(dedup)) => partition_of(&dedup.id, count),
                    (None, None) => self.node.spread.fetch_add(1, Ordering::Relaxed) % count,
                };
                let place = usize::try_from(partition)
                    .ok()
                    .and_then(|at| partitions.get(at));
                let (shard, log) =
                    place.ok_or_else(|| no_partition(partition, partitions.len()))?;
                Ok((partition, *shard, *log))
            }
        }
    }

    fn acknowledged(
        &self,
        address: &Address,
        partition: u32,
        answer: Result<Published, Refusal>,
    ) -> Result<Acknowledged, Refusal> {
        match answer {
            Ok(Published { taken, replicas }) => Ok(Acknowledged {
                partition,
                taken,
                replicas,
            }),
            Err(refusal) => Err(self.unconfigured(address, refusal)),
        }
    }
}

impl Default for PublishOptions {
    /// Waits for no room, and as long as may be for an answer that is synced.
    fn default() -> Self {
        Self {
            patience: Duration::ZERO,
            answer_within: ANSWER_WAIT_MAX,
            acknowledge: Acknowledge::Synced,
        }
    }
}

/// The partition of a batch without a key: the same for each attempt, another for the next batch.
fn partition_of(id: &DedupId, partitions: u32) -> u32 {
    let place = match id {
        DedupId::Message(key) => key.spread(),
        DedupId::Batch {
            producer, sequence, ..
        } => producer.spread().wrapping_add(*sequence),
    };
    u32::try_from(place % u64::from(partitions)).unwrap_or(0)
}

/// Checks the batch's split into messages and their sizes.
fn check(address: &Address, object: &Object<'_>, batch: &Batch) -> Result<(), Refusal> {
    let invalid = |message: String| {
        Refusal::new(ErrorCode::InvalidArgument, message).with("address", address.to_string())
    };
    if batch.count == 0 || batch.count > BATCH_MESSAGES_MAX {
        let count = batch.count;
        return Err(invalid(format!(
            "a batch has 1..={BATCH_MESSAGES_MAX} messages, not {count}"
        )));
    }
    // Sizes first: who sends one message that is too large wants to hear of the message's limit.
    let limit = object.message_bytes_max;
    let mut found = 0_u32;
    for record in records::split(batch.records.clone()) {
        let record: Bytes = record.map_err(|error| invalid(error.to_string()))?;
        if record.len() as u64 > u64::from(limit) {
            return Err(too_large(address, limit, record.len()));
        }
        found = found.saturating_add(1);
    }
    if found != batch.count {
        let count = batch.count;
        return Err(invalid(format!(
            "the batch holds {found} messages, not {count}"
        )));
    }
    if batch.records.len() as u64 > u64::from(BATCH_BYTES_MAX) {
        let bytes = batch.records.len();
        return Err(invalid(format!(
            "a batch has at most {BATCH_BYTES_MAX} bytes, not {bytes}"
        )));
    }
    Ok(())
}

fn too_large(address: &Address, limit: u32, actual: usize) -> Refusal {
    Refusal::new(
        ErrorCode::MessageTooLarge,
        format!("{address} takes messages of at most {limit} bytes, this one has {actual}"),
    )
    .with("address", address.to_string())
    .with("limit", limit.to_string())
    .with("actual", actual.to_string())
}
