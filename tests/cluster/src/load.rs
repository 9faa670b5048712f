//! Publishers and consumers that keep books while the broker dies and comes back.
//!
//! What becomes of a message follows from its number, so that the books need no second opinion:
//! most are accepted, some are rejected, fail until they die, fail once, or are given back once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use millrace_client::{
    Client, ConsumerOptions, Delivery, Message, PublisherOptions, Settle, Settling, text_header,
};
use tokio::sync::{Semaphore, watch};

use crate::ledger::{Copies, Ending, Id, Ledger, Place, Plan, Seen};

/// Numbers of different publishers must not meet.
const PUBLISHER_BITS: u32 = 40;
/// Keys of one publisher: enough that both partitions get some.
const KEYS: u64 = 8;
/// Deliveries that wait here; small, so that some wait at the broker when it dies.
const PREFETCH: u32 = 64;
/// Outcomes due of one publisher.
const PENDING_MAX: usize = 500;

/// The books, shared by everybody.
#[derive(Clone, Debug)]
pub struct Books(Arc<Mutex<Ledger>>);

impl Books {
    /// Shares a ledger.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(ledger)))
    }

    /// The ledger. A panic elsewhere fails the run anyway.
    pub fn open(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Someone who publishes.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its messages' numbers begin with this.
    pub number: u64,
    /// Where to.
    pub address: Place,
    /// Whether it sends again what it does not know about.
    pub copies: Copies,
}

impl Source {
    /// The n-th message, and everywhere it has to be.
    #[must_use]
    pub fn message(&self, n: u64) -> (Id, Message, Vec<Place>) {
        let id = self.number << PUBLISHER_BITS | n;
        let mut message = Message {
            payload: payload(id).into_bytes().into(),
            key: format!("{}-{}", self.number, n % KEYS),
            ..Message::default()
        };
        let mut places = vec![self.address.clone()];
        if self.address.starts_with("topic/") {
            let region = if n.is_multiple_of(3) { "eu" } else { "us" };
            let verb = if n.is_multiple_of(2) {
                "created"
            } else {
                "shipped"
            };
            message.subject = format!("orders.{region}.{verb}");
            message.headers.push(text_header("region", region));
            if n.is_multiple_of(5) {
                message.headers.push(text_header("gold", ""));
            }
            if verb == "created" {
                places.push("queue/default/created".to_owned());
            }
            if region == "eu" && n.is_multiple_of(5) {
                places.push("queue/default/europe".to_owned());
            }
        }
        (id, message, places)
    }
}

/// The number, and a text that only this number has: a mixed-up body is found out. Some are large.
fn payload(id: Id) -> String {
    let length = if id.is_multiple_of(97) {
        20_000
    } else {
        id % 200
    };
    let filler: String = (0..length)
        .map(|n| char::from(b'a' + ((id ^ n) % 26) as u8))
        .collect();
    format!("{id} {filler}")
}

/// The number of a payload, when it is one of ours and whole.
#[must_use]
pub fn id_of(payload: &[u8]) -> Option<Id> {
    let text = std::str::from_utf8(payload).ok()?;
    let id = text.split(' ').next()?.parse().ok()?;
    (self::payload(id) == text).then_some(id)
}

/// Publishes as many messages as `budget` allows, until it is closed; then waits for what is due.
///
/// # Errors
/// A message is too large, which none is.
pub async fn publish(
    client: Client,
    source: Source,
    books: Books,
    budget: Arc<Semaphore>,
) -> Result<()> {
    let options = PublisherOptions {
        // One copy, whatever is killed meanwhile: the broker knows what is sent again.
        dedup: source.copies == Copies::One,
        retry_unknown: true,
        give_up_after: None,
        ..PublisherOptions::default()
    };
    let publisher = client.publisher(source.address.clone(), options);
    let mut pending = FuturesUnordered::new();
    let (mut n, mut is_open) = (0, true);
    while is_open || !pending.is_empty() {
        tokio::select! {
            biased;
            Some((id, outcome)) = pending.next(), if !pending.is_empty() => {
                books.open().published(id, &outcome);
            }
            permit = budget.acquire(), if is_open && pending.len() < PENDING_MAX => match permit {
                Ok(permit) => {
                    permit.forget();
                    let (id, message, places) = source.message(n);
                    n += 1;
                    let plan = Plan {
                        places,
                        copies: source.copies,
                        lane: message.key.clone(),
                    };
                    books.open().sending(id, plan);
                    let sent = publisher.send(&message).await?;
                    pending.push(async move { (id, sent.await) });
                }
                Err(_) => is_open = false,
            },
        }
    }
    Ok(())
}

/// Consumes a queue until told to stop; then settles what it has.
///
/// # Errors
/// The consumer ended by itself.
pub async fn consume(
    client: Client,
    queue: Place,
    books: Books,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let options = ConsumerOptions {
        name: "crash run".to_owned(),
        prefetch_messages: PREFETCH,
        ..ConsumerOptions::default()
    };
    let mut consumer = client.consumer(queue.clone(), options);
    let mut settling = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some((seen, ending, outcome)) = settling.next(), if !settling.is_empty() => {
                books.open().settled(&queue, &seen, ending, &outcome);
            }
            delivery = consumer.next() => match delivery {
                Some(delivery) => {
                    let delivery = delivery?;
                    let seen = seen(&delivery);
                    books.open().seen(&queue, seen.clone());
                    let (ending, settled) = settle(&queue, &delivery, &seen);
                    settling.push(async move { (seen, ending, settled.await) });
                }
                None => return Ok(()),
            },
            stopped = stop.wait_for(|stop| *stop), if settling.is_empty() => {
                stopped?;
                break;
            }
        }
    }
    consumer.close().await;
    Ok(())
}

fn seen(delivery: &Delivery) -> Seen {
    let death = delivery.message.death.as_ref();
    Seen {
        at: (0, delivery.offset),
        id: id_of(&delivery.message.payload),
        attempts: delivery.attempts,
        acquired: delivery.acquired,
        death: death.map(|death| (death.queue.clone(), death.offset)),
    }
}

fn settle(queue: &str, delivery: &Delivery, seen: &Seen) -> (Ending, Settling) {
    let ending = if seen.death.is_some() || queue.ends_with("/dead") {
        Ending::Accept
    } else {
        ending(seen.id.unwrap_or_default(), seen.attempts, seen.acquired)
    };
    let note = || format!("the {:?} way", ending);
    let settle = match ending {
        Ending::Accept => Settle::Accept,
        Ending::Release => Settle::Release {
            delay: std::time::Duration::ZERO,
        },
        Ending::Retry => Settle::Retry {
            delay: None,
            note: note(),
        },
        Ending::Reject => Settle::Reject { note: note() },
    };
    (ending, delivery.settle(settle))
}

/// What a consumer does with a message.
fn ending(id: Id, attempts: u32, acquired: u32) -> Ending {
    match id % 16 {
        0 => Ending::Reject,
        1 => Ending::Retry,
        2 if attempts == 0 => Ending::Retry,
        3 if acquired == 1 => Ending::Release,
        _ => Ending::Accept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_tells_its_number_and_a_damaged_one_does_not() {
        let whole = payload(97);
        assert_eq!(id_of(whole.as_bytes()), Some(97));
        let damaged = whole.replace('q', "r");
        assert_eq!(id_of(damaged.as_bytes()), None);
        assert_eq!(id_of(b"not ours"), None);
    }
}
