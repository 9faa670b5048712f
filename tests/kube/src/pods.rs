//! Pods that run the command line in the cluster, as a user would: `kubectl run … -- publish …`.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::world::{CLIENTS, World};

/// Arguments of `kubectl run` for a client pod in a namespace of restricted pods.
fn run_arguments(world: &World, name: &str) -> Vec<String> {
    let node = world.home.as_ref();
    let node = node.map(|node| json!({ "kubernetes.io/hostname": node }));
    let overrides = json!({
        "spec": {
            "nodeSelector": node,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"}
            },
            "containers": [{
                "name": name,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]}
                }
            }]
        }
    });
    [
        "run",
        name,
        "-n",
        CLIENTS,
        "--restart=Never",
        "--override-type=strategic",
        &format!("--image={}", world.options.image),
        "--image-pull-policy=IfNotPresent",
        &format!("--overrides={overrides}"),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Starts a pod that goes on by itself.
///
/// # Errors
/// When it is refused.
pub(crate) fn start(world: &World, name: &str, arguments: &[&str]) -> Result<()> {
    let mut command = world.shell.kubectl_command(run_arguments(world, name));
    command.arg("--").args(arguments);
    crate::shell::run(&mut command).map(drop)
}

/// A pod with this process' stdin and stdout, gone when they end; not yet started.
pub(crate) fn attached(world: &World, name: &str, arguments: &[&str]) -> Command {
    let mut command: Command = world.shell.kubectl_command(run_arguments(world, name));
    command
        .args(["-i", "--rm", "--quiet", "--pod-running-timeout=2m", "--"])
        .args(arguments);
    command
}

/// Runs a pod to its end and returns what it wrote, and whether it succeeded.
///
/// # Errors
/// When it is refused or does not end in a minute.
pub(crate) fn run_to_end(world: &World, name: &str, arguments: &[&str]) -> Result<(String, bool)> {
    start(world, name, arguments)?;
    let phase = ended(world, name, Duration::from_secs(60))?;
    let log = world.shell.kubectl(&["logs", "-n", CLIENTS, name])?;
    world
        .shell
        .kubectl(&["delete", "pod", "-n", CLIENTS, name, "--wait=false"])?;
    Ok((log, phase == "Succeeded"))
}

/// Waits for a pod to end and returns its phase.
///
/// # Errors
/// When it runs on.
pub(crate) fn ended(world: &World, name: &str, limit: Duration) -> Result<String> {
    crate::wait::until(&format!("pod {name} ends"), limit, || {
        let pod = world.get(CLIENTS, &format!("pod/{name}"))?;
        let phase = pod["status"]["phase"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Ok(matches!(phase.as_str(), "Succeeded" | "Failed").then_some(phase))
    })
}

/// Between two lines until [`Fed::finish`] is called: a stream that lasts for seconds.
const PACE: Duration = Duration::from_millis(2);

/// A pod that is fed lines on its stdin, at first slowly.
pub(crate) struct Fed {
    child: Child,
    feeder: JoinHandle<io::Result<()>>,
    slowly: Sender<()>,
    name: String,
}

impl Fed {
    /// Starts it and begins to feed.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub(crate) fn start(
        world: &World,
        name: &str,
        arguments: &[&str],
        lines: Vec<String>,
    ) -> Result<Self> {
        let mut command = attached(world, name, arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start kubectl")?;
        let pipe = child.stdin.take().context("stdin is piped")?;
        let (slowly, hurry) = mpsc::channel();
        let feeder = thread::spawn(move || feed(pipe, &lines, &hurry));
        Ok(Self {
            child,
            feeder,
            slowly,
            name: name.to_owned(),
        })
    }

    /// Feeds what is left without pauses, waits for the end and returns what the pod wrote.
    ///
    /// # Errors
    /// When the pod failed or did not take all lines.
    pub(crate) fn finish(self) -> Result<String> {
        drop(self.slowly);
        let output = self.child.wait_with_output()?;
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let fed = self.feeder.join();
        if !output.status.success() {
            bail!("pod {}: {}: {}", self.name, output.status, said.trim());
        }
        match fed {
            Ok(Ok(())) => Ok(said),
            Ok(Err(error)) => bail!("pod {} did not take all lines: {error}; {said}", self.name),
            Err(_) => bail!("the feeder of pod {} panicked", self.name),
        }
    }
}

/// Writes the lines, one every [`PACE`] as long as the other end of `hurry` is there.
fn feed(mut pipe: impl Write, lines: &[String], hurry: &Receiver<()>) -> io::Result<()> {
    let mut slowly = true;
    for line in lines {
        writeln!(pipe, "{line}")?;
        slowly = slowly && hurry.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout);
    }
    Ok(())
}
