//! The simulation (`tests/sim`): many seeds, one seed, or known bugs. Built with a profile of its
//! own: it is quick, and built often.

use std::process::Command;

use anyhow::Result;

use crate::house::{House, succeed};
use crate::tally::Tally;

/// Seeds that `cargo xtask test` runs: about a minute on two cores.
const TEST_SEEDS: u64 = 400;

/// What to simulate.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many seeds; a thousand unless given.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long)]
    from: Option<u64>,
    /// Runs this one only and prints everything that happens.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs each twice and compares.
    #[arg(long)]
    twice: bool,
    /// Does not cut down what fails.
    #[arg(long)]
    quick: bool,
    /// Only those that have several nodes.
    #[arg(long)]
    several: bool,
    /// Switches known bugs on, one after the other, and runs until each is found.
    #[arg(long)]
    mutants: bool,
}

impl Options {
    /// The same every time: what `cargo xtask test` runs.
    pub(crate) fn for_test() -> Self {
        Self {
            seeds: Some(TEST_SEEDS),
            from: Some(0),
            seed: None,
            twice: false,
            quick: false,
            several: false,
            mutants: false,
        }
    }

    fn arguments(&self) -> Vec<String> {
        let numbers = [
            ("--seeds", self.seeds),
            ("--from", self.from),
            ("--seed", self.seed),
        ];
        let flags = [
            ("--twice", self.twice),
            ("--quick", self.quick),
            ("--several", self.several),
            ("--mutants", self.mutants),
        ];
        let numbers = numbers
            .into_iter()
            .filter_map(|(name, number)| Some([name.to_owned(), number?.to_string()]));
        let flags = flags.into_iter().filter(|(_, on)| *on);
        numbers
            .flatten()
            .chain(flags.map(|(name, _)| name.to_owned()))
            .collect()
    }
}

/// Builds and runs the simulation; the whole of it is one check. Known bugs of the consensus are
/// looked for in a cluster of replicas of their own.
///
/// # Errors
/// When cargo cannot be started; a violation is counted, not an error.
pub(crate) fn run(house: &House, options: &Options) -> Result<Tally> {
    let mut command = house.cargo(["run", "--quiet", "--profile", "sim"]);
    command.args(["--package", "millrace-sim"]);
    if options.mutants {
        command.args(["--features", "mutants"]);
    }
    command.arg("--").args(options.arguments());
    let mut ok = is_well(&mut command);
    if options.mutants {
        let mut replicas = house.cargo(["test", "--profile", "sim", "--features", "mutants"]);
        replicas.args(["--package", "millrace-replica", "--test", "cluster"]);
        replicas.args(["--", "mutants", "--nocapture"]);
        ok &= is_well(&mut replicas);
    }
    Ok(Tally::of(ok))
}

fn is_well(command: &mut Command) -> bool {
    match succeed(command) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("{error:#}");
            false
        }
    }
}
