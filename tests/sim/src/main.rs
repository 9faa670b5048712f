//! `cargo xtask sim`: parses arguments, runs seeds, prints the line.

use std::process::ExitCode;
use std::thread;

use clap::Parser;
use millrace_sim::campaign::{self, Campaign};

/// Simulates whole nodes on virtual time and a disk that tears, lies and fills up.
#[derive(Parser)]
#[command(name = "cargo xtask sim", about)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
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
    /// Threads; one for each core unless given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Switches known bugs on, one after the other, and runs until each is found.
    #[arg(long)]
    mutants: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = arguments.jobs.unwrap_or(cores);
    let ok = if arguments.mutants {
        mutants(jobs, arguments.several)
    } else if let Some(seed) = arguments.seed {
        campaign::replay(seed)
    } else {
        let totals = campaign::run(&Campaign {
            seeds: arguments.from..arguments.from.saturating_add(arguments.seeds),
            jobs,
            twice: arguments.twice,
            quick: arguments.quick,
            several: arguments.several,
        });
        println!("{}", totals.line());
        totals.violations == 0
    };
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(feature = "mutants")]
fn mutants(jobs: usize, only_several: bool) -> bool {
    millrace_sim::mutants::run(jobs, only_several)
}

#[cfg(not(feature = "mutants"))]
fn mutants(_jobs: usize, _only_several: bool) -> bool {
    eprintln!("error: built without known bugs; `cargo xtask sim --mutants` builds with them");
    false
}
