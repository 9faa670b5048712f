//! Backlog: very many small messages in one queue that nobody consumes; memory and disk after they
//! came, and after a restart.

use anyhow::Result;

use super::{defaults, queue_address, queues_yaml};
use crate::broker::Node;
use crate::load;
use crate::options::Options;
use crate::report::{Figure, Report};

/// Sizes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Messages that wait
    #[arg(long, value_name = "N", default_value_t = 100_000_000)]
    messages: u64,
    /// Bytes of each
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    payload: u64,
}
defaults!(Args);

pub(super) async fn run(options: &Options, args: &Args, report: &mut Report) -> Result<()> {
    let messages = options.scaled(args.messages);
    options.check_room(messages * (args.payload + 16) * 5 / 4 + (1 << 30))?;
    report.setting("messages", messages);
    report.setting("payload_bytes", args.payload);
    let node = Node::new(options, &queues_yaml(&["long".to_owned()]))?;
    let address = queue_address("long");

    let broker = node.start().await?;
    let empty = broker.usage()?.rss_bytes;
    let addresses = [address.clone()];
    let published = load::publish(&broker, &addresses, messages, args.payload).await?;
    let (usage, scrape) = (broker.usage()?, broker.scrape().await?);
    let resident = scrape.total("millrace_shard_resident_bytes");
    report.push(Figure::rate("publish", published.rate()));
    report.push(Figure::byte_rate("publish_payload", published.byte_rate()));
    report.push(Figure::time("publish_ack_longest", published.ack_longest));
    report.push(Figure::bytes("rss_empty", empty));
    report.push(Figure::bytes("rss_built", usage.rss_bytes));
    report.push(Figure::bytes("rss_peak", usage.rss_bytes_peak));
    report.push(Figure::bytes("bodies_in_memory", resident));
    report.push(Figure::ratio(
        "rss_bytes_per_message_built",
        per(usage.rss_bytes, empty, messages),
    ));
    report.push(Figure::time("cpu_building", usage.cpu));
    report.push(Figure::bytes("on_disk", node.disk_bytes()?));
    report.push(Figure::bytes("written", usage.written_bytes));

    broker.kill();
    node.forget_cached()?;
    let (broker, times) = node.start_until_received(&address).await?;
    let (usage, scrape) = (broker.usage()?, broker.scrape().await?);
    report.push(Figure::time("restart_ready", times.ready));
    report.push(Figure::time("restart_received", times.received));
    report.push(Figure::bytes("rss_restarted", usage.rss_bytes));
    report.push(Figure::bytes("rss_restarted_peak", usage.rss_bytes_peak));
    let resident = scrape.total("millrace_shard_resident_bytes");
    report.push(Figure::bytes("bodies_in_memory_restarted", resident));
    let each = per(usage.rss_bytes, empty, messages);
    report.push(Figure::ratio("rss_bytes_per_message_restarted", each));
    let ready = scrape.total("millrace_queue_ready_messages");
    report.push(Figure::count("messages_ready_restarted", ready));
    Ok(())
}

fn per(bytes: u64, empty: u64, messages: u64) -> f64 {
    bytes.saturating_sub(empty) as f64 / messages as f64
}
