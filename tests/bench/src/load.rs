//! Publishers and consumers as fast as they are let, or as fast as they are told, and what they
//! saw. Everything goes through the public client.

pub mod closed;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use millrace_client::{ConsumerOptions, Message, Pending, Publisher, PublisherOptions, Settling};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::broker::Served;

/// Streams of a bulk publisher: enough that one is encoded while others wait for a sync.
const STREAMS: u64 = 4;
/// Acknowledgements one stream has due: above what its credit allows.
const DUE_MAX: usize = 40_000;
/// Tries of a bulk publisher for messages that were refused.
const ROUNDS_MAX: u32 = 1_000;
/// A refused message is tried again after this.
const PAUSE: Duration = Duration::from_millis(50);
/// Settlements one consumer has due.
const SETTLING_MAX: usize = 20_000;
/// Messages that publishers may be ahead of their consumers: some batches, far less than what makes
/// a checkpoint due, so that next to nothing waits when one is made.
const LEAD_MAX: u64 = 4_000;
/// Messages between two looks at that.
const LEAD_STEP: u64 = 250;
/// A paced publisher sends what is due this often, and looks this often whether it may.
const PACE: Duration = Duration::from_millis(5);

/// What publishers saw.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Messages acknowledged.
    pub messages: u64,
    /// Their payloads.
    pub payload_bytes: u64,
    /// Refusals that reached the publisher, by reason.
    pub refused: BTreeMap<String, u64>,
    /// From the first message to the last acknowledgement.
    pub took: Duration,
    /// Longest wait of a message for its acknowledgement and those of the messages before it.
    pub ack_longest: Duration,
}

impl Published {
    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.payload_bytes += other.payload_bytes;
        for (reason, count) in other.refused {
            *self.refused.entry(reason).or_default() += count;
        }
        self.ack_longest = self.ack_longest.max(other.ack_longest);
    }

    /// Messages in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    /// Payload bytes in a second.
    #[must_use]
    pub fn byte_rate(&self) -> f64 {
        self.payload_bytes as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }
}

/// A message whose payload does not compress and is cheap to make: the same for all.
#[must_use]
pub fn message(payload_bytes: u64) -> Message {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let payload: Vec<u8> = (0..payload_bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect();
    Message {
        payload: payload.into(),
        ..Message::default()
    }
}

/// Publishes this many messages to each address, over several streams, until all of them are
/// acknowledged.
///
/// # Errors
/// One is refused for good, or again and again.
pub async fn publish(
    broker: &impl Served,
    addresses: &[String],
    each: u64,
    payload_bytes: u64,
) -> Result<Published> {
    publish_ahead_of(broker, addresses, each, payload_bytes, None).await
}

/// The same, never far ahead of those who consume, if there are any.
///
/// # Errors
/// As `publish`.
pub async fn publish_ahead_of(
    broker: &impl Served,
    addresses: &[String],
    each: u64,
    payload_bytes: u64,
    consumers: Option<&Appetite>,
) -> Result<Published> {
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    // Addresses share the streams' number, so that many queues do not mean many tasks at work.
    let streams = (STREAMS / addresses.len().max(1) as u64).max(1);
    for address in addresses {
        for stream in 0..streams {
            let share = each / streams + u64::from(stream < each % streams);
            let publisher = broker.client()?.publisher(address, patient());
            let lead = consumers.map(|consumers| Lead {
                consumers: consumers.clone(),
                streams,
            });
            tasks.spawn(publish_all(publisher, share, payload_bytes, stream, lead));
        }
    }
    let mut published = Published::default();
    while let Some(done) = tasks.join_next().await {
        published.add(done??);
    }
    published.took = started.elapsed();
    Ok(published)
}

fn patient() -> PublisherOptions {
    PublisherOptions {
        give_up_after: None,
        ..PublisherOptions::default()
    }
}

async fn publish_all(
    publisher: Publisher,
    messages: u64,
    payload_bytes: u64,
    stream: u64,
    lead: Option<Lead>,
) -> Result<Published> {
    let mut message = message(payload_bytes);
    let mut all = Published::default();
    for _ in 0..ROUNDS_MAX {
        let due = Due::start();
        for n in 0..messages - all.messages {
            // A thousand messages of a key in a row: batches of a topic have one key each.
            if n % 1_000 == 0 {
                message.key = format!("{stream}-{}", n / 1_000 % 16);
            }
            if let Some(lead) = &lead
                && n % LEAD_STEP == 0
            {
                lead.wait(all.messages + n).await;
            }
            due.push(publisher.send(&message).await?).await;
        }
        all.add(due.end().await?);
        if all.messages == messages {
            all.payload_bytes = messages * payload_bytes;
            return Ok(all);
        }
        tokio::time::sleep(PAUSE).await; // polls
    }
    bail!("messages were refused every time: {:?}", all.refused)
}

/// What keeps a publisher near its consumers.
struct Lead {
    consumers: Appetite,
    /// Publishers like this one.
    streams: u64,
}

impl Lead {
    /// Waits until few enough of the messages that this publisher and its likes have sent are
    /// still to be taken.
    async fn wait(&self, sent: u64) {
        while sent * self.streams > self.consumers.taken() + LEAD_MAX {
            tokio::time::sleep(PACE).await; // polls
        }
    }
}

/// Awaits acknowledgements in the order of their messages, beside whoever sends them: what a
/// message waited is known at once.
struct Due {
    waiting: mpsc::Sender<(Instant, Pending)>,
    counted: JoinHandle<Published>,
}

impl Due {
    fn start() -> Self {
        let (waiting, mut due) = mpsc::channel::<(Instant, Pending)>(DUE_MAX);
        let counted = tokio::spawn(async move {
            let mut published = Published::default();
            while let Some((since, pending)) = due.recv().await {
                match pending.await {
                    Ok(_) => published.messages += 1,
                    Err(error) => *published.refused.entry(error.reason).or_default() += 1,
                }
                published.ack_longest = published.ack_longest.max(since.elapsed());
            }
            published
        });
        Self { waiting, counted }
    }

    async fn push(&self, pending: Pending) {
        // The other end goes only with a panic, which `end` tells.
        drop(self.waiting.send((Instant::now(), pending)).await);
    }

    /// Waits for the last one.
    async fn end(self) -> Result<Published> {
        drop(self.waiting);
        Ok(self.counted.await?)
    }
}

/// Publishes a number of payload bytes in a second, for a while.
///
/// # Errors
/// A message is too large for any server.
pub async fn publish_paced(
    broker: &impl Served,
    address: &str,
    payload_bytes: u64,
    bytes_per_second: u64,
    time: Duration,
) -> Result<Published> {
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    for stream in 0..STREAMS {
        let publisher = broker.client()?.publisher(address, patient());
        let rate = bytes_per_second / STREAMS;
        tasks.spawn(pace(publisher, payload_bytes, rate, time, stream));
    }
    let mut published = Published::default();
    while let Some(done) = tasks.join_next().await {
        published.add(done??);
    }
    published.payload_bytes = published.messages * payload_bytes;
    published.took = started.elapsed();
    Ok(published)
}

async fn pace(
    publisher: Publisher,
    payload_bytes: u64,
    bytes_per_second: u64,
    time: Duration,
    stream: u64,
) -> Result<Published> {
    let mut message = message(payload_bytes);
    let (started, mut sent, due) = (Instant::now(), 0, Due::start());
    let mut ticks = tokio::time::interval(PACE);
    loop {
        ticks.tick().await;
        let elapsed = started.elapsed();
        if elapsed >= time {
            break;
        }
        let wanted = u128::from(bytes_per_second) * elapsed.as_micros() / 1_000_000;
        while u128::from(sent) < wanted && started.elapsed() < time {
            message.key = format!("{stream}-{}", sent / payload_bytes.max(1) / 256 % 16);
            due.push(publisher.send(&message).await?).await;
            sent += payload_bytes;
        }
    }
    due.end().await
}

/// Publishers that each wait for the acknowledgement of one message before the next.
///
/// # Errors
/// A message is refused.
pub async fn publish_one_by_one(
    broker: &impl Served,
    address: &str,
    publishers: u64,
    payload_bytes: u64,
    time: Duration,
) -> Result<Vec<Duration>> {
    /// A connection carries at most this many streams here: servers limit them.
    const STREAMS_OF_CONNECTION: u64 = 32;
    let mut tasks = JoinSet::new();
    let mut client = broker.client()?;
    for n in 0..publishers {
        if n % STREAMS_OF_CONNECTION == 0 {
            client = broker.client()?;
        }
        let publisher = client.publisher(address, patient());
        tasks.spawn(async move {
            let message = message(payload_bytes);
            let (started, mut took) = (Instant::now(), Vec::new());
            while started.elapsed() < time {
                let before = Instant::now();
                publisher.publish(message.clone()).await?;
                took.push(before.elapsed());
            }
            Ok::<_, millrace_client::Error>(took)
        });
    }
    let mut all = Vec::new();
    while let Some(took) = tasks.join_next().await {
        all.extend(took??);
    }
    all.sort_unstable();
    Ok(all)
}

/// How many messages consumers still want; they end when it is none.
#[derive(Clone, Debug)]
pub struct Appetite {
    at_first: i64,
    left: Arc<AtomicI64>,
}

impl Appetite {
    /// This many.
    #[must_use]
    pub fn of(messages: u64) -> Self {
        let at_first = i64::try_from(messages).unwrap_or(i64::MAX);
        Self {
            at_first,
            left: Arc::new(AtomicI64::new(at_first)),
        }
    }

    /// Until `end`.
    #[must_use]
    pub fn without_end() -> Self {
        Self::of(u64::MAX)
    }

    /// No more.
    pub fn end(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    fn is_left(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    fn taken(&self) -> u64 {
        let taken = self.at_first - self.left.load(Ordering::Relaxed);
        u64::try_from(taken).unwrap_or_default()
    }

    /// May go below none: several consumers take the last ones at once.
    fn take(&self) {
        self.left.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Consumes and accepts messages of a queue over several consumers, as many as are wanted.
///
/// # Errors
/// A consumer ends before that, or a settlement fails.
pub async fn consume(broker: &impl Served, queue: &str, appetite: &Appetite) -> Result<Duration> {
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    for _ in 0..STREAMS {
        let consumer = broker.client()?.consumer(queue, consumer_options());
        tasks.spawn(consume_until(consumer, appetite.clone()));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(started.elapsed())
}

fn consumer_options() -> ConsumerOptions {
    ConsumerOptions {
        prefetch_messages: 10_000,
        ..ConsumerOptions::default()
    }
}

async fn consume_until(mut consumer: millrace_client::Consumer, appetite: Appetite) -> Result<()> {
    /// Others may have taken the last message while this one waits for it.
    const LOOK: Duration = Duration::from_millis(100);
    let mut settling: VecDeque<Settling> = VecDeque::new();
    while appetite.is_left() {
        let delivery = match tokio::time::timeout(LOOK, consumer.next()).await {
            Ok(delivery) => delivery.context("the consumer ended")??,
            Err(_) => continue,
        };
        settling.push_back(delivery.accept());
        appetite.take();
        if settling.len() >= SETTLING_MAX {
            drain(&mut settling, SETTLING_MAX / 2).await?;
        }
    }
    drain(&mut settling, 0).await?;
    consumer.close().await;
    Ok(())
}

async fn drain(settling: &mut VecDeque<Settling>, left: usize) -> Result<()> {
    while settling.len() > left
        && let Some(settled) = settling.pop_front()
    {
        settled.await?;
    }
    Ok(())
}
