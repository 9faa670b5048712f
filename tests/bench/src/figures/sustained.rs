//! Sustained: a steady rate for many minutes, half of it to a queue that is consumed at once and
//! half to a topic that keeps its last gigabytes, so that everything is at work: journal,
//! checkpoints, segments, trimming. What was the longest pause of anything, and how much memory
//! did it take.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;

use super::{defaults, queue_address};
use crate::broker::{Broker, Node};
use crate::load::{self, Appetite, Published};
use crate::options::Options;
use crate::report::{Figure, Report};
use crate::scrape::Scrape;

/// Kept by the topic's four partitions together, so that a long run fits on the disk.
const KEPT_BYTES: u64 = 4 << 30;
const TOPOLOGY: &str = "apiVersion: millrace.dev/v1alpha1\nkind: Queue\nmetadata: {name: q}\n\
     spec:\n  delivery: {maxInFlight: 100000, ackDeadline: 10m}\n---\n\
     apiVersion: millrace.dev/v1alpha1\nkind: Topic\nmetadata: {name: t}\n\
     spec: {partitions: 4, retention: {bytes: 1Gi}}\n";
/// Between two looks at what the broker holds.
const LOOK: Duration = Duration::from_secs(1);
/// Journal, segments that wait to be removed, one checkpoint.
const ROOM_BYTES: u64 = KEPT_BYTES + (6 << 30);
/// What a worker may do without looking at its inbox while it makes a checkpoint.
const AIM_TURN_SECONDS: f64 = 0.005;

/// Sizes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Payload bytes in a second
    #[arg(long, value_name = "BYTES", default_value_t = 200_000_000)]
    rate: u64,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    seconds: u64,
    /// Bytes of each message
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    payload: u64,
}
defaults!(Args);

/// The most that was seen in any look.
#[derive(Clone, Copy, Debug, Default)]
struct Most {
    resident_bytes: u64,
    journal_bytes: u64,
    in_flight_bytes: u64,
    queued_messages: u64,
}

pub(super) async fn run(options: &Options, args: &Args, report: &mut Report) -> Result<()> {
    options.check_room(ROOM_BYTES)?;
    let time = options.scaled_time(Duration::from_secs(args.seconds));
    let rate = options.scaled(args.rate);
    report.setting("bytes_per_second", rate);
    report.setting("seconds", time.as_secs());
    report.setting("payload_bytes", args.payload);
    let node = Node::new(options, TOPOLOGY)?;
    let broker = node.start().await?;
    let (queue, topic) = (queue_address("q"), "topic/default/t");
    let (appetite, (stop, stopped)) = (Appetite::without_end(), watch::channel(false));
    let publish = async {
        let half = rate / 2;
        let both = tokio::join!(
            load::publish_paced(&broker, &queue, args.payload, half, time),
            load::publish_paced(&broker, topic, args.payload, half, time),
        );
        appetite.end();
        stop.send_replace(true);
        both
    };
    let consume = load::consume(&broker, &queue, &appetite);
    let ((to_queue, to_topic), consumed, most) =
        tokio::join!(publish, consume, look(&broker, stopped));
    consumed?;
    publishers(report, "queue", &to_queue?);
    publishers(report, "topic", &to_topic?);
    inside(report, &broker.scrape().await?, most?);
    let usage = broker.usage()?;
    report.push(Figure::bytes("rss_peak", usage.rss_bytes_peak));
    report.push(Figure::bytes("rss_at_the_end", usage.rss_bytes));
    report.push(Figure::time("cpu", usage.cpu));
    report.push(Figure::bytes("written", usage.written_bytes));
    report.push(Figure::bytes("on_disk", node.disk_bytes()?));
    Ok(())
}

/// Looks again and again until told to stop.
async fn look(broker: &Broker, mut stopped: watch::Receiver<bool>) -> Result<Most> {
    let mut most = Most::default();
    loop {
        let scrape = broker.scrape().await?;
        let more = |most: &mut u64, name| *most = (*most).max(scrape.total(name));
        more(&mut most.resident_bytes, "millrace_shard_resident_bytes");
        more(&mut most.journal_bytes, "millrace_journal_live_bytes");
        more(&mut most.in_flight_bytes, "millrace_shard_in_flight_bytes");
        more(&mut most.queued_messages, "millrace_queue_ready_messages");
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(most),
            () = tokio::time::sleep(LOOK) => {} // polls
        }
    }
}

fn publishers(report: &mut Report, name: &str, published: &Published) {
    let name = |what: &str| format!("{name}_{what}");
    report.push(Figure::byte_rate(
        name("publish_payload"),
        published.byte_rate(),
    ));
    report.push(Figure::time(name("ack_longest"), published.ack_longest));
    for (reason, refused) in &published.refused {
        report.push(Figure::count(name(&format!("refused_{reason}")), *refused));
    }
}

fn inside(report: &mut Report, scrape: &Scrape, most: Most) {
    let seconds = |value: f64| Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX);
    let turn = scrape.sum("millrace_worker_longest_turn_seconds");
    report.push(Figure::time("worker_turn_longest", seconds(turn)).at_most(AIM_TURN_SECONDS));
    for (name, histogram) in [
        ("worker_turn", "millrace_worker_turn_seconds"),
        ("fsync", "millrace_journal_sync_seconds"),
        ("checkpoint", "millrace_checkpoint_seconds"),
    ] {
        for (part, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            // Beyond the last bound there is none to tell.
            if let Ok(bound) = Duration::try_from_secs_f64(scrape.quantile(histogram, quantile)) {
                report.push(Figure::time(format!("{name}_{part}_below"), bound));
            }
        }
    }
    let sync = scrape.sum("millrace_journal_longest_sync_seconds");
    report.push(Figure::time("fsync_longest", seconds(sync)));
    let checkpoints = scrape.total("millrace_checkpoint_seconds_count");
    report.push(Figure::count("checkpoints", checkpoints));
    report.push(Figure::bytes("bodies_in_memory_most", most.resident_bytes));
    report.push(Figure::bytes("journal_live_most", most.journal_bytes));
    report.push(Figure::bytes("in_flight_most", most.in_flight_bytes));
    report.push(Figure::count("queue_ready_most", most.queued_messages));
    let mut refusals: BTreeMap<String, f64> = BTreeMap::new();
    for (labels, count) in scrape.series("millrace_refusals_total") {
        let reason = labels
            .trim_start_matches("{reason=\"")
            .trim_end_matches("\"}");
        *refusals.entry(reason.to_owned()).or_default() += count;
    }
    for (reason, count) in refusals {
        report.push(Figure::ratio(format!("broker_refused_{reason}"), count));
    }
}
