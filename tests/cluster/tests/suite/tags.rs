//! Delivery tags that are not, or not any more, worth anything.

use anyhow::{Context as _, Result};
use millrace_client::{Applied, ConsumerOptions, Settle};
use tokio::time::timeout;

use crate::given::{self, SOON};

const QUEUE: &str = "queue/default/orders";

pub(crate) async fn a_stale_tag_is_refused_as_such() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    let client = broker.client()?;
    given::publish(&client, QUEUE, "once").await?;
    let received = given::take(&client, QUEUE).await?;
    given::settle(&client, QUEUE, &received, Settle::Accept).await??;

    let again = given::settle(&client, QUEUE, &received, Settle::Accept).await?;

    let error = again.expect_err("a lease ends once");
    assert_eq!(error.reason, "STALE_DELIVERY");
    assert_eq!(error.applied, Applied::No);
    Ok(())
}

pub(crate) async fn a_forged_tag_is_refused_as_such() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    let client = broker.client()?;
    given::publish(&client, QUEUE, "mine").await?;
    let mut received = given::take(&client, QUEUE).await?;
    let genuine = received.tag.clone();

    for at in 0..genuine.len() {
        let mut forged = genuine.to_vec();
        forged[at] ^= 1;
        received.tag = forged.into();
        let answer = given::settle(&client, QUEUE, &received, Settle::Accept).await?;
        let error = answer.expect_err("a changed tag is not ours");
        assert_eq!(error.reason, "INVALID_TAG", "byte {at} was changed");
    }
    for forged in [&b""[..], b"x", &[0; 64], &[0xff; 200]] {
        received.tag = forged.to_vec().into();
        let answer = given::settle(&client, QUEUE, &received, Settle::Accept).await?;
        assert_eq!(answer.expect_err("no tag at all").reason, "INVALID_TAG");
    }
    received.tag = genuine;
    given::settle(&client, QUEUE, &received, Settle::Accept).await??;
    Ok(())
}

pub(crate) async fn a_bad_tag_does_not_end_a_stream() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    let client = broker.client()?;
    given::publish(&client, QUEUE, "one").await?;
    let mut consumer = client.consumer(QUEUE, ConsumerOptions::default());
    let one = timeout(SOON, consumer.next())
        .await?
        .context("a delivery")??;
    timeout(SOON, one.accept()).await??;

    let error = timeout(SOON, one.accept())
        .await?
        .expect_err("a lease ends once");

    assert_eq!(error.reason, "STALE_DELIVERY");
    // Not lost with the stream: the server said so.
    assert_eq!(error.applied, Applied::No);
    given::publish(&client, QUEUE, "two").await?;
    let two = timeout(SOON, consumer.next())
        .await?
        .context("a delivery")??;
    timeout(SOON, two.accept()).await??;
    consumer.close().await;
    Ok(())
}
