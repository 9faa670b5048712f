//! Parses arguments and runs scenarios: `millrace-bench --help`.

use clap::Parser;
use millrace_bench::figures::{self, Scenario};
use millrace_bench::options::Options;

/// Measures a millrace binary on a real disk.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    scenario: Scenario,
}

fn main() -> anyhow::Result<()> {
    let Arguments { options, scenario } = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(figures::run(&options, &scenario))
}
