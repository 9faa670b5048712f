//! The command tree, and who runs which verb.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::exit::{EXIT_CODES, Failure};
use crate::talk::Talk;
use crate::{serve, topology};

/// A message broker that lives in Kubernetes as natively as a Deployment does.
#[derive(Debug, Parser)]
#[command(name = "millrace", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a broker
    Serve(serve::Args),
    #[command(flatten)]
    Talk(Talk),
    /// Work with topology files
    #[command(subcommand)]
    Topology(topology::Verb),
}

/// `250ms`, `10s`, `5m`, `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration like 250ms, 10s, 5m or 1h30m");
    let mut rest = text;
    let mut whole = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let part = number.checked_mul(millis).ok_or_else(wrong)?;
        whole = whole
            .checked_add(Duration::from_millis(part))
            .ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(whole)
    }
}

/// Runs the verb that the command line names.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Serve(args) => return serve::run(args),
        Verb::Topology(verb) => topology::run(verb),
        Verb::Talk(talk) => run(talk.run()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(verb: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local("cannot start", &error))?;
    let outcome = runtime.block_on(verb);
    // A thread that still reads stdin must not hold up the end.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "5", "s", "5d", "-1s", "99999999999999999999s", "1.5s"] {
            assert!(duration(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
