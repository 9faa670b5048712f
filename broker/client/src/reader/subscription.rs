//! Reads a topic as it grows, across lost connections: each partition goes on where it was.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use millrace_proto::v1::{
    ConsumeCredit, OffsetRange, Pong, SubscribeFrame, SubscribeOpen, SubscribeReply,
    subscribe_frame::Frame, subscribe_reply::Reply,
};
use prost::Message as _;
use tokio::time::{Instant, sleep};

use super::{PartitionStart, Position, StoredMessage};
use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::Error;
use crate::routing::{Heed, Way};
use crate::stream::{Duplex, is_final};

/// How a subscription behaves.
#[derive(Clone, Debug)]
pub struct SubscribeOptions {
    /// Which partitions, and where each one starts; empty reads all from `from`.
    pub partitions: Vec<PartitionStart>,
    /// Where partitions start that are not named above.
    pub from: Position,
    /// Messages that may wait here for `next`.
    pub prefetch_messages: u32,
    /// Bytes that may wait here for `next`; one message may exceed it.
    pub prefetch_bytes: u64,
    /// End with an error when the server could not be reached for this long; `None` tries for ever.
    pub give_up_after: Option<Duration>,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            partitions: Vec::new(),
            from: Position::Latest,
            prefetch_messages: 1024,
            prefetch_bytes: 8 << 20,
            give_up_after: None,
        }
    }
}

/// What a subscription says.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every event is a message: a box would cost an allocation each"
)]
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The next message of its partition.
    Message(StoredMessage),
    /// Retention was faster than the reader: these messages are gone.
    Gap {
        /// Of which partition.
        partition: u32,
        /// What was missed.
        missing: OffsetRange,
    },
}

type Stream = Duplex<SubscribeFrame, SubscribeReply>;

/// A reader that follows a topic.
pub struct Subscription {
    client: Client,
    address: String,
    options: SubscribeOptions,
    /// Where each partition goes on, as far as it is known.
    next: BTreeMap<u32, u64>,
    stream: Option<Stream>,
    /// Of the stream, or of the attempt to open one.
    way: Option<Way>,
    heed: Option<Heed>,
    waiting: VecDeque<Event>,
    returned: ConsumeCredit,
    pong_due: bool,
    backoff: Backoff,
    /// Since when the server has not been heard; `None` while it is.
    away_since: Option<Instant>,
    is_over: bool,
}

impl Subscription {
    pub(super) fn new(client: Client, address: String, options: SubscribeOptions) -> Self {
        Self {
            client,
            address,
            options,
            next: BTreeMap::new(),
            stream: None,
            way: None,
            heed: None,
            waiting: VecDeque::new(),
            returned: ConsumeCredit::default(),
            pong_due: false,
            backoff: Backoff::new(),
            away_since: None,
            is_over: false,
        }
    }

    /// The next message or gap. `None` after an error, which is the last thing a subscription says:
    /// the topic does not exist, or the server is away for too long. Dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        while !self.is_over {
            if let Some(event) = self.waiting.pop_front() {
                self.taken(&event);
                return Some(Ok(event));
            }
            let Err(error) = self.step().await else {
                continue;
            };
            self.stream = None;
            let way = self.way.take();
            if let Some(way) = &way {
                self.client.failed(way, &error);
            }
            let away = self.away_since.get_or_insert_with(Instant::now).elapsed();
            let limit = self.options.give_up_after;
            if is_final(&error) || limit.is_some_and(|limit| away >= limit) {
                self.is_over = true;
                return Some(Err(error));
            }
            let delay = self.backoff.delay();
            match way {
                Some(way) => self.client.pause(&way, delay).await,
                None => sleep(delay).await,
            }
        }
        None
    }

    /// Connects, or says what is due and hears one reply.
    async fn step(&mut self) -> Result<(), Error> {
        let Some(stream) = &mut self.stream else {
            // Partitions that are led elsewhere are read through the one that was gone to.
            let first = self.options.partitions.first();
            let first = first.map_or(0, |start| start.partition);
            let way = self.client.way_to(&self.address, first).await;
            self.way = Some(way.clone());
            let stream = self.open(&way).await?;
            self.heed = Some(self.client.heed(&way));
            self.returned = ConsumeCredit::default();
            self.pong_due = false;
            self.stream = Some(stream);
            return Ok(());
        };
        let due = due(&self.options, self.returned, self.pong_due);
        let heard = tokio::select! {
            biased;
            slot = stream.frames.reserve(), if due.is_some() => {
                let slot = slot.map_err(|_| Error::connection_lost())?;
                slot.send(SubscribeFrame { frame: due.clone() });
                None
            }
            reply = stream.replies.message() => Some(reply?.ok_or_else(Error::connection_lost)?),
            () = silent(&mut self.heed) => return Err(Error::connection_lost()),
        };
        match heard {
            Some(reply) => {
                self.away_since = None;
                self.backoff.reset();
                self.heed.iter_mut().for_each(Heed::heard);
                if let Some(way) = &self.way {
                    self.client.succeeded(way);
                }
                self.reply(reply);
            }
            None => match due {
                Some(Frame::Credit(_)) => self.returned = ConsumeCredit::default(),
                _ => self.pong_due = false,
            },
        }
        Ok(())
    }

    async fn open(&self, way: &Way) -> Result<Stream, Error> {
        let open = SubscribeOpen {
            address: self.address.clone(),
            partitions: self.starts().into_iter().map(wire_start).collect(),
            from: Some(self.options.from.into()),
            credit: Some(ConsumeCredit {
                messages: self.options.prefetch_messages,
                bytes: self.options.prefetch_bytes,
            }),
        };
        let first = SubscribeFrame {
            frame: Some(Frame::Open(open)),
        };
        let mut rpc = way.reader();
        Duplex::open(Some(first), async |frames| rpc.subscribe(frames).await).await
    }

    /// Where to start now: where each partition was, or as it was asked for.
    fn starts(&self) -> Vec<PartitionStart> {
        let mut starts = self.options.partitions.clone();
        for (&partition, &next) in &self.next {
            let from = Position::Offset(next);
            match starts.iter_mut().find(|start| start.partition == partition) {
                Some(start) => start.from = from,
                None => starts.push(PartitionStart { partition, from }),
            }
        }
        starts
    }

    fn reply(&mut self, reply: SubscribeReply) {
        match reply.reply {
            Some(Reply::Opened(opened)) => {
                for partition in opened.partitions {
                    self.next.insert(partition.partition, partition.start);
                }
            }
            Some(Reply::Messages(messages)) => {
                for message in messages.messages {
                    let message = StoredMessage::from(message);
                    self.next
                        .insert(message.partition, message.offset.saturating_add(1));
                    self.waiting.push_back(Event::Message(message));
                }
            }
            Some(Reply::Ping(_)) => self.pong_due = true,
            Some(Reply::Gap(gap)) => {
                let missing = gap.missing.unwrap_or_default();
                self.next.insert(gap.partition, missing.end);
                let partition = gap.partition;
                self.waiting.push_back(Event::Gap { partition, missing });
            }
            // The server ends the stream when it goes; replies of a later version need no answer.
            Some(Reply::Drain(_)) | None => {}
        }
    }

    fn taken(&mut self, event: &Event) {
        if let Event::Message(message) = event {
            self.returned.messages += 1;
            let bytes = message.message.encoded_len();
            self.returned.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        }
    }
}

/// Resolves when somebody else leads and nothing is heard.
async fn silent(heed: &mut Option<Heed>) {
    match heed {
        Some(heed) => heed.silent().await,
        None => std::future::pending().await,
    }
}

/// The frame to send next, if any. Half of the credit has to be used before more is worth one.
fn due(options: &SubscribeOptions, returned: ConsumeCredit, pong_due: bool) -> Option<Frame> {
    let credit_due = returned.messages >= options.prefetch_messages.div_ceil(2)
        || returned.bytes >= options.prefetch_bytes.div_ceil(2);
    if credit_due {
        return Some(Frame::Credit(returned));
    }
    pong_due.then_some(Frame::Pong(Pong {}))
}

fn wire_start(start: PartitionStart) -> millrace_proto::v1::PartitionStart {
    millrace_proto::v1::PartitionStart {
        partition: start.partition,
        from: Some(start.from.into()),
    }
}
