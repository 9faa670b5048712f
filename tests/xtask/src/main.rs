//! Every command of the house: `cargo xtask --help`. Parses arguments and calls one module each.

mod demo;
mod figures;
mod fix;
mod fuzz;
mod generate;
mod house;
mod kube;
mod needs;
mod processes;
mod sim;
mod suite;
mod tally;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::house::House;

/// Builds, checks, tests and shows Millrace.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the main job on this machine, without Kubernetes, and tells what happens.
    Demo(demo::Options),
    /// Runs every test there is and ends with one line of totals.
    Test(suite::Options),
    /// Checks format, lints, generated files and the rules of the house; changes nothing.
    Verify,
    /// Formats, applies lint suggestions and generates; the twin of `verify` that writes.
    Fix,
    /// Writes all generated files: protocol code, resource definitions, the chart's copies.
    Generate,
    /// Kills real broker processes under load and checks the ledger.
    Cluster(processes::Options),
    /// Measures the release build on this machine's disk: restart, memory, writes, pauses, syncs.
    Figures(figures::Options),
    /// Looks for bytes that break what is promised about them, guided by coverage.
    Fuzz(fuzz::Options),
    /// Simulates nodes on virtual time and bad disks; ends in one line.
    Sim(sim::Options),
    /// Tests on a real Kubernetes; starts the project's own when no other is named.
    Kube(kube::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let house = House::open()?;
    match arguments.command {
        Command::Demo(options) => demo::run(&house, &options).map(|()| ExitCode::SUCCESS),
        Command::Test(options) => Ok(suite::run(&house, &options)),
        Command::Verify => Ok(verify::run(&house)),
        Command::Fix => fix::run(&house).map(|()| ExitCode::SUCCESS),
        Command::Generate => generate::run(&house).map(|()| ExitCode::SUCCESS),
        Command::Cluster(options) => Ok(processes::run(&house, &options)?.exit_code()),
        Command::Figures(options) => figures::run(&house, &options).map(|()| ExitCode::SUCCESS),
        Command::Fuzz(options) => fuzz::run(&house, &options).map(|()| ExitCode::SUCCESS),
        Command::Sim(options) => Ok(sim::run(&house, &options)?.exit_code()),
        Command::Kube(options) => Ok(kube::run(&house, &options)?.exit_code()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_can_be_parsed() {
        Arguments::command().debug_assert();
    }
}
