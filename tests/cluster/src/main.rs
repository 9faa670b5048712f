//! Kills a broker under load, again and again, and checks what it acknowledged.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use millrace_cluster_tests::rounds;

/// Kills a broker at random points under load, restarts it, and checks a ledger at the end.
#[derive(Parser)]
struct Args {
    /// How often the broker is killed and restarted
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Repeats a run's choices; without it, one is chosen and printed
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = args.seed.unwrap_or(u64::from(now.subsec_nanos()));
    let rounds = args.rounds;
    println!("crash run: --rounds {rounds} --seed {seed}");
    let runtime = tokio::runtime::Runtime::new()?;
    let verdict = runtime.block_on(rounds::run(rounds::Options { rounds, seed }))?;
    println!("{}", verdict.details());
    println!("{}", verdict.line());
    let failed = u32::from(!verdict.is_good());
    println!("cases: {} passed, {failed} failed, 0 skipped", 1 - failed);
    Ok(ExitCode::from(u8::from(failed > 0)))
}
