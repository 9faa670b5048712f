//! The command tree, and who runs which verb.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use millrace_client::{Client, ClientOptions};

use crate::exit::Failure;
use crate::{consume, describe, list, nodes, peek, publish, read, serve, topology};

/// Told at the end of the help of every verb that talks to a server, since scripts branch on them.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  some messages were refused or not settled, or documents are invalid
  2  wrong usage
  3  the server cannot be reached
  4  no such queue, topic, partition or node
  5  nothing came for as long as --wait allows, and --count was not reached";

/// A message broker that lives in Kubernetes as natively as a Deployment does.
#[derive(Debug, Parser)]
#[command(name = "millrace", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a broker
    Serve(serve::Args),
    /// Send messages to a queue or topic
    #[command(after_help = EXIT_CODES)]
    Publish(publish::Args),
    /// Take messages from a queue, one a line
    #[command(after_help = EXIT_CODES)]
    Consume(consume::Args),
    /// Replay a topic, one message a line
    #[command(after_help = EXIT_CODES)]
    Read(read::Args),
    /// Look at the messages of a queue without taking them
    #[command(after_help = EXIT_CODES)]
    Peek(peek::Args),
    /// Show one queue or topic: what is declared, and how it does
    #[command(after_help = EXIT_CODES)]
    Describe(describe::Args),
    /// List queues and topics
    #[command(after_help = EXIT_CODES)]
    List(list::Args),
    /// List the nodes of the cluster
    #[command(after_help = EXIT_CODES)]
    Nodes(nodes::ListArgs),
    /// List the shards, who leads them and how far their replicas are
    #[command(after_help = EXIT_CODES)]
    Shards(nodes::ListArgs),
    /// Have a node hand over what it leads, and wait until it can be stopped
    #[command(after_help = EXIT_CODES)]
    Drain(nodes::DrainArgs),
    /// Let a node lead again
    #[command(after_help = EXIT_CODES)]
    Undrain(nodes::NodeArgs),
    /// Have a node's replicas moved to others, and keep it from getting new ones
    #[command(after_help = EXIT_CODES)]
    Cordon(nodes::NodeArgs),
    /// Let a node have replicas again
    #[command(after_help = EXIT_CODES)]
    Uncordon(nodes::NodeArgs),
    /// Strike a node off that has no replicas any more
    #[command(after_help = EXIT_CODES)]
    Forget(nodes::NodeArgs),
    /// Have another node lead a shard
    #[command(after_help = EXIT_CODES)]
    Transfer(nodes::TransferArgs),
    /// Move a replica of a shard to another node
    #[command(after_help = EXIT_CODES)]
    Move(nodes::MoveArgs),
    /// Work with topology files
    #[command(subcommand)]
    Topology(topology::Verb),
}

/// How to reach a server; part of every verb that needs one.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Where the broker listens for clients; of several nodes, with commas between, the next is
    /// used
    /// when one cannot be reached
    #[arg(
        long,
        value_name = "URL",
        env = "MILLRACE_SERVER",
        default_value = "http://127.0.0.1:7070"
    )]
    pub(crate) server: String,
    /// Send everything to --server, which forwards it, and nothing to other nodes directly: for
    /// when only that one can be reached, as through kubectl port-forward
    #[arg(long, env = "MILLRACE_NO_DIRECT", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) no_direct: bool,
}

impl Connection {
    /// A client of that server.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let options = ClientOptions {
            direct: !self.no_direct,
            ..ClientOptions::new(&self.server)
        };
        Client::connect(options).map_err(Failure::usage)
    }
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

/// Runs the verb.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let verb = match cli.verb {
        Verb::Serve(args) => return serve::run(args),
        Verb::Topology(verb) => return ended(topology::run(verb)),
        verb => verb,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return ended(Err(Failure::local("cannot start", &error))),
    };
    let outcome = runtime.block_on(async {
        match verb {
            Verb::Publish(args) => publish::run(args).await,
            Verb::Consume(args) => consume::run(args).await,
            Verb::Read(args) => read::run(args).await,
            Verb::Peek(args) => peek::run(args).await,
            Verb::Describe(args) => describe::run(args).await,
            Verb::List(args) => list::run(args).await,
            Verb::Nodes(args) => nodes::nodes(args).await,
            Verb::Shards(args) => nodes::shards(args).await,
            Verb::Drain(args) => nodes::drain(args).await,
            Verb::Undrain(args) => nodes::undrain(args).await,
            Verb::Cordon(args) => nodes::cordon(args).await,
            Verb::Uncordon(args) => nodes::uncordon(args).await,
            Verb::Forget(args) => nodes::forget(args).await,
            Verb::Transfer(args) => nodes::transfer(args).await,
            Verb::Move(args) => nodes::move_replica(args).await,
            Verb::Serve(_) | Verb::Topology(_) => Ok(()),
        }
    });
    // A thread that still reads stdin must not hold up the end.
    runtime.shutdown_background();
    ended(outcome)
}

fn ended(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
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
