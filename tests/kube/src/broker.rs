//! The broker as a client outside the cluster sees it, through a forwarded port.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use millrace_client::{
    Client, ConsumerOptions, Delivery, Error, Message, Position, PublisherOptions, ReadOptions,
    Settle,
};
use millrace_proto::v1::summary::Stats;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::forward::Forward;
use crate::shell::Shell;
use crate::world::CLUSTER;

/// The port clients use.
const CLIENT_PORT: u16 = 7070;
/// A queue that delivers nothing for this long has nothing: backoffs in these tests are shorter.
const QUIET: Duration = Duration::from_secs(5);
/// A broker that is being started may be silent for this long.
const GIVE_UP: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct Broker {
    runtime: Runtime,
    client: Client,
    _forward: Forward,
}

impl Broker {
    /// Connects to the cluster of the tests in a namespace.
    ///
    /// # Errors
    /// When there is no broker to forward to.
    pub(crate) fn connect(shell: &Shell, namespace: &str) -> Result<Self> {
        Self::through(shell, namespace, &format!("service/{CLUSTER}"))
    }

    /// Connects through one object, `pod/NAME` or `service/NAME`.
    ///
    /// # Errors
    /// When there is no broker to forward to.
    pub(crate) fn through(shell: &Shell, namespace: &str, object: &str) -> Result<Self> {
        let forward = Forward::to(shell, namespace, object, CLIENT_PORT)?;
        let runtime = runtime()?;
        let client = {
            let _inside = runtime.enter();
            Client::connect(forward.url())?
        };
        Ok(Self {
            runtime,
            client,
            _forward: forward,
        })
    }

    /// Publishes payloads, each acknowledged.
    ///
    /// # Errors
    /// When one is refused.
    pub(crate) fn publish(&self, address: &str, payloads: &[String]) -> Result<()> {
        self.runtime.block_on(async {
            let publisher = self.client.publisher(address, PublisherOptions::default());
            for payload in payloads {
                let message = Message {
                    payload: payload.clone().into(),
                    ..Message::default()
                };
                publisher.publish(message).await?;
            }
            Ok(())
        })
    }

    /// Takes messages until none comes any more, settling each as `decide` says; calls `settled`
    /// with the text of each one whose settlement was confirmed.
    ///
    /// # Errors
    /// When the queue does not exist, the broker stays away, or a message is not text.
    pub(crate) fn take(
        &self,
        address: &str,
        decide: impl Fn(&str, &Delivery) -> Settle,
        mut settled: impl FnMut(String, &Delivery),
    ) -> Result<usize> {
        self.runtime.block_on(async {
            let options = ConsumerOptions {
                give_up_after: Some(GIVE_UP),
                ..Default::default()
            };
            let mut consumer = self.client.consumer(address, options);
            let mut count = 0;
            let mut waiting = Vec::new();
            while let Ok(Some(delivery)) = timeout(QUIET, consumer.next()).await {
                let delivery = delivery?;
                let text = String::from_utf8(delivery.message.payload.to_vec())?;
                let settling = delivery.settle(decide(&text, &delivery));
                waiting.push((text, delivery, settling));
                if waiting.len() >= 100 {
                    count += confirm(&mut waiting, &mut settled).await?;
                }
            }
            count += confirm(&mut waiting, &mut settled).await?;
            consumer.close().await;
            Ok(count)
        })
    }

    /// Messages of a queue that are not settled.
    ///
    /// # Errors
    /// When there is no such queue, or nobody answers.
    pub(crate) fn left(&self, address: &str) -> Result<u64> {
        let described = self
            .runtime
            .block_on(self.client.admin().describe(address))?;
        let stats = described.summary.and_then(|summary| summary.stats);
        let Some(Stats::Queue(queue)) = stats else {
            bail!("{address} is no queue");
        };
        Ok(queue.ready + queue.in_flight + queue.delayed + queue.dying)
    }

    /// The offset of the oldest message a partition keeps, and the one after its newest.
    ///
    /// # Errors
    /// When the topic does not exist.
    pub(crate) fn available(&self, address: &str, partition: u32) -> Result<(u64, u64)> {
        let options = ReadOptions {
            partition,
            from: Position::Earliest,
            messages_max: 1,
            bytes_max: 0,
        };
        let reader = self.client.reader(address);
        let answer = self.runtime.block_on(reader.read(options))?;
        Ok((answer.available.first, answer.available.end))
    }
}

type Waiting = (String, Delivery, millrace_client::Settling);

async fn confirm(
    waiting: &mut Vec<Waiting>,
    settled: &mut impl FnMut(String, &Delivery),
) -> Result<usize> {
    let mut count = 0;
    for (text, delivery, settling) in waiting.drain(..) {
        match settling.await {
            Ok(()) => {
                count += 1;
                settled(text, &delivery);
            }
            // It comes again, or had been settled: either way it is not counted here.
            Err(error) if error.is_retryable() || error.is_unreachable() => {}
            Err(error) => bail!("a settlement was refused: {error}"),
        }
    }
    Ok(count)
}

/// Calls the control port of a pod with a token; the error tells why it was refused.
///
/// # Errors
/// When the pod cannot be reached at all.
pub(crate) fn control_metadata(
    shell: &Shell,
    namespace: &str,
    token: &str,
) -> Result<Result<String, Error>> {
    const CONTROL_PORT: u16 = 7071;
    let pod = format!("pod/{CLUSTER}-0");
    let forward = Forward::to(shell, namespace, &pod, CONTROL_PORT)?;
    let runtime = runtime()?;
    let answer = runtime.block_on(async {
        let control = millrace_client::Control::connect(forward.url(), token)?;
        control.metadata().await
    });
    Ok(answer.map(|metadata| metadata.cluster_id))
}

fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(1)
        .enable_all()
        .build()
        .context("no runtime for the client")
}
