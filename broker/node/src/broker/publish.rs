//! Publishing: where a batch goes, whether it may, and what came of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use millrace_engine::command::{BatchHeader, Command};
use millrace_engine::outcome::Outcome;
use millrace_storage::records;
use millrace_types::{
    Address, BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, ErrorCode, LogId, Refusal, ShardId,
};

use super::Broker;
use crate::api::{Acknowledged, Batch};
use crate::input::{Caller, Proposal};
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

/// A batch on its way.
struct Sent {
    partition: u32,
    pending: Pending<Outcome>,
}

impl Broker {
    /// Publishes batches; each is decided on its own. They are on their way when this returns: two
    /// calls one after the other keep their order for one queue or partition, without waiting.
    /// Dropping the future does not take them back.
    pub fn publish(&self, address: &Address, batches: Vec<Batch>) -> PublishFuture {
        let view = self.node.view.borrow().clone();
        let sent: Vec<Result<Sent, Refusal>> = batches
            .into_iter()
            .map(|batch| {
                self.send(&view, address, batch)
                    .map_err(|refusal| self.node.figures.refused(refusal))
            })
            .collect();
        let (broker, address) = (self.clone(), address.clone());
        PublishFuture(Box::pin(async move {
            let mut results = Vec::with_capacity(sent.len());
            for sent in sent {
                results.push(match sent {
                    Ok(sent) => broker.acknowledge(&address, sent).await,
                    Err(refusal) => Err(refusal),
                });
            }
            results
        }))
    }

    fn send(&self, view: &CatalogueView, address: &Address, batch: Batch) -> Result<Sent, Refusal> {
        let object = view.require(address)?;
        let (partition, shard, log) = self.place(address, &object, batch.partition)?;
        check(address, &object, &batch)?;
        let bytes = batch.records.len() as u64;
        let permit = self.node.admit(shard, bytes)?;
        let (reply, pending) = Reply::channel();
        let batch_header = BatchHeader {
            count: batch.count,
            bytes,
        };
        // The caller's may be a slice of whatever came in with it, and all of that would stay in
        // memory as long as one of the messages.
        let body = Bytes::copy_from_slice(&batch.records);
        self.node.propose(Proposal {
            shard,
            command: Command::Publish {
                log,
                batch: batch_header,
            },
            body,
            caller: Caller::Publisher(reply, permit),
        });
        Ok(Sent { partition, pending })
    }

    fn place(
        &self,
        address: &Address,
        object: &Object<'_>,
        wanted: Option<u32>,
    ) -> Result<(u32, ShardId, LogId), Refusal> {
        let no_partition = |partition: u32, partitions: usize| {
            Refusal::new(
                ErrorCode::NoSuchPartition,
                format!("{address} has {partitions} partitions, none is number {partition}"),
            )
            .with("address", address.to_string())
        };
        match object.kind {
            ObjectKind::Queue { shard, log, .. } => match wanted {
                None | Some(0) => Ok((0, shard, log)),
                Some(partition) => Err(no_partition(partition, 1)),
            },
            ObjectKind::Topic { partitions } => {
                let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX).max(1);
                let partition = wanted
                    .unwrap_or_else(|| self.node.spread.fetch_add(1, Ordering::Relaxed) % count);
                let place = usize::try_from(partition)
                    .ok()
                    .and_then(|at| partitions.get(at));
                let (shard, log) =
                    place.ok_or_else(|| no_partition(partition, partitions.len()))?;
                Ok((partition, *shard, *log))
            }
        }
    }

    async fn acknowledge(&self, address: &Address, sent: Sent) -> Result<Acknowledged, Refusal> {
        match sent.pending.answer().await {
            Ok(Outcome::Appended(offsets)) => Ok(Acknowledged {
                partition: sent.partition,
                offsets,
            }),
            Ok(other) => Err(Refusal::new(
                ErrorCode::Internal,
                format!("publishing to {address} was answered with {other:?}"),
            )
            .unknown()),
            Err(refusal) => Err(self.unconfigured(address, refusal)),
        }
    }
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
