//! Reaching a server that may be restarting.

use std::time::Duration;

use millrace_client::{Client, Error};
use millrace_types::Address;
use tokio::time::{Instant, sleep};

use crate::exit::Failure;
use crate::tell;

/// Between two attempts: short enough that a restart is not waited for longer than it takes.
const PAUSE: Duration = Duration::from_millis(500);

/// Waits until the server answers, up to `timeout`, and makes sure that the address exists there.
/// Says once that it waits.
pub(crate) async fn reach(
    client: &Client,
    address: &Address,
    timeout: Duration,
) -> Result<(), Failure> {
    let until = Instant::now() + timeout;
    let mut told = false;
    loop {
        let error = match client.admin().describe(&address.to_string()).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if !is_away(&error) || Instant::now() + PAUSE >= until {
            return Err(Failure::call(address, client.url(), &error));
        }
        if !told {
            told = true;
            let (server, reason) = (client.url(), &error.message);
            tell::line(format_args!(
                "waiting up to {timeout:?} for {server}: {reason}"
            ));
        }
        sleep(PAUSE).await;
    }
}

/// Not there now, but perhaps soon.
fn is_away(error: &Error) -> bool {
    error.is_unreachable() || error.is_retryable()
}
