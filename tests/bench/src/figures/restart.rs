//! Restart: publishes many gigabytes to some queues, kills the broker as soon as the last message
//! is acknowledged, forgets what the page cache has of its data, and measures the next start.

use anyhow::Result;

use super::{defaults, queue_address, queues_yaml};
use crate::broker::Node;
use crate::load;
use crate::options::Options;
use crate::report::{Figure, Report};

/// What a person who waits for a pod takes as "at once", and what the project promises.
const AIM_SECONDS: f64 = 10.0;

/// Sizes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Messages that wait
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    messages: u64,
    /// Bytes of each
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    payload: u64,
    /// Queues they wait in
    #[arg(long, value_name = "N", default_value_t = 16)]
    queues: u64,
    /// Starts that are measured, each after a kill
    #[arg(long, value_name = "N", default_value_t = 3)]
    starts: u32,
}
defaults!(Args);

pub(super) async fn run(options: &Options, args: &Args, report: &mut Report) -> Result<()> {
    let messages = options.scaled(args.messages);
    // Journal and segments, for a moment both; records have headers.
    options.check_room(messages * (args.payload + 64) * 5 / 4 + (1 << 30))?;
    report.setting("messages", messages);
    report.setting("payload_bytes", args.payload);
    report.setting("queues", args.queues);
    let names: Vec<String> = (0..args.queues).map(|n| format!("q{n}")).collect();
    let addresses: Vec<String> = names.iter().map(|name| queue_address(name)).collect();
    let node = Node::new(options, &queues_yaml(&names))?;

    let mut broker = node.start().await?;
    let each = messages.div_ceil(args.queues.max(1));
    let published = load::publish(&broker, &addresses, each, args.payload).await?;
    report.push(Figure::rate("publish", published.rate()));
    report.push(Figure::byte_rate("publish_payload", published.byte_rate()));
    for start in 1..=args.starts {
        let scrape = broker.scrape().await?;
        let usage = broker.usage()?;
        broker.kill();
        node.forget_cached()?;
        let name = |what: &str| format!("start_{start}_{what}");
        let live = scrape.total("millrace_journal_live_bytes");
        report.push(Figure::bytes(name("journal_to_replay"), live));
        report.push(Figure::bytes(name("on_disk"), node.disk_bytes()?));
        report.push(Figure::bytes(name("rss_before"), usage.rss_bytes));
        let first = addresses.first().map_or("", String::as_str);
        let (started, times) = node.start_until_received(first).await?;
        broker = started;
        let received = Figure::time(name("received"), times.received).at_most(AIM_SECONDS);
        report.push(Figure::time(name("ready"), times.ready));
        report.push(received);
        let usage = broker.usage()?;
        report.push(Figure::bytes(name("rss_after"), usage.rss_bytes));
        report.push(Figure::bytes(name("rss_peak"), usage.rss_bytes_peak));
        report.push(Figure::time(name("cpu"), usage.cpu));
    }
    let scrape = broker.scrape().await?;
    let ready = scrape.total("millrace_queue_ready_messages");
    let leased = scrape.total("millrace_queue_in_flight_messages");
    report.push(Figure::count("messages_waiting_at_the_end", ready + leased));
    Ok(())
}
