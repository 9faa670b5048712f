//! Consumes a queue in a session that survives lost connections.
//!
//! Promises: a delivery is handed out once per lease; what the consumer holds stays its own across
//! a reconnect, as long as the session lives on the server. A settlement is confirmed only when the
//! server said so; one whose answer was lost is sent again, and if the lease is over by then, the
//! error says `Applied::Unknown`. A delivery that is dropped without being settled comes back when
//! its lease runs out.

mod driver;
mod settlements;

use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use self::driver::{Command, Driver};
use crate::client::Client;
use crate::error::{Applied, Error};
use crate::queue::{Received, Settle};
use crate::task;

/// How a consumer behaves.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// For people: shown in `describe`.
    pub name: String,
    /// Most messages leased at once; 0 takes the queue's limit.
    pub in_flight_max: u32,
    /// Most bytes leased at once; 0 takes the queue's limit.
    pub in_flight_bytes_max: u64,
    /// Messages that may wait here for `next`.
    pub prefetch_messages: u32,
    /// Bytes that may wait here for `next`; one message may exceed it.
    pub prefetch_bytes: u64,
    /// Ask for no more than this many messages in all.
    pub messages_max: Option<u64>,
    /// End with an error when the server could not be reached for this long; `None` tries for ever.
    pub give_up_after: Option<Duration>,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            in_flight_max: 0,
            in_flight_bytes_max: 0,
            prefetch_messages: 256,
            prefetch_bytes: 8 << 20,
            messages_max: None,
            give_up_after: None,
        }
    }
}

/// A session that takes messages from a queue.
#[derive(Debug)]
pub struct Consumer {
    deliveries: mpsc::Receiver<Result<Delivery, Error>>,
    commands: mpsc::UnboundedSender<Command>,
}

impl Consumer {
    pub(crate) fn new(client: Client, address: String, options: ConsumerOptions) -> Self {
        // Bounded by what is in flight: there is at most one settlement and one extension for each
        // delivery that was handed out.
        let (commands, inbox) = mpsc::unbounded_channel();
        // What waits is kept by the driver, which can withdraw it when its lease is lost.
        let (handed_out, deliveries) = mpsc::channel(1);
        let handle = commands.downgrade();
        task::spawn(Driver::new(client, address, options, inbox, handle, handed_out).run());
        Self {
            deliveries,
            commands,
        }
    }

    /// The next delivery. `None` after an error, which is the last thing a consumer says: the queue
    /// does not exist, the consumer is not wanted, or the server is away for too long. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Delivery, Error>> {
        self.deliveries.recv().await
    }

    /// Ends the session: settles what waits to be settled, then gives back what is still held,
    /// without counting a failure. Deliveries that are not settled yet are lost to their holders.
    pub async fn close(self) {
        let Self {
            deliveries,
            commands,
        } = self;
        // The driver must not wait for somebody to take what it has.
        drop(deliveries);
        let (done, closed) = oneshot::channel();
        if commands.send(Command::Close { done }).is_ok() {
            // An error says that the driver has ended, which is as good.
            drop(closed.await);
        }
    }
}

impl futures::Stream for Consumer {
    type Item = Result<Delivery, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.deliveries.poll_recv(context)
    }
}

/// A message and the lease to it, to be settled.
#[derive(Debug)]
pub struct Delivery {
    received: Received,
    commands: mpsc::UnboundedSender<Command>,
}

impl Deref for Delivery {
    type Target = Received;

    fn deref(&self) -> &Received {
        &self.received
    }
}

impl Delivery {
    /// Done; the message is gone.
    pub fn accept(&self) -> Settling {
        self.settle(Settle::Accept)
    }

    /// Not handled; back to the queue at once, not counted as a failure.
    pub fn release(&self) -> Settling {
        let delay = Duration::ZERO;
        self.settle(Settle::Release { delay })
    }

    /// Failed, and why; comes back after the queue's backoff or goes to the dead-letter queue.
    pub fn retry(&self, note: impl Into<String>) -> Settling {
        let note = note.into();
        self.settle(Settle::Retry { delay: None, note })
    }

    /// Will never succeed, and why; goes to the dead-letter queue.
    pub fn reject(&self, note: impl Into<String>) -> Settling {
        let note = note.into();
        self.settle(Settle::Reject { note })
    }

    /// Still at work: the lease starts anew.
    pub fn extend(&self) -> Settling {
        self.settle(Settle::Extend)
    }

    /// Ends the lease, or extends it. It is sent whether or not the answer is awaited.
    pub fn settle(&self, settle: Settle) -> Settling {
        let (answer, settled) = oneshot::channel();
        let tag = self.received.tag.clone();
        // When the driver has ended, `answer` is dropped, and that is the answer.
        drop(self.commands.send(Command::Settle(Request {
            tag,
            settle,
            attempted: false,
            answer,
        })));
        Settling(settled)
    }

    /// The message and its lease, to be settled by tag.
    #[must_use]
    pub fn into_received(self) -> Received {
        self.received
    }
}

/// A settlement on its way.
#[derive(Debug)]
struct Request {
    tag: Bytes,
    settle: Settle,
    /// It was sent before, and nobody knows what became of it.
    attempted: bool,
    answer: oneshot::Sender<Result<(), Error>>,
}

/// The answer to a settlement, once there is one.
#[derive(Debug)]
pub struct Settling(oneshot::Receiver<Result<(), Error>>);

impl Future for Settling {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|settled| settled.unwrap_or_else(|_| Err(Error::closed(Applied::Unknown))))
    }
}
