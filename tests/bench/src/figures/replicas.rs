//! Replicas: what it costs that every message is on several nodes. The same load, publishers that
//! each wait for their acknowledgement and consumers that take everything at once, on clusters of
//! each size with each number of shards; then the same into a topic that nobody reads.
//!
//! The nodes share a disk and the processors, so that messages in a second say little about
//! machines of their own: what a message costs in processor and syncs does.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::{defaults, queue_address, queues_yaml};
use crate::cluster::{Cluster, Used};
use crate::load::closed::{Closed, Plan};
use crate::options::Options;
use crate::report::{Figure, Report, quantile};

/// Before it is measured: connections are made, leaders are known, a first checkpoint is near.
const WARM: Duration = Duration::from_secs(2);
/// Kept of the topic: little, so that disks hold all that many minutes publish.
const TOPIC_KEPT: &str = "64Mi";

/// Sizes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many nodes there are, one after the other
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,3")]
    nodes: Vec<usize>,
    /// How many data shards there are, one after the other; a node has two at least
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        default_value = "2,16,64"
    )]
    shards: Vec<u32>,
    /// Publishers, and as many queues, or partitions of the topic
    #[arg(long, value_name = "N", default_value_t = 64)]
    publishers: usize,
    /// Bytes of each message
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    payload: u64,
    /// For each of them
    #[arg(long, value_name = "SECONDS", default_value_t = 8)]
    seconds: u64,
}
defaults!(Args);

/// What a message cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    cpu_seconds: f64,
    fsyncs: f64,
}

pub(super) async fn run(options: &Options, args: &Args, report: &mut Report) -> Result<()> {
    options.check_room(8 << 30)?;
    let time = options.scaled_time(Duration::from_secs(args.seconds));
    report.setting("publishers", args.publishers);
    report.setting("payload_bytes", args.payload);
    report.setting("seconds", time.as_secs());
    let mut costs = BTreeMap::new();
    for nodes in &args.nodes {
        for shards in &args.shards {
            let topology = topology(args.publishers);
            let cluster = Cluster::start(options, *nodes, *shards, &topology).await?;
            for (kind, plan) in plans(args) {
                let name = format!("nodes_{nodes}_shards_{shards}_{kind}");
                let cost = one(&cluster, &plan, time, &name, report).await?;
                costs.insert((*nodes, *shards, kind), cost);
            }
        }
    }
    compare(&costs, report);
    Ok(())
}

fn topology(publishers: usize) -> String {
    let names: Vec<String> = (0..publishers).map(|n| format!("q-{n}")).collect();
    format!(
        "{}---\napiVersion: millrace.dev/v1alpha1\nkind: Topic\nmetadata: {{name: t}}\n\
         spec: {{partitions: {publishers}, retention: {{bytes: {TOPIC_KEPT}}}}}\n",
        queues_yaml(&names)
    )
}

fn plans(args: &Args) -> [(&'static str, Plan); 2] {
    let queues = (0..args.publishers).map(|n| queue_address(&format!("q-{n}")));
    let queues = Plan {
        addresses: queues.collect(),
        publishers: args.publishers,
        payload_bytes: args.payload,
        consumed: true,
    };
    let topic = Plan {
        addresses: vec!["topic/default/t".to_owned()],
        consumed: false,
        ..queues
    };
    [("queues", queues), ("topic", topic)]
}

async fn one(
    cluster: &Cluster,
    plan: &Plan,
    time: Duration,
    name: &str,
    report: &mut Report,
) -> Result<Cost> {
    let mut load = Closed::start(cluster, plan).await?;
    load.watch(WARM.min(time)).await?;
    let before = cluster.used().await?;
    let seen = load.watch(time).await?;
    let used = cluster.used().await?.since(&before);
    load.end().await?;
    let name = |what: &str| format!("{name}_{what}");
    let messages = seen.len().max(1) as f64;
    let Used { cpu, fsyncs, .. } = used;
    let cost = Cost {
        cpu_seconds: cpu.as_secs_f64() / messages,
        fsyncs: fsyncs as f64 / messages,
    };
    report.extend([
        Figure::rate(name("messages"), messages / time.as_secs_f64()),
        Figure::time(name("ack_p50"), quantile(&seen, 0.50)),
        Figure::time(name("ack_p99"), quantile(&seen, 0.99)),
        Figure::ratio(name("cpu_seconds_per_million"), cost.cpu_seconds * 1e6),
        Figure::ratio(name("fsyncs_per_thousand"), cost.fsyncs * 1e3),
    ]);
    if cluster.len() > 1 {
        let each = used.peer_messages as f64 / messages;
        report.push(Figure::ratio(name("peer_messages_per_message"), each));
    }
    Ok(cost)
}

/// What several nodes together cost over what one does.
fn compare(costs: &BTreeMap<(usize, u32, &str), Cost>, report: &mut Report) {
    for ((nodes, shards, kind), cost) in costs {
        let Some(one) = costs.get(&(1, *shards, *kind)).filter(|_| *nodes > 1) else {
            continue;
        };
        let name = |what: &str| format!("{what}_of_{nodes}_over_1_shards_{shards}_{kind}");
        let over = |many: f64, one: f64| many / one.max(f64::EPSILON);
        let cpu = over(cost.cpu_seconds, one.cpu_seconds);
        report.push(Figure::ratio(name("cpu"), cpu));
        report.push(Figure::ratio(name("fsyncs"), over(cost.fsyncs, one.fsyncs)));
    }
}
