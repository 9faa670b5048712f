//! Calls on queues that need no session: take a few messages, end leases, look without taking.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use millrace_proto::v1::{
    self, Message, PeekRequest, ReceiveRequest, SettleRequest, peeked_message::State, settlement,
};

use crate::client::Client;
use crate::error::Error;
use crate::message::{duration, timestamp, wire_duration};
use crate::routing::Way;

/// How a lease ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Settle {
    /// Done; the message is gone.
    Accept,
    /// Not handled; back to the queue, not counted as a failure.
    Release {
        /// It comes back no sooner than this.
        delay: Duration,
    },
    /// Failed; comes back later, or goes to the dead-letter queue when that was the last time.
    Retry {
        /// It comes back no sooner than this; `None` takes the queue's backoff.
        delay: Option<Duration>,
        /// Why; kept with a dead letter.
        note: String,
    },
    /// Will never succeed; goes to the dead-letter queue.
    Reject {
        /// Why; kept with the dead letter.
        note: String,
    },
    /// Still at work: the lease starts anew.
    Extend,
}

/// One lease and how it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Names the lease.
    pub tag: Bytes,
    /// How it ends.
    pub settle: Settle,
}

/// What `Client::receive` takes.
#[derive(Clone, Debug)]
pub struct ReceiveOptions {
    /// At most this many messages, 1..=1000.
    pub messages_max: u32,
    /// About this many bytes; 0 takes the server's limit.
    pub bytes_max: u64,
    /// How long to wait for the first one, at most 60 s.
    pub wait: Duration,
    /// Length of the leases; `None` takes the queue's.
    pub lease: Option<Duration>,
}

impl Default for ReceiveOptions {
    fn default() -> Self {
        Self {
            messages_max: 1,
            bytes_max: 0,
            wait: Duration::ZERO,
            lease: None,
        }
    }
}

/// A message and the lease to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// What was published.
    pub message: Message,
    /// Opaque; names this very lease.
    pub tag: Bytes,
    /// Its place in the queue.
    pub offset: u64,
    /// Failed deliveries so far.
    pub attempts: u32,
    /// How often it was handed out, this time included.
    pub acquired: u32,
    /// When it came into the queue.
    pub enqueued_at: SystemTime,
    /// How long the lease runs from when it was sent.
    pub lease: Duration,
}

impl From<v1::Delivery> for Received {
    fn from(wire: v1::Delivery) -> Self {
        Self {
            message: wire.message.unwrap_or_default(),
            tag: wire.tag,
            offset: wire.offset,
            attempts: wire.attempts,
            acquired: wire.acquired,
            enqueued_at: timestamp(wire.enqueued_at),
            lease: duration(wire.lease),
        }
    }
}

/// A message that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Peeked {
    /// What was published.
    pub message: Message,
    /// Its place in the queue.
    pub offset: u64,
    /// What it waits for.
    pub state: State,
    /// Failed deliveries so far.
    pub attempts: u32,
    /// How often it was handed out.
    pub acquired: u32,
    /// When it came into the queue.
    pub enqueued_at: SystemTime,
}

impl Client {
    /// Takes up to `messages_max` messages, waiting for the first one. Empty when none came.
    ///
    /// # Errors
    /// No such queue, a bad option, or nobody answers.
    pub async fn receive(
        &self,
        address: &str,
        options: ReceiveOptions,
    ) -> Result<Vec<Received>, Error> {
        let request = ReceiveRequest {
            address: address.to_owned(),
            messages_max: options.messages_max,
            bytes_max: options.bytes_max,
            wait: Some(wire_duration(options.wait)),
            lease: options.lease.map(wire_duration),
        };
        let ask = |way: Way| {
            let request = request.clone();
            async move { way.consumer().receive(request).await }
        };
        let answer = self.call(Some((address, 0)), options.wait, ask).await?;
        Ok(answer.deliveries.into_iter().map(Received::from).collect())
    }

    /// Ends leases; the answers are in the order of the settlements.
    ///
    /// # Errors
    /// The call as a whole failed; single leases have their own answer.
    pub async fn settle(
        &self,
        address: &str,
        settlements: &[Settlement],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let request = SettleRequest {
            address: address.to_owned(),
            settlements: settlements
                .iter()
                .map(|one| wire_settlement(vec![one.tag.clone()], &one.settle))
                .collect(),
        };
        let ask = |way: Way| {
            let request = request.clone();
            async move { way.consumer().settle(request).await }
        };
        let answer = self.call(Some((address, 0)), Duration::ZERO, ask).await?;
        let refused = |tag: &Bytes| answer.refused.iter().find(|refused| refused.tag == *tag);
        Ok(settlements
            .iter()
            .map(|one| refused(&one.tag).map_or(Ok(()), |refused| Err(refusal(refused))))
            .collect())
    }

    /// Shows up to `messages_max` messages from an offset on, without taking them, and where to go
    /// on; `None` at the end.
    ///
    /// # Errors
    /// No such queue, or nobody answers.
    pub async fn peek(
        &self,
        address: &str,
        from: u64,
        messages_max: u32,
    ) -> Result<(Vec<Peeked>, Option<u64>), Error> {
        let request = PeekRequest {
            address: address.to_owned(),
            from,
            messages_max,
        };
        let ask = |way: Way| {
            let request = request.clone();
            async move { way.consumer().peek(request).await }
        };
        let answer = self.call(Some((address, 0)), Duration::ZERO, ask).await?;
        let peeked = answer.messages.into_iter().map(|wire| Peeked {
            state: wire.state(),
            message: wire.message.unwrap_or_default(),
            offset: wire.offset,
            attempts: wire.attempts,
            acquired: wire.acquired,
            enqueued_at: timestamp(wire.enqueued_at),
        });
        Ok((peeked.collect(), answer.next))
    }
}

/// Several leases with one outcome, for the wire.
pub(crate) fn wire_settlement(tags: Vec<Bytes>, settle: &Settle) -> v1::Settlement {
    use settlement::Outcome;
    let (outcome, delay, note) = match settle {
        Settle::Accept => (Outcome::Accept, None, ""),
        Settle::Release { delay } => (Outcome::Release, Some(*delay), ""),
        Settle::Retry { delay, note } => (Outcome::Retry, *delay, note.as_str()),
        Settle::Reject { note } => (Outcome::Reject, None, note.as_str()),
        Settle::Extend => (Outcome::Extend, None, ""),
    };
    v1::Settlement {
        tags,
        outcome: outcome.into(),
        delay: delay.map(wire_duration),
        note: note.to_owned(),
    }
}

/// Why one lease was not settled.
pub(crate) fn refusal(refused: &v1::SettleRefusal) -> Error {
    match &refused.error {
        Some(error) => Error::from(error.clone()),
        None => Error::protocol("a settlement was refused without a reason"),
    }
}
