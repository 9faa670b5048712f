//! The handle that services work with. Cheap to clone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use millrace_types::{Address, ErrorCode, Offset, Refusal};
use tokio::sync::watch;

use super::api::{
    Acknowledged, Batch, Delivered, OpenConsumer, Peek, PeekAnswer, Read, ReadAnswer, Receive,
    SettleTag,
};
use super::consumer::{Consumer, ConsumerEvents};
use super::facts::{Admission, Description, List, Listed, Metadata, Stats};
use super::options::{CoreOptions, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_ENTRIES_MAX, StartError};
use super::view::CatalogueView;

/// The running core of the broker.
#[derive(Clone, Debug)]
pub struct Broker {
    view: watch::Receiver<Arc<CatalogueView>>,
}

/// Why the core stopped by itself; the process must end with exit code 70.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// One result for each batch, in their order.
pub struct PublishFuture(Pin<Box<dyn Future<Output = Vec<Result<Acknowledged, Refusal>>> + Send>>);

impl Future for PublishFuture {
    type Output = Vec<Result<Acknowledged, Refusal>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

fn unbuilt<T>() -> Result<T, Refusal> {
    Err(Refusal::new(
        ErrorCode::ShardUnavailable,
        "the core is being built",
    ))
}

impl Broker {
    /// Opens the data directory, replays it and starts the threads. Blocks on the disk; must be
    /// called inside a tokio runtime, whose blocking pool it uses for reads.
    ///
    /// # Errors
    /// When the directory is another cluster's, locked, damaged beyond one shard, of a newer
    /// version; when a thread cannot be started.
    pub fn start(_options: CoreOptions) -> Result<Self, StartError> {
        let (_sender, view) = watch::channel(Arc::default());
        Ok(Self { view })
    }

    /// Publishes batches; each is decided on its own. They are on their way when this returns: two
    /// calls one after the other keep their order for one queue or partition, without waiting.
    /// Dropping the future does not take them back.
    pub fn publish(&self, _address: &Address, batches: Vec<Batch>) -> PublishFuture {
        PublishFuture(Box::pin(async move {
            batches.iter().map(|_| unbuilt()).collect()
        }))
    }

    /// The catalogue, and a way to wait for its next change.
    #[must_use]
    pub fn catalogue(&self) -> watch::Receiver<Arc<CatalogueView>> {
        self.view.clone()
    }

    /// Takes messages from a queue, waiting for the first one; none is no error.
    ///
    /// # Errors
    /// The refusal.
    pub async fn receive(&self, _receive: Receive) -> Result<Vec<Delivered>, Refusal> {
        unbuilt()
    }

    /// Ends leases, one result for each tag in order. With an address, tags of other queues are
    /// `INVALID_TAG`.
    pub async fn settle(
        &self,
        _address: Option<&Address>,
        tags: Vec<SettleTag>,
    ) -> Vec<Result<(), Refusal>> {
        tags.iter().map(|_| unbuilt()).collect()
    }

    /// Opens or resumes a session.
    ///
    /// # Errors
    /// The refusal; `SESSION_EXPIRED` when a session to resume is gone.
    pub async fn open_consumer(
        &self,
        _open: OpenConsumer,
    ) -> Result<(Consumer, ConsumerEvents), Refusal> {
        unbuilt()
    }

    /// Shows messages of a queue without taking them.
    ///
    /// # Errors
    /// The refusal.
    pub async fn peek(&self, _peek: Peek) -> Result<PeekAnswer, Refusal> {
        unbuilt()
    }

    /// Reads a partition once; nothing there is no error.
    ///
    /// # Errors
    /// The refusal.
    pub async fn read(&self, _read: Read) -> Result<ReadAnswer, Refusal> {
        unbuilt()
    }

    /// Waits until the partition holds a message at `beyond` or later: its end is above `beyond`.
    ///
    /// # Errors
    /// The refusal; also when the partition is removed meanwhile or the node drains.
    pub async fn wait_for(
        &self,
        _address: &Address,
        _partition: u32,
        _beyond: Offset,
    ) -> Result<(), Refusal> {
        unbuilt()
    }

    /// Who this cluster is and which topology it has.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE`.
    pub async fn metadata(&self) -> Result<Metadata, Refusal> {
        unbuilt()
    }

    /// A page of what is declared or kept.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub async fn list(&self, _list: List) -> Result<Listed, Refusal> {
        unbuilt()
    }

    /// One queue or topic in full.
    ///
    /// # Errors
    /// `NO_SUCH_QUEUE`, `NO_SUCH_TOPIC`, `SHARD_UNAVAILABLE`.
    pub async fn describe(&self, _address: &Address) -> Result<Description, Refusal> {
        unbuilt()
    }

    /// Figures for metrics.
    pub async fn stats(&self) -> Stats {
        Stats::default()
    }

    /// How much publishers may have under way.
    #[must_use]
    pub const fn admission(&self) -> Admission {
        Admission {
            messages_max: IN_FLIGHT_ENTRIES_MAX,
            bytes_max: IN_FLIGHT_BYTES_MAX,
        }
    }

    /// Refuses new work with `DRAINING` from now on and tells consumers; settling goes on.
    pub fn begin_drain(&self) {}

    /// Resolves when the drain has begun.
    pub async fn draining(&self) {
        std::future::pending().await
    }

    /// Begins the drain if that has not happened, lets what is in flight finish, makes a checkpoint
    /// and ends the threads. Afterwards everything is refused.
    pub async fn drain(&self) {}

    /// Resolves when the core has failed: the disk could not be written. Never resolves otherwise.
    pub async fn failed(&self) -> Failure {
        std::future::pending().await
    }
}
