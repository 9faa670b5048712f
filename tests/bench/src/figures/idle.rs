//! Idle: what a cluster costs in which nothing happens: processor, what nodes say to each other,
//! syncs. By number of shards, because an idle shard is to cost next to nothing.

use std::time::Duration;

use anyhow::Result;

use super::defaults;
use super::queues::declare;
use crate::cluster::Cluster;
use crate::options::Options;
use crate::report::{Figure, Report};

/// After the last queue was declared: until checkpoints are made and everybody sleeps.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// Of a processor, each node.
const AIM_CPU: f64 = 0.01;
/// Bytes that each node sends in a second.
const AIM_BYTES: f64 = 2_000.0;
/// The number of shards that the aims are for; others are there to be compared.
const AIM_SHARDS: u32 = 12;

/// Sizes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Nodes of the cluster
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// How many data shards there are, one after the other
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        default_value = "4,12,64"
    )]
    shards: Vec<u32>,
    /// Queues that are declared
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    queues: u64,
    /// For each number of shards
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
}
defaults!(Args);

pub(super) async fn run(options: &Options, args: &Args, report: &mut Report) -> Result<()> {
    options.check_room(2 << 30)?;
    let queues = options.scaled(args.queues);
    let time = options.scaled_time(Duration::from_secs(args.seconds));
    report.setting("nodes", args.nodes);
    report.setting("queues", queues);
    report.setting("seconds", time.as_secs());
    let mut first = None;
    for shards in &args.shards {
        let cpu = one(options, args.nodes, *shards, queues, time, report).await?;
        let (fewest, least) = *first.get_or_insert((*shards, cpu));
        if *shards != fewest {
            let name = format!("cpu_of_{shards}_over_{fewest}_shards");
            report.push(Figure::ratio(name, cpu / least.max(f64::EPSILON)));
        }
    }
    Ok(())
}

/// What share of a processor each node took.
async fn one(
    options: &Options,
    nodes: usize,
    shards: u32,
    queues: u64,
    time: Duration,
    report: &mut Report,
) -> Result<f64> {
    let cluster = Cluster::start(options, nodes, shards, "").await?;
    declare(&cluster.control()?, queues).await?;
    tokio::time::sleep(options.scaled_time(SETTLED_AFTER)).await; // polls: until it is quiet
    let before = cluster.used().await?;
    tokio::time::sleep(time).await; // polls: it is watched for so long
    let used = cluster.used().await?.since(&before);
    let each_second = |amount: f64| amount / time.as_secs_f64() / nodes as f64;
    let name = |what: &str| format!("shards_{shards}_{what}");
    let cpu = each_second(used.cpu.as_secs_f64());
    let aimed = |figure: Figure, aim| match shards {
        AIM_SHARDS => figure.at_most(aim),
        _ => figure,
    };
    let of_node = Figure::ratio(name("cpu_cores_of_node"), cpu);
    report.push(aimed(of_node, AIM_CPU));
    if let Some(sent) = used.sent_bytes {
        let sent = Figure::rate(name("sent_bytes_of_node"), each_second(sent as f64));
        report.push(aimed(sent, AIM_BYTES));
    }
    let messages = each_second(used.peer_messages as f64);
    report.push(Figure::rate(name("peer_messages_of_node"), messages));
    report.push(Figure::count(name("fsyncs_of_all"), used.fsyncs));
    Ok(cpu)
}
