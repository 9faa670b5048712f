//! How a broker goes, and what its clients see of it.

use anyhow::{Context as _, Result};
use millrace_client::{ConsumerOptions, PublisherOptions};
use rustix::process::Signal;
use tokio::time::timeout;

use crate::given::{self, SOON};

const QUEUE: &str = "queue/default/orders";

pub(crate) async fn sigterm_drains_and_nothing_is_lost() -> Result<()> {
    let (mut node, mut broker) = given::broker().await?;
    let options = PublisherOptions {
        retry_unknown: false,
        give_up_after: None,
        ..PublisherOptions::default()
    };
    let publisher = broker.client()?.publisher(QUEUE, options);
    let mut pending = Vec::new();
    for n in 0..2_000 {
        pending.push(publisher.send(&given::message(format!("{n}"))).await?);
        if n == 1_000 {
            broker.signal(Signal::TERM)?;
        }
    }
    let status = broker.wait().await?;
    assert!(status.success(), "a drain ends with {status}");
    let broker = node.start().await?;
    for (n, pending) in pending.into_iter().enumerate() {
        // A drain leaves nothing in doubt: each message was taken before it, or is sent after it.
        pending.await.with_context(|| format!("message {n}"))?;
    }
    let stats = broker.client()?.admin().describe(QUEUE).await?;
    let stats = format!("{:?}", stats.summary.and_then(|summary| summary.stats));
    given::assert_has(&stats, "ready: 2000");
    Ok(())
}

pub(crate) async fn a_second_sigterm_ends_the_process_at_once() -> Result<()> {
    let mut node = millrace_cluster_tests::broker::Node::new(given::TOPOLOGY)?
        .with(["--drain-timeout", "10m"]);
    let mut broker = node.start().await?;
    let client = broker.client()?;
    given::publish(&client, QUEUE, "held").await?;
    let mut consumer = client.consumer(QUEUE, ConsumerOptions::default());
    // A client that holds a message and does not go keeps the drain from ending.
    let held = timeout(SOON, consumer.next())
        .await?
        .context("a delivery")??;
    broker.signal(Signal::TERM)?;
    let metrics = broker.addresses().metrics;
    millrace_cluster_tests::wait::until("the drain to begin", SOON, async || {
        Ok(is_unready(metrics).then_some(()))
    })
    .await?;

    broker.signal(Signal::TERM)?;

    let status = broker.wait().await?;
    assert_eq!(status.code(), Some(143), "ended with {status}");
    drop(held);
    Ok(())
}

/// Whether `/readyz` says no.
fn is_unready(metrics: std::net::SocketAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let mut answer = String::new();
    let asked = std::net::TcpStream::connect(metrics).and_then(|mut stream| {
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    });
    asked.is_ok() && answer.starts_with("HTTP/1.1 503")
}

pub(crate) async fn a_session_goes_on_after_the_broker_was_killed() -> Result<()> {
    let (mut node, broker) = given::broker().await?;
    let client = broker.client()?;
    for payload in ["one", "two"] {
        given::publish(&client, QUEUE, payload).await?;
    }
    let mut consumer = client.consumer(QUEUE, ConsumerOptions::default());
    let one = timeout(SOON, consumer.next())
        .await?
        .context("a delivery")??;
    let two = timeout(SOON, consumer.next())
        .await?
        .context("a delivery")??;

    broker.kill();
    let broker = node.start().await?;

    // Both leases are still ours: they were not given to anybody, and settling works.
    timeout(SOON, one.accept()).await??;
    timeout(SOON, two.accept()).await??;
    given::publish(&client, QUEUE, "three").await?;
    let three = timeout(SOON, consumer.next())
        .await?
        .context("a delivery")??;
    assert_eq!(
        (&*three.message.payload, three.acquired),
        (&b"three"[..], 1)
    );
    timeout(SOON, three.accept()).await??;
    consumer.close().await;
    broker.stop().await
}
