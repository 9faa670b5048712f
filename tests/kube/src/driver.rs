//! What differs between clusters: how one is had, how an image gets to its nodes, and what can be
//! done to nodes and API server. What a driver cannot do, cases skip and say so.

mod kind;
mod minikube;
mod plain;
mod testbed;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::options::{Options, Platform};

/// Something done to a cluster from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Power a node off: what runs on it is gone at once.
    StopNode,
    /// Bring it back, with its disks.
    StartNode,
    /// Unplug a node: what runs on it runs on, and nobody reaches it.
    CutNode,
    /// Plug it in again.
    HealNode,
    /// Take the API server away.
    StopApi,
    /// Bring it back.
    StartApi,
}

/// One kind of cluster.
pub(crate) trait Driver {
    /// What people call it.
    fn name(&self) -> &'static str;

    /// Has the cluster running, and returns its kubeconfig.
    ///
    /// # Errors
    /// When there is none and none can be had.
    fn start(&mut self) -> Result<PathBuf>;

    /// Puts an image on every node.
    ///
    /// # Errors
    /// When that fails, or this driver cannot.
    fn load(&self, archive: &Path) -> Result<()>;

    /// Whether [`Driver::act`] can do it.
    fn can(&self, _act: Act) -> bool {
        false
    }

    /// Does something to the cluster; `node` is empty where it is not about one.
    ///
    /// # Errors
    /// When it fails, or this driver cannot.
    fn act(&self, act: Act, _node: &str) -> Result<()> {
        bail!("the {} driver cannot do {act:?}", self.name())
    }

    /// Where the API server writes its audit log, one JSON object a line.
    fn audit_log(&self) -> Option<PathBuf> {
        None
    }

    /// A command that runs `program` where addresses of pods can be reached without the API server.
    fn inside(&self, _program: &Path) -> Option<Command> {
        None
    }

    /// Whether the nodes are this suite's to cordon and empty.
    fn owns_nodes(&self) -> bool {
        true
    }

    /// Where kubectl and helm may be, beside the PATH.
    fn bin(&self) -> PathBuf {
        PathBuf::new()
    }

    /// Gives back what [`Driver::start`] took.
    ///
    /// # Errors
    /// When that fails.
    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// The driver that was asked for.
pub(crate) fn of(options: &Options) -> Box<dyn Driver> {
    let kubeconfig = options.kubeconfig.clone();
    match options.driver {
        Platform::Testbed => {
            let nodes = options.suite.nodes();
            Box::new(testbed::Testbed::new(options.testbed.clone(), nodes))
        }
        Platform::Kind => Box::new(kind::Kind::new(kubeconfig)),
        Platform::Minikube => Box::new(minikube::Minikube::new(kubeconfig)),
        Platform::Plain => Box::new(plain::Plain::new(kubeconfig)),
    }
}

/// The kubeconfig named, or the one kubectl would take.
fn kubeconfig_or_default(named: Option<&PathBuf>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.clone());
    }
    if let Some(path) = std::env::var_os("KUBECONFIG") {
        return Ok(PathBuf::from(path));
    }
    match std::env::var_os("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".kube/config")),
        None => bail!("no cluster: name one with --kubeconfig"),
    }
}

/// The name of the kubeconfig's current context.
fn current_context(kubeconfig: &Path) -> Result<String> {
    let mut command = Command::new("kubectl");
    command
        .env("KUBECONFIG", kubeconfig)
        .args(["config", "current-context"]);
    Ok(crate::shell::run(&mut command)?.trim().to_owned())
}
