//! Reads topics. Reading takes nothing away.

mod subscription;

use std::time::{Duration, SystemTime};

use millrace_proto::v1::{self, Message, ReadRequest, position};

use crate::client::Client;
use crate::error::Error;
use crate::message::timestamp;
use crate::routing::Way;

pub use self::subscription::{Event, SubscribeOptions, Subscription};

/// Where to start reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The oldest message kept.
    Earliest,
    /// After the newest message at the time of the call.
    Latest,
    /// This offset, or the first one kept after it.
    Offset(u64),
    /// The first message stored at this time or later.
    Time(SystemTime),
}

impl From<Position> for v1::Position {
    fn from(position: Position) -> Self {
        let at = match position {
            Position::Earliest => position::At::Earliest(position::Earliest {}),
            Position::Latest => position::At::Latest(position::Latest {}),
            Position::Offset(offset) => position::At::Offset(offset),
            Position::Time(time) => position::At::Time(time.into()),
        };
        Self { at: Some(at) }
    }
}

/// Where one partition starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionStart {
    /// Which.
    pub partition: u32,
    /// Where.
    pub from: Position,
}

/// What `Reader::read` takes.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// Of which partition.
    pub partition: u32,
    /// From where.
    pub from: Position,
    /// At most this many messages; 0 takes the server's default.
    pub messages_max: u32,
    /// About this many bytes; 0 takes the server's limit.
    pub bytes_max: u64,
}

/// A message of a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredMessage {
    /// What was published.
    pub message: Message,
    /// Its partition.
    pub partition: u32,
    /// Its place there.
    pub offset: u64,
    /// When it was stored.
    pub stored_at: SystemTime,
}

impl From<v1::StreamMessage> for StoredMessage {
    fn from(wire: v1::StreamMessage) -> Self {
        Self {
            message: wire.message.unwrap_or_default(),
            partition: wire.partition,
            offset: wire.offset,
            stored_at: timestamp(wire.stored_at),
        }
    }
}

/// What one read found.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadAnswer {
    /// In order; perhaps none.
    pub messages: Vec<StoredMessage>,
    /// Go on from here.
    pub next: u64,
    /// The partition holds `first..end`.
    pub available: v1::OffsetRange,
}

/// Reads one topic.
#[derive(Clone, Debug)]
pub struct Reader {
    client: Client,
    address: String,
}

impl Reader {
    pub(crate) const fn new(client: Client, address: String) -> Self {
        Self { client, address }
    }

    /// Reads once, whatever is there.
    ///
    /// # Errors
    /// No such topic or partition, or nobody answers.
    pub async fn read(&self, options: ReadOptions) -> Result<ReadAnswer, Error> {
        let request = ReadRequest {
            address: self.address.clone(),
            partition: options.partition,
            from: Some(options.from.into()),
            messages_max: options.messages_max,
            bytes_max: options.bytes_max,
        };
        let about = Some((self.address.as_str(), options.partition));
        let ask = |way: Way| {
            let request = request.clone();
            async move { way.reader().read(request).await }
        };
        let answer = self.client.call(about, Duration::ZERO, ask).await?;
        Ok(ReadAnswer {
            messages: answer
                .messages
                .into_iter()
                .map(StoredMessage::from)
                .collect(),
            next: answer.next,
            available: answer.available.unwrap_or_default(),
        })
    }

    /// Reads on as messages arrive. The connection is made by the first `next`.
    #[must_use]
    pub fn subscribe(&self, options: SubscribeOptions) -> Subscription {
        Subscription::new(self.client.clone(), self.address.clone(), options)
    }
}
