//! The scenarios behind the published figures, and what surrounds each of them: is there room, what
//! does the disk give before and after.

mod amplification;
mod backlog;
mod catch_up;
mod fsyncs;
mod idle;
mod queues;
mod replicas;
mod restart;
mod sustained;

use anyhow::Result;

use crate::baseline;
use crate::options::Options;
use crate::process;
use crate::report::{Figure, Report};

/// What to measure.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Scenario {
    /// Kill -9 with many gigabytes waiting, then the time until a message is received
    Restart(restart::Args),
    /// Memory, disk and publish rate with very many small messages in one queue
    Backlog(backlog::Args),
    /// Memory and start with very many idle queues
    Queues(queues::Args),
    /// Bytes written to the disk for each byte published
    Amplification(amplification::Args),
    /// Pauses, memory, syncs and refusals at a steady rate
    Sustained(sustained::Args),
    /// Syncs for each thousand messages, by number of publishers that wait
    Fsyncs(fsyncs::Args),
    /// Messages in a second and what one costs, on one node and on several, by number of shards
    Replicas(replicas::Args),
    /// What several nodes cost while nothing happens
    Idle(idle::Args),
    /// How fast a node that lost its disk gets everything again
    CatchUp(catch_up::Args),
    /// Each of them with its default sizes, one after the other
    All,
}

/// Runs a scenario and publishes what it found.
///
/// # Errors
/// When there is no room, the broker does not start, or a message is refused for good.
pub async fn run(options: &Options, scenario: &Scenario) -> Result<()> {
    if matches!(scenario, Scenario::All) {
        for scenario in all() {
            one(options, &scenario).await?;
        }
        return Ok(());
    }
    one(options, scenario).await
}

/// Small ones first: what is wrong with a machine shows early.
fn all() -> [Scenario; 9] {
    [
        Scenario::Fsyncs(fsyncs::Args::default()),
        Scenario::Amplification(amplification::Args::default()),
        Scenario::Queues(queues::Args::default()),
        Scenario::Sustained(sustained::Args::default()),
        Scenario::Restart(restart::Args::default()),
        Scenario::Backlog(backlog::Args::default()),
        Scenario::Replicas(replicas::Args::default()),
        Scenario::Idle(idle::Args::default()),
        Scenario::CatchUp(catch_up::Args::default()),
    ]
}

async fn one(options: &Options, scenario: &Scenario) -> Result<()> {
    let duration = options.scaled_time(baseline::DURATION);
    let load_before = process::load();
    let before = baseline::measure(&options.dir, duration)?;
    let mut report = Report::new(match scenario {
        Scenario::Restart(_) => "restart",
        Scenario::Backlog(_) => "backlog",
        Scenario::Queues(_) => "queues",
        Scenario::Amplification(_) => "amplification",
        Scenario::Sustained(_) => "sustained",
        Scenario::Replicas(_) => "replicas",
        Scenario::Idle(_) => "idle",
        Scenario::CatchUp(_) => "catch_up",
        Scenario::Fsyncs(_) | Scenario::All => "fsyncs",
    });
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    report.setting("cores", cores);
    report.setting("memory_limit", options.memory_limit.as_str());
    match scenario {
        Scenario::Restart(args) => restart::run(options, args, &mut report).await?,
        Scenario::Backlog(args) => backlog::run(options, args, &mut report).await?,
        Scenario::Queues(args) => queues::run(options, args, &mut report).await?,
        Scenario::Amplification(args) => amplification::run(options, args, &mut report).await?,
        Scenario::Sustained(args) => sustained::run(options, args, &mut report).await?,
        Scenario::Fsyncs(args) => fsyncs::run(options, args, &mut report).await?,
        Scenario::Replicas(args) => replicas::run(options, args, &mut report).await?,
        Scenario::Idle(args) => idle::run(options, args, &mut report).await?,
        Scenario::CatchUp(args) => catch_up::run(options, args, &mut report).await?,
        Scenario::All => {}
    }
    let after = baseline::measure(&options.dir, duration)?;
    // Of others, as it began; at the end it is our own.
    report.extend(load_before.map(|load| Figure::ratio("machine_load_before", load)));
    report.extend(process::load().map(|load| Figure::ratio("machine_load_after", load)));
    report.extend(before.figures("before"));
    report.extend(after.figures("after"));
    report.publish(options.out.as_deref())
}

/// The default arguments of a scenario, as the command line has them.
macro_rules! defaults {
    ($args:ty) => {
        impl Default for $args {
            fn default() -> Self {
                use clap::{Args as _, FromArgMatches as _};
                let command = <$args>::augment_args(clap::Command::new("defaults"));
                let matches = command.get_matches_from(["defaults"]);
                Self::from_arg_matches(&matches).expect("every argument has a default")
            }
        }
    };
}
use defaults;

/// Queues as a topology: `queue/default/NAME`, each with the most that may be in flight, so that
/// consumers are not what is measured.
fn queues_yaml(names: &[String]) -> String {
    let queue = |name: &String| {
        format!(
            "apiVersion: millrace.dev/v1alpha1\nkind: Queue\nmetadata: {{name: {name}}}\n\
             spec:\n  delivery: {{maxInFlight: 100000, ackDeadline: 10m}}\n"
        )
    };
    names.iter().map(queue).collect::<Vec<_>>().join("---\n")
}

fn queue_address(name: &str) -> String {
    format!("queue/default/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_defaults() {
        assert_eq!(all().len(), 9);
    }
}
