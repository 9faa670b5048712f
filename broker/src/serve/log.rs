//! The node's log, on stderr: text for people at a terminal, JSON lines otherwise. `MILLRACE_LOG`
//! chooses what is in it, by default everything from `info` on.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// What a log is filtered by unless told otherwise.
const DEFAULT: &str = "info";

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Text when stderr is a terminal, JSON otherwise
    Auto,
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// Starts the log of this process.
pub(super) fn start(format: Format) {
    let filter = EnvFilter::try_from_env("MILLRACE_LOG").unwrap_or_else(|_| DEFAULT.into());
    let terminal = io::stderr().is_terminal();
    let json = match format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    let log = fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = if json {
        log.json().flatten_event(true).try_init()
    } else {
        log.with_ansi(terminal).with_target(false).try_init()
    };
    // Only a second start in one process can fail, and then there is a log already.
    started.ok();
}
