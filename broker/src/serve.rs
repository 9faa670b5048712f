//! `millrace serve`.

use std::process::ExitCode;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Serves until told to stop.
pub(crate) fn run(_args: Args) -> ExitCode {
    eprintln!("millrace: this build has no broker");
    ExitCode::FAILURE
}
