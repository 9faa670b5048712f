//! One client's `Consume` stream: opens or resumes its session, passes frames and events on, keeps
//! it alive, ends it.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use millrace_engine::command::Window;
use millrace_proto::v1;
use millrace_proto::v1::consume_frame::Frame;
use millrace_proto::v1::consume_reply::Reply;
use millrace_types::{ErrorCode, Refusal, SessionId, TEXT_BYTES_MAX};
use prost::Message as _;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tonic::{Status, Streaming};

use super::{ANSWER_BYTES_MAX, TAGS_MAX, split};
use crate::convert;
use crate::forward::{Origin, Place, consume};
use crate::services::outbox::{Gone, Outbox};
use crate::services::{Context, draining, unreadable};
use crate::validate::{self, invalid, length};
use millrace_node::{
    Consumer, ConsumerEvent, ConsumerEvents, Delivered, OpenConsumer, Resume, SettleResults,
};

/// How often a quiet client is asked for a sign of life: three may be missed before its session's
/// time to live is over.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(10);
/// A client that opens a stream and says nothing.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// Settle frames under way: beyond, the client's frames wait in its own buffers.
const SETTLES_MAX: usize = 1_000;

type Ended = Result<Result<(), Refusal>, Gone>;

/// Serves a stream to its end, where its queue is led.
pub(super) async fn serve(
    context: Context,
    origin: Origin,
    mut frames: Streaming<v1::ConsumeFrame>,
    outbox: Outbox<v1::ConsumeReply>,
) {
    let broker = context.broker.clone();
    let ended = match first(&mut frames).await {
        Ok(open) => route(context, &origin, open, (frames, &outbox)).await,
        Err(refusal) => Ok(Err(refusal)),
    };
    if let Ok(Err(refusal)) = ended {
        outbox.fail(broker.hint(refusal)).await;
    }
}

async fn first(frames: &mut Streaming<v1::ConsumeFrame>) -> Result<v1::ConsumeOpen, Refusal> {
    let late = |_| invalid("open", format!("did not come within {OPEN_WITHIN:?}"));
    let first = timeout(OPEN_WITHIN, frames.message()).await.map_err(late)?;
    let first = first.map_err(|status| unreadable(&status))?;
    match first.and_then(|frame| frame.frame) {
        Some(Frame::Open(open)) => Ok(open),
        _ => Err(invalid(
            "open",
            "is missing: it is the first frame of a stream",
        )),
    }
}

/// Opens the session here, or passes the stream on; again, while nobody leads the queue.
async fn route(
    context: Context,
    origin: &Origin,
    open: v1::ConsumeOpen,
    (mut frames, outbox): (Streaming<v1::ConsumeFrame>, &Outbox<v1::ConsumeReply>),
) -> Ended {
    let shard = match request(open.clone()) {
        Ok(wanted) => context.broker.queue_shard(&wanted.address).await,
        Err(refusal) => Err(refusal),
    };
    let shard = match shard {
        Ok(shard) => shard,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let (forward, stop) = (context.forward.clone(), context.tasks.stop().clone());
    let mut attempts = forward.call(origin, shard);
    loop {
        let refusal = match attempts.place().await {
            Ok(Place::Here) => match request(open.clone()) {
                Ok(request) => match context.broker.open_consumer(request).await {
                    Ok((consumer, events)) => {
                        return Session::new(context, consumer, outbox)
                            .run(events, frames)
                            .await;
                    }
                    Err(refusal) => refusal,
                },
                Err(refusal) => return Ok(Err(refusal)),
            },
            Ok(Place::There(remote)) => {
                let client = consume::Client {
                    open: open.clone(),
                    frames: &mut frames,
                    outbox,
                };
                match consume::serve(&remote, origin, client, &stop).await {
                    consume::Ended::NotOpened(refusal) => refusal,
                    consume::Ended::Closed(ended) => return Ok(ended),
                    consume::Ended::Gone => return Err(Gone),
                }
            }
            Err(refusal) => return Ok(Err(refusal)),
        };
        if !attempts.again(&refusal).await {
            return Ok(Err(refusal));
        }
    }
}

fn request(open: v1::ConsumeOpen) -> Result<OpenConsumer, Refusal> {
    length("consumer", &open.consumer, TEXT_BYTES_MAX)?;
    if open.held.len() > TAGS_MAX {
        let text = format!("has {} tags; want at most {TAGS_MAX}", open.held.len());
        return Err(invalid("held", text));
    }
    let resume = if open.session.is_empty() {
        None
    } else {
        Some(Resume {
            session: session_id(&open.session)?,
            held: open.held,
        })
    };
    Ok(OpenConsumer {
        address: validate::address(&open.address)?,
        consumer: open.consumer,
        resume,
        in_flight: Window {
            messages: open.in_flight_max,
            bytes: open.in_flight_bytes_max,
        },
        credit: open.credit.map(convert::credit).unwrap_or_default(),
    })
}

/// A session as clients carry it: its number, big-endian.
fn session_id(session: &Bytes) -> Result<SessionId, Refusal> {
    let bytes: [u8; 8] = session.as_ref().try_into().map_err(|_| {
        let text = "this is no session of ours; open a new one";
        Refusal::new(ErrorCode::SessionExpired, text).with("field", "session")
    })?;
    Ok(SessionId::new(u64::from_be_bytes(bytes)))
}

struct Session<'a> {
    context: Context,
    consumer: Consumer,
    outbox: &'a Outbox<v1::ConsumeReply>,
    /// Settle frames under way, by our own number: clients may use one twice.
    settles: HashMap<u64, Settling>,
    sequence: u64,
    heard: Instant,
    input: Input,
}

/// A settle frame under way.
struct Settling {
    /// As the client numbered it.
    sequence: u64,
    /// Refused before the broker saw them.
    refused: Vec<v1::SettleRefusal>,
}

/// What the client may still say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    /// It ended its frames: the session stays, to be resumed.
    Ended,
    /// It closed the session.
    Closed,
}

impl<'a> Session<'a> {
    fn new(context: Context, consumer: Consumer, outbox: &'a Outbox<v1::ConsumeReply>) -> Self {
        Self {
            context,
            consumer,
            outbox,
            settles: HashMap::new(),
            sequence: 0,
            heard: Instant::now(),
            input: Input::Open,
        }
    }

    async fn run(
        mut self,
        mut events: ConsumerEvents,
        mut frames: Streaming<v1::ConsumeFrame>,
    ) -> Ended {
        self.send(Reply::Opened(self.opened())).await?;
        let stop = self.context.tasks.stop().clone();
        let mut ping = pings();
        loop {
            match self.input {
                Input::Ended if self.settles.is_empty() => return Ok(Ok(())),
                Input::Closed if self.settles.is_empty() => return Ok(self.consumer.close().await),
                Input::Open | Input::Ended | Input::Closed => {}
            }
            let listening = self.input == Input::Open && self.settles.len() < SETTLES_MAX;
            tokio::select! {
                biased;
                () = stop.ended() => return Ok(Err(self.unfinished())),
                () = self.outbox.closed() => return Err(Gone),
                event = events.next() => match event {
                    Some(event) => match self.tell(event).await? {
                        Ok(()) => {}
                        Err(refusal) => return Ok(Err(refusal)),
                    },
                    None => return Ok(Err(expired("the session is over"))),
                },
                frame = frames.message(), if listening => {
                    if let Err(refusal) = self.take(frame).await? {
                        return Ok(Err(refusal));
                    }
                }
                _ = ping.tick() => {
                    if listening && self.heard.elapsed() > self.consumer.session_ttl() {
                        return Ok(Err(self.silent().await));
                    }
                    self.send(Reply::Ping(v1::Ping {})).await?;
                }
            }
        }
    }

    fn opened(&self) -> v1::ConsumeOpened {
        let window = self.consumer.in_flight();
        v1::ConsumeOpened {
            session: self.consumer.session().get().to_be_bytes().to_vec().into(),
            session_ttl: Some(convert::duration(self.consumer.session_ttl())),
            in_flight_max: window.messages,
            in_flight_bytes_max: window.bytes,
        }
    }

    /// Passes on what the client says.
    async fn take(
        &mut self,
        frame: Result<Option<v1::ConsumeFrame>, Status>,
    ) -> Result<Result<(), Refusal>, Gone> {
        let frame = match frame {
            Ok(frame) => frame,
            Err(status) => return Ok(Err(unreadable(&status))),
        };
        self.heard = Instant::now();
        self.consumer.touch();
        let Some(frame) = frame else {
            self.input = Input::Ended;
            return Ok(Ok(()));
        };
        match frame.frame {
            Some(Frame::Credit(credit)) => self.consumer.credit(convert::credit(credit)),
            Some(Frame::Settle(batch)) => self.settle(batch).await?,
            Some(Frame::Pong(v1::Pong {})) => {}
            Some(Frame::Close(v1::ConsumeClose {})) => self.input = Input::Closed,
            Some(Frame::Open(_)) => {
                return Ok(Err(invalid(
                    "open",
                    "came twice; it is the first frame only",
                )));
            }
            None => return Ok(Err(invalid("frame", "is empty or of a kind not known"))),
        }
        Ok(Ok(()))
    }

    async fn settle(&mut self, batch: v1::SettleBatch) -> Result<(), Gone> {
        let sequence = batch.sequence;
        let (entries, refused) = split(batch.settlements);
        let settling = Settling { sequence, refused };
        if entries.is_empty() {
            return self
                .send(Reply::Results(settling.results(Vec::new(), 0)))
                .await;
        }
        self.sequence += 1;
        self.settles.insert(self.sequence, settling);
        self.consumer.settle(self.sequence, entries);
        Ok(())
    }

    /// Tells the client what happened; the inner error ends the stream.
    async fn tell(&mut self, event: ConsumerEvent) -> Result<Result<(), Refusal>, Gone> {
        match event {
            ConsumerEvent::Deliveries(delivered) => return self.deliver(delivered).await,
            ConsumerEvent::Settled(SettleResults {
                sequence,
                settled,
                refused,
            }) => {
                if let Some(settling) = self.settles.remove(&sequence) {
                    let results = settling.results(refused, settled);
                    self.send(Reply::Results(results)).await?;
                }
            }
            ConsumerEvent::LeasesLost(tags) => {
                self.send(Reply::Lost(v1::LeasesLost { tags })).await?;
            }
            ConsumerEvent::Drain => {
                let reason = "the node is going down".to_owned();
                self.send(Reply::Drain(v1::Drain { reason })).await?;
            }
            ConsumerEvent::Closed(refusal) => return Ok(Err(refusal)),
        }
        Ok(Ok(()))
    }

    /// Sends deliveries in frames that any client can take.
    async fn deliver(&mut self, delivered: Vec<Delivered>) -> Result<Result<(), Refusal>, Gone> {
        let mut deliveries = Vec::with_capacity(delivered.len());
        let mut bytes = 0;
        for delivered in delivered {
            let delivery = match convert::delivery(delivered) {
                Ok(delivery) => delivery,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let more = delivery.encoded_len() as u64;
            if bytes + more > ANSWER_BYTES_MAX && !deliveries.is_empty() {
                let deliveries = std::mem::take(&mut deliveries);
                self.send(Reply::Deliveries(v1::Deliveries { deliveries }))
                    .await?;
                bytes = 0;
            }
            bytes += more;
            deliveries.push(delivery);
        }
        if !deliveries.is_empty() {
            self.send(Reply::Deliveries(v1::Deliveries { deliveries }))
                .await?;
        }
        Ok(Ok(()))
    }

    /// Time is up; settlements under way may happen yet.
    fn unfinished(&self) -> Refusal {
        if self.settles.is_empty() {
            draining()
        } else {
            draining().unknown()
        }
    }

    /// Closes the session of a client that gave no sign of life.
    async fn silent(self) -> Refusal {
        let ttl = self.consumer.session_ttl();
        // If it cannot be closed now, its time to live ends it all the same.
        let _ends_anyway = self.consumer.close().await;
        expired(&format!(
            "nothing was heard for {ttl:?}; the session is closed"
        ))
    }

    async fn send(&mut self, reply: Reply) -> Result<(), Gone> {
        self.outbox
            .send(v1::ConsumeReply { reply: Some(reply) })
            .await
    }
}

impl Settling {
    fn results(mut self, refused: Vec<(Bytes, Refusal)>, settled: u32) -> v1::SettleResults {
        let more = refused.into_iter();
        self.refused
            .extend(more.map(|(tag, why)| convert::settle_refusal(tag, why)));
        v1::SettleResults {
            sequence: self.sequence,
            refused: self.refused,
            settled,
        }
    }
}

/// When to ask a client for a sign of life.
pub(crate) fn pings() -> Interval {
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

fn expired(text: &str) -> Refusal {
    Refusal::new(ErrorCode::SessionExpired, text)
}
