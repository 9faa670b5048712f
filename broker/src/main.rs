//! The broker binary: `serve`, and the command line's other verbs.

mod call;
mod cli;
mod consume;
mod describe;
mod exit;
mod input;
mod interrupt;
mod json;
mod list;
mod nodes;
mod output;
mod peek;
mod publish;
mod read;
mod serve;
mod table;
mod target;
mod tell;
mod topology;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
