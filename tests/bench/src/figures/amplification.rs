//! Amplification: what is written for each payload byte that was published, by what becomes of the
//! message: consumed at once, consumed much later, kept in a topic. Three counts: what the kernel
//! charges the broker for, what reaches the device (whoever wrote it: the machine should be quiet),
//! and what the broker wrote, by area.

use std::time::Duration;

use anyhow::Result;

use super::{defaults, queue_address, queues_yaml};
use crate::broker::{Broker, Node};
use crate::load::{self, Appetite};
use crate::options::Options;
use crate::process::{self, Usage};
use crate::report::{Figure, Report};
use crate::scrape::Scrape;

const TOPIC: &str = "apiVersion: millrace.dev/v1alpha1\nkind: Topic\nmetadata: {name: t}\n\
     spec: {partitions: 4}\n---\n";
/// The broker's own count of bytes, by area of its data directory.
const WRITTEN: &str = "millrace_disk_written_bytes_total";
/// A broker that writes nothing for this long has nothing left to write.
const LOOK: Duration = Duration::from_secs(1);

/// Sizes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Messages for each of the three
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    messages: u64,
    /// Bytes of each
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    payload: u64,
}
defaults!(Args);

pub(super) async fn run(options: &Options, args: &Args, report: &mut Report) -> Result<()> {
    let messages = options.scaled(args.messages);
    options.check_room(messages * (args.payload + 64) * 5 / 4 + (2 << 30))?;
    report.setting("messages", messages);
    report.setting("payload_bytes", args.payload);
    prompt(options, messages, args.payload, report).await?;
    backlog(options, messages, args.payload, report).await?;
    topic(options, messages, args.payload, report).await
}

async fn prompt(options: &Options, messages: u64, payload: u64, report: &mut Report) -> Result<()> {
    let node = Node::new(options, &queues_yaml(&["q".to_owned()]))?;
    let (broker, address) = (quiet(&node).await?, queue_address("q"));
    let before = Moment::of(&broker, &node).await?;
    let (appetite, addresses) = (Appetite::of(messages), [address.clone()]);
    let (published, consumed) = tokio::join!(
        load::publish_ahead_of(&broker, &addresses, messages, payload, Some(&appetite)),
        load::consume(&broker, &address, &appetite),
    );
    consumed?;
    let after = Moment::of(&broker, &node).await?;
    report.push(Figure::rate("prompt_publish", published?.rate()));
    report.extend(amplification(
        "prompt",
        &before,
        &after,
        (messages, payload),
    ));
    Ok(())
}

async fn backlog(
    options: &Options,
    messages: u64,
    payload: u64,
    report: &mut Report,
) -> Result<()> {
    let node = Node::new(options, &queues_yaml(&["q".to_owned()]))?;
    let (broker, address) = (quiet(&node).await?, queue_address("q"));
    let before = Moment::of(&broker, &node).await?;
    let published =
        load::publish(&broker, std::slice::from_ref(&address), messages, payload).await?;
    let built = Moment::of(&broker, &node).await?;
    let consumed = load::consume(&broker, &address, &Appetite::of(messages)).await?;
    let after = Moment::of(&broker, &node).await?;
    let each = (messages, payload);
    report.push(Figure::rate("backlog_publish", published.rate()));
    let drained = messages as f64 / consumed.as_secs_f64();
    report.push(Figure::rate("backlog_drain", drained));
    report.extend(amplification("backlog_built", &before, &built, each));
    report.extend(amplification("backlog_drained", &before, &after, each));
    let left = node.disk_bytes()?;
    report.push(Figure::bytes("backlog_drained_on_disk", left));
    Ok(())
}

async fn topic(options: &Options, messages: u64, payload: u64, report: &mut Report) -> Result<()> {
    let node = Node::new(options, TOPIC)?;
    let broker = quiet(&node).await?;
    let before = Moment::of(&broker, &node).await?;
    let addresses = ["topic/default/t".to_owned()];
    let published = load::publish(&broker, &addresses, messages, payload).await?;
    let after = Moment::of(&broker, &node).await?;
    report.push(Figure::rate("topic_publish", published.rate()));
    report.extend(amplification("topic", &before, &after, (messages, payload)));
    Ok(())
}

/// A broker that has prepared its journal's files, which it does once and not for any message.
async fn quiet(node: &Node) -> Result<Broker> {
    let broker = node.start().await?;
    let mut written = None;
    loop {
        let now = broker.scrape().await?.total(WRITTEN);
        if written.replace(now) == Some(now) {
            return Ok(broker);
        }
        tokio::time::sleep(LOOK).await; // polls
    }
}

/// What was written up to now.
struct Moment {
    usage: Usage,
    /// Of the whole device, others' writes included.
    device: Option<u64>,
    scrape: Scrape,
}

impl Moment {
    async fn of(broker: &Broker, node: &Node) -> Result<Self> {
        Ok(Self {
            device: process::device_written_bytes(&node.data_dir()),
            usage: broker.usage()?,
            scrape: broker.scrape().await?,
        })
    }
}

/// Bytes for each payload byte: as the kernel counts them, and as the broker does.
fn amplification(
    name: &str,
    before: &Moment,
    after: &Moment,
    (messages, payload): (u64, u64),
) -> Vec<Figure> {
    let payload = (messages * payload) as f64;
    let charged = after.usage.written_bytes - before.usage.written_bytes;
    let mut figures = vec![Figure::ratio(
        format!("{name}_charged_bytes_per_byte"),
        charged as f64 / payload,
    )];
    if let (Some(before), Some(after)) = (before.device, after.device) {
        let written = after.saturating_sub(before) as f64 / payload;
        figures.push(Figure::ratio(
            format!("{name}_device_bytes_per_byte"),
            written,
        ));
    }
    // A small sync writes a whole block of the file system, and its journal.
    let fsyncs = "millrace_journal_fsyncs_total";
    let fsyncs = after.scrape.sum(fsyncs) - before.scrape.sum(fsyncs);
    let per_thousand = fsyncs * 1_000.0 / messages as f64;
    figures.push(Figure::ratio(
        format!("{name}_fsyncs_per_thousand"),
        per_thousand,
    ));
    for (labels, bytes) in after.scrape.series(WRITTEN) {
        let area = labels
            .trim_start_matches("{area=\"")
            .trim_end_matches("\"}");
        let was = before.scrape.sum(&format!("{WRITTEN}{labels}"));
        let name = format!("{name}_{area}_bytes_per_byte");
        figures.push(Figure::ratio(name, (bytes - was) / payload));
    }
    figures
}
