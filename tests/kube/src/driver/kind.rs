//! A cluster made by kind: its nodes are Docker containers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Act, Driver, current_context, kubeconfig_or_default};
use crate::shell::run;

/// The cluster's name, known once it is found.
pub(super) struct Kind {
    kubeconfig: Option<PathBuf>,
    cluster: String,
}

impl Kind {
    pub(super) fn new(kubeconfig: Option<PathBuf>) -> Self {
        Self {
            kubeconfig,
            cluster: String::new(),
        }
    }
}

impl Driver for Kind {
    fn name(&self) -> &'static str {
        "kind"
    }

    fn start(&mut self) -> Result<PathBuf> {
        let kubeconfig = kubeconfig_or_default(self.kubeconfig.as_ref())?;
        let context = current_context(&kubeconfig)?;
        let cluster = context.strip_prefix("kind-");
        self.cluster = cluster
            .context("the current context is not one of kind's")?
            .to_owned();
        Ok(kubeconfig)
    }

    fn load(&self, archive: &Path) -> Result<()> {
        let mut command = Command::new("kind");
        command
            .args(["load", "image-archive", "--name", &self.cluster])
            .arg(archive);
        run(&mut command).map(drop)
    }

    fn can(&self, act: Act) -> bool {
        matches!(act, Act::StopNode | Act::StartNode)
    }

    fn act(&self, act: Act, node: &str) -> Result<()> {
        let verb = match act {
            Act::StopNode => "kill",
            Act::StartNode => "start",
            // A container that is connected to its network again may get another address.
            Act::CutNode | Act::HealNode => anyhow::bail!("kind's nodes stay plugged in"),
            Act::StopApi | Act::StartApi => anyhow::bail!("kind's API server stays"),
        };
        run(Command::new("docker").args([verb, node])).map(drop)
    }
}
