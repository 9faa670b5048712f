//! The task behind a publisher: one stream at a time, made again when it is lost.

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_proto::v1::{
    self, Acknowledgement, OffsetRange, PublishDecision, PublishFrame, PublishReply, PublishResult,
    publish_reply::Reply, publish_result::Outcome,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tonic::Code;

use super::batch::{
    Batch, Credit, FRAME_BYTES_MAX, FRAME_MESSAGES_MAX, Item, Sent, Waiting, next_frame,
};
use super::producer::Producer;
use super::{Ack, Durability, PublisherOptions};
use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::{Applied, Error};
use crate::routing::Way;
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
    producer: Producer,
    waiting: Waiting,
    /// Bytes of messages that wait and were never sent.
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
        let producer = if options.dedup {
            Producer::known()
        } else {
            Producer::unknown()
        };
        Self {
            client,
            address,
            options,
            inbox,
            inbox_open: true,
            room,
            producer,
            waiting: Waiting::default(),
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
            // Of a topic with several leaders, the one that was gone to forwards.
            let way = self.client.way_to(&self.address, 0).await;
            let end = match open(&way).await {
                Ok(stream) => {
                    self.has_decided = false;
                    let end = self.serve(stream, &way).await;
                    if self.has_decided {
                        backoff.reset();
                        self.client.succeeded(&way);
                    }
                    end
                }
                Err(error) => End::Lost(error),
            };
            if let End::Lost(error) = &end {
                self.client.failed(&way, error);
            }
            match end {
                End::Done => return,
                End::Drained => self.drained(),
                End::Lost(error) => self.lost(&error),
            }
            self.wait(&mut backoff, &way).await;
            self.refused = None;
        }
    }

    /// Works on one stream until it ends.
    async fn serve(&mut self, mut stream: Stream, way: &Way) -> End {
        let mut connection = Connection {
            credit: Credit::default(),
            sequence: 0,
            draining: false,
        };
        let mut taken = Vec::new();
        let mut heed = self.client.heed(way);
        loop {
            if self.waiting.is_empty() && self.sent.is_empty() && !self.inbox_open {
                return End::Done;
            }
            if connection.draining && self.sent.is_empty() {
                return End::Drained;
            }
            let hungry = self.inbox_open
                && self.waiting.items.len() < FRAME_MESSAGES_MAX
                && self.waiting_bytes < FRAME_BYTES_MAX;
            let next = self.waiting.next();
            let ready = next.is_some_and(|next| connection.credit.covers(next))
                && !connection.draining
                && self.sent.len() < FRAMES_IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                reply = stream.replies.message() => match reply {
                    Ok(Some(reply)) => {
                        heed.heard();
                        if let Err(error) = self.reply(reply, &mut connection) {
                            return End::Lost(error);
                        }
                    }
                    Ok(None) => return End::Lost(Error::connection_lost()),
                    Err(status) => return End::Lost(status.into()),
                },
                () = heed.silent() => return End::Lost(Error::connection_lost()),
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
        self.waiting.items.push_back(item);
    }

    fn frame(&mut self, connection: &mut Connection) -> Option<PublishFrame> {
        let sequence = connection.sequence + 1;
        let (credit, producer) = (&mut connection.credit, &mut self.producer);
        let (mut frame, sent) =
            next_frame(&mut self.waiting, credit, producer, sequence, &self.address)?;
        frame.acknowledge = self.options.acknowledge.wire().into();
        connection.sequence = sequence;
        let items = self.waiting.items.iter();
        self.waiting_bytes = items.map(|item| item.record.len()).sum();
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
        for (batch, result) in sent.batches.into_iter().zip(decision.results) {
            match self.judge(&batch, result) {
                Verdict::Acknowledged(ack) => {
                    self.has_decided = true;
                    self.acknowledge(batch, ack);
                }
                Verdict::Later(error) => {
                    // Nothing overtakes it from here on: the rest waits with it.
                    connection.draining = true;
                    let attempted = batch.attempted || error.applied == Applied::Unknown;
                    self.refused = Some(error);
                    self.waiting.again.push_back(Batch { attempted, ..batch });
                }
                Verdict::OneByOne => {
                    self.producer.decided(batch.number);
                    self.put_back(batch.items);
                }
                Verdict::Refused(error) => self.fail(batch, &error),
            }
        }
        self.sort_again();
        Ok(())
    }

    fn acknowledge(&mut self, batch: Batch, first: Ack) {
        self.producer.decided(batch.number);
        for (item, place) in batch.items.into_iter().zip(0..) {
            let offset = first.offset.map(|first| first + place);
            self.answer(item, Ok(Ack { offset, ..first }));
        }
    }

    fn fail(&mut self, batch: Batch, error: &Error) {
        self.producer.decided(batch.number);
        let error = match batch.attempted {
            true => error.clone().after_unknown(),
            false => error.clone(),
        };
        for item in batch.items {
            self.answer(item, Err(error.clone()));
        }
    }

    /// Each at its old place.
    fn sort_again(&mut self) {
        let again = self.waiting.again.make_contiguous();
        again.sort_by_key(|batch| batch.number);
    }

    /// Back among those that wait, each at its old place, to be sent on its own.
    fn put_back(&mut self, mut items: Vec<Item>) {
        items.iter_mut().for_each(|item| item.alone = true);
        self.waiting_bytes += items.iter().map(|item| item.record.len()).sum::<usize>();
        let waiting = &mut self.waiting.items;
        waiting.extend(items);
        waiting.make_contiguous().sort_by_key(|item| item.number);
    }

    /// Decides, as far as it can be, what becomes of everything when a stream is lost.
    fn lost(&mut self, error: &Error) {
        let sent = self.sent.drain(..).flat_map(|sent| sent.batches);
        let sent: Vec<Batch> = sent
            .map(|batch| Batch {
                attempted: true,
                ..batch
            })
            .collect();
        if is_final(error) {
            // Nothing of the call took effect when the server does not even want the call; what
            // was sent earlier on it may have.
            self.take_all();
            let again: Vec<Batch> = self.waiting.again.drain(..).collect();
            sent.into_iter()
                .chain(again)
                .for_each(|batch| self.fail(batch, error));
            let items: Vec<Item> = self.waiting.items.drain(..).collect();
            self.waiting_bytes = 0;
            for item in items {
                self.answer(item, Err(error.clone()));
            }
        } else if self.options.retry_unknown {
            self.waiting.again.extend(sent);
            self.sort_again();
        } else {
            let mut unknown = error.clone();
            unknown.applied = Applied::Unknown;
            sent.into_iter()
                .for_each(|batch| self.fail(batch, &unknown));
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
        let (now, limit) = (Instant::now(), self.options.give_up_after);
        let mut error = error.clone();
        error.applied = Applied::No;
        let is_over = |since: Instant| {
            let late = limit.is_some_and(|limit| now.duration_since(since) >= limit);
            late || rest == Rest::Vain
        };
        let over = |batch: &mut Batch| batch.waits_since().is_none_or(is_over);
        while let Some(batch) = self.waiting.again.pop_front_if(over) {
            self.fail(batch, &error);
        }
        while let Some(item) = self.waiting.items.pop_front_if(|item| is_over(item.since)) {
            self.waiting_bytes -= item.record.len();
            self.answer(item, Err(error.clone()));
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
    async fn wait(&self, backoff: &mut Backoff, way: &Way) {
        let again = self.waiting.again.front().and_then(Batch::waits_since);
        let oldest = again.or(self.waiting.items.front().map(|item| item.since));
        let Some(oldest) = oldest else {
            return;
        };
        let asked = self.refused.as_ref().and_then(|error| error.retry_after);
        let mut delay = backoff.delay().max(asked.unwrap_or_default());
        if let Some(limit) = self.options.give_up_after {
            delay = delay.min(limit.saturating_sub(oldest.elapsed()));
        }
        self.client.pause(way, delay).await;
    }

    fn answer(&self, item: Item, outcome: Result<Ack, Error>) {
        self.room.add_permits(item.cost as usize);
        // Whoever dropped the handle does not want to know.
        drop(item.answer.send(outcome));
    }
}

async fn open(way: &Way) -> Result<Stream, Error> {
    let mut rpc = way.publisher();
    Duplex::open(None, async |frames| rpc.publish_stream(frames).await).await
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
    /// Here is its first message.
    Acknowledged(Ack),
    /// Not now: after a while, on another stream.
    Later(Error),
    /// One of several messages is at fault: each gets its own verdict.
    OneByOne,
    Refused(Error),
}

impl Driver {
    fn judge(&self, batch: &Batch, result: PublishResult) -> Verdict {
        let error = match result.outcome {
            Some(Outcome::Acknowledged(ack)) => return acknowledged(batch, &ack),
            Some(Outcome::Refused(refused)) => Error::from(refused),
            None => return Verdict::Refused(Error::protocol("a result says nothing")),
        };
        match error.applied {
            Applied::No if passes(&error) => Verdict::Later(error),
            Applied::No
                if error.code == Code::InvalidArgument
                    && batch.items.len() > 1
                    && !batch.attempted =>
            {
                Verdict::OneByOne
            }
            // What became of it is found out by sending it again.
            Applied::Unknown if self.options.retry_unknown && error.code == Code::Unavailable => {
                Verdict::Later(error)
            }
            _ => Verdict::Refused(error),
        }
    }
}

fn acknowledged(batch: &Batch, ack: &Acknowledgement) -> Verdict {
    let count = u64::try_from(batch.items.len()).ok();
    let length = |offsets: OffsetRange| offsets.end.checked_sub(offsets.first);
    let durability = match ack.durability() {
        v1::Durability::MajoritySynced => Durability::MajoritySynced,
        v1::Durability::Received => Durability::Received,
        v1::Durability::Unspecified => {
            let text = "an acknowledgement does not say what it guarantees";
            return Verdict::Refused(Error::protocol(text));
        }
    };
    match (ack.offsets, durability) {
        (Some(offsets), _) if length(offsets) == count => {}
        (None, Durability::Received) => {}
        _ => {
            let text = "an acknowledgement does not cover its batch";
            return Verdict::Refused(Error::protocol(text));
        }
    }
    Verdict::Acknowledged(Ack {
        partition: ack.partition,
        offset: ack.offsets.map(|offsets| offsets.first),
        durability,
        replicas: ack.replicas,
        duplicate: ack.duplicate,
    })
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
