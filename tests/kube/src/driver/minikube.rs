//! A cluster made by minikube; the context's name is the profile's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Act, Driver, current_context, kubeconfig_or_default};
use crate::shell::run;

/// The profile, known once it is found.
pub(super) struct Minikube {
    kubeconfig: Option<PathBuf>,
    profile: String,
}

impl Minikube {
    pub(super) fn new(kubeconfig: Option<PathBuf>) -> Self {
        Self {
            kubeconfig,
            profile: String::new(),
        }
    }

    fn minikube(&self, arguments: &[&str]) -> Result<()> {
        run(Command::new("minikube")
            .args(["--profile", &self.profile])
            .args(arguments))
        .map(drop)
    }
}

impl Driver for Minikube {
    fn name(&self) -> &'static str {
        "minikube"
    }

    fn start(&mut self) -> Result<PathBuf> {
        let kubeconfig = kubeconfig_or_default(self.kubeconfig.as_ref())?;
        self.profile = current_context(&kubeconfig)?;
        Ok(kubeconfig)
    }

    fn load(&self, archive: &Path) -> Result<()> {
        self.minikube(&["image", "load", &archive.to_string_lossy()])
    }

    fn can(&self, act: Act) -> bool {
        matches!(act, Act::StopNode | Act::StartNode)
    }

    fn act(&self, act: Act, node: &str) -> Result<()> {
        match act {
            Act::StopNode => self.minikube(&["node", "stop", node]),
            Act::StartNode => self.minikube(&["node", "start", node]),
            Act::CutNode | Act::HealNode => anyhow::bail!("minikube's nodes stay plugged in"),
            Act::StopApi | Act::StartApi => anyhow::bail!("minikube's API server stays"),
        }
    }
}
