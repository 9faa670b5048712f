//! `kubectl millrace`: the verbs of `millrace` for a cluster that is found through the kubeconfig
//! and reached through a port-forward of its own, and two more: what Kubernetes and the brokers say
//! of a cluster, and a bundle for a bug report.
//!
//! A plugin as kubectl finds it: a program of this name on the path.

mod bundle;
mod forward;
mod place;
mod redact;
mod report;
mod status;

use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use millrace::{EXIT_CODES, Failure, Talk};

use crate::place::Place;

/// Talk to a Millrace cluster in Kubernetes.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-millrace",
    bin_name = "kubectl millrace",
    version,
    after_help = EXIT_CODES
)]
struct Plugin {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show a cluster: its conditions, brokers, queues and topics
    #[command(after_help = EXIT_CODES)]
    Status,
    #[command(flatten)]
    Talk(Box<Talk>),
    /// Write what a bug report needs into one file: resources, pods, events, logs, metrics. Without
    /// Secrets, without values of environment variables, without messages
    #[command(after_help = EXIT_CODES)]
    Report(report::Args),
}

fn main() -> ExitCode {
    let matches = command().get_matches();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Failure::local("cannot start", &error).report(),
    };
    let outcome = runtime.block_on(run(&matches));
    // A thread that still reads stdin must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(matches: &ArgMatches) -> Result<(), Failure> {
    refuse_way_options(matches)?;
    let plugin = Plugin::from_arg_matches(matches).unwrap_or_else(|error| error.exit());
    let cluster = plugin.place.find().await?;
    match plugin.verb {
        Verb::Status => status::run(&cluster).await,
        Verb::Talk(talk) => cluster.talk(*talk).await,
        Verb::Report(args) => report::run(args, &cluster).await,
    }
}

/// The command tree, without what the verbs would say about the way.
fn command() -> Command {
    Plugin::command().mut_subcommands(|verb| {
        let has = |verb: &Command, name| verb.get_arguments().any(|arg| arg.get_id() == name);
        Talk::WAY_OPTIONS.iter().fold(verb, |verb, &name| {
            if has(&verb, name) {
                verb.mut_arg(name, |arg| arg.hide(true))
            } else {
                verb
            }
        })
    })
}

/// They would be of no effect.
fn refuse_way_options(matches: &ArgMatches) -> Result<(), Failure> {
    let Some((verb, options)) = matches.subcommand() else {
        return Ok(());
    };
    let given = |name: &&&str| {
        let known = options.try_contains_id(name).is_ok();
        known && options.value_source(name) == Some(ValueSource::CommandLine)
    };
    match Talk::WAY_OPTIONS.iter().find(given) {
        Some(name) => Err(Failure::usage(format_args!(
            "--{} has no effect here: `kubectl millrace` finds the cluster through the \
             kubeconfig; use `millrace {verb}`",
            name.replace('_', "-")
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(arguments: &str) -> ArgMatches {
        let arguments = ["kubectl-millrace"].into_iter().chain(arguments.split(' '));
        command().try_get_matches_from(arguments).unwrap()
    }

    #[test]
    fn the_command_tree_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_namespace_holds_for_cluster_and_address_wherever_it_stands() {
        for arguments in [
            "-n shop peek queue/orders",
            "peek -n shop queue/orders",
            "nodes -n shop",
        ] {
            let plugin = Plugin::from_arg_matches(&matches(arguments)).unwrap();
            assert_eq!(
                plugin.place.namespace.as_deref(),
                Some("shop"),
                "{arguments}"
            );
        }
    }

    #[test]
    fn options_that_say_another_way_are_refused() {
        for arguments in [
            "peek queue/orders --server http://a:1",
            "drain main-0 --control http://a:1",
        ] {
            assert!(
                refuse_way_options(&matches(arguments)).is_err(),
                "{arguments}"
            );
        }
        refuse_way_options(&matches("status")).unwrap();
        refuse_way_options(&matches("peek queue/orders")).unwrap();
    }
}
