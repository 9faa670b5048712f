//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use millrace_crds::Span;

/// Keeps broker clusters and their topology as declared.
#[derive(Debug, Parser)]
#[command(name = "millrace-operator", version)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Filter of the log, as `info` or `info,millrace_operator=debug`.
    #[arg(long, env = "MILLRACE_LOG", default_value = "info", global = true)]
    pub log: String,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reconciles until told to stop.
    Run(RunOptions),
    /// Makes a small cluster and a queue, sends messages through, removes everything again.
    SelfTest(SelfTestOptions),
    /// Prints the rights that `run` and `self-test` need, as RBAC rules.
    Rules,
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Address of health and metrics.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub http_listen: SocketAddr,
    /// Image of clusters that name none; pinned when a cluster is first seen.
    #[arg(long, env = "MILLRACE_BROKER_IMAGE")]
    pub broker_image: String,
    /// Namespaces to look after, separated by commas. Default: all.
    #[arg(
        long,
        env = "WATCH_NAMESPACES",
        value_delimiter = ',',
        visible_alias = "namespaces"
    )]
    pub watch_namespaces: Vec<String>,
    /// Name of the Lease that elects the acting operator.
    #[arg(long, default_value = crate::names::LEADER_LEASE)]
    pub lease_name: String,
    /// Namespace of that Lease. Default: the operator's own.
    #[arg(long, env = "POD_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Who this operator is among those that want the Lease. Default: a random name.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
}

/// Options of `self-test`.
#[derive(Clone, Debug, Args)]
pub struct SelfTestOptions {
    /// Namespace to make the cluster in. Default: the pod's own.
    #[arg(long)]
    pub namespace: Option<String>,
    /// How long all of it may take, as `180s`.
    #[arg(long, default_value = "180s", value_parser = span)]
    pub timeout: Duration,
    /// StorageClass of the cluster. Default: the Kubernetes cluster's.
    #[arg(long)]
    pub storage_class: Option<String>,
}

impl RunOptions {
    /// The namespaces to look after; `None` for all of them.
    #[must_use]
    pub fn scopes(&self) -> Vec<Option<String>> {
        let mut names: Vec<&str> = self
            .watch_namespaces
            .iter()
            .map(|name| name.trim())
            .collect();
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return vec![None];
        }
        names
            .into_iter()
            .map(|name| Some(name.to_owned()))
            .collect()
    }
}

fn span(text: &str) -> Result<Duration, String> {
    Span::new(text)
        .duration()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(arguments: &[&str]) -> Vec<Option<String>> {
        let start = ["millrace-operator", "run", "--broker-image=x"];
        let options = Options::parse_from(start.iter().chain(arguments));
        match options.command {
            Command::Run(run) => run.scopes(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_namespace_means_all_and_each_namespace_is_looked_after_once() {
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(scopes(&[]), [None]);
        assert_eq!(scopes(&["--watch-namespaces="]), [None]);
        assert_eq!(
            scopes(&["--watch-namespaces=b,a,b"]),
            [some("a"), some("b")]
        );
        assert_eq!(scopes(&["--namespaces=a"]), [some("a")]);
    }
}
