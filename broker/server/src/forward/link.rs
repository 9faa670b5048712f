//! A `PublishStream` to another node, for one client's stream: frames go within the credit of that
//! node, and decisions come back to whom they are for.
//!
//! When it breaks, what was sent and not decided may have been stored; what was not sent was not.

use std::collections::VecDeque;
use std::future::Future;

use millrace_proto::v1;
use millrace_proto::v1::publish_reply::Reply;
use millrace_types::{ErrorCode, Refusal, ShardId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::attempts::GRACE;
use super::publish::Answer;
use super::{Origin, Remote};
use crate::convert;
use crate::services::Context;
use crate::services::credit::Amount;
use crate::tasks::{Kind, Stop};

/// Frames that wait for credit or the transport: the next one is made meanwhile.
const WAITING_MAX: usize = 2;
/// Frames handed to the transport.
const FRAMES_MAX: usize = 4;

/// The near end. Cheap to clone; the stream ends with the last one, when all is decided.
#[derive(Clone)]
pub(super) struct Link(mpsc::Sender<Ship>);

/// A frame and who waits for its decision.
struct Ship {
    shard: ShardId,
    frame: v1::PublishFrame,
    answer: oneshot::Sender<Vec<Answer>>,
}

impl Ship {
    fn refuse(self, refusal: &Refusal) {
        let answers = vec![Err(refusal.clone()); self.frame.batches.len()];
        // Whose stream has ended does not want to know.
        self.answer.send(answers).ok();
    }
}

impl Link {
    /// Opens a stream.
    pub(super) fn open(context: &Context, origin: &Origin, remote: Remote) -> Self {
        let (sender, ships) = mpsc::channel(WAITING_MAX);
        let (origin, stop) = (origin.clone(), context.tasks.stop().clone());
        context
            .tasks
            .spawn(Kind::Stream, "publish stream to a leader", async move {
                run(remote, origin, ships, stop).await;
                Ok::<(), Refusal>(())
            });
        Self(sender)
    }

    /// Whether frames can still be sent.
    pub(super) fn is_open(&self) -> bool {
        !self.0.is_closed()
    }

    /// Sends a frame once there is room; gives the answers to come.
    pub(super) async fn send(
        &self,
        shard: ShardId,
        frame: v1::PublishFrame,
    ) -> impl Future<Output = Vec<Answer>> + Send + 'static {
        let count = frame.batches.len();
        let (answer, answers) = oneshot::channel();
        let ship = Ship {
            shard,
            frame,
            answer,
        };
        if let Err(mpsc::error::SendError(ship)) = self.0.send(ship).await {
            ship.refuse(&not_sent());
        }
        async move {
            let answers = answers.await;
            answers.unwrap_or_else(|_| vec![Err(not_sent().unknown()); count])
        }
    }
}

/// What is kept of a stream.
struct Connection {
    /// In their order.
    sent: VecDeque<Ship>,
    messages: u64,
    bytes: u64,
    sequence: u64,
}

async fn run(remote: Remote, origin: Origin, mut ships: mpsc::Receiver<Ship>, stop: Stop) {
    let (frames, receiver) = mpsc::channel(FRAMES_MAX);
    let mut publisher = remote.publisher();
    let opening = publisher.publish_stream(origin.request(ReceiverStream::new(receiver)));
    let opened = tokio::select! {
        biased;
        () = stop.ended() => Err(crate::services::draining()),
        opened = opening => opened.map_err(|status| not_applied(remote.failed(&status))),
    };
    let mut connection = Connection {
        sent: VecDeque::new(),
        messages: 0,
        bytes: 0,
        sequence: 0,
    };
    let ended = match opened {
        Ok(replies) => {
            let replies = replies.into_inner();
            connection
                .serve(&remote, (frames, replies), &mut ships, &stop)
                .await
        }
        Err(refusal) => refusal,
    };
    // First: who finds the stream closed must know what it has lost.
    for ship in connection.sent {
        ship.refuse(&ended.clone().unknown());
    }
    ships.close();
    while let Ok(ship) = ships.try_recv() {
        ship.refuse(&not_applied(ended.clone()));
    }
}

/// Of what was not sent nothing was done, whatever became of the connection.
fn not_applied(mut refusal: Refusal) -> Refusal {
    refusal.applied = millrace_types::Applied::No;
    refusal
}

fn not_sent() -> Refusal {
    Refusal::new(
        ErrorCode::NotLeader,
        "the connection to the leader was lost",
    )
    .retry_after_millis(RETRY_AFTER_MS)
}

/// After this long somebody else may lead.
const RETRY_AFTER_MS: u64 = 50;

impl Connection {
    /// Works until nothing can be sent any more and all is decided, or the stream ends; says why.
    async fn serve(
        &mut self,
        remote: &Remote,
        (frames, mut replies): (mpsc::Sender<v1::PublishFrame>, Streaming<v1::PublishReply>),
        ships: &mut mpsc::Receiver<Ship>,
        stop: &Stop,
    ) -> Refusal {
        let mut next: Option<Ship> = None;
        let (mut open, mut draining) = (true, false);
        // Since when another node leads what is waited for, or since it said something after that.
        let mut moved: Option<Instant> = None;
        loop {
            if self.sent.is_empty() && (draining || (!open && next.is_none())) {
                break;
            }
            let sendable = next.as_ref().is_some_and(|ship| self.covers(&ship.frame)) && !draining;
            tokio::select! {
                biased;
                () = stop.ended() => {
                    refuse(next, &crate::services::draining());
                    return crate::services::draining();
                }
                reply = replies.message() => match self.hear(remote, reply) {
                    Ok(drains) => {
                        draining |= drains;
                        moved = None;
                    }
                    Err(refusal) => {
                        refuse(next, &not_applied(refusal.clone()));
                        return refusal;
                    }
                },
                () = silence(remote, moved, self.awaited(next.as_ref())) => {
                    if moved.is_none() {
                        moved = Some(Instant::now());
                        continue;
                    }
                    refuse(next, &not_applied(remote.silent()));
                    return remote.silent();
                }
                slot = frames.reserve(), if sendable => {
                    let (Ok(slot), Some(ship)) = (slot, next.take()) else {
                        // It reads no more; its replies tell why.
                        draining = true;
                        continue;
                    };
                    slot.send(self.number(&ship.frame));
                    self.sent.push_back(ship);
                }
                ship = ships.recv(), if open && next.is_none() && !draining => {
                    open = ship.is_some();
                    next = ship;
                }
            }
        }
        refuse(next, &not_sent());
        not_sent()
    }

    /// The shard of what is decided next.
    fn awaited(&self, next: Option<&Ship>) -> Option<ShardId> {
        let first = self.sent.front().or(next);
        first.map(|ship| ship.shard)
    }

    fn covers(&self, frame: &v1::PublishFrame) -> bool {
        let cost = Amount::of(frame);
        u64::from(cost.messages) <= self.messages && cost.bytes <= self.bytes
    }

    /// The frame as it goes: numbered, and paid for.
    fn number(&mut self, frame: &v1::PublishFrame) -> v1::PublishFrame {
        let cost = Amount::of(frame);
        self.messages -= u64::from(cost.messages);
        self.bytes -= cost.bytes;
        self.sequence += 1;
        v1::PublishFrame {
            sequence: self.sequence,
            ..frame.clone()
        }
    }

    /// Takes a reply; whether the node takes nothing more.
    fn hear(
        &mut self,
        remote: &Remote,
        reply: Result<Option<v1::PublishReply>, Status>,
    ) -> Result<bool, Refusal> {
        let reply = reply.map_err(|status| remote.failed(&status))?;
        let Some(reply) = reply else {
            return Err(not_sent());
        };
        match reply.reply {
            Some(Reply::Credit(more)) => {
                self.messages = self.messages.saturating_add(more.messages.into());
                self.bytes = self.bytes.saturating_add(more.bytes);
            }
            Some(Reply::Decision(decision)) => {
                // In their order.
                if let Some(ship) = self.sent.pop_front() {
                    let results = decision.results.into_iter();
                    let answers = results.map(convert::publish_answer).collect();
                    ship.answer.send(answers).ok();
                }
            }
            Some(Reply::Drain(_)) => return Ok(true),
            // Of a later version: nothing that this one has to know.
            None => {}
        }
        Ok(false)
    }
}

/// Resolves when another node leads what is waited for; or, when one does, once this one has said
/// nothing for a while. Cancel-safe.
async fn silence(remote: &Remote, moved: Option<Instant>, awaited: Option<ShardId>) {
    match (awaited, moved) {
        (None, _) => std::future::pending().await,
        (Some(shard), None) => remote.moved(shard).await,
        (Some(_), Some(since)) => sleep_until(since + GRACE).await,
    }
}

fn refuse(ship: Option<Ship>, refusal: &Refusal) {
    if let Some(ship) = ship {
        ship.refuse(refusal);
    }
}
