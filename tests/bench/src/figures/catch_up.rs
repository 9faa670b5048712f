//! Catch-up: a node loses its disk and gets everything again from the others, while everybody goes
//! on publishing. How fast, and what does it cost the publishers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{defaults, queue_address, queues_yaml};
use crate::cluster::Cluster;
use crate::load::closed::{Closed, Plan};
use crate::load::{self};
use crate::options::Options;
use crate::report::{Figure, Report};

/// Queues with a backlog, over all shards.
const QUEUES: usize = 16;
/// Messages of a backlog.
const PAYLOAD_BYTES: u64 = 4 << 10;
/// It has to be there after this.
const LIMIT: Duration = Duration::from_secs(600);
/// Between two looks at whether it is.
const LOOK: Duration = Duration::from_millis(100);
/// The node that loses its disk: not the one that is asked.
const LOST: usize = 2;

/// Sizes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Bytes that wait in the queues
    #[arg(long, value_name = "BYTES", default_value_t = 2 << 30)]
    bytes: u64,
    /// Data shards
    #[arg(long, value_name = "N", default_value_t = 4)]
    shards: u32,
    /// Those who publish meanwhile
    #[arg(long, value_name = "N", default_value_t = 16)]
    publishers: usize,
    /// How long publishers are watched before the disk is lost
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u64,
}
defaults!(Args);

pub(super) async fn run(options: &Options, args: &Args, report: &mut Report) -> Result<()> {
    let bytes = options.scaled(args.bytes);
    options.check_room(3 * (2 * bytes + (2 << 30)))?;
    let time = options.scaled_time(Duration::from_secs(args.seconds));
    report.setting("bytes", bytes);
    report.setting("shards", args.shards);
    report.setting("publishers", args.publishers);
    let full: Vec<String> = (0..QUEUES).map(|n| format!("full-{n}")).collect();
    let busy: Vec<String> = (0..args.publishers).map(|n| format!("busy-{n}")).collect();
    let topology = queues_yaml(&[full.clone(), busy.clone()].concat());
    let mut cluster = Cluster::start(options, 3, args.shards, &topology).await?;
    let plan = Plan {
        addresses: busy.iter().map(|name| queue_address(name)).collect(),
        publishers: args.publishers,
        payload_bytes: 1024,
        consumed: true,
    };
    let mut load = Closed::start(&cluster, &plan).await?;
    let full: Vec<String> = full.iter().map(|name| queue_address(name)).collect();
    let each = (bytes / PAYLOAD_BYTES / QUEUES as u64).max(1);
    let filled = load::publish(&cluster, &full, each, PAYLOAD_BYTES).await?;
    report.push(Figure::byte_rate("filled_payload", filled.byte_rate()));
    let rate = |seen: Vec<Duration>, took: Duration| seen.len() as f64 / took.as_secs_f64();
    let before = rate(load.watch(time).await?, time);
    report.push(Figure::rate("published_before", before));

    let former = node_ids(&cluster).await?;
    cluster.lose(LOST)?;
    let lost = Instant::now();
    load.take();
    cluster.restart(LOST).await?;
    let started = Instant::now();
    caught_up(&cluster, &former).await?;
    let (took, since_lost) = (started.elapsed(), lost.elapsed());
    let meanwhile = rate(load.take(), since_lost);
    report.push(Figure::time("started", started - lost));
    report.push(Figure::time("caught_up", took));
    let payload = each * QUEUES as u64 * PAYLOAD_BYTES;
    let speed = payload as f64 / took.as_secs_f64().max(f64::EPSILON);
    report.push(Figure::byte_rate("caught_up_payload", speed));
    report.push(Figure::bytes(
        "on_its_disk",
        cluster.node(LOST).disk_bytes()?,
    ));
    report.push(Figure::rate("published_meanwhile", meanwhile));
    let part = meanwhile / before.max(f64::EPSILON);
    report.push(Figure::ratio("published_meanwhile_over_before", part));
    load.end().await
}

async fn node_ids(cluster: &Cluster) -> Result<Vec<String>> {
    let nodes = cluster.control()?.nodes().await?.nodes;
    Ok(nodes.into_iter().map(|node| node.node_id).collect())
}

/// Waits until a node that was not there before has all that it should have.
async fn caught_up(cluster: &Cluster, former: &[String]) -> Result<()> {
    let (control, end) = (cluster.control()?, Instant::now() + LIMIT);
    loop {
        // Who has just become a leader, or a member, cannot tell yet.
        let ids = node_ids(cluster).await.unwrap_or_default();
        let new = ids.into_iter().find(|id| !former.contains(id));
        let answer = match &new {
            Some(id) => control.caught_up(id).await.ok(),
            None => None,
        };
        if answer.is_some_and(|answer| answer.blockers.is_empty()) && has_all(cluster).await? {
            return Ok(());
        }
        if Instant::now() > end {
            let new = new.context("no node joined")?;
            let blockers = control.caught_up(&new).await?.blockers;
            bail!("node {new} has not caught up after {LIMIT:?}: {blockers:?}");
        }
        tokio::time::sleep(LOOK).await; // polls
    }
}

/// Whether every shard has as many replicas that vote as there are nodes: a node that was given
/// nothing yet lacks nothing.
async fn has_all(cluster: &Cluster) -> Result<bool> {
    let shards = cluster.control()?.shards().await?.shards;
    let voters = |shard: &millrace_proto::v1::Shard| {
        let members = shard.members.iter();
        members
            .filter(|member| member.votes && member.active)
            .count()
    };
    Ok(shards.iter().all(|shard| voters(shard) >= cluster.len()))
}
