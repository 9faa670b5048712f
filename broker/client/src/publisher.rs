//! Publishes to one queue or topic: pipelined, batched by itself, within the server's credit.
//!
//! Promises: a message is acknowledged only when the server said so. One whose outcome was lost is
//! sent again until it is known, with the number that the server knows it by, so that it is stored
//! once. One that cannot be decided in time is reported, as `Applied::Unknown` when it may have
//! happened. Order is kept, except for messages the server refused for now and took later.

mod batch;
mod driver;
mod producer;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use millrace_proto::v1::{self, Message};
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tonic::Code;

use self::batch::Item;
use self::driver::Driver;
use crate::client::Client;
use crate::error::{Applied, Error};
use crate::message::record;
use crate::task;

/// No server takes a larger message.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// What a waiting message costs besides its bytes: its answer, its place in a batch.
const ITEM_BYTES: usize = 256;

/// How a publisher behaves.
#[derive(Clone, Debug)]
pub struct PublisherOptions {
    /// Make batches known to the server, so that one that is sent again is stored once.
    pub dedup: bool,
    /// Send a message again when its outcome was lost, instead of reporting it; without `dedup`, it
    /// may then be stored more than once.
    pub retry_unknown: bool,
    /// What an acknowledgement has to guarantee at least.
    pub acknowledge: Durability,
    /// Report a message that could not be decided for this long; `None` tries for ever.
    pub give_up_after: Option<Duration>,
    /// Memory for messages that are not decided yet; `send` waits when it is used up.
    pub buffer_bytes_max: u32,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            dedup: true,
            retry_unknown: true,
            acknowledge: Durability::MajoritySynced,
            give_up_after: Some(Duration::from_secs(60)),
            buffer_bytes_max: 32 << 20,
        }
    }
}

/// What an acknowledgement guarantees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A majority of the shard's replicas has it on disk.
    MajoritySynced,
    /// The shard's leader has it in memory, in its order. It may still be lost with the leader, or
    /// refused in its turn, and nobody is told.
    Received,
}

impl Durability {
    const fn wire(self) -> v1::Acknowledge {
        match self {
            Self::MajoritySynced => v1::Acknowledge::Unspecified,
            Self::Received => v1::Acknowledge::OnReceipt,
        }
    }
}

/// Where a message is, and what is guaranteed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Partition of a topic; 0 for a queue.
    pub partition: u32,
    /// Its place there; `None` when it has none yet (`Durability::Received`).
    pub offset: Option<u64>,
    /// What it really is.
    pub durability: Durability,
    /// Voting replicas of the shard.
    pub replicas: u32,
    /// It was stored before, by an earlier attempt.
    pub duplicate: bool,
}

/// Sends messages to one address. Clones share the stream. When all are dropped, what was taken is
/// still sent as long as the connection holds.
#[derive(Clone, Debug)]
pub struct Publisher {
    inbox: mpsc::UnboundedSender<Item>,
    room: Arc<Semaphore>,
    room_bytes: u32,
    is_topic: bool,
}

impl Publisher {
    pub(crate) fn new(client: Client, address: String, options: PublisherOptions) -> Self {
        // The inbox is bounded by `room`: nothing enters it without having taken its bytes there.
        let (inbox, items) = mpsc::unbounded_channel();
        let room_bytes = options.buffer_bytes_max.max(1);
        let room = Arc::new(Semaphore::new(room_bytes as usize));
        let is_topic = address.starts_with("topic/");
        task::spawn(Driver::new(client, address, options, items, room.clone()).run());
        Self {
            inbox,
            room,
            room_bytes,
            is_topic,
        }
    }

    /// Hands a message over, waiting while the buffer is full, and returns a handle to its
    /// acknowledgement. The message is sent whether or not the handle is awaited.
    ///
    /// # Errors
    /// The message is larger than any server takes.
    pub async fn send(&self, message: &Message) -> Result<Pending, Error> {
        let bytes = message.encoded_len();
        if bytes > MESSAGE_BYTES_MAX {
            let text = format!("message of {bytes} bytes exceeds the limit of {MESSAGE_BYTES_MAX}");
            let code = Code::InvalidArgument;
            return Err(Error::local("MESSAGE_TOO_LARGE", code, Applied::No, text));
        }
        let cost = u32::try_from(bytes + ITEM_BYTES).unwrap_or(u32::MAX);
        let cost = cost.min(self.room_bytes);
        let permit = self.room.acquire_many(cost).await;
        permit.map_err(|_| Error::closed(Applied::No))?.forget();
        let (answer, decided) = oneshot::channel();
        let item = Item {
            number: 0,
            record: record(message),
            // Only a topic's batches have to agree on a key: it chooses the partition.
            key: if self.is_topic {
                message.key.clone()
            } else {
                String::new()
            },
            cost,
            since: Instant::now(),
            alone: false,
            named: !message.dedup_id.is_empty(),
            answer,
        };
        let sent = self.inbox.send(item);
        sent.map_err(|_| Error::closed(Applied::No))?;
        Ok(Pending(decided))
    }

    /// Sends a message and waits until it is acknowledged.
    ///
    /// # Errors
    /// It was refused, or its outcome is not known: see `Error::applied`.
    pub async fn publish(&self, message: Message) -> Result<Ack, Error> {
        self.send(&message).await?.await
    }

    /// Waits until everything handed over so far is decided. Messages handed over meanwhile wait.
    pub async fn flush(&self) {
        drop(self.room.acquire_many(self.room_bytes).await);
    }
}

/// The outcome of a message, once it is decided.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Ack, Error>>);

impl Future for Pending {
    type Output = Result<Ack, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|decided| decided.unwrap_or_else(|_| Err(Error::closed(Applied::Unknown))))
    }
}
