//! A volume that answers with errors: what the kernel says is believed, once.

use std::time::Duration;

use anyhow::{Context as _, Result};
use millrace_client::Applied;
use millrace_cluster_tests::broker::{Broker, Node};
use millrace_cluster_tests::numbered::Book;
use millrace_cluster_tests::volume::{Operation, Volume};
use millrace_cluster_tests::wait::until;

use crate::given::{self, SOON, assert_has};

const QUEUE: &str = "queue/default/orders";
const OTHER: &str = "queue/default/small";
/// Exit code of a broker whose disk failed while it served.
const FAILED: Option<i32> = Some(70);
/// Enough for several checkpoints.
const MESSAGES: usize = 60;
const MESSAGE_BYTES: usize = 128 << 10;

/// A broker on a volume that can fail.
fn node() -> Result<(Node, Volume)> {
    let node = Node::new(given::TOPOLOGY)?
        .with(["--memory-limit", "16Mi"])
        .with(["--journal-file-size", "4Mi"]);
    let volume = Volume::mount(&node.data_dir(), &node.file("backing"))?;
    Ok((node, volume))
}

/// The broker ends by itself, with the code that says why.
async fn ends(broker: &mut Broker, node: &Node) -> Result<()> {
    let status = broker.wait().await?;
    let log = node.last_log();
    assert_eq!(status.code(), FAILED, "{log}");
    assert_has(&log, "Input/output error");
    Ok(())
}

/// The journal fails this way: the broker ends and does not try again, and nothing acknowledged is
/// lost on the healed volume.
async fn a_failing_journal_ends_the_broker(operation: Operation) -> Result<()> {
    let (mut node, volume) = node()?;
    let mut broker = node.start().await?;
    let mut book = Book::new(&broker.client()?, QUEUE, 1000);
    for _ in 0..50 {
        book.publish().await?;
    }

    volume.fail(operation, "journal/");
    let error = book.publish().await.expect_err("the disk fails");
    assert_ne!(error.applied, Applied::Yes, "{error:?}");
    ends(&mut broker, &node).await?;
    let struck = volume.struck(operation);
    let times: Vec<u64> = struck.iter().map(|(_, times)| *times).collect();
    assert_eq!(times, [1], "tried again: {struck:?}");

    volume.heal();
    let broker = node.start().await?;
    book.take_all(&broker.client()?).await?;
    broker.stop().await
}

pub(crate) async fn a_failed_sync_ends_the_broker_and_is_not_tried_again() -> Result<()> {
    a_failing_journal_ends_the_broker(Operation::Sync).await
}

pub(crate) async fn a_failed_write_ends_the_broker_and_is_not_tried_again() -> Result<()> {
    a_failing_journal_ends_the_broker(Operation::Write).await
}

pub(crate) async fn a_checkpoint_whose_sync_fails_ends_the_broker_and_loses_nothing() -> Result<()>
{
    let (mut node, volume) = node()?;
    let mut broker = node.start().await?;
    let mut book = Book::new(&broker.client()?, QUEUE, MESSAGE_BYTES);
    book.publish().await?;
    volume.fail(Operation::Sync, "shards/");
    for _ in 0..MESSAGES {
        if book.publish().await.is_err() {
            break;
        }
    }
    ends(&mut broker, &node).await?;

    volume.heal();
    let broker = node.start().await?;
    book.take_all(&broker.client()?).await?;
    broker.stop().await
}

pub(crate) async fn an_unreadable_segment_is_an_error_to_its_reader_and_to_nobody_else()
-> Result<()> {
    let (mut node, volume) = node()?;
    let broker = node.start().await?;
    let client = broker.client()?;
    let mut book = Book::new(&client, QUEUE, MESSAGE_BYTES);
    for _ in 0..MESSAGES {
        book.publish_when_possible().await?;
    }
    given::publish(&client, OTHER, "elsewhere").await?;
    until("a segment", SOON, async || {
        Ok(has_segment(&node.data_dir().join("shards"))?.then_some(()))
    })
    .await?;

    volume.fail(Operation::Read, ".seg");
    let error = until("an error of the volume", SOON, async || {
        // Bodies that are still in memory are handed out.
        Ok(book.take_some(&client, Duration::ZERO).await?.err())
    })
    .await?;
    println!("  {error:?}");
    assert_ne!(error.applied, Applied::Yes, "{error:?}");
    assert_has(&error.message, ".seg");
    let elsewhere = given::take(&broker.client()?, OTHER).await?;
    assert_eq!(&*elsewhere.message.payload, b"elsewhere");

    volume.heal();
    broker.kill();
    let broker = node.start().await?;
    let client = broker.client()?;
    book.take_all(&client)
        .await
        .context("after the volume was healed")?;
    broker.stop().await
}

fn has_segment(directory: &std::path::Path) -> Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let found = path.extension().is_some_and(|extension| extension == "seg");
        if found || (path.is_dir() && has_segment(&path)?) {
            return Ok(true);
        }
    }
    Ok(false)
}
