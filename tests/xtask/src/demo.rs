//! The main job on this machine, without Kubernetes.

use anyhow::{Result, bail};

use crate::house::House;

/// How the demonstration ends.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Keep the node serving at the end, until Ctrl-C.
    #[arg(long)]
    stay: bool,
}

/// Runs it.
pub(crate) fn run(_house: &House, _options: &Options) -> Result<()> {
    bail!("not there yet")
}
