//! `millrace serve`: runs a node until it is told to stop, or cannot go on. The command line, the
//! log, signals and exit codes are here; the node itself is `millrace_server`.

mod descriptors;
mod log;
mod peering;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use millrace_server::config::{
    CONTROL_LISTEN_DEFAULT, DRAIN_TIMEOUT_DEFAULT, LISTEN_DEFAULT, METRICS_LISTEN_DEFAULT,
    SHARDS_DEFAULT,
};
use millrace_server::{Addresses, Config, Running, Server, exit, report};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{cli, tell};

/// Told at the end of the verb's help, since supervisors branch on them.
const EXIT_CODES: &str = "\
Exit codes:
  0    drained and stopped as asked
  1    something without a code of its own
  2    the command line is wrong, or the control token file
  10   an address to listen on is taken or not ours
  11   the data directory cannot be read or written
  12   another process holds the data directory
  13   the data directory belongs to another cluster or node
  14   a newer version wrote the data directory
  15   the data directory is damaged
  16   the topology file is wrong or cannot be applied
  70   the disk failed while serving
  130  a second SIGINT came while draining
  143  a second SIGTERM came while draining";

/// Options of the verb.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Where everything is kept; made when it is not there
    #[arg(long, value_name = "DIR", env = "MILLRACE_DATA_DIR")]
    data_dir: PathBuf,
    /// Where clients connect; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "MILLRACE_LISTEN", default_value = LISTEN_DEFAULT)]
    listen: SocketAddr,
    /// Where the operator connects; anything but loopback needs a token file
    #[arg(
        long,
        value_name = "ADDR",
        env = "MILLRACE_CONTROL_LISTEN",
        default_value = CONTROL_LISTEN_DEFAULT
    )]
    control_listen: SocketAddr,
    /// Where /metrics, /livez and /readyz are, over HTTP
    #[arg(
        long,
        value_name = "ADDR",
        env = "MILLRACE_METRICS_LISTEN",
        default_value = METRICS_LISTEN_DEFAULT
    )]
    metrics_listen: SocketAddr,
    /// The token that callers of the control port must bring; read again when it changes
    #[arg(long, value_name = "FILE", env = "MILLRACE_CONTROL_TOKEN_FILE")]
    control_token_file: Option<PathBuf>,
    /// Queues and topics, in the YAML that Kubernetes takes; without it, those of the data
    /// directory stay
    #[arg(long, value_name = "FILE", env = "MILLRACE_TOPOLOGY")]
    topology: Option<PathBuf>,
    /// The cluster this node belongs to; a data directory of another one is refused
    #[arg(long, value_name = "ID", env = "MILLRACE_CLUSTER_ID")]
    cluster_id: Option<String>,
    /// Data shards of a new data directory
    #[arg(
        long,
        value_name = "N",
        env = "MILLRACE_SHARDS",
        default_value_t = SHARDS_DEFAULT
    )]
    shards: u32,
    /// Threads that own the shards [default: half of the cores]
    #[arg(
        long,
        value_name = "N",
        env = "MILLRACE_WORKERS",
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    workers: Option<u16>,
    /// Message bodies in memory, like 512Mi [default: a share of the cgroup's or machine's memory]
    #[arg(long, value_name = "SIZE", env = "MILLRACE_MEMORY_LIMIT", value_parser = size)]
    memory_limit: Option<u64>,
    /// Size of a journal file, and of journal after which a shard makes a checkpoint: small ones
    /// let a test see in seconds what otherwise takes hours
    #[arg(long, value_name = "SIZE", hide = true, value_parser = size)]
    journal_file_size: Option<u64>,
    /// How the log on stderr is written
    #[arg(
        long,
        value_name = "FORMAT",
        env = "MILLRACE_LOG_FORMAT",
        default_value = "auto"
    )]
    log_format: log::Format,
    /// How long clients have to finish when the node goes down [default: 15s]
    #[arg(
        long,
        value_name = "DURATION",
        env = "MILLRACE_DRAIN_TIMEOUT",
        value_parser = cli::duration
    )]
    drain_timeout: Option<Duration>,
    /// Written once the node serves: its addresses, as JSON
    #[arg(long, value_name = "FILE", env = "MILLRACE_READY_FILE")]
    ready_file: Option<PathBuf>,
    // Last: its heading would go on.
    #[command(flatten)]
    peering: peering::Options,
}

/// Serves until told to stop.
pub(crate) fn run(args: Args) -> ExitCode {
    log::start(args.log_format);
    descriptors::raise();
    let config = config(args);
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell::line(format_args!("error: cannot start: {error}"));
            return ExitCode::from(exit::FAILURE);
        }
    };
    let code = runtime.block_on(serve(config));
    // What is left are connections of clients that would not go.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn serve(config: Config) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tell::line(format_args!("error: cannot listen for signals: {error}"));
            return exit::FAILURE;
        }
    };
    let started = tokio::select! {
        biased;
        // Nothing was promised yet: whatever the start has done so far is safe to leave.
        code = signals.next() => return code,
        started = Server::start(config) => started,
    };
    let running = match started {
        Ok(running) => running,
        Err(error) => {
            tell::line(format_args!("error: {}", report(&error)));
            return error.exit_code();
        }
    };
    if std::io::stderr().is_terminal() {
        greet(running.addresses());
    }
    tokio::select! {
        biased;
        reason = running.failed() => {
            tracing::error!(reason, "the node cannot go on");
            exit::FAILED
        }
        _ = signals.next() => drain(running, signals).await,
    }
}

/// Drains; a second signal ends the process at once. What was acknowledged is on disk either way.
async fn drain(running: Running, mut signals: Signals) -> u8 {
    tokio::select! {
        biased;
        code = signals.next() => code,
        () = running.stop() => exit::OK,
    }
}

/// The signals that ask a node to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for a signal; gives the exit code of a process that ends by it. Cancel-safe.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => exit::INTERRUPTED,
            _ = self.terminate.recv() => exit::TERMINATED,
        }
    }
}

fn config(args: Args) -> Config {
    Config {
        data_dir: args.data_dir,
        listen: args.listen,
        control_listen: args.control_listen,
        metrics_listen: args.metrics_listen,
        control_token_file: args.control_token_file,
        topology: args.topology,
        peering: args.peering.peering(),
        cluster_id: args.cluster_id,
        shards: args.shards,
        workers: args.workers.map(usize::from),
        memory_limit: args.memory_limit,
        journal_file_size: args.journal_file_size,
        drain_timeout: args.drain_timeout.unwrap_or(DRAIN_TIMEOUT_DEFAULT),
        ready_file: args.ready_file,
    }
}

fn greet(addresses: Addresses) {
    let Addresses {
        clients,
        control,
        metrics,
        peers: _,
    } = addresses;
    tell::line(format_args!(
        "ready: clients on http://{clients}, control on http://{control}, metrics on \
         http://{metrics}/metrics; Ctrl-C stops"
    ));
}

/// `1048576`, `512Mi`, `2Gi`, `500M`: as Kubernetes writes quantities of bytes.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size like 1048576, 512Mi or 2G");
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(factor)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_writes_them() {
        assert_eq!(size("1048576"), Ok(1 << 20));
        assert_eq!(size("512Mi"), Ok(512 << 20));
        assert_eq!(size("2G"), Ok(2_000_000_000));
        for wrong in ["", "Mi", "0", "5m", "1.5Gi", "-1", "99999999999Ti"] {
            assert!(size(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
