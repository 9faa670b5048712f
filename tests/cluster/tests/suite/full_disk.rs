//! A disk with no room left, and with room again.

use anyhow::{Context as _, Result};
use millrace_client::{Applied, Client};
use millrace_cluster_tests::broker::Node;
use millrace_cluster_tests::numbered::Book;
use millrace_cluster_tests::small_disk::SmallDisk;

use crate::given;

const QUEUE: &str = "queue/default/orders";
/// The reserve of 64 MiB, a few journal files of 4 MiB, and room for some messages.
const DISK_MEBIBYTES: u64 = 160;
const MESSAGE_BYTES: usize = 128 << 10;
/// More messages than the disk can hold.
const MESSAGES_MAX: usize = 3_000;

/// A broker's disk of limited size, and how to start one on it.
fn node() -> Result<(Node, SmallDisk)> {
    let node = Node::new(given::TOPOLOGY)?
        .with(["--memory-limit", "32Mi"])
        .with(["--journal-file-size", "4Mi"]);
    let disk = SmallDisk::mount(&node.data_dir(), &node.file("image"), DISK_MEBIBYTES)?;
    println!("  the disk is {:?} of {DISK_MEBIBYTES} MiB", disk.kind());
    Ok((node, disk))
}

/// Publishes until the broker says that the disk is full.
async fn fill(client: &Client) -> Result<Book> {
    let mut book = Book::new(client, QUEUE, MESSAGE_BYTES);
    let error = book.publish_until("DISK_FULL", MESSAGES_MAX).await?;
    assert_eq!(error.applied, Applied::No, "{error:?}");
    anyhow::ensure!(!book.acknowledged.is_empty(), "it was full from the start");
    println!("  full after {} messages", book.acknowledged.len());
    Ok(book)
}

pub(crate) async fn a_full_disk_refuses_publishes_and_loses_nothing() -> Result<()> {
    let (mut node, disk) = node()?;
    let broker = node.start().await?;
    let client = broker.client()?;
    let mut book = fill(&client).await?;

    // Settling works at full, and makes room without a restart.
    book.take_all(&client).await?;
    book.publish_when_possible()
        .await
        .with_context(|| format!("{:?} bytes are free", disk.free_bytes()))?;

    // And all over again.
    book.publish_until("DISK_FULL", MESSAGES_MAX).await?;
    book.take_all(&client).await?;
    broker.stop().await
}

pub(crate) async fn a_broker_killed_at_a_full_disk_starts_again_and_has_everything() -> Result<()> {
    let (mut node, _disk) = node()?;
    let broker = node.start().await?;
    let mut book = fill(&broker.client()?).await?;

    broker.kill();
    let broker = node.start().await?;

    let client = broker.client()?;
    let error = Book::new(&client, QUEUE, MESSAGE_BYTES)
        .publish()
        .await
        .expect_err("still full");
    assert_eq!(error.reason, "DISK_FULL", "{error:?}");
    book.take_all(&client).await?;
    book.publish_when_possible().await?;
    broker.stop().await
}

pub(crate) async fn a_disk_that_others_fill_to_the_last_block_stops_publishing_only() -> Result<()>
{
    let (mut node, disk) = node()?;
    let broker = node.start().await?;
    let client = broker.client()?;
    let mut book = Book::new(&client, QUEUE, 1000);
    for _ in 0..200 {
        book.publish().await?;
    }
    disk.fill()?;
    let error = book.publish_until("DISK_FULL", MESSAGES_MAX).await?;
    assert_eq!(error.applied, Applied::No, "{error:?}");
    println!("  {} bytes free", disk.free_bytes()?);

    // What is preallocated is enough for settlements; a restart needs nothing either.
    let received = given::take(&client, QUEUE).await?;
    given::settle(&client, QUEUE, &received, millrace_client::Settle::Accept).await??;
    let number = millrace_cluster_tests::numbered::number(&received.message.payload);
    book.acknowledged.remove(&number.context("whole")?);
    broker.kill();
    let broker = node.start().await?;
    let client = broker.client()?;

    disk.free()?;
    let mut after = Book::new(&client, QUEUE, 1000);
    after.publish_when_possible().await?;
    book.unknown.extend(after.acknowledged.keys());
    book.take_all(&client).await?;
    broker.stop().await
}
