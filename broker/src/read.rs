//! `millrace read`: replays a topic, partition after partition, or follows it as it grows.

use std::time::Duration;

use jiff::Timestamp;
use millrace_client::{
    Client, Event, PartitionStart, Position, ReadOptions, StoredMessage, SubscribeOptions,
};
use millrace_proto::v1::summary::Stats;
use millrace_types::Address;
use tokio::time::{Instant, sleep_until};

use crate::cli::duration;
use crate::connection::Connection;
use crate::exit::Failure;
use crate::interrupt::Interrupts;
use crate::output::{self, Format, Reader};
use crate::target::Target;
use crate::{call, json, tell};

/// Messages of one call.
const PAGE_MESSAGES: u32 = 1000;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Where to start: earliest, latest, an offset, or a time such as 2026-01-31T09:30:00Z
    #[arg(long, value_name = "POSITION", default_value = "earliest", value_parser = position)]
    from: Position,
    /// Stop after this many messages
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How messages are written
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
    /// Only this partition; without it, one after the other, or as they come with --follow
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Go on with messages as they arrive, instead of stopping at the end
    #[arg(short, long)]
    follow: bool,
    /// Like --follow, but stop when nothing came for this long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// How long to keep trying while the server is away or restarts
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

fn position(text: &str) -> Result<Position, String> {
    match text {
        "earliest" => return Ok(Position::Earliest),
        "latest" => return Ok(Position::Latest),
        _ => {}
    }
    if let Ok(offset) = text.parse() {
        return Ok(Position::Offset(offset));
    }
    let time: Result<Timestamp, _> = text.parse();
    time.map(|time| Position::Time(time.into())).map_err(|_| {
        format!("{text:?} is not earliest, latest, an offset, or a time like 2026-01-31T09:30:00Z")
    })
}

/// Reads.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let address = args.target.topic()?;
    let client = args.connection.client()?;
    call::reach(&client, &address, args.timeout).await?;
    if args.follow || args.wait.is_some() {
        follow(&args, &client, &address).await
    } else {
        replay(&args, &client, &address).await
    }
}

/// Everything that is there when the partition's turn comes.
async fn replay(args: &Args, client: &Client, address: &Address) -> Result<(), Failure> {
    let mut left = args.count.unwrap_or(u64::MAX);
    for partition in partitions(args, client, address).await? {
        let mut from = args.from;
        let mut end = None;
        while left > 0 {
            let options = ReadOptions {
                partition,
                from,
                messages_max: u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_MESSAGES),
                bytes_max: 0,
            };
            let reader = client.reader(address.to_string());
            let answer = reader.read(options).await;
            let answer = answer.map_err(|error| {
                let doing = format_args!("{address}, partition {partition}");
                Failure::call(doing, client.url(), &error)
            })?;
            // Where the partition ended when it was first looked at: what comes later is not waited
            // for, or a busy topic would never end.
            let end = *end.get_or_insert(answer.available.end);
            for message in answer
                .messages
                .iter()
                .filter(|message| message.offset < end)
            {
                if write(args, message)? == Reader::Gone {
                    return Ok(());
                }
                left = left.saturating_sub(1);
            }
            if answer.next >= end || answer.messages.is_empty() {
                break;
            }
            from = Position::Offset(answer.next);
        }
    }
    Ok(())
}

async fn partitions(args: &Args, client: &Client, address: &Address) -> Result<Vec<u32>, Failure> {
    if let Some(partition) = args.partition {
        return Ok(vec![partition]);
    }
    let described = client.admin().describe(&address.to_string()).await;
    let described = described.map_err(|error| Failure::call(address, client.url(), &error))?;
    let count = match described.summary.and_then(|summary| summary.stats) {
        Some(Stats::Topic(stats)) => stats.partitions,
        Some(Stats::Queue(_)) | None => 1,
    };
    Ok((0..count).collect())
}

/// Messages as they arrive.
async fn follow(args: &Args, client: &Client, address: &Address) -> Result<(), Failure> {
    let from = args.from;
    let only = args
        .partition
        .map(|partition| PartitionStart { partition, from });
    let mut subscription = client
        .reader(address.to_string())
        .subscribe(SubscribeOptions {
            partitions: only.into_iter().collect(),
            from,
            give_up_after: Some(args.timeout),
            ..SubscribeOptions::default()
        });
    let mut interrupts = Interrupts::listen()?;
    let mut heard = Instant::now();
    let mut count = 0_u64;
    while args.count.is_none_or(|limit| count < limit) {
        let idle = args.wait.map(|wait| heard + wait);
        let event = tokio::select! {
            biased;
            () = interrupts.next() => return Ok(()),
            event = subscription.next() => event,
            () = sleep_until(idle.unwrap_or(heard)), if idle.is_some() => {
                return idle_after(args, address, count);
            }
        };
        match event {
            Some(Ok(Event::Message(message))) => {
                heard = Instant::now();
                if write(args, &message)? == Reader::Gone {
                    return Ok(());
                }
                count += 1;
            }
            Some(Ok(Event::Gap { partition, missing })) => tell::line(format_args!(
                "{address}, partition {partition}: messages {}..{} were trimmed before they were \
                 read",
                missing.first, missing.end
            )),
            Some(Err(error)) => return Err(Failure::call(address, client.url(), &error)),
            None => return Ok(()),
        }
    }
    Ok(())
}

fn idle_after(args: &Args, address: &Address, count: u64) -> Result<(), Failure> {
    match args.count {
        Some(limit) => Err(Failure::idle(format_args!(
            "{address}: nothing came for {:?}, after {count} of {limit} messages",
            args.wait.unwrap_or_default()
        ))),
        None => Ok(()),
    }
}

fn write(args: &Args, message: &StoredMessage) -> Result<Reader, Failure> {
    output::message(args.format, &message.message.payload, || {
        json::stored(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn positions_are_told_apart() {
        assert_eq!(position("earliest"), Ok(Position::Earliest));
        assert_eq!(position("latest"), Ok(Position::Latest));
        assert_eq!(position("17"), Ok(Position::Offset(17)));
        let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        assert_eq!(position("1970-01-01T00:00:01Z"), Ok(Position::Time(second)));
        assert_eq!(
            position("1970-01-01T01:00:01+01:00"),
            Ok(Position::Time(second))
        );
        assert!(position("yesterday").unwrap_err().contains("yesterday"));
    }
}
