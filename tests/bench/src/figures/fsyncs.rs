//! Fsyncs: how many syncs a thousand messages cost when each publisher waits for its
//! acknowledgement before it sends the next one, by the number of publishers.

use std::time::Duration;

use anyhow::Result;

use super::{defaults, queue_address, queues_yaml};
use crate::broker::Node;
use crate::load;
use crate::options::Options;
use crate::report::{Figure, Report, quantile};

/// Sizes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many publishers there are, one after the other
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        default_value = "1,16,256"
    )]
    publishers: Vec<u64>,
    /// Bytes of each message
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    payload: u64,
    /// For each number of publishers
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    seconds: u64,
}
defaults!(Args);

pub(super) async fn run(options: &Options, args: &Args, report: &mut Report) -> Result<()> {
    options.check_room(4 << 30)?;
    let time = options.scaled_time(Duration::from_secs(args.seconds));
    report.setting("payload_bytes", args.payload);
    report.setting("seconds", time.as_secs());
    for publishers in &args.publishers {
        one(options, *publishers, args.payload, time, report).await?;
    }
    Ok(())
}

async fn one(
    options: &Options,
    publishers: u64,
    payload: u64,
    time: Duration,
    report: &mut Report,
) -> Result<()> {
    let node = Node::new(options, &queues_yaml(&["q".to_owned()]))?;
    let (broker, address) = (node.start().await?, queue_address("q"));
    let before = broker.scrape().await?;
    let took = load::publish_one_by_one(&broker, &address, publishers, payload, time).await?;
    let after = broker.scrape().await?;
    let grown = |name: &str| after.total(name).saturating_sub(before.total(name));
    let fsyncs = grown("millrace_journal_fsyncs_total") as f64;
    let messages = took.len().max(1) as f64;
    let name = |what: &str| format!("publishers_{publishers}_{what}");
    let per_thousand = fsyncs * 1_000.0 / messages;
    report.push(Figure::ratio(name("fsyncs_per_thousand"), per_thousand));
    report.push(Figure::rate(
        name("messages"),
        messages / time.as_secs_f64(),
    ));
    report.push(Figure::time(name("ack_p50"), quantile(&took, 0.50)));
    report.push(Figure::time(name("ack_p99"), quantile(&took, 0.99)));
    report.push(Figure::time(name("ack_longest"), quantile(&took, 1.0)));
    let syncs = after.sum("millrace_journal_sync_seconds_sum");
    let mean = Duration::from_secs_f64(syncs / fsyncs.max(1.0));
    report.push(Figure::time(name("fsync_mean"), mean));
    Ok(())
}
