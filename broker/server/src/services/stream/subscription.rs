//! One client's `Subscribe` stream: its partitions, each at its own place, read in turns within the
//! client's credit.
//!
//! A client that ends its frames still gets what its credit allows; then the stream ends. A drain
//! ends the stream after `Drain`: nothing is lost, the client knows its places.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use millrace_proto::v1;
use millrace_proto::v1::subscribe_frame::Frame;
use millrace_proto::v1::subscribe_reply::Reply;
use millrace_types::{Address, ErrorCode, Offset, Refusal};
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::reading;
use crate::convert;
use crate::forward::Origin;
use crate::services::consumer::ANSWER_BYTES_MAX;
use crate::services::consumer::session::pings;
use crate::services::outbox::{Gone, Outbox};
use crate::services::{Context, draining, unreadable};
use crate::validate::{self, invalid};
use millrace_node::{CatalogueView, Credit, Position, Read};

/// A client that opens a stream and says nothing.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// Messages of one frame: partitions take turns after it.
const FRAME_MESSAGES_MAX: u32 = 1_000;

type Ended = Result<Result<(), Refusal>, Gone>;

/// Serves a stream to its end.
pub(super) async fn serve(
    context: Context,
    origin: Origin,
    mut frames: Streaming<v1::SubscribeFrame>,
    outbox: Outbox<v1::SubscribeReply>,
) {
    let ended = match open(context, origin, &mut frames, &outbox).await {
        Ok((subscription, opened)) => subscription.run(opened, frames).await,
        Err(refusal) => Ok(Err(refusal)),
    };
    if let Ok(Err(refusal)) = ended {
        outbox.fail(refusal).await;
    }
}

async fn open<'a>(
    context: Context,
    origin: Origin,
    frames: &mut Streaming<v1::SubscribeFrame>,
    outbox: &'a Outbox<v1::SubscribeReply>,
) -> Result<(Subscription<'a>, v1::SubscribeOpened), Refusal> {
    let late = |_| invalid("open", format!("did not come within {OPEN_WITHIN:?}"));
    let first = timeout(OPEN_WITHIN, frames.message()).await.map_err(late)?;
    let first = first.map_err(|status| unreadable(&status))?;
    let Some(Frame::Open(open)) = first.and_then(|frame| frame.frame) else {
        return Err(invalid(
            "open",
            "is missing: it is the first frame of a stream",
        ));
    };
    let address = Arc::new(validate::address(&open.address)?);
    let catalogue = context.broker.catalogue();
    let last = open.partitions.iter().map(|start| start.partition).max();
    let found = context.broker.find_partition(&address, last.unwrap_or(0));
    match found.await {
        // Which field says so is told below.
        Err(refusal) if refusal.code == ErrorCode::NoSuchPartition => {}
        found => found?,
    }
    let partitions = partitions(&catalogue, &address)?;
    let starts = starts(&open, partitions)?;
    let mut subscription = Subscription {
        context,
        origin,
        outbox,
        address,
        catalogue,
        // Those who name their partitions do not get others that come later.
        grown: open.partitions.is_empty().then_some(partitions),
        credit: Balance::default(),
        places: BTreeMap::new(),
        due: VecDeque::new(),
        waiting: FuturesUnordered::new(),
        input: Input::Open,
    };
    subscription
        .credit
        .add(open.credit.map(convert::credit).unwrap_or_default());
    let mut opened = v1::SubscribeOpened::default();
    for (partition, from) in starts {
        let start = subscription.start(partition, from).await?;
        opened.partitions.push(v1::PartitionOpened {
            partition,
            start: start.get(),
        });
    }
    Ok((subscription, opened))
}

/// How many partitions the topic has now.
fn partitions(
    catalogue: &watch::Receiver<Arc<CatalogueView>>,
    address: &Address,
) -> Result<u32, Refusal> {
    let view = catalogue.borrow();
    let partitions = view.require_topic(address)?.len();
    Ok(u32::try_from(partitions).unwrap_or(u32::MAX))
}

/// Where to start in which partitions.
fn starts(open: &v1::SubscribeOpen, partitions: u32) -> Result<Vec<(u32, Position)>, Refusal> {
    let others = convert::position("from", open.from)?;
    if open.partitions.is_empty() {
        return Ok((0..partitions)
            .map(|partition| (partition, others))
            .collect());
    }
    let mut starts = BTreeMap::new();
    for (n, start) in open.partitions.iter().enumerate() {
        let field = format!("partitions[{n}]");
        if start.partition >= partitions {
            let text = format!("{} has {partitions} partitions", open.address);
            return Err(Refusal::new(ErrorCode::NoSuchPartition, text)
                .with("field", field)
                .with("actual", start.partition.to_string()));
        }
        let from = match start.from {
            Some(_) => convert::position(&field, start.from)?,
            None => others,
        };
        if starts.insert(start.partition, from).is_some() {
            return Err(invalid(
                &field,
                format!("partition {} is named twice", start.partition),
            ));
        }
    }
    Ok(starts.into_iter().collect())
}

struct Subscription<'a> {
    context: Context,
    origin: Origin,
    outbox: &'a Outbox<v1::SubscribeReply>,
    address: Arc<Address>,
    catalogue: watch::Receiver<Arc<CatalogueView>>,
    /// Partitions taken so far by one who reads all of them.
    grown: Option<u32>,
    credit: Balance,
    /// Next offset to send, by partition.
    places: BTreeMap<u32, Offset>,
    /// Partitions that may have something to send.
    due: VecDeque<u32>,
    /// Partitions of which everything was sent.
    waiting: FuturesUnordered<Waiting>,
    input: Input,
}

/// Resolves when the partition has more.
type Waiting = Pin<Box<dyn Future<Output = (u32, Result<(), Refusal>)> + Send>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    Ended,
}

/// Credit left; bytes may go below zero by one message.
#[derive(Debug, Default)]
struct Balance {
    messages: u64,
    bytes: i64,
}

impl Balance {
    fn add(&mut self, more: Credit) {
        self.messages = self.messages.saturating_add(more.messages);
        let bytes = i64::try_from(more.bytes).unwrap_or(i64::MAX);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn spend(&mut self, messages: usize, bytes: usize) {
        self.messages = self.messages.saturating_sub(messages as u64);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// What the next frame may have, if there may be one.
    fn frame(&self) -> Option<(u32, u64)> {
        let bytes = u64::try_from(self.bytes).ok().filter(|bytes| *bytes > 0)?;
        let messages = u32::try_from(self.messages).unwrap_or(u32::MAX);
        let messages = messages.min(FRAME_MESSAGES_MAX);
        (messages > 0).then(|| (messages, bytes.min(ANSWER_BYTES_MAX)))
    }
}

impl Subscription<'_> {
    /// Takes a partition on; gives the first offset that will be sent.
    async fn start(&mut self, partition: u32, from: Position) -> Result<Offset, Refusal> {
        // Reading one message is how a position becomes an offset; which one, the leader knows.
        let wanted = self.wanted(partition, from, (1, 1));
        let answer = reading::read(&self.context, &self.origin, wanted).await?;
        let start = first(&answer);
        // A place asked for by its offset is kept, so that a gap before the oldest is reported.
        let place = match from {
            Position::Offset(offset) => offset,
            Position::Earliest | Position::Latest | Position::Time(_) => start,
        };
        self.places.insert(partition, place);
        self.due.push_back(partition);
        Ok(start)
    }

    async fn run(
        mut self,
        opened: v1::SubscribeOpened,
        mut frames: Streaming<v1::SubscribeFrame>,
    ) -> Ended {
        self.send(Reply::Opened(opened)).await?;
        let stop = self.context.tasks.stop().clone();
        let mut ping = pings();
        loop {
            let frame = self.credit.frame();
            if frame.is_none() && self.input == Input::Ended {
                return Ok(Ok(()));
            }
            let sending = frame.is_some() && !self.due.is_empty();
            tokio::select! {
                biased;
                () = stop.ended() => return Ok(Err(draining())),
                () = stop.draining() => {
                    let reason = "the node is going down".to_owned();
                    self.send(Reply::Drain(v1::Drain { reason })).await?;
                    return Ok(Ok(()));
                }
                () = self.outbox.closed() => return Err(Gone),
                frame = frames.message(), if self.input == Input::Open => {
                    if let Err(refusal) = self.take(frame) {
                        return Ok(Err(refusal));
                    }
                }
                Some((partition, more)) = self.waiting.next() => match more {
                    Ok(()) => self.due.push_back(partition),
                    Err(refusal) => return Ok(Err(refusal)),
                },
                Ok(()) = self.catalogue.changed(), if self.grown.is_some() => {
                    if let Err(refusal) = self.grow().await {
                        return Ok(Err(refusal));
                    }
                }
                _ = ping.tick() => self.send(Reply::Ping(v1::Ping {})).await?,
                () = std::future::ready(()), if sending => {
                    if let Some(limits) = frame
                        && let Err(refusal) = self.advance(limits).await?
                    {
                        return Ok(Err(refusal));
                    }
                }
            }
        }
    }

    fn take(&mut self, frame: Result<Option<v1::SubscribeFrame>, Status>) -> Result<(), Refusal> {
        let Some(frame) = frame.map_err(|status| unreadable(&status))? else {
            self.input = Input::Ended;
            return Ok(());
        };
        match frame.frame {
            Some(Frame::Credit(credit)) => self.credit.add(convert::credit(credit)),
            Some(Frame::Pong(v1::Pong {})) => {}
            Some(Frame::Open(_)) => {
                return Err(invalid("open", "came twice; it is the first frame only"));
            }
            None => return Err(invalid("frame", "is empty or of a kind not known")),
        }
        Ok(())
    }

    /// Takes on partitions that the topic was given since, once their shards know them: that
    /// changes the catalogue again.
    async fn grow(&mut self) -> Result<(), Refusal> {
        let outstanding = {
            let view = self.catalogue.borrow_and_update();
            view.applied_revision() < view.revision()
        };
        if outstanding {
            return Ok(());
        }
        let now = partitions(&self.catalogue, &self.address)?;
        let before = self.grown.replace(now).unwrap_or(now);
        for partition in before..now {
            self.start(partition, Position::Earliest).await?;
        }
        Ok(())
    }

    /// Sends what the next partition in turn has.
    async fn advance(&mut self, limits: (u32, u64)) -> Result<Result<(), Refusal>, Gone> {
        let Some(partition) = self.due.pop_front() else {
            return Ok(Ok(()));
        };
        let place = self.places.get(&partition).copied().unwrap_or_default();
        let wanted = self.wanted(partition, Position::Offset(place), limits);
        let answer = match reading::read_on(&self.context, &self.origin, wanted).await {
            Ok(answer) => answer,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let found = first(&answer);
        if found > place {
            let missing = convert::offsets(&(place..found));
            let gap = v1::Gap {
                partition,
                missing: Some(missing),
            };
            self.send(Reply::Gap(gap)).await?;
        }
        let next = Offset::new(answer.next);
        self.places.insert(partition, next);
        if answer.messages.is_empty() {
            self.waiting.push(self.more(partition, next));
            return Ok(Ok(()));
        }
        self.due.push_back(partition);
        let messages = answer.messages;
        let stored = messages.iter().filter_map(|one| one.message.as_ref());
        let bytes = stored.map(v1::Message::encoded_len).sum();
        self.credit.spend(messages.len(), bytes);
        let messages = v1::StreamMessages { messages };
        self.send(Reply::Messages(messages)).await.map(Ok)
    }

    fn more(&self, partition: u32, beyond: Offset) -> Waiting {
        let (context, address) = (self.context.clone(), Arc::clone(&self.address));
        Box::pin(async move {
            let more = reading::more(&context, &address, partition, beyond).await;
            (partition, more)
        })
    }

    fn wanted(
        &self,
        partition: u32,
        from: Position,
        (messages_max, bytes_max): (u32, u64),
    ) -> Read {
        Read {
            address: (*self.address).clone(),
            partition,
            from,
            messages_max,
            bytes_max,
        }
    }

    async fn send(&mut self, reply: Reply) -> Result<(), Gone> {
        self.outbox
            .send(v1::SubscribeReply { reply: Some(reply) })
            .await
    }
}

/// The first offset an answer covers.
fn first(answer: &v1::ReadResponse) -> Offset {
    let first = answer.messages.first();
    Offset::new(first.map_or(answer.next, |message| message.offset))
}
