//! What the suite is told.

use std::path::PathBuf;

/// Runs a suite of cases against a Kubernetes cluster.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "millrace-kube-tests")]
pub(crate) struct Options {
    /// The suite: `main`, what happens to a user between Helm install and namespace deletion, or
    /// `replicas`, what happens to one broker of three.
    #[arg(long, default_value = "main")]
    pub(crate) suite: Suite,
    /// How images get to the nodes and what can be done to them.
    #[arg(long)]
    pub(crate) driver: Platform,
    /// The cluster, where the driver does not bring one.
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The chart under test.
    #[arg(long)]
    pub(crate) chart: PathBuf,
    /// The project's own test cluster.
    #[arg(long)]
    pub(crate) testbed: PathBuf,
    /// The `millrace` binary, for what runs outside the cluster.
    #[arg(long)]
    pub(crate) cli: PathBuf,
    /// The `kubectl-millrace` binary.
    #[arg(long)]
    pub(crate) plugin: PathBuf,
    /// The `millrace-operator` binary: its table of rights is compared with the chart's.
    #[arg(long)]
    pub(crate) operator: PathBuf,
    /// The image under test, with its tag.
    #[arg(long)]
    pub(crate) image: String,
    /// The image as an OCI archive; without it the cluster has to pull it.
    #[arg(long)]
    pub(crate) image_archive: Option<PathBuf>,
    /// The same image under another tag, to upgrade to.
    #[arg(long, requires = "next_image_archive")]
    pub(crate) next_image: Option<String>,
    /// Its archive.
    #[arg(long)]
    pub(crate) next_image_archive: Option<PathBuf>,
    /// The test program that compares the API server's verdict on the corpus with our own.
    #[arg(long)]
    pub(crate) verdict: PathBuf,
    /// Leave everything as it is at the end.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Run only the cases whose names contain this, and those they cannot do without.
    #[arg(long)]
    pub(crate) only: Option<String>,
}

/// A suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Suite {
    /// Install, declare, stream, kill, change, remove.
    Main,
    /// Three brokers, on three nodes if there are as many: what happens to one of them under load.
    Replicas,
}

impl Suite {
    /// Nodes of a test cluster that is made for it.
    pub(crate) const fn nodes(self) -> u32 {
        match self {
            // Enough for a pod to have a node to be moved to, few enough for two processors.
            Self::Main => 2,
            Self::Replicas => 3,
        }
    }
}

/// A driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Platform {
    /// The project's own.
    Testbed,
    /// A cluster of kind: nodes are Docker containers.
    Kind,
    /// A cluster of minikube.
    Minikube,
    /// Any cluster at all; its nodes are not touched.
    Plain,
}
