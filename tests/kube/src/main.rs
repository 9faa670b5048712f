//! Millrace on a real Kubernetes, any kubeconfig: `cargo xtask kube` builds and calls this.
//!
//! Prints one line a case (`ok`, `FAILED`, `SKIPPED` with the reason), then the ledger of what was
//! acknowledged and delivered, then the totals. Exits with 1 when a case failed.

mod broker;
mod case;
mod driver;
mod forward;
mod ledger;
mod lines;
mod load;
mod options;
mod pods;
mod shell;
mod story;
mod wait;
mod world;

use std::process::ExitCode;

use clap::Parser as _;

use crate::options::{Options, Suite};
use crate::world::World;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<ExitCode> {
    let keep = options.keep;
    let cases = match options.suite {
        Suite::Main => story::MAIN,
        Suite::Replicas => story::REPLICAS,
    };
    let mut world = World::start(options)?;
    let totals = case::run_all(cases, &mut world);
    println!("{}", world.ledger);
    println!("{totals}");
    world.finish(keep)?;
    Ok(totals.exit_code())
}
