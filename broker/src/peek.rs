//! `millrace peek`: shows messages of a queue and what they wait for, without taking them.

use crate::connection::Connection;
use crate::exit::Failure;
use crate::json;
use crate::output::{self, Format, Reader};
use crate::target::Target;

/// Messages of one call.
const PAGE_MESSAGES: u64 = 1000;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The lowest offset to show
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,
    /// Show at most this many messages
    #[arg(short, long, value_name = "N", default_value_t = 10)]
    count: u64,
    /// How messages are written
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
}

/// Peeks.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let address = args.target.queue()?;
    let client = args.connection.client()?;
    let (mut from, mut left) = (Some(args.from), args.count);
    while let Some(first) = from.filter(|_| left > 0) {
        let page = u32::try_from(left.min(PAGE_MESSAGES)).unwrap_or(u32::MAX);
        let answer = client.peek(&address.to_string(), first, page).await;
        let (messages, next) =
            answer.map_err(|error| Failure::call(&address, client.url(), &error))?;
        for message in &messages {
            let payload = &message.message.payload;
            let reader = output::message(args.format, payload, || json::peeked(message))?;
            if reader == Reader::Gone {
                return Ok(());
            }
            left = left.saturating_sub(1);
        }
        from = next.filter(|&next| next > first);
    }
    Ok(())
}
