//! The broker under demonstration: a process with a directory of its own, both gone at the end.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::house::{House, show};

/// Starting takes a fraction of a second; a busy machine takes longer.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Messages are routed within milliseconds.
const SEEN_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// A broker and its directory.
pub(super) struct Node {
    program: PathBuf,
    topology: PathBuf,
    place: PathBuf,
    child: Child,
    /// `HOST:PORT`, kept over restarts.
    address: String,
}

impl Node {
    /// Starts a broker that declares the topology.
    ///
    /// # Errors
    /// When it does not serve.
    pub(super) fn start(house: &House, topology: &Path) -> Result<Self> {
        let name = format!("millrace-demo-{}", std::process::id());
        let place = std::env::temp_dir().join(name);
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        let program = house.binary("millrace");
        let child = spawn(&program, &place, topology, "127.0.0.1:0")?;
        let topology = topology.to_path_buf();
        let mut node = Self {
            program,
            topology,
            place,
            child,
            address: String::new(),
        };
        node.address = node.ready()?;
        Ok(node)
    }

    /// Where clients connect to.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where its files are.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    /// The command line's program, pointed at this broker.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("MILLRACE_SERVER", self.url());
        command
    }

    /// Runs a verb and returns what it wrote.
    ///
    /// # Errors
    /// When it fails; a queue that has no more to give is no failure.
    pub(super) fn millrace(&self, arguments: &[&str]) -> Result<String> {
        self.millrace_with(arguments, "")
    }

    /// The same with something on stdin.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn millrace_with(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        /// `consume --count` got fewer.
        const NOTHING_CAME: i32 = 5;
        let mut command = self.command(arguments);
        let shown = show(&command);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {shown}"))?;
        let mut pipe = child.stdin.take().context("stdin is piped")?;
        let text = stdin.to_owned();
        // A verb that does not read all of it says why.
        let writer = thread::spawn(move || pipe.write_all(text.as_bytes()));
        let output = child.wait_with_output()?;
        drop(writer.join());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code();
        ensure!(
            output.status.success() || code == Some(NOTHING_CAME),
            "{shown}: {}: {said}",
            output.status
        );
        let mut told = String::from_utf8_lossy(&output.stdout).into_owned();
        if told.is_empty() && !stdin.is_empty() {
            told = said;
        }
        Ok(told)
    }

    /// Runs a verb until what it writes is as it should be.
    ///
    /// # Errors
    /// When it never is.
    pub(super) fn millrace_until(
        &self,
        arguments: &[&str],
        good: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let start = Instant::now();
        loop {
            let told = self.millrace(arguments)?;
            if good(&told) {
                return Ok(told);
            }
            ensure!(
                start.elapsed() < SEEN_LIMIT,
                "not what was expected:\n{told}"
            );
            thread::sleep(PAUSE); // polls
        }
    }

    /// Kills it, as a power cut would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill the node")?;
        self.child.wait().context("cannot wait for the node")?;
        Ok(())
    }

    /// Starts it on the same directory and address.
    ///
    /// # Errors
    /// When it does not serve.
    pub(super) fn start_again(&mut self) -> Result<()> {
        fs::remove_file(self.ready_file()).context("no ready file")?;
        self.child = spawn(&self.program, &self.place, &self.topology, &self.address)?;
        self.address = self.ready()?;
        Ok(())
    }

    /// Asks it to stop and waits for that.
    ///
    /// # Errors
    /// When it does not exit as it should.
    pub(super) fn stop(mut self) -> Result<()> {
        let id = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &id]).status();
        ensure!(
            asked.context("cannot send a signal")?.success(),
            "the node is gone already"
        );
        let status = self.child.wait().context("cannot wait for the node")?;
        ensure!(status.success(), "the node did not drain: {status}");
        Ok(())
    }

    /// Waits until it ends by itself, or somebody ends it.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn wait(mut self) -> Result<()> {
        let status = self.child.wait().context("cannot wait for the node")?;
        ensure!(status.success(), "the node: {status}");
        Ok(())
    }

    fn ready_file(&self) -> PathBuf {
        self.place.join("ready.json")
    }

    /// Waits until it serves, and returns the address of its client port.
    fn ready(&mut self) -> Result<String> {
        let start = Instant::now();
        loop {
            let told = fs::read_to_string(self.ready_file()).unwrap_or_default();
            if let Some(address) = client_address(&told) {
                return Ok(address);
            }
            let ended = self.child.try_wait().context("cannot look at the node")?;
            if ended.is_some() || start.elapsed() > START_LIMIT {
                let log = fs::read_to_string(self.place.join("log")).unwrap_or_default();
                bail!("the node does not serve; its log:\n{log}");
            }
            thread::sleep(PAUSE); // polls
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Either it is gone already, or it goes now.
        drop(self.child.kill());
        drop(self.child.wait());
        if let Err(error) = fs::remove_dir_all(&self.place) {
            eprintln!("cannot remove {}: {error}", self.place.display());
        }
    }
}

fn spawn(program: &Path, place: &Path, topology: &Path, listen: &str) -> Result<Child> {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(place.join("log"))?;
    let mut command = Command::new(program);
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(place.join("data"));
    command
        .arg("--topology")
        .arg(topology)
        .arg("--ready-file")
        .arg(place.join("ready.json"));
    command.args(["--listen", listen, "--control-listen", "127.0.0.1:0"]);
    command.args(["--metrics-listen", "127.0.0.1:0"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command.spawn().context("cannot start the node")
}

/// The address clients use, in the ready file.
fn client_address(ready: &str) -> Option<String> {
    let at = ready.find("\"clients\"")?;
    let value = ready[at..].split('"').nth(3)?;
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_ready_file() {
        let ready = r#"{"clients":"127.0.0.1:40001","control":"127.0.0.1:40002"}"#;
        assert_eq!(client_address(ready), Some("127.0.0.1:40001".to_owned()));
        assert_eq!(client_address("{"), None);
    }
}
