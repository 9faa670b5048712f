//! Queues: very many of them, declared in deltas as the operator sends them, idle; memory, time to
//! declare, time to start again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use millrace_client::Control;
use millrace_proto::v1::{
    ApplyTopologyRequest, DeletionPolicy, QueueLimits, QueueSpec, TopologyObject, queue_spec,
    topology_object,
};

use super::defaults;
use crate::broker::Node;
use crate::load;
use crate::options::Options;
use crate::report::{Figure, Report};

/// Objects of one delta: the most a broker takes.
const DELTA_OBJECTS: u64 = 1_000;
/// Every shard has to have applied the last delta after this.
const APPLY_LIMIT: Duration = Duration::from_secs(600);
/// Between two looks at whether they have: the answer lists every queue.
const LOOK: Duration = Duration::from_millis(250);

/// Sizes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Queues to declare
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    queues: u64,
}
defaults!(Args);

pub(super) async fn run(options: &Options, args: &Args, report: &mut Report) -> Result<()> {
    let queues = options.scaled(args.queues);
    options.check_room(2 << 30)?;
    report.setting("queues", queues);
    let node = Node::new(options, "")?;

    let broker = node.start().await?;
    let empty = broker.usage()?;
    let started = Instant::now();
    let longest = declare(&broker.control()?, queues).await?;
    report.push(Figure::time("delta_longest", longest));
    report.push(Figure::time("declared", started.elapsed()));
    let usage = broker.usage()?;
    report.push(Figure::time(
        "cpu_declaring",
        usage.cpu.saturating_sub(empty.cpu),
    ));
    report.push(Figure::bytes("rss_empty", empty.rss_bytes));
    report.push(Figure::bytes("rss", usage.rss_bytes));
    report.push(Figure::bytes("rss_peak", usage.rss_bytes_peak));
    let grown = usage.rss_bytes.saturating_sub(empty.rss_bytes);
    report.push(Figure::bytes("rss_per_queue", grown / queues));
    report.push(Figure::bytes("on_disk", node.disk_bytes()?));
    let last = [name(queues - 1)];
    let published = load::publish(&broker, &last, 1, 100).await?;
    report.push(Figure::time("publish_one", published.took));

    broker.kill();
    node.forget_cached()?;
    let (broker, times) = node.start_until_received(&last[0]).await?;
    let usage = broker.usage()?;
    report.push(Figure::time("restart_ready", times.ready));
    report.push(Figure::time("restart_received", times.received));
    report.push(Figure::bytes("rss_restarted", usage.rss_bytes));
    report.push(Figure::bytes("rss_restarted_peak", usage.rss_bytes_peak));
    let before = Instant::now();
    broker.scrape().await?;
    report.push(Figure::time("scrape", before.elapsed()));
    let scrape = broker.scrape().await?;
    let turn = scrape.sum("millrace_worker_longest_turn_seconds");
    report.push(Figure::time(
        "worker_longest_turn",
        Duration::from_secs_f64(turn),
    ));
    Ok(())
}

/// Declares so many queues and waits until every shard knows them; how long the longest delta took.
pub(super) async fn declare(control: &Control, queues: u64) -> Result<Duration> {
    let metadata = control.metadata().await?;
    let mut revision = metadata
        .topology
        .context("a broker has a topology")?
        .revision;
    let mut longest = Duration::ZERO;
    let mut first = 0;
    while first < queues {
        let end = (first + DELTA_OBJECTS).min(queues);
        let delta = ApplyTopologyRequest {
            base_revision: revision,
            upserts: (first..end).map(queue).collect(),
            ..ApplyTopologyRequest::default()
        };
        let before = Instant::now();
        revision = control.apply_topology(delta).await?.revision;
        longest = longest.max(before.elapsed());
        first = end;
    }
    let end = Instant::now() + APPLY_LIMIT;
    while control
        .metadata()
        .await?
        .topology
        .unwrap_or_default()
        .applied_revision
        < revision
    {
        if Instant::now() > end {
            bail!("the topology is not applied after {APPLY_LIMIT:?}");
        }
        tokio::time::sleep(LOOK).await; // polls
    }
    Ok(longest)
}

fn name(number: u64) -> String {
    format!("queue/default/idle-queue-{number}")
}

/// As the operator compiles a Queue with an empty spec.
fn queue(number: u64) -> TopologyObject {
    let duration = |seconds| prost_types::Duration { seconds, nanos: 0 };
    let limits = QueueLimits {
        max_message_bytes: 1 << 20,
        ..QueueLimits::default()
    };
    let spec = QueueSpec {
        bindings: Vec::new(),
        delivery: Some(queue_spec::Delivery {
            ack_deadline: Some(duration(30)),
            max_in_flight: 1_000,
            max_deliveries: 20,
            backoff: Some(queue_spec::Backoff {
                initial: Some(duration(1)),
                max: Some(duration(300)),
                factor_milli: 2_000,
            }),
        }),
        limits: Some(limits),
        dead_letter: Some(queue_spec::DeadLetter {
            queue: String::new(),
            limits: Some(QueueLimits::default()),
        }),
        deletion_policy: DeletionPolicy::Orphan.into(),
        dedup_window: None,
        replication: None,
    };
    TopologyObject {
        address: name(number),
        uid: format!("00000000-0000-4000-8000-{number:012}"),
        generation: 1,
        spec: Some(topology_object::Spec::Queue(spec)),
    }
}
