//! The project's own test cluster, `tests/kube/testbed`. Starts it, unless it runs already, and
//! then stops it again.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Act, Driver};
use crate::shell::run;

/// Of the control plane, as `testbed` names it: pods are reached from here.
const NETWORK: &str = "/run/netns/mrt-cp";

/// The test cluster's directory, and what `testbed env` says about it.
pub(super) struct Testbed {
    directory: PathBuf,
    nodes: u32,
    bin: PathBuf,
    audit_log: Option<PathBuf>,
    started_here: bool,
}

impl Testbed {
    pub(super) fn new(directory: PathBuf, nodes: u32) -> Self {
        Self {
            directory,
            nodes,
            bin: PathBuf::new(),
            audit_log: None,
            started_here: false,
        }
    }

    fn testbed(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new(self.directory.join("testbed")).args(arguments))
    }
}

impl Driver for Testbed {
    fn name(&self) -> &'static str {
        "testbed"
    }

    fn start(&mut self) -> Result<PathBuf> {
        if self.testbed(&["status"]).is_err() {
            eprintln!("starting the test cluster");
            self.testbed(&["up", &self.nodes.to_string()])?;
            self.started_here = true;
        }
        let environment = self.testbed(&["env"])?;
        let value = |name: &str| {
            let mut words = environment.split_whitespace();
            let found = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found
                .map(str::to_owned)
                .with_context(|| format!("testbed env does not set {name}"))
        };
        let path = value("PATH")?;
        self.bin = PathBuf::from(path.split(':').next().unwrap_or_default());
        self.audit_log = Some(PathBuf::from(value("TESTBED_AUDIT_LOG")?));
        Ok(PathBuf::from(value("KUBECONFIG")?))
    }

    fn load(&self, archive: &Path) -> Result<()> {
        self.testbed(&["load", &archive.to_string_lossy()])
            .map(drop)
    }

    fn can(&self, _act: Act) -> bool {
        true
    }

    fn act(&self, act: Act, node: &str) -> Result<()> {
        match act {
            Act::StopNode => self.testbed(&["kill", node]),
            Act::StartNode => self.testbed(&["start", node]),
            Act::CutNode => self.testbed(&["cut", node]),
            Act::HealNode => self.testbed(&["heal", node]),
            Act::StopApi => self.testbed(&["api", "stop"]),
            Act::StartApi => self.testbed(&["api", "start"]),
        }
        .map(drop)
    }

    fn audit_log(&self) -> Option<PathBuf> {
        self.audit_log.clone()
    }

    fn inside(&self, program: &Path) -> Option<Command> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={NETWORK}")).arg(program);
        Some(command)
    }

    fn bin(&self) -> PathBuf {
        self.bin.clone()
    }

    fn finish(&self) -> Result<()> {
        if !self.started_here {
            return Ok(());
        }
        if let Err(error) = self.testbed(&["down"]) {
            bail!("the test cluster does not stop: {error:#}");
        }
        Ok(())
    }
}
