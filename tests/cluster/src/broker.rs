//! A broker process: started on free ports, killed by its pid, started again on the same disk.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use millrace_client::{Client, Control};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::program;
use crate::wait::until;

/// A debug build that recovers on a busy machine is slow, not broken.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// A drain waits 15 s for clients at most.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// A disk for a broker and how to start one on it. The directory goes with it.
#[derive(Debug)]
pub struct Node {
    dir: TempDir,
    options: Vec<(String, String)>,
    /// Taken at the first start and kept, so that clients find it again.
    listen: Option<SocketAddr>,
    starts: u32,
}

/// Where a broker listens.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Addresses {
    /// For clients.
    pub clients: SocketAddr,
    /// For the operator.
    pub control: SocketAddr,
    /// For HTTP.
    pub metrics: SocketAddr,
}

/// A running broker; killed when dropped.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    addresses: Addresses,
}

/// A broker that ended instead of serving.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All it said.
    pub log: String,
}

impl Node {
    /// A fresh disk, with the topology of a text.
    ///
    /// # Errors
    /// No directory can be made.
    pub fn new(topology: &str) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("millrace-test-")
            .tempdir()?;
        fs::write(dir.path().join("topology.yaml"), topology)?;
        Ok(Self {
            dir,
            options: Vec::new(),
            listen: None,
            starts: 0,
        })
    }

    /// The same with another option for `serve`, instead of one of the same name.
    #[must_use]
    pub fn with(mut self, [name, value]: [&str; 2]) -> Self {
        self.options.retain(|(option, _)| option != name);
        self.options.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts on this address from now on.
    pub const fn set_address(&mut self, listen: SocketAddr) {
        self.listen = Some(listen);
    }

    /// Starts on a free port again.
    pub const fn forget_address(&mut self) {
        self.listen = None;
    }

    /// Where the broker keeps its data.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A file of the test's own beside the data.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// All that the broker started last has said so far.
    #[must_use]
    pub fn last_log(&self) -> String {
        fs::read_to_string(self.file(&format!("log-{}", self.starts))).unwrap_or_default()
    }

    /// What `serve` is called with, but for the address.
    ///
    /// # Errors
    /// The binary cannot be built.
    pub fn command(&self) -> Result<Command> {
        let mut command = program::command("serve")?;
        command.arg("--data-dir").arg(self.data_dir());
        command.arg("--topology").arg(self.file("topology.yaml"));
        command.args(["--metrics-listen", "127.0.0.1:0"]);
        if !self
            .options
            .iter()
            .any(|(name, _)| name == "--control-listen")
        {
            command.args(["--control-listen", "127.0.0.1:0"]);
        }
        for (name, value) in &self.options {
            command.arg(name).arg(value);
        }
        Ok(command)
    }

    /// Starts a broker and waits until it serves.
    ///
    /// # Errors
    /// It ended instead; the error has its last words.
    pub async fn start(&mut self) -> Result<Broker> {
        let mut launch = self.launch()?;
        let addresses = launch.ready().await?;
        self.listen = Some(addresses.clients);
        Ok(Broker {
            child: launch.child,
            addresses,
        })
    }

    /// Starts a broker and does not wait.
    ///
    /// # Errors
    /// It cannot be started at all.
    pub fn launch(&mut self) -> Result<Launch> {
        self.starts += 1;
        let ready = self.file(&format!("ready-{}", self.starts));
        let log = self.file(&format!("log-{}", self.starts));
        let listen = self.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut command = self.command()?;
        command.arg("--listen").arg(listen.to_string());
        command.arg("--ready-file").arg(&ready);
        let child = spawn(&mut command, &log)?;
        Ok(Launch { child, ready, log })
    }

    /// Starts a broker that must not come up, and waits for its end.
    ///
    /// # Errors
    /// It serves.
    pub async fn must_not_start(&mut self) -> Result<Ended> {
        self.launch()?.ended().await
    }
}

fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let log = File::create(log)?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))
}

/// A broker that is starting.
#[derive(Debug)]
pub struct Launch {
    child: Child,
    ready: PathBuf,
    log: PathBuf,
}

impl Launch {
    /// A command of one's own instead of `Node::command`; `ready` and `log` are its files.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn of(mut command: Command, ready: PathBuf, log: PathBuf) -> Result<Self> {
        let child = spawn(&mut command, &log)?;
        Ok(Self { child, ready, log })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// It ended instead, or takes too long.
    pub async fn ready(&mut self) -> Result<Addresses> {
        until("the broker to be ready", READY_LIMIT, async || {
            if let Some(status) = self.child.try_wait()? {
                bail!("the broker ended with {status}:\n{}", self.log());
            }
            match fs::read(&self.ready) {
                Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
                Err(_) => Ok(None),
            }
        })
        .await
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It serves, or takes too long.
    pub async fn ended(mut self) -> Result<Ended> {
        let status = until("the broker to end", READY_LIMIT, async || {
            if self.ready.exists() {
                bail!("the broker serves, which it must not");
            }
            Ok(self.child.try_wait()?)
        })
        .await;
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                kill(&mut self.child);
                return Err(error);
            }
        };
        Ok(Ended {
            code: status.code(),
            log: self.log(),
        })
    }

    /// Kills it where it is.
    pub fn kill(mut self) {
        kill(&mut self.child);
    }

    /// Serves from now on.
    ///
    /// # Errors
    /// It ended instead, or takes too long.
    pub async fn broker(mut self) -> Result<Broker> {
        let addresses = self.ready().await?;
        Ok(Broker {
            child: self.child,
            addresses,
        })
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Broker {
    /// Where it listens.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// For `--server`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addresses.clients)
    }

    /// A client of it.
    ///
    /// # Errors
    /// Never, in practice: the address is one.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.url())?)
    }

    /// A client of its control port, with this token.
    ///
    /// # Errors
    /// The token is none.
    pub fn control(&self, token: &str) -> Result<Control> {
        Ok(Control::connect(
            format!("http://{}", self.addresses.control),
            token,
        )?)
    }

    /// As a power cut would, but for what the kernel has not written yet.
    pub fn kill(mut self) {
        kill(&mut self.child);
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("a pid")?, signal)?)
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    /// The system does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It takes too long.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let ended = async || Ok(self.child.try_wait()?);
        until("the broker to end", STOP_LIMIT, ended).await
    }

    /// Drains and ends it.
    ///
    /// # Errors
    /// It takes too long, or does not end well.
    pub async fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait().await?;
        if !status.success() {
            bail!("a drained broker ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

fn kill(child: &mut Child) {
    // An error says that it has ended.
    drop(child.kill());
    drop(child.wait());
}
