//! Bytes that changed while the broker was down: the damage is named with file and byte, the shards
//! it touches do not serve, the others do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use millrace_cluster_tests::broker::{Broker, Node};
use millrace_cluster_tests::wait::until;
use millrace_proto::v1;
use millrace_proto::v1::publisher_client::PublisherClient;

use crate::given::{self, SOON, assert_has};

/// Enough that they do not all live on one of the four shards.
const QUEUES: usize = 8;
/// A message on its way to disk is found by its text.
const NEEDLE: &str = "a needle in queue";

fn topology() -> String {
    let head = "apiVersion: millrace.dev/v1alpha1\nkind: Queue";
    let queue = |n| format!("{head}\nmetadata: {{name: q{n}}}\nspec: {{}}\n---\n");
    (0..QUEUES).map(queue).collect()
}

fn address(n: usize) -> String {
    format!("queue/default/q{n}")
}

fn needle(n: usize) -> String {
    format!("{NEEDLE} {n}.")
}

/// Every file of a directory that has these bytes, and where. A broker that runs may remove some
/// meanwhile.
fn find(directory: &Path, bytes: &[u8]) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(find(&path, bytes)?);
            continue;
        }
        let content = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            content => content?,
        };
        if let Some(at) = position(&content, bytes) {
            found.push((path, u64::try_from(at)?));
        }
    }
    Ok(found)
}

/// Where the bytes are. Looks for the first of them alone: files are large, and mostly zeros.
fn position(content: &[u8], bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    let starts = content
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == first);
    starts
        .map(|(at, _)| at)
        .find(|at| content[*at..].starts_with(bytes))
}

/// Changes one bit.
fn damage(path: &Path, at: u64) -> Result<()> {
    let mut content = fs::read(path)?;
    let byte = content
        .get_mut(usize::try_from(at)?)
        .context("in the file")?;
    *byte ^= 0x10;
    Ok(fs::write(path, content)?)
}

/// The error names the file, and a byte at or a little before the one that was changed: where the
/// frame or batch begins that has it.
fn assert_names(text: &str, path: &Path, at: u64) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    assert_has(text, &name);
    let byte = text.split("at byte ").nth(1).unwrap_or_default();
    let digits: String = byte.chars().take_while(char::is_ascii_digit).collect();
    let named: u64 = digits.parse().unwrap_or(u64::MAX);
    assert!(
        (at.saturating_sub(4096)..=at).contains(&named),
        "not {at}: {text}"
    );
}

/// Publishes to every queue, each once; returns those that refuse, with what they say.
async fn refusing(broker: &Broker) -> Result<Vec<(usize, v1::Error)>> {
    let endpoint = tonic::transport::Endpoint::from_shared(broker.url())?;
    let mut publisher = PublisherClient::new(endpoint.connect().await?);
    let mut refusing = Vec::new();
    for n in 0..QUEUES {
        let request = v1::PublishRequest {
            address: address(n),
            messages: vec![given::message("more")],
            batches: Vec::new(),
            ..v1::PublishRequest::default()
        };
        let answer = publisher.publish(request).await?.into_inner();
        let result = answer.results.into_iter().next().context("a result")?;
        if let Some(v1::publish_result::Outcome::Refused(error)) = result.outcome {
            refusing.push((n, error));
        }
    }
    Ok(refusing)
}

pub(crate) async fn damage_in_the_journal_is_named_and_the_other_shards_serve() -> Result<()> {
    let mut node = Node::new(&topology())?.with(["--journal-file-size", "1Mi"]);
    let broker = node.start().await?;
    let client = broker.client()?;
    for n in 0..QUEUES {
        given::publish(&client, &address(n), &needle(n)).await?;
    }
    // Something behind them: damage in the last batch may be a torn tail.
    given::publish(&client, &address(QUEUES - 1), "the last one").await?;
    broker.kill();
    let found = find(&node.data_dir().join("journal"), needle(0).as_bytes())?;
    let [(path, at)] = found.as_slice() else {
        anyhow::bail!("the message is in {found:?}");
    };
    damage(path, *at)?;

    let broker = node.start().await?;

    let client = broker.client()?;
    let refusing = refusing(&broker).await?;
    ensure!(!refusing.is_empty(), "the damage went unseen");
    ensure!(
        refusing.len() < QUEUES,
        "one damaged record stopped all shards"
    );
    assert_eq!(refusing[0].0, 0, "another shard than the damaged one");
    for (n, error) in &refusing {
        println!("  q{n}: {}", error.message);
        assert_eq!(error.reason, "SHARD_UNAVAILABLE", "{error:?}");
        assert_names(&error.message, path, *at);
    }
    assert_has(&node.last_log(), &path.display().to_string());
    for n in (0..QUEUES).filter(|n| refusing.iter().all(|(refuses, _)| refuses != n)) {
        let first = given::take(&client, &address(n)).await?;
        assert_eq!(&*first.message.payload, needle(n).as_bytes());
    }
    broker.stop().await
}

pub(crate) async fn damage_in_a_segment_is_named_to_its_reader_and_ends_nothing() -> Result<()> {
    let mut node = Node::new(&topology())?
        .with(["--memory-limit", "8Mi"])
        .with(["--journal-file-size", "1Mi"]);
    let broker = node.start().await?;
    let client = broker.client()?;
    for n in 0..QUEUES {
        given::publish(&client, &address(n), &needle(n)).await?;
    }
    // Until a checkpoint has written the first message to a segment.
    let shards = node.data_dir().join("shards");
    let padding = "x".repeat(100_000);
    let (path, at) = until("a segment with the message", SOON, async || {
        for n in 0..QUEUES {
            given::publish(&client, &address(n), &padding).await?;
        }
        let found = find(&shards, needle(0).as_bytes())?;
        let is_segment = |path: &Path| path.extension().is_some_and(|e| e == "seg");
        Ok(found.into_iter().find(|(path, _)| is_segment(path)))
    })
    .await?;
    broker.kill();
    damage(&path, at)?;

    let broker = node.start().await?;

    let client = broker.client()?;
    let error = match client.receive(&address(0), Default::default()).await {
        Err(error) => error,
        Ok(received) => anyhow::bail!("the damage went unseen: {} came", received.len()),
    };
    println!("  {}: {}", error.reason, error.message);
    assert_names(&error.message, &path, at);
    let directory = path.parent().and_then(Path::parent).context("a shard's")?;
    for n in 1..QUEUES {
        let found = find(&shards, needle(n).as_bytes())?;
        if found.iter().any(|(other, _)| other.starts_with(directory)) {
            // Of the same shard: it may be quarantined with it.
            continue;
        }
        let first = given::take(&client, &address(n)).await?;
        assert_eq!(&*first.message.payload, needle(n).as_bytes());
    }
    broker.stop().await
}
