//! The task behind a publisher: one stream at a time, made again when it is lost.

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_proto::v1::{
    PublishDecision, PublishFrame, PublishReply, PublishResult, publish_reply::Reply,
    publish_result::Outcome,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::batch::{Credit, FRAME_BYTES_MAX, FRAME_MESSAGES_MAX, Item, Sent, next_frame};
use super::{Ack, PublisherOptions};
use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::{Applied, Error};
use crate::stream::{Duplex, is_final};

/// Frames whose decision is due: enough to hide the way to the server and its sync, few enough that
/// what waits behind them grows into large batches.
const FRAMES_IN_FLIGHT_MAX: usize = 64;
/// Messages taken from the inbox before the next frame is considered.
const TAKE_MAX: usize = 4096;

/// The node goes down, and comes back.
const DRAINING: &str = "DRAINING";
/// It has more to do than it can take.
const OVERLOADED: &str = "OVERLOADED";

type Stream = Duplex<PublishFrame, PublishReply>;

/// Owns everything that is not decided.
pub(super) struct Driver {
    client: Client,
    address: String,
    options: PublisherOptions,
    inbox: mpsc::UnboundedReceiver<Item>,
    inbox_open: bool,
    room: Arc<Semaphore>,
    /// In order of their numbers.
    waiting: VecDeque<Item>,
    /// What `waiting` holds.
    waiting_bytes: usize,
    /// In order of their sequence.
    sent: VecDeque<Sent>,
    next_number: u64,
    /// The current stream was good for something: the next attempt comes soon.
    has_decided: bool,
    /// What the server last refused for now.
    refused: Option<Error>,
}

/// The state of one stream.
struct Connection {
    credit: Credit,
    sequence: u64,
    /// The server wants no more frames here.
    draining: bool,
}

/// Why a stream is no longer used.
enum End {
    /// Nothing is left to do and nobody can ask for more.
    Done,
    /// The server goes away; everything sent was decided.
    Drained,
    /// The connection broke, or the server ended the call.
    Lost(Error),
}

impl Driver {
    pub(super) fn new(
        client: Client,
        address: String,
        options: PublisherOptions,
        inbox: mpsc::UnboundedReceiver<Item>,
        room: Arc<Semaphore>,
    ) -> Self {
        Self {
            client,
            address,
            options,
            inbox,
            inbox_open: true,
            room,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sent: VecDeque::new(),
            next_number: 0,
            has_decided: false,
            refused: None,
        }
    }

    /// Ends when the publisher is dropped and everything is decided, or cannot be decided soon.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            if self.waiting.is_empty() {
                match self.inbox.recv().await {
                    Some(item) => self.take(item),
                    None => return,
                }
            }
            let end = match self.open().await {
                Ok(stream) => {
                    self.has_decided = false;
                    let end = self.serve(stream).await;
                    if self.has_decided {
                        backoff.reset();
                    }
                    end
                }
                Err(error) => End::Lost(error),
            };
            match end {
                End::Done => return,
                End::Drained => self.drained(),
                End::Lost(error) => self.lost(&error),
            }
            self.wait(&mut backoff).await;
            self.refused = None;
        }
    }

    async fn open(&self) -> Result<Stream, Error> {
        let mut rpc = self.client.publisher_rpc();
        Duplex::open(None, async |frames| rpc.publish_stream(frames).await).await
    }

    /// Works on one stream until it ends.
    async fn serve(&mut self, mut stream: Stream) -> End {
        let mut connection = Connection {
            credit: Credit::default(),
            sequence: 0,
            draining: false,
        };
        let mut taken = Vec::new();
        loop {
            if self.waiting.is_empty() && self.sent.is_empty() && !self.inbox_open {
                return End::Done;
            }
            if connection.draining && self.sent.is_empty() {
                return End::Drained;
            }
            let hungry = self.inbox_open
                && self.waiting.len() < FRAME_MESSAGES_MAX
                && self.waiting_bytes < FRAME_BYTES_MAX;
            let next = self.waiting.front().map(|item| item.record.len());
            let ready = next.is_some_and(|length| connection.credit.covers(length))
                && !connection.draining
                && self.sent.len() < FRAMES_IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                reply = stream.replies.message() => match reply {
                    Ok(Some(reply)) => if let Err(error) = self.reply(reply, &mut connection) {
                        return End::Lost(error);
                    },
                    Ok(None) => return End::Lost(Error::connection_lost()),
                    Err(status) => return End::Lost(status.into()),
                },
                count = self.inbox.recv_many(&mut taken, TAKE_MAX), if hungry => {
                    self.inbox_open = count > 0;
                    taken.drain(..).for_each(|item| self.take(item));
                }
                slot = stream.frames.reserve(), if ready => match slot {
                    Ok(slot) => if let Some(frame) = self.frame(&mut connection) {
                        slot.send(frame);
                    },
                    // The transport dropped the frames; the replies tell why.
                    Err(_) => connection.draining = true,
                },
            }
        }
    }

    fn take(&mut self, mut item: Item) {
        item.number = self.next_number;
        self.next_number += 1;
        self.waiting_bytes += item.record.len();
        self.waiting.push_back(item);
    }

    fn frame(&mut self, connection: &mut Connection) -> Option<PublishFrame> {
        let sequence = connection.sequence + 1;
        let credit = &mut connection.credit;
        let (frame, sent) = next_frame(&mut self.waiting, credit, sequence, &self.address)?;
        connection.sequence = sequence;
        let items = sent.batches.iter().flatten();
        self.waiting_bytes -= items.map(|item| item.record.len()).sum::<usize>();
        self.sent.push_back(sent);
        Some(frame)
    }

    fn reply(&mut self, reply: PublishReply, connection: &mut Connection) -> Result<(), Error> {
        match reply.reply {
            Some(Reply::Credit(more)) => {
                let credit = &mut connection.credit;
                credit.messages = credit.messages.saturating_add(more.messages.into());
                credit.bytes = credit.bytes.saturating_add(more.bytes);
                Ok(())
            }
            Some(Reply::Decision(decision)) => self.decided(decision, connection),
            Some(Reply::Drain(_)) => {
                connection.draining = true;
                Ok(())
            }
            // Of a later version: nothing that this one has to know.
            None => Ok(()),
        }
    }

    fn decided(
        &mut self,
        decision: PublishDecision,
        connection: &mut Connection,
    ) -> Result<(), Error> {
        let at = self
            .sent
            .iter()
            .position(|sent| sent.sequence == decision.sequence);
        let Some(sent) = at.and_then(|at| self.sent.remove(at)) else {
            return Err(Error::protocol(
                "a decision came for a frame that was not sent",
            ));
        };
        if sent.batches.len() != decision.results.len() {
            self.sent.push_front(sent);
            return Err(Error::protocol(
                "a decision does not have a result for each batch",
            ));
        }
        let mut again = Vec::new();
        for (batch, result) in sent.batches.into_iter().zip(decision.results) {
            match judge(&batch, result) {
                Verdict::Acknowledged { partition, first } => {
                    self.has_decided = true;
                    for (item, offset) in batch.into_iter().zip(first..) {
                        self.answer(item, Ok(Ack { partition, offset }));
                    }
                }
                Verdict::Later(error) => {
                    // Nothing overtakes it from here on: the rest waits with it.
                    connection.draining = true;
                    self.refused = Some(error);
                    again.extend(batch);
                }
                Verdict::OneByOne => again.extend(batch.into_iter().map(|mut item| {
                    item.alone = true;
                    item
                })),
                Verdict::Refused(error) => {
                    for item in batch {
                        self.answer(item, Err(error.clone()));
                    }
                }
            }
        }
        self.put_back(again);
        Ok(())
    }

    /// Back among those that wait, each at its old place.
    fn put_back(&mut self, items: Vec<Item>) {
        if items.is_empty() {
            return;
        }
        self.waiting_bytes += items.iter().map(|item| item.record.len()).sum::<usize>();
        self.waiting.extend(items);
        self.waiting
            .make_contiguous()
            .sort_by_key(|item| item.number);
    }

    /// Decides, as far as it can be, what becomes of everything when a stream is lost.
    fn lost(&mut self, error: &Error) {
        let sent: Vec<Item> = self
            .sent
            .drain(..)
            .flat_map(|sent| sent.batches)
            .flatten()
            .collect();
        if is_final(error) {
            // Nothing of the call took effect when the server does not even want the call; what
            // was sent earlier on it may have.
            self.take_all();
            let waiting: Vec<Item> = self.waiting.drain(..).collect();
            self.waiting_bytes = 0;
            for item in sent {
                self.answer(item, Err(error.clone().after_unknown()));
            }
            for item in waiting {
                self.answer(item, Err(error.clone()));
            }
        } else if self.options.retry_unknown {
            let attempted = sent.into_iter().map(|mut item| {
                item.attempted = true;
                item
            });
            self.put_back(attempted.collect());
        } else {
            for item in sent {
                let mut unknown = error.clone();
                unknown.applied = Applied::Unknown;
                self.answer(item, Err(unknown));
            }
        }
        self.expire(error);
    }

    /// The stream is done with: what the server refused for now is tried again.
    fn drained(&mut self) {
        if let Some(error) = self.refused.clone() {
            self.give_up(&error, Rest::Waits);
        }
    }

    /// Reports what has waited too long, or has nobody left to wait for.
    fn expire(&mut self, error: &Error) {
        self.take_all();
        let rest = if self.inbox_open {
            Rest::Waits
        } else {
            Rest::Vain
        };
        self.give_up(error, rest);
    }

    /// Reports messages that have waited too long, and the rest if that waits in vain.
    fn give_up(&mut self, error: &Error, rest: Rest) {
        let now = Instant::now();
        while let Some(item) = self.waiting.front() {
            let limit = self.options.give_up_after;
            let late = limit.is_some_and(|limit| now.duration_since(item.since) >= limit);
            if !late && rest == Rest::Waits {
                return;
            }
            if let Some(item) = self.waiting.pop_front() {
                self.waiting_bytes -= item.record.len();
                let mut error = error.clone();
                error.applied = Applied::No;
                self.answer(item, Err(error));
            }
        }
    }

    fn take_all(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(item) => self.take(item),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.inbox_open = false;
                    return;
                }
            }
        }
    }

    /// Before the next attempt to connect; no longer than the oldest message may wait.
    async fn wait(&self, backoff: &mut Backoff) {
        let Some(oldest) = self.waiting.front() else {
            return;
        };
        let asked = self.refused.as_ref().and_then(|error| error.retry_after);
        let mut delay = backoff.delay().max(asked.unwrap_or_default());
        if let Some(limit) = self.options.give_up_after {
            delay = delay.min(limit.saturating_sub(oldest.since.elapsed()));
        }
        sleep(delay).await;
    }

    fn answer(&self, item: Item, outcome: Result<Ack, Error>) {
        self.room.add_permits(item.cost as usize);
        let outcome = match outcome {
            Err(error) if item.attempted => Err(error.after_unknown()),
            outcome => outcome,
        };
        // Whoever dropped the handle does not want to know.
        drop(item.answer.send(outcome));
    }
}

/// What is done with messages that have not waited too long yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Waits,
    /// Nobody is left to wait for it.
    Vain,
}

/// What the server's result means for a batch.
enum Verdict {
    Acknowledged {
        partition: u32,
        first: u64,
    },
    /// Not now: after a while, on another stream.
    Later(Error),
    /// One of several messages is at fault: each gets its own verdict.
    OneByOne,
    Refused(Error),
}

fn judge(batch: &[Item], result: PublishResult) -> Verdict {
    match result.outcome {
        Some(Outcome::Acknowledged(ack)) => {
            let offsets = ack.offsets.unwrap_or_default();
            if offsets.end.checked_sub(offsets.first) == u64::try_from(batch.len()).ok() {
                return Verdict::Acknowledged {
                    partition: ack.partition,
                    first: offsets.first,
                };
            }
            Verdict::Refused(Error::protocol(
                "an acknowledgement does not cover its batch",
            ))
        }
        Some(Outcome::Refused(refused)) => {
            let error = Error::from(refused);
            let untouched = error.applied == Applied::No;
            if untouched && passes(&error) {
                Verdict::Later(error)
            } else if untouched && error.code == Code::InvalidArgument && batch.len() > 1 {
                Verdict::OneByOne
            } else {
                Verdict::Refused(error)
            }
        }
        None => Verdict::Refused(Error::protocol("a result says nothing")),
    }
}

/// Whether a refusal is one of those that end by themselves: the server says when to come back, or
/// goes away to come back. One of a damaged shard does neither. Those that wait for somebody (a
/// full queue, a full disk) are the caller's to judge.
fn passes(error: &Error) -> bool {
    match error.reason.as_str() {
        DRAINING | OVERLOADED => true,
        _ => error.code == Code::Unavailable && error.retry_after.is_some(),
    }
}
