//! The process tests (`tests/cluster`): real brokers, kill -9 under load, ledger checked.

use anyhow::Result;

use crate::house::House;
use crate::tally::Tally;

/// How long, and with which randomness.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often the broker is killed and restarted.
    #[arg(long)]
    rounds: u32,
    /// Repeats a run; without it, one is chosen and printed.
    #[arg(long)]
    seed: Option<u64>,
}

impl Options {
    /// Short and the same every time: what `cargo xtask test` runs.
    pub(crate) fn for_test() -> Self {
        Self {
            rounds: 5,
            seed: Some(1),
        }
    }
}

/// Builds the broker and runs the rounds against it.
///
/// # Errors
/// When something does not build or start; a failed round is counted, not an error.
pub(crate) fn run(house: &House, options: &Options) -> Result<Tally> {
    house.build(&["millrace", "millrace-cluster-tests"])?;
    let mut command = house.command(house.binary("millrace-cluster-tests"));
    command.env("MILLRACE_BIN", house.binary("millrace"));
    command.args(["--rounds", &options.rounds.to_string()]);
    if let Some(seed) = options.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    Tally::count(&mut command)
}
