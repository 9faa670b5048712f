//! Taking messages from queues: single calls, sessions, and ending leases.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_engine::command::{Command, Held, Settle, Settlement, Window};
use millrace_engine::outcome::{Delivery, MessageState};
use millrace_storage::ReadError;
use millrace_types::{
    Address, ErrorCode, IN_FLIGHT_MAX, LogId, Offset, Refusal, SessionId, ShardId,
};
use tokio::sync::oneshot;

use super::Broker;
use crate::api::{
    Delivered, OpenConsumer, Peek, PeekAnswer, Peeked, PeekedState, Receive, Resume, SettleTag,
};
use crate::bodies::Bodies;
use crate::connection::Connection;
use crate::consumer::{Consumer, ConsumerEvents, delivered};
use crate::input::{Caller, Proposal};
use crate::node::Node;
use crate::options::{ANSWER_BYTES_MAX, CONSUMER_BYTES_MAX, MESSAGES_MAX, WAIT_MAX};
use crate::reply::Reply;
use crate::settle;
use crate::tag::Tag;
use crate::view::ObjectKind;
use crate::waiters::Waiter;

/// A message that could not be read is tried again after this: those behind it come first.
const UNREADABLE_DELAY_MS: u64 = 10_000;

impl Broker {
    /// Takes messages from a queue, waiting for the first one; none is no error. Messages leased
    /// for a call that is dropped go back to the queue.
    ///
    /// # Errors
    /// The refusal.
    pub async fn receive(&self, receive: Receive) -> Result<Vec<Delivered>, Refusal> {
        self.node
            .check_serving()
            .map_err(|refusal| self.node.figures.refused(refusal))?;
        check_count(receive.messages_max)?;
        let (shard, queue) = self.queue_of(&receive.address).await?;
        let (reply, answer) = oneshot::channel();
        let owner = self.random_session()?;
        let lease_ms = receive
            .lease
            .map(|lease| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX));
        let waiter = Waiter {
            owner,
            messages_max: receive.messages_max,
            bytes_max: receive.bytes_max,
            lease_ms,
            until: self.node.host.now() + receive.wait.min(WAIT_MAX),
            reply,
        };
        let command = Command::Acquire {
            queue,
            owner,
            messages_max: receive.messages_max,
            bytes_max: receive.bytes_max,
            lease_ms,
        };
        let (body, caller) = (Bytes::new(), Caller::Receiver(waiter));
        self.node.propose(Proposal {
            shard,
            command,
            body,
            caller,
        });
        let answer = async { answer.await.unwrap_or_else(|_| Err(self.gone())) };
        let deliveries = self.node.in_time(receive.wait.min(WAIT_MAX), answer).await;
        let deliveries =
            deliveries.map_err(|refusal| self.unconfigured(&receive.address, refusal))?;
        let leased = Leased {
            node: Arc::clone(&self.node),
            shard,
            queue,
            owner,
            deliveries,
        };
        self.hand_over(leased, receive.bytes_max).await
    }

    /// Reads what was leased. The engine knows what messages of a batch weigh on average only: what
    /// turns out to be too much goes back.
    async fn hand_over(
        &self,
        mut leased: Leased,
        bytes_max: u64,
    ) -> Result<Vec<Delivered>, Refusal> {
        let Leased {
            shard,
            queue,
            owner,
            ..
        } = leased;
        let offsets = leased
            .deliveries
            .iter()
            .map(|delivery| delivery.offset)
            .collect();
        let bytes_max = bytes_max.min(ANSWER_BYTES_MAX);
        let bodies = self.bodies(shard)?;
        let records = bodies.each(queue, offsets, bytes_max).await;
        let read = records.len();
        let mut out = Vec::with_capacity(read);
        let (mut failed, mut unread) = (None, Vec::new());
        for (delivery, record) in leased.deliveries.iter().zip(records) {
            match record {
                Ok(record) => {
                    let held = Held {
                        offset: delivery.offset,
                        acquired: delivery.acquired,
                    };
                    out.push(delivered(
                        Tag {
                            shard,
                            queue,
                            owner,
                            held,
                        },
                        delivery,
                        record,
                    ));
                }
                // The lease ran out meanwhile and somebody else was quicker.
                Err(ReadError::Discarded { .. }) => {}
                Err(error) => {
                    tracing::error!(%queue, offset = %delivery.offset, %error,
                        "a message cannot be read; it goes back");
                    unread.push(*delivery);
                    failed = Some(bodies.unreadable(&error));
                }
            }
        }
        let left_out = leased.deliveries.split_off(read);
        // Waited for: a node that dies after its answer must not count these as failures.
        for (unseen, delay_ms) in [(&left_out, 0), (&unread, UNREADABLE_DELAY_MS)] {
            if let Some(command) = leased.release(unseen, delay_ms) {
                // Refused or not: what happens then is what happens without it.
                let given_back = self.node.start(shard, command, Bytes::new()).answer();
                let _ends_anyway = self.node.in_time(Duration::ZERO, given_back).await;
            }
        }
        leased.deliveries.clear();
        match failed {
            Some(refusal) if out.is_empty() => Err(refusal),
            _ => {
                self.node.figures.delivered_messages.add(out.len() as u64);
                Ok(out)
            }
        }
    }

    /// Ends leases, one result for each tag in order. With an address, tags of other queues are
    /// `INVALID_TAG`.
    pub async fn settle(
        &self,
        address: Option<&Address>,
        tags: Vec<SettleTag>,
    ) -> Vec<Result<(), Refusal>> {
        let only = match address {
            None => Ok(None),
            Some(address) => self.queue_of(address).await.map(Some),
        };
        let only = match only {
            Ok(only) => only,
            Err(refusal) => return tags.iter().map(|_| Err(refusal.clone())).collect(),
        };
        let count = tags.len();
        let (sender, results) = oneshot::channel();
        settle::start(&self.node, only, tags, move |results| {
            // A caller that has gone away does not want to know.
            sender.send(results).ok();
        });
        let results = async { results.await.map_err(|_| self.gone()) };
        match self.node.in_time(Duration::ZERO, results).await {
            Ok(results) => results,
            Err(refusal) => (0..count).map(|_| Err(refusal.clone())).collect(),
        }
    }

    async fn queue_of(&self, address: &Address) -> Result<(ShardId, LogId), Refusal> {
        self.find(address).await?;
        self.node.view.borrow().require_queue(address)
    }

    /// Opens or resumes a session.
    ///
    /// # Errors
    /// The refusal; `SESSION_EXPIRED` when a session to resume is gone.
    pub async fn open_consumer(
        &self,
        open: OpenConsumer,
    ) -> Result<(Consumer, ConsumerEvents), Refusal> {
        self.node
            .check_serving()
            .map_err(|refusal| self.node.figures.refused(refusal))?;
        self.find(&open.address).await?;
        let view = self.node.view.borrow().clone();
        let (shard, queue) = view.require_queue(&open.address)?;
        let in_flight_max = match view.require(&open.address)?.kind {
            ObjectKind::Queue { in_flight_max, .. } => in_flight_max,
            ObjectKind::Topic { .. } => IN_FLIGHT_MAX,
        };
        let window = Window {
            messages: or_limit(open.in_flight.messages, in_flight_max),
            bytes: or_limit(open.in_flight.bytes, CONSUMER_BYTES_MAX),
        };
        let connection = |session| {
            let now = self.node.host.now();
            Connection::new(session, (shard, queue), window, open.credit, now)
        };
        let (connection, command) = match open.resume {
            None => {
                let session = self.random_session()?;
                let ttl = self.node.options.session_ttl;
                let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                let consumer = open.consumer;
                let connection = connection(session);
                let command = Command::OpenSession {
                    session,
                    queue,
                    consumer,
                    window: connection.room(0),
                    ttl_ms,
                };
                (connection, command)
            }
            Some(resume) => {
                self.check_session(shard, queue, resume.session).await?;
                let (session, held) = (resume.session, held(&resume, queue));
                let connection = connection(session);
                let command = Command::AttachSession {
                    session,
                    window: connection.room(held.len()),
                    held,
                };
                (connection, command)
            }
        };
        let connection = Arc::new(connection);
        let bodies = self.bodies(shard)?;
        // Made before the command is applied: dropping it, should this call be dropped, detaches.
        let halves = Consumer::new(Arc::clone(&self.node), Arc::clone(&connection), bodies);
        let (reply, pending) = Reply::channel();
        let (body, caller) = (Bytes::new(), Caller::Connection(connection, reply));
        self.node.propose(Proposal {
            shard,
            command,
            body,
            caller,
        });
        let opened = self.node.in_time(Duration::ZERO, pending.answer()).await;
        opened.map_err(|refusal| self.unconfigured(&open.address, refusal))?;
        Ok(halves)
    }

    async fn check_session(
        &self,
        shard: ShardId,
        queue: LogId,
        session: SessionId,
    ) -> Result<(), Refusal> {
        let of = self
            .node
            .ask_current(shard, move |shard| shard.session(session))
            .await?;
        if of == Some(queue) {
            return Ok(());
        }
        Err(self.node.figures.refused(Refusal::new(
            ErrorCode::SessionExpired,
            "the session to resume has ended, or is of another queue",
        )))
    }

    /// Shows messages of a queue without taking them.
    ///
    /// # Errors
    /// The refusal.
    pub async fn peek(&self, peek: Peek) -> Result<PeekAnswer, Refusal> {
        check_count(peek.messages_max)?;
        let (shard, log) = self.queue_of(&peek.address).await?;
        let count = peek.messages_max as usize;
        let from = peek.from;
        let views = self
            .node
            .ask_current(shard, move |shard| {
                let queue = shard.queue(log)?;
                Some(queue.unsettled(from).take(count + 1).collect::<Vec<_>>())
            })
            .await?
            .unwrap_or_default();
        let offsets: Vec<Offset> = views.iter().take(count).map(|view| view.offset).collect();
        let bodies = self.bodies(shard)?;
        let records = bodies.each(log, offsets, ANSWER_BYTES_MAX).await;
        let next = views.get(records.len()).map(|view| view.offset);
        let mut messages = Vec::with_capacity(records.len());
        for (view, record) in views.iter().zip(records) {
            let record = match record {
                Ok(record) => record,
                // Settled since we looked.
                Err(ReadError::Discarded { .. }) => continue,
                Err(error) => return Err(bodies.unreadable(&error)),
            };
            messages.push(Peeked {
                message: record.message,
                offset: view.offset,
                state: match view.state {
                    MessageState::Ready => PeekedState::Ready,
                    MessageState::InFlight => PeekedState::InFlight,
                    MessageState::Delayed => PeekedState::Delayed,
                    MessageState::Dying => PeekedState::Dying,
                },
                attempts: view.attempts,
                acquired: view.acquired,
                stored_at: record.stored_at,
            });
        }
        Ok(PeekAnswer { messages, next })
    }

    /// The way to a shard's bodies.
    pub(super) fn bodies(&self, shard: ShardId) -> Result<Bodies, Refusal> {
        self.node.bodies(shard)
    }

    /// An id that cannot be guessed.
    fn random_session(&self) -> Result<SessionId, Refusal> {
        self.node
            .host
            .random()
            .map(SessionId::new)
            .map_err(|error| {
                Refusal::new(
                    ErrorCode::Internal,
                    format!("the system gives no random numbers: {error}"),
                )
            })
    }

    fn gone(&self) -> Refusal {
        Refusal::new(
            ErrorCode::ShardUnavailable,
            "the node stopped before it could answer",
        )
        .unknown()
    }
}

/// Leases that go back unless they are handed over.
struct Leased {
    node: Arc<Node>,
    shard: ShardId,
    queue: LogId,
    owner: SessionId,
    deliveries: Vec<Delivery>,
}

impl Leased {
    /// Gives back what the caller has not seen, if there is anything.
    fn release(&self, unseen: &[Delivery], delay_ms: u64) -> Option<Command> {
        if unseen.is_empty() {
            return None;
        }
        let settlements = unseen.iter().map(|delivery| Settlement {
            owner: self.owner,
            held: Held {
                offset: delivery.offset,
                acquired: delivery.acquired,
            },
            settle: Settle::Release { delay_ms },
        });
        Some(Command::Settle {
            queue: self.queue,
            settlements: settlements.collect(),
        })
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if let Some(command) = self.release(&self.deliveries, 0) {
            self.node.propose(Proposal::silent(self.shard, command));
        }
    }
}

/// What a client still holds of a queue; tags of others are none of its.
fn held(resume: &Resume, queue: LogId) -> Vec<Held> {
    let tags = resume.held.iter().filter_map(|tag| Tag::decode(tag));
    tags.filter(|tag| tag.queue == queue && tag.owner == resume.session)
        .map(|tag| tag.held)
        .collect()
}

/// What was asked for within the limit; 0 asks for all of it.
fn or_limit<T: Ord + Default>(asked: T, limit: T) -> T {
    if asked == T::default() {
        limit
    } else {
        asked.min(limit)
    }
}

fn check_count(messages_max: u32) -> Result<(), Refusal> {
    if (1..=MESSAGES_MAX).contains(&messages_max) {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::InvalidArgument,
        format!("messages_max must be 1..={MESSAGES_MAX}, not {messages_max}"),
    )
    .with("field", "messages_max"))
}
