//! `millrace consume`: takes messages from a queue, writes each to stdout, then settles it.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use millrace_client::{ConsumerOptions, Delivery, Error, Settling};
use tokio::time::{Instant, sleep_until};

use crate::cli::duration;
use crate::connection::Connection;
use crate::exit::Failure;
use crate::interrupt::Interrupts;
use crate::output::{self, Format, Reader};
use crate::target::Target;
use crate::{call, json, tell};

/// Errors that are told one by one; the others are counted.
const ERRORS_TOLD_MAX: u64 = 10;
/// Messages that may wait here to be written: more would only be taken from other consumers.
const PREFETCH_MAX: u32 = 256;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Stop after this many messages; without it, go on until interrupted
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Accept each message once it is written: it is gone from the queue (the default)
    #[arg(long, group = "outcome")]
    ack: bool,
    /// Reject each message once it is written: it goes to the dead-letter queue
    #[arg(long, group = "outcome")]
    reject: bool,
    /// Fail each message once it is written: it comes back after the queue's backoff, or goes to
    /// the dead-letter queue when it failed as often as the queue allows
    #[arg(long, group = "outcome")]
    retry: bool,
    /// Why, for --reject and --retry; kept with a dead letter
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// How messages are written
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
    /// Stop when nothing came for this long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// How long to keep trying while the server is away or restarts
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

impl Args {
    fn settle(&self, delivery: &Delivery) -> Settling {
        if self.reject {
            delivery.reject(self.note.as_str())
        } else if self.retry {
            delivery.retry(self.note.as_str())
        } else {
            delivery.accept()
        }
    }
}

/// Consumes.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let address = args.target.queue()?;
    let client = args.connection.client()?;
    call::reach(&client, &address, args.timeout).await?;
    let prefetch = args.count.and_then(|count| u32::try_from(count).ok());
    let options = ConsumerOptions {
        name: format!("millrace consume ({})", std::process::id()),
        prefetch_messages: prefetch.unwrap_or(PREFETCH_MAX).min(PREFETCH_MAX),
        // A few messages are not worth leasing many.
        in_flight_max: prefetch.filter(|&count| count < PREFETCH_MAX).unwrap_or(0),
        messages_max: args.count,
        give_up_after: Some(args.timeout),
        ..ConsumerOptions::default()
    };
    let mut consumer = client.consumer(address.to_string(), options);
    let mut tally = Tally::default();
    let stop = consume(&args, &mut consumer, &mut tally).await;
    consumer.close().await;
    tell::line(tally.summary());
    let count = args.count;
    match stop? {
        Stop::Failed(error) => Err(Failure::call(address, client.url(), &error)),
        _ if tally.failed > 0 => Err(Failure::refused()),
        Stop::Idle if count.is_some_and(|count| tally.received < count) => {
            let (received, count) = (tally.received, count.unwrap_or_default());
            Err(Failure::idle(format_args!(
                "{address}: nothing came for {:?}, after {received} of {count} messages",
                args.wait.unwrap_or_default()
            )))
        }
        Stop::Done | Stop::Idle => Ok(()),
    }
}

/// Why no more messages are taken.
enum Stop {
    /// Enough, or interrupted, or nobody reads them.
    Done,
    /// Nothing came.
    Idle,
    /// The consumer ended.
    Failed(Error),
}

async fn consume(
    args: &Args,
    consumer: &mut millrace_client::Consumer,
    tally: &mut Tally,
) -> Result<Stop, Failure> {
    let mut interrupts = Interrupts::listen()?;
    let mut settling = FuturesUnordered::new();
    let mut stop = None;
    let mut heard = Instant::now();
    loop {
        if args.count.is_some_and(|count| tally.received >= count) && stop.is_none() {
            stop = Some(Stop::Done);
        }
        if settling.is_empty()
            && let Some(stop) = stop
        {
            return Ok(stop);
        }
        let idle = args.wait.map(|wait| heard + wait);
        tokio::select! {
            biased;
            () = interrupts.next() => {
                if stop.is_some() {
                    return Err(Failure::interrupted("interrupted while settling"));
                }
                stop = Some(Stop::Done);
            }
            Some(settled) = settling.next(), if !settling.is_empty() => tally.settled(settled),
            delivery = consumer.next(), if stop.is_none() => match delivery {
                Some(Ok(delivery)) => {
                    heard = Instant::now();
                    let payload = &delivery.message.payload;
                    match output::message(args.format, payload, || json::received(&delivery))? {
                        Reader::There => {
                            tally.received += 1;
                            let settle = args.settle(&delivery);
                            let offset = delivery.offset;
                            settling.push(async move { (offset, settle.await) });
                        }
                        Reader::Gone => stop = Some(Stop::Done),
                    }
                }
                Some(Err(error)) => stop = Some(Stop::Failed(error)),
                None => stop = Some(Stop::Done),
            },
            () = sleep_until(idle.unwrap_or(heard)), if idle.is_some() && stop.is_none() => {
                stop = Some(Stop::Idle);
            }
        }
    }
}

/// What became of the messages.
#[derive(Debug, Default)]
struct Tally {
    received: u64,
    settled: u64,
    failed: u64,
}

impl Tally {
    fn settled(&mut self, (offset, settled): (u64, Result<(), Error>)) {
        match settled {
            Ok(()) => self.settled += 1,
            Err(error) => {
                self.failed += 1;
                if self.failed <= ERRORS_TOLD_MAX {
                    tell::line(format_args!("message {offset} is not settled: {error}"));
                }
            }
        }
    }

    fn summary(&self) -> String {
        let Self {
            received,
            settled,
            failed,
        } = self;
        format!("received {received}, settled {settled}, not settled {failed}")
    }
}
