//! What tests start from.

use anyhow::{Context as _, Result};
use millrace_client::{
    Client, Error, Message, PublisherOptions, ReceiveOptions, Received, Settle, Settlement,
};
use millrace_cluster_tests::broker::{Broker, Node};
use std::time::Duration;

/// How long a test waits for a message that must come.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Two queues and a topic bound to one of them.
pub(crate) const TOPOLOGY: &str = r##"
apiVersion: millrace.dev/v1alpha1
kind: Topic
metadata: {name: events}
spec: {partitions: 2}
---
apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata: {name: orders}
spec:
  bindings: [{topic: {name: events}, subject: "orders.#"}]
  delivery: {maxDeliveries: 2, backoff: {initial: 10ms, max: 10ms}}
---
apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata: {name: small}
spec:
  limits: {maxMessages: 5, maxMessageBytes: 2Ki}
"##;

/// A broker with that topology.
pub(crate) async fn broker() -> Result<(Node, Broker)> {
    let mut node = Node::new(TOPOLOGY)?;
    let broker = node.start().await?;
    Ok((node, broker))
}

/// A message with this payload.
pub(crate) fn message(payload: impl Into<Vec<u8>>) -> Message {
    Message {
        payload: payload.into().into(),
        ..Message::default()
    }
}

/// Publishes one message; an error is the broker's.
pub(crate) async fn publish(client: &Client, address: &str, payload: &str) -> Result<u64, Error> {
    let options = PublisherOptions {
        give_up_after: Some(SOON),
        ..PublisherOptions::default()
    };
    let ack = client
        .publisher(address, options)
        .publish(message(payload))
        .await?;
    Ok(ack.offset.unwrap_or_default())
}

/// Publishes one message, and does not try again for long.
pub(crate) async fn try_publish(
    client: &Client,
    address: &str,
    payload: &str,
) -> Result<u64, Error> {
    let options = PublisherOptions {
        give_up_after: Some(Duration::from_secs(1)),
        ..PublisherOptions::default()
    };
    let publisher = client.publisher(address, options);
    let ack = publisher.publish(message(payload)).await?;
    Ok(ack.offset.unwrap_or_default())
}

/// Takes the next message of a queue.
pub(crate) async fn take(client: &Client, address: &str) -> Result<Received> {
    let options = ReceiveOptions {
        wait: SOON,
        ..ReceiveOptions::default()
    };
    let received = client.receive(address, options).await?;
    received
        .into_iter()
        .next()
        .with_context(|| format!("nothing came from {address}"))
}

/// Whether a queue has nothing to hand out just now.
pub(crate) async fn is_empty(client: &Client, address: &str) -> Result<bool> {
    Ok(client
        .receive(address, ReceiveOptions::default())
        .await?
        .is_empty())
}

/// Ends one lease.
pub(crate) async fn settle(
    client: &Client,
    address: &str,
    received: &Received,
    settle: Settle,
) -> Result<Result<(), Error>> {
    let tag = received.tag.clone();
    let answers = client
        .settle(address, &[Settlement { tag, settle }])
        .await?;
    answers
        .into_iter()
        .next()
        .context("an answer for the settlement")
}

/// Fails unless `text` has `part` in it.
#[track_caller]
pub(crate) fn assert_has(text: &str, part: &str) {
    assert!(text.contains(part), "no {part:?} in:\n{text}");
}
