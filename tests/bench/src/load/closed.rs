//! A fixed number of publishers, each of which waits for the acknowledgement of one message before
//! it sends the next, and consumers that take everything at once: the same load for everything
//! that is compared.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use millrace_client::{Consumer, Settling};
use tokio::task::JoinSet;

use super::{Appetite, SETTLING_MAX, consumer_options, message, patient};
use crate::broker::Served;

/// Publishers and as many consumers that share a client: servers limit the streams of a connection
/// to 32, and all may lead to one server.
const PUBLISHERS_OF_CLIENT: usize = 12;
/// Waited for a first message to be taken: what was declared on one node becomes known to others.
const FIRST_LIMIT: Duration = Duration::from_secs(60);
/// A consumer that waits for a message looks up this often.
const LOOK: Duration = Duration::from_millis(100);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// What each publisher and consumer does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Publisher `n` publishes to the address `n`, beginning again when there are fewer.
    pub addresses: Vec<String>,
    /// How many publish.
    pub publishers: usize,
    /// Bytes of each message.
    pub payload_bytes: u64,
    /// Whether each address is a queue that is consumed.
    pub consumed: bool,
}

/// A load that goes on until it is ended.
#[derive(Debug)]
pub struct Closed {
    seen: Arc<Mutex<Vec<Duration>>>,
    publishers: JoinSet<Result<()>>,
    consumers: JoinSet<Result<()>>,
    appetite: Appetite,
    /// Publishers go on while it is left.
    hunger: Appetite,
}

impl Closed {
    /// Begins, when each address has taken a message.
    ///
    /// # Errors
    /// One does not.
    pub async fn start(served: &impl Served, plan: &Plan) -> Result<Self> {
        let mut closed = Self {
            seen: Arc::default(),
            publishers: JoinSet::new(),
            consumers: JoinSet::new(),
            appetite: Appetite::without_end(),
            hunger: Appetite::without_end(),
        };
        let mut client = served.client()?;
        for (place, address) in plan.addresses.iter().enumerate() {
            first(&client, address, plan.payload_bytes).await?;
            if place % PUBLISHERS_OF_CLIENT == 0 {
                client = served.client()?;
            }
            if plan.consumed {
                let consumer = client.consumer(address, consumer_options());
                let taken = take_all(consumer, closed.appetite.clone());
                closed.consumers.spawn(taken);
            }
        }
        for place in 0..plan.publishers {
            if place % PUBLISHERS_OF_CLIENT == 0 {
                client = served.client()?;
            }
            let address = &plan.addresses[place % plan.addresses.len()];
            let publisher = client.publisher(address, patient());
            let mut message = message(plan.payload_bytes);
            message.key = place.to_string();
            let (seen, hunger) = (Arc::clone(&closed.seen), closed.hunger.clone());
            closed.publishers.spawn(async move {
                while hunger.is_left() {
                    let before = Instant::now();
                    publisher.publish(message.clone()).await?;
                    let took = before.elapsed();
                    seen.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(took);
                }
                Ok(())
            });
        }
        Ok(closed)
    }

    /// What each message waited for its acknowledgement that got one within this time from now on;
    /// sorted.
    ///
    /// # Errors
    /// A publisher or consumer ended.
    pub async fn watch(&mut self, time: Duration) -> Result<Vec<Duration>> {
        self.take();
        tokio::time::sleep(time).await; // polls: it is watched for so long
        let mut seen = self.take();
        for tasks in [&mut self.publishers, &mut self.consumers] {
            if let Some(ended) = tasks.try_join_next() {
                ended??;
                bail!("a publisher or consumer ended");
            }
        }
        seen.sort_unstable();
        Ok(seen)
    }

    /// What was acknowledged since this or `watch` was asked last.
    pub fn take(&self) -> Vec<Duration> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *seen)
    }

    /// Lets all of them come to an end.
    ///
    /// # Errors
    /// One of them failed.
    pub async fn end(mut self) -> Result<()> {
        self.hunger.end();
        while let Some(ended) = self.publishers.join_next().await {
            ended?.context("a publisher")?;
        }
        self.appetite.end();
        while let Some(ended) = self.consumers.join_next().await {
            ended?.context("a consumer")?;
        }
        Ok(())
    }
}

/// Takes and accepts everything. What could not be settled, because somebody else came to lead,
/// comes again.
async fn take_all(mut consumer: Consumer, appetite: Appetite) -> Result<()> {
    let mut settling: VecDeque<Settling> = VecDeque::new();
    while appetite.is_left() {
        let delivery = match tokio::time::timeout(LOOK, consumer.next()).await {
            Ok(delivery) => delivery.context("the consumer ended")??,
            Err(_) => continue,
        };
        settling.push_back(delivery.accept());
        if settling.len() >= SETTLING_MAX
            && let Some(oldest) = settling.pop_front()
        {
            oldest.await.ok();
        }
    }
    for settled in settling {
        settled.await.ok();
    }
    consumer.close().await;
    Ok(())
}

/// Publishes one message, whatever is in the way at first.
async fn first(client: &millrace_client::Client, address: &str, payload_bytes: u64) -> Result<()> {
    let end = Instant::now() + FIRST_LIMIT;
    loop {
        let publisher = client.publisher(address, patient());
        let Err(error) = publisher.publish(message(payload_bytes)).await else {
            return Ok(());
        };
        if Instant::now() > end {
            return Err(error).with_context(|| format!("{address} takes nothing"));
        }
        tokio::time::sleep(PAUSE).await; // polls
    }
}
