//! The task behind a consumer: one session, one stream at a time.

use std::collections::{HashSet, VecDeque};
use std::pin::pin;

use bytes::Bytes;
use millrace_proto::v1::{
    self, ConsumeClose, ConsumeCredit, ConsumeFrame, ConsumeOpen, ConsumeReply,
    consume_frame::Frame, consume_reply::Reply,
};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::settlements::Settlements;
use super::{ConsumerOptions, Delivery, Request};
use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::{Applied, Error};
use crate::queue::Received;
use crate::routing::Way;
use crate::stream::{Duplex, is_final};

/// How long closing may take: the server ends the session by itself when it hears nothing.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A message that died more than once is stored with every death, at most about this much each,
/// and only the last one arrives: its credit is returned as if all had.
const DEATH_BYTES_MAX: u64 = 2048;
/// What the server says of a session that it does not know any more.
const SESSION_EXPIRED: &str = "SESSION_EXPIRED";

type Stream = Duplex<ConsumeFrame, ConsumeReply>;

/// What handles ask of the driver.
#[derive(Debug)]
pub(super) enum Command {
    /// Send this settlement.
    Settle(Request),
    /// Settle what waits, give back the rest, end.
    Close {
        /// Told when it has happened.
        done: oneshot::Sender<()>,
    },
}

/// Owns the session.
pub(super) struct Driver {
    client: Client,
    address: String,
    options: ConsumerOptions,
    inbox: mpsc::UnboundedReceiver<Command>,
    inbox_open: bool,
    /// For the deliveries; weak, so that the inbox ends with the handles.
    handle: mpsc::WeakUnboundedSender<Command>,
    handed_out: mpsc::Sender<Result<Delivery, Error>>,
    /// Names the session at the server; empty before there is one.
    session: Bytes,
    /// Leases that are not known to be over.
    held: HashSet<Bytes>,
    /// Delivered, not handed out.
    buffer: VecDeque<Received>,
    settlements: Settlements,
    /// Credit to give back to the server.
    returned: ConsumeCredit,
    /// Messages the server may still send on this stream.
    expected: u64,
    /// Messages that may still be asked for.
    left: u64,
    pong_due: bool,
    closing: Closing,
    /// The current stream was good for something.
    has_opened: bool,
}

/// Whether the session goes on.
#[derive(Debug)]
enum Closing {
    /// It does.
    No,
    /// It ends when nothing is to be settled any more.
    Asked { done: Option<oneshot::Sender<()>> },
}

enum End {
    /// The session is over, as it was asked to be.
    Closed,
    /// The connection broke, or the server ended the call.
    Lost(Error),
}

impl Driver {
    pub(super) fn new(
        client: Client,
        address: String,
        options: ConsumerOptions,
        inbox: mpsc::UnboundedReceiver<Command>,
        handle: mpsc::WeakUnboundedSender<Command>,
        handed_out: mpsc::Sender<Result<Delivery, Error>>,
    ) -> Self {
        let left = options.messages_max.unwrap_or(u64::MAX);
        Self {
            left,
            expected: 0,
            client,
            address,
            options,
            inbox,
            inbox_open: true,
            handle,
            handed_out,
            session: Bytes::new(),
            held: HashSet::new(),
            buffer: VecDeque::new(),
            settlements: Settlements::new(),
            returned: ConsumeCredit::default(),
            pong_due: false,
            closing: Closing::No,
            has_opened: false,
        }
    }

    /// Ends when the handles are gone, `close` was called, or the server does not want it.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new();
        let mut heard = Instant::now();
        loop {
            self.has_opened = false;
            let way = self.client.way_to(&self.address, 0).await;
            let end = match self.open(&way).await {
                Ok(stream) => self.serve(stream, &way).await,
                Err(error) => End::Lost(error),
            };
            if self.has_opened {
                backoff.reset();
                heard = Instant::now();
                self.client.succeeded(&way);
            }
            if let End::Lost(error) = &end {
                self.client.failed(&way, error);
            }
            let error = match end {
                End::Closed => return,
                End::Lost(error) => error,
            };
            if error.reason == SESSION_EXPIRED && !self.session.is_empty() {
                // Ended with that word, a stream may have lost its session to an earlier one of
                // ours that came late, and nobody reads that any more: whether the session is over
                // is what attaching to it says. Given up, what it holds would fail by time.
                match self.has_opened {
                    true => self.settlements.resend(),
                    false => self.forget(&error),
                }
                self.pause(backoff.delay(), &way).await;
                continue;
            }
            let limit = match self.closing {
                Closing::No => self.options.give_up_after,
                Closing::Asked { .. } => Some(CLOSE_TIMEOUT),
            };
            let tired = limit.is_some_and(|limit| heard.elapsed() >= limit);
            if is_final(&error) || tired {
                self.fail(error).await;
                return;
            }
            self.settlements.resend();
            if self.is_finished() && self.session.is_empty() {
                self.tell_closed();
                return;
            }
            self.pause(backoff.delay(), &way).await;
        }
    }

    /// Waits, listening to the handles: there is no connection.
    async fn pause(&mut self, delay: Duration, way: &Way) {
        let client = self.client.clone();
        let mut over = pin!(client.pause(way, delay));
        loop {
            tokio::select! {
                biased;
                () = &mut over => return,
                command = self.inbox.recv(), if self.inbox_open => self.heard(command),
            }
        }
    }

    async fn open(&mut self, way: &Way) -> Result<Stream, Error> {
        // What the last stream could still have brought is asked for again.
        self.left = self.left.saturating_add(std::mem::take(&mut self.expected));
        let waiting = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        let waiting_bytes = self.buffer.iter().map(cost).sum();
        let messages = self.ask(self.options.prefetch_messages.saturating_sub(waiting));
        let open = ConsumeOpen {
            address: self.address.clone(),
            consumer: self.options.name.clone(),
            session: self.session.clone(),
            held: self.held.iter().cloned().collect(),
            credit: Some(ConsumeCredit {
                messages,
                bytes: self.options.prefetch_bytes.saturating_sub(waiting_bytes),
            }),
            in_flight_max: self.options.in_flight_max,
            in_flight_bytes_max: self.options.in_flight_bytes_max,
        };
        let first = ConsumeFrame {
            frame: Some(Frame::Open(open)),
        };
        let mut rpc = way.consumer();
        Duplex::open(Some(first), async |frames| rpc.consume(frames).await).await
    }

    /// Works on one stream until it ends.
    async fn serve(&mut self, mut stream: Stream, way: &Way) -> End {
        self.returned = ConsumeCredit::default();
        self.pong_due = false;
        let mut heed = self.client.heed(way);
        loop {
            if self.has_opened && self.is_finished() {
                self.close(stream).await;
                return End::Closed;
            }
            let due = self.has_opened && self.is_frame_due();
            let again_at = self.settlements.again_at();
            let waiting = !self.buffer.is_empty() && !self.handed_out.is_closed();
            tokio::select! {
                biased;
                reply = stream.replies.message() => match reply {
                    Ok(Some(reply)) => {
                        heed.heard();
                        if let Err(error) = self.reply(reply) {
                            return End::Lost(error);
                        }
                    }
                    Ok(None) => return End::Lost(Error::connection_lost()),
                    Err(status) => return End::Lost(status.into()),
                },
                command = self.inbox.recv(), if self.inbox_open => self.heard(command),
                () = until(again_at) => self.settlements.again(),
                () = heed.silent() => return End::Lost(Error::connection_lost()),
                slot = stream.frames.reserve(), if due => match slot {
                    Ok(slot) => if let Some(frame) = self.frame() {
                        slot.send(ConsumeFrame { frame: Some(frame) });
                    },
                    Err(_) => return End::Lost(Error::connection_lost()),
                },
                slot = self.handed_out.clone().reserve_owned(), if waiting => {
                    if let (Ok(slot), Some(handle)) = (slot, self.handle.upgrade())
                        && let Some(received) = self.hand_out()
                    {
                        drop(slot.send(Ok(Delivery { received, commands: handle })));
                    }
                }
            }
        }
    }

    /// Asked to end, and nothing waits for an answer.
    fn is_finished(&self) -> bool {
        matches!(self.closing, Closing::Asked { .. }) && self.settlements.is_empty()
    }

    async fn close(&mut self, mut stream: Stream) {
        let bye = ConsumeFrame {
            frame: Some(Frame::Close(ConsumeClose {})),
        };
        let ended = async {
            if stream.frames.send(bye).await.is_ok() {
                drop(stream.frames);
                while let Ok(Some(_)) = stream.replies.message().await {}
            }
        };
        // Late or not, the server ends the session by itself.
        drop(timeout(CLOSE_TIMEOUT, ended).await);
        self.tell_closed();
    }

    fn tell_closed(&mut self) {
        if let Closing::Asked { done } = &mut self.closing
            && let Some(done) = done.take()
        {
            // Whoever called `close` may have stopped waiting.
            done.send(()).ok();
        }
    }

    /// What the handles want, all of it; `None` when they are gone.
    fn heard(&mut self, mut command: Option<Command>) {
        loop {
            match command {
                Some(Command::Settle(request)) => self.settlements.add(request),
                Some(Command::Close { done }) => {
                    self.closing = Closing::Asked { done: Some(done) };
                }
                None => {
                    self.inbox_open = false;
                    if matches!(self.closing, Closing::No) {
                        self.closing = Closing::Asked { done: None };
                    }
                    return;
                }
            }
            command = match self.inbox.try_recv() {
                Ok(command) => Some(command),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => None,
            };
        }
    }

    fn hand_out(&mut self) -> Option<Received> {
        let received = self.buffer.pop_front()?;
        self.returned.messages += 1;
        self.returned.bytes += cost(&received);
        Some(received)
    }

    /// Half of the credit has to be used before more is worth a frame.
    fn is_credit_due(&self) -> bool {
        matches!(self.closing, Closing::No)
            && (self.returned.messages >= self.options.prefetch_messages.div_ceil(2)
                || self.returned.bytes >= self.options.prefetch_bytes.div_ceil(2))
    }

    /// As many of these messages as may still be asked for.
    fn ask(&mut self, messages: u32) -> u32 {
        let asked = u32::try_from(self.left).unwrap_or(u32::MAX).min(messages);
        self.left -= u64::from(asked);
        self.expected += u64::from(asked);
        asked
    }

    fn is_frame_due(&self) -> bool {
        self.settlements.is_due() || self.pong_due || self.is_credit_due()
    }

    fn frame(&mut self) -> Option<Frame> {
        if self.settlements.is_due() {
            return Some(Frame::Settle(self.settlements.batch()));
        }
        if self.is_credit_due() {
            let mut credit = std::mem::take(&mut self.returned);
            credit.messages = self.ask(credit.messages);
            return Some(Frame::Credit(credit));
        }
        std::mem::take(&mut self.pong_due).then_some(Frame::Pong(v1::Pong {}))
    }

    fn reply(&mut self, reply: ConsumeReply) -> Result<(), Error> {
        match reply.reply {
            Some(Reply::Opened(opened)) => {
                if !self.session.is_empty() && self.session != opened.session {
                    // Another session: nothing of the old one is ours any more.
                    self.forget(&expired());
                }
                self.session = opened.session;
                self.has_opened = true;
            }
            Some(Reply::Deliveries(deliveries)) => {
                for delivery in deliveries.deliveries {
                    let received = Received::from(delivery);
                    // One that is held already was sent again before the server knew.
                    if self.held.insert(received.tag.clone()) {
                        self.expected = self.expected.saturating_sub(1);
                        self.buffer.push_back(received);
                    }
                }
            }
            Some(Reply::Results(results)) => {
                for tag in self.settlements.answered(&results)? {
                    self.held.remove(&tag);
                }
            }
            Some(Reply::Ping(_)) => self.pong_due = true,
            Some(Reply::Lost(lost)) => self.leases_lost(&lost.tags),
            // The server ends the stream when it is done; until then, everything goes on. Nothing
            // has to be known of replies of a later version.
            Some(Reply::Drain(_)) | None => {}
        }
        Ok(())
    }

    fn leases_lost(&mut self, tags: &[Bytes]) {
        for tag in tags {
            self.held.remove(tag);
        }
        let (held, returned, left) = (&self.held, &mut self.returned, &mut self.left);
        self.buffer.retain(|received| {
            let kept = held.contains(&received.tag);
            if !kept {
                *left = left.saturating_add(1);
                returned.messages += 1;
                returned.bytes += cost(received);
            }
            kept
        });
    }

    /// The session is over: its leases are, too.
    fn forget(&mut self, error: &Error) {
        self.session = Bytes::new();
        self.held.clear();
        // They come again, from a session to be.
        let again = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        self.left = self.left.saturating_add(again);
        self.buffer.clear();
        self.settlements.end(error);
    }

    /// Ends with an error, which is the last thing the consumer says.
    async fn fail(mut self, error: Error) {
        self.forget(&error);
        // Nobody to tell when the consumer was dropped.
        drop(self.handed_out.send(Err(error)).await);
        self.tell_closed();
    }
}

/// What a delivery takes of the credit in bytes.
fn cost(received: &Received) -> u64 {
    let bytes = u64::try_from(received.message.encoded_len()).unwrap_or(u64::MAX);
    let deaths = received
        .message
        .death
        .as_ref()
        .map_or(0, |death| death.count.saturating_sub(1));
    bytes.saturating_add(u64::from(deaths).saturating_mul(DEATH_BYTES_MAX))
}

/// When it is time; never, without one.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn expired() -> Error {
    Error::local(
        SESSION_EXPIRED,
        tonic::Code::FailedPrecondition,
        Applied::No,
        "the session ended while the connection was lost".to_owned(),
    )
}
