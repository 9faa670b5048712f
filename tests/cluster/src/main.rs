//! Kills a broker under load, or hits one node after the other of several, and checks what was
//! acknowledged.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use millrace_cluster_tests::fault::Fault;
use millrace_cluster_tests::ledger::Verdict;
use millrace_cluster_tests::{node_rounds, rounds};

/// Disturbs brokers at random points under load, and checks a ledger at the end.
#[derive(Parser)]
struct Args {
    /// How many nodes: with one, it is killed and restarted
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// With several nodes, what happens to them
    #[arg(long, value_delimiter = ',', default_value = "kill,pause,cut")]
    faults: Vec<Fault>,
    /// Only the node that leads is hit, not the others in turn
    #[arg(long)]
    leader: bool,
    /// How often something happens
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
    let Args { rounds, nodes, .. } = args;
    println!("crash run: --nodes {nodes} --rounds {rounds} --seed {seed}");
    let runtime = tokio::runtime::Runtime::new()?;
    let is_good = if nodes > 1 {
        let options = node_rounds::Options {
            nodes,
            rounds,
            faults: args.faults,
            whom: if args.leader {
                node_rounds::Whom::Leader
            } else {
                node_rounds::Whom::InTurn
            },
            seed,
        };
        let outcome = runtime.block_on(node_rounds::run(options))?;
        for (fault, waits) in &outcome.waits {
            println!(
                "{fault} of a leader: a publisher waited: {}",
                waits.published.line()
            );
            println!(
                "{fault} of a leader: a consumer waited: {}",
                waits.consumed.line()
            );
        }
        match &outcome.history {
            Ok(said) => println!("{said}"),
            Err(error) => println!("{error:#}"),
        }
        told(&outcome.verdict) && outcome.history.is_ok()
    } else {
        told(&runtime.block_on(rounds::run(rounds::Options { rounds, seed }))?)
    };
    let failed = u32::from(!is_good);
    println!("cases: {} passed, {failed} failed, 0 skipped", 1 - failed);
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// Prints the books; whether they are good.
fn told(verdict: &Verdict) -> bool {
    println!("{}", verdict.details());
    println!("{}", verdict.line());
    verdict.is_good()
}
