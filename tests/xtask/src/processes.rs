//! The process tests (`tests/cluster`): real brokers, kill -9 under load, ledger checked.

use std::path::PathBuf;

use anyhow::Result;

use crate::house::House;
use crate::tally::Tally;

/// How long, and with which randomness.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many nodes: with one, it is killed and restarted.
    #[arg(long, default_value_t = 1)]
    nodes: u32,
    /// With several nodes, what happens to them: kill, pause, cut, wipe, slow, full, transfer.
    #[arg(long, default_value = "kill,pause,cut")]
    faults: String,
    /// With several nodes: only the one that leads is hit.
    #[arg(long)]
    leader: bool,
    /// The release build: for figures.
    #[arg(long)]
    release: bool,
    /// How often something happens.
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
            nodes: 1,
            faults: String::new(),
            leader: false,
            release: false,
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
    let binaries = ["millrace", "millrace-cluster-tests"];
    let binary: fn(&House, &str) -> PathBuf = if options.release {
        house.build_release(&binaries)?;
        House::release_binary
    } else {
        house.build(&binaries)?;
        House::binary
    };
    let mut command = house.command(binary(house, "millrace-cluster-tests"));
    command.env("MILLRACE_BIN", binary(house, "millrace"));
    command.args(["--rounds", &options.rounds.to_string()]);
    if options.nodes > 1 {
        command.args(["--nodes", &options.nodes.to_string()]);
        command.args(["--faults", &options.faults]);
        if options.leader {
            command.arg("--leader");
        }
    }
    if let Some(seed) = options.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    Tally::count(&mut command)
}
