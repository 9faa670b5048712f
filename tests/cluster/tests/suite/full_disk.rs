//! A disk with no room left.

use std::process::Command;

use anyhow::{Context as _, Result};
use millrace_client::{Applied, PublisherOptions, Settle};
use millrace_cluster_tests::broker::{Broker, Launch, Node};
use millrace_cluster_tests::suite::skip;

use crate::given;

const QUEUE: &str = "queue/default/orders";
/// Journal files and one checkpoint's worth are set aside at the start; this leaves some room.
const DISK: &str = "size=400m";

/// Runs a command on a disk of its own, mounted where nobody else sees it.
fn on_small_disk(node: &Node, command: &Command) -> Command {
    let mut own = Command::new("unshare");
    own.args(["--mount", "--propagation", "private"]);
    if !rustix::process::geteuid().is_root() {
        own.args(["--user", "--map-root-user"]);
    }
    let script = "mount -t tmpfs -o \"$0\" tmpfs \"$1\" && shift && exec \"$@\"";
    own.args(["sh", "-c", script, DISK]);
    own.arg(node.data_dir())
        .arg(command.get_program())
        .args(command.get_args());
    own
}

pub(crate) async fn a_full_disk_refuses_publishes_and_loses_nothing() -> Result<()> {
    let node = Node::new(given::TOPOLOGY)?.with(["--memory-limit", "32Mi"]);
    std::fs::create_dir_all(node.data_dir())?;
    if !on_small_disk(&node, &Command::new("true"))
        .status()
        .is_ok_and(|status| status.success())
    {
        return skip("no mount namespace can be made here");
    }
    let (ready, log) = (node.file("ready"), node.file("log"));
    let mut command = node.command()?;
    command
        .args(["--listen", "127.0.0.1:0"])
        .arg("--ready-file")
        .arg(&ready);
    let launch = Launch::of(on_small_disk(&node, &command), ready, log.clone())?;
    let broker = launch.broker().await?;
    let served = fills_up_and_empties(&broker).await;
    served.with_context(|| std::fs::read_to_string(log).unwrap_or_default())?;
    broker.stop().await
}

async fn fills_up_and_empties(broker: &Broker) -> Result<()> {
    let client = broker.client()?;

    // Messages until the disk is full.
    let publisher = client.publisher(QUEUE, PublisherOptions::default());
    let large = given::message(vec![b'x'; 512 << 10]);
    let mut acknowledged = 0;
    let error = loop {
        match publisher.publish(large.clone()).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        anyhow::ensure!(acknowledged < 2_000, "a disk of 400 MiB took a gigabyte");
    };
    anyhow::ensure!(
        error.reason == "DISK_FULL" || error.reason == "OVERLOADED",
        "{error:?}"
    );
    assert_eq!(error.applied, Applied::No);

    // What was acknowledged is there, and settling it works and makes room.
    for n in 0..acknowledged {
        let received = given::take(&client, QUEUE)
            .await
            .with_context(|| format!("message {n}"))?;
        assert_eq!(received.message.payload, large.payload);
        given::settle(&client, QUEUE, &received, Settle::Accept).await??;
    }
    millrace_cluster_tests::wait::until("room for a message", given::SOON, async || {
        Ok(publisher.publish(large.clone()).await.ok())
    })
    .await
    .map(drop)
}
