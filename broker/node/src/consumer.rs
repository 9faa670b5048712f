//! A consumer's connection to its session, as services hold it: what the client says goes in
//! through [`Consumer`], what it is told comes out of [`ConsumerEvents`]. Bodies are read when they
//! are asked for, so a slow socket costs no memory; nothing is sent beyond the client's credit.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_engine::command::{Command, Held, Window};
use millrace_engine::outcome::Delivery;
use millrace_storage::{ReadError, StoredRecord};
use millrace_types::{Refusal, SessionId};

use super::api::{Credit, Delivered, SettleTag};
use super::bodies::Bodies;
use super::connection::{Connection, Next, Notice, Taken};
use super::input::Input;
use super::node::Node;
use super::options::ANSWER_BYTES_MAX;
use super::settle;
use super::tag::Tag;

/// The talking half of a connection. Dropping it detaches the session.
pub struct Consumer {
    node: Arc<Node>,
    connection: Arc<Connection>,
}

/// The listening half.
pub struct ConsumerEvents {
    node: Arc<Node>,
    connection: Arc<Connection>,
    bodies: Bodies,
    reading: Option<Reading>,
}

/// One result for each message asked for.
type Found = Vec<Result<StoredRecord, ReadError>>;

/// Bodies on their way from the disk; kept over a dropped `next`, so that a busy caller does not
/// start the same read again and again.
struct Reading {
    deliveries: Vec<Delivery>,
    records: Pin<Box<dyn Future<Output = Found> + Send>>,
}

/// What a connection is told.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// Messages under lease, within the credit given.
    Deliveries(Vec<Delivered>),
    /// Answer to one `Consumer::settle`.
    Settled(SettleResults),
    /// These leases ended without the client.
    LeasesLost(Vec<Bytes>),
    /// The node is going down; the session can be resumed elsewhere or later. Comes once.
    Drain,
    /// The session is over, or another connection has taken it. Nothing follows.
    Closed(Refusal),
}

/// Answer to one `Consumer::settle`.
#[derive(Debug)]
pub struct SettleResults {
    /// As the client numbered it.
    pub sequence: u64,
    /// How many were settled.
    pub settled: u32,
    /// The others.
    pub refused: Vec<(Bytes, Refusal)>,
}

impl Consumer {
    /// Both halves of an attached connection.
    pub(super) fn new(
        node: Arc<Node>,
        connection: Arc<Connection>,
        bodies: Bodies,
    ) -> (Self, ConsumerEvents) {
        let events = ConsumerEvents {
            node: Arc::clone(&node),
            connection: Arc::clone(&connection),
            bodies,
            reading: None,
        };
        (Self { node, connection }, events)
    }

    /// To resume with.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.connection.session
    }

    /// A session that hears nothing for this long is closed.
    #[must_use]
    pub fn session_ttl(&self) -> Duration {
        self.node.options.session_ttl
    }

    /// What was asked for, cut to the limits.
    #[must_use]
    pub fn in_flight(&self) -> Window {
        self.connection.window
    }

    /// Lets the broker send this much more.
    pub fn credit(&self, more: Credit) {
        self.connection.credit(more, self.node.host.now());
    }

    /// Ends leases; the answer comes as an event. Does not wait.
    pub fn settle(&self, sequence: u64, settlements: Vec<SettleTag>) {
        self.touch();
        let connection = Arc::clone(&self.connection);
        let tags: Vec<Bytes> = settlements.iter().map(|one| one.tag.clone()).collect();
        settle::start(&self.node, None, settlements, move |results| {
            let mut refused = Vec::new();
            let mut settled = 0;
            for (tag, result) in tags.into_iter().zip(results) {
                match result {
                    Ok(()) => settled += 1,
                    Err(refusal) => refused.push((tag, refusal)),
                }
            }
            connection.tell(Notice::Settled(SettleResults {
                sequence,
                settled,
                refused,
            }));
        });
    }

    /// The client is alive.
    pub fn touch(&self) {
        self.connection.touch(self.node.host.now());
    }

    /// Ends the session: what it holds is released without counting a failure.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE`, `DRAINING`; then the session ends by its time to live.
    pub async fn close(self) -> Result<(), Refusal> {
        let session = self.connection.session;
        let command = Command::CloseSession { session };
        let pending = self
            .node
            .start(self.connection.shard, command, Bytes::new());
        let closed = self.node.in_time(Duration::ZERO, pending.answer()).await;
        closed.map(|_| ())
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.connection.abandon();
        if let Ok(slot) = self.node.slot(self.connection.shard) {
            slot.inbox.send(Input::Detach(Arc::clone(&self.connection)));
        }
    }
}

impl ConsumerEvents {
    /// The next event; waits for it. `None` after `Closed`. Cancel-safe: what a dropped call would
    /// have returned is returned by the next one.
    pub async fn next(&mut self) -> Option<ConsumerEvent> {
        loop {
            // A read under way does not hold up what can be said at once, but is finished first
            // when there is nothing to say.
            match self.connection.next() {
                Next::Notice(notice) => return Some(self.event(notice)),
                Next::End => return None,
                Next::Wait => self.connection.changed().await,
                Next::Resume => self.resume(),
                Next::Read(deliveries, bytes_max) => {
                    let delivered = self.read(deliveries, bytes_max).await;
                    if !delivered.is_empty() {
                        return Some(ConsumerEvent::Deliveries(delivered));
                    }
                }
            }
        }
    }

    async fn read(&mut self, deliveries: Vec<Delivery>, bytes_max: u64) -> Vec<Delivered> {
        let reading = self.reading.get_or_insert_with(|| {
            let offsets = deliveries.iter().map(|delivery| delivery.offset).collect();
            let (bodies, queue) = (self.bodies.clone(), self.connection.queue);
            let bytes_max = bytes_max.min(ANSWER_BYTES_MAX);
            let records = Box::pin(async move { bodies.each(queue, offsets, bytes_max).await });
            Reading {
                deliveries,
                records,
            }
        });
        let records = reading.records.as_mut().await;
        let deliveries = self.reading.take().map(|reading| reading.deliveries);
        // From here on nothing waits, so nothing that was paid for is lost.
        let now = self.node.host.now();
        let mut sent = Vec::new();
        for (delivery, record) in deliveries.unwrap_or_default().into_iter().zip(records) {
            match record {
                Ok(record) => {
                    let bytes = record.message.len() as u64;
                    match self.connection.take(&delivery, bytes, now) {
                        Taken::Paid { waited } => {
                            let mut delivered = self.delivered(&delivery, record);
                            delivered.lease = delivered.lease.saturating_sub(waited);
                            sent.push(delivered);
                        }
                        Taken::Gone => {}
                        Taken::NoCredit => break,
                    }
                }
                Err(ReadError::Discarded { .. }) => self.connection.skip(&delivery),
                Err(error) => {
                    let queue = self.connection.queue;
                    tracing::error!(%queue, offset = %delivery.offset, %error,
                        "a message cannot be read; it comes back when its lease is over");
                    self.connection.skip(&delivery);
                    if matches!(error, ReadError::Corrupt { .. }) {
                        let refusal = self.bodies.unreadable(&error);
                        self.connection.tell(Notice::Closed(refusal));
                    }
                }
            }
        }
        self.node.figures.delivered_messages.add(sent.len() as u64);
        sent
    }

    fn resume(&self) {
        if let Ok(slot) = self.node.slot(self.connection.shard) {
            slot.inbox.send(Input::Resume(Arc::clone(&self.connection)));
        }
    }

    fn delivered(&self, delivery: &Delivery, record: StoredRecord) -> Delivered {
        let held = Held {
            offset: delivery.offset,
            acquired: delivery.acquired,
        };
        delivered(self.tag(held), delivery, record)
    }

    fn event(&self, notice: Notice) -> ConsumerEvent {
        match notice {
            Notice::Settled(results) => ConsumerEvent::Settled(results),
            Notice::Lost(held) => {
                let tags = held.into_iter().map(|held| self.tag(held).encode());
                ConsumerEvent::LeasesLost(tags.collect())
            }
            Notice::Drain => ConsumerEvent::Drain,
            Notice::Closed(refusal) => ConsumerEvent::Closed(refusal),
        }
    }

    fn tag(&self, held: Held) -> Tag {
        let Connection {
            shard,
            queue,
            session,
            ..
        } = *self.connection;
        Tag {
            shard,
            queue,
            owner: session,
            held,
        }
    }
}

/// A lease and its message, as it goes out.
pub(super) fn delivered(tag: Tag, delivery: &Delivery, record: StoredRecord) -> Delivered {
    Delivered {
        tag: tag.encode(),
        offset: delivery.offset,
        attempts: delivery.attempts,
        acquired: delivery.acquired,
        lease: Duration::from_millis(delivery.lease_ms),
        stored_at: record.stored_at,
        message: record.message,
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Consumer").field(&self.connection).finish()
    }
}

impl fmt::Debug for ConsumerEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConsumerEvents")
            .field(&self.connection)
            .finish()
    }
}
