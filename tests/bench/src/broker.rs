//! A broker process on a directory of its own: started, looked at, killed, started again.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use millrace_client::{Client, Control, ReceiveOptions};
use rustix::fs::Advice;
use serde::Deserialize;
use tempfile::TempDir;

use crate::options::Options;
use crate::process::{self, Usage};
use crate::scrape::{self, Scrape};

/// Between two looks at whether it serves: what a measured start may be off by.
const PAUSE: Duration = Duration::from_millis(5);
/// A start that takes longer is a result by itself.
const START_LIMIT: Duration = Duration::from_secs(900);

/// A directory for a broker's data; it goes with this value.
#[derive(Debug)]
pub struct Node {
    dir: TempDir,
    binary: PathBuf,
    arguments: Vec<String>,
}

/// A running broker; killed when dropped.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    addresses: Addresses,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Addresses {
    clients: SocketAddr,
    control: SocketAddr,
    metrics: SocketAddr,
}

/// Whoever can be published to and consumed from: a broker, or several.
pub trait Served {
    /// A client of it, with connections of its own.
    ///
    /// # Errors
    /// Never, in practice: the address is one.
    fn client(&self) -> Result<Client>;
}

/// How long a start took, from its first instruction on.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// Until `/readyz` said yes.
    pub ready: Duration,
    /// Until a message was received, if there is a queue to ask.
    pub received: Duration,
}

impl Node {
    /// An empty directory on the disk to measure, and what is declared on it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(options: &Options, topology: &str) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("millrace-bench-")
            .tempdir_in(&options.dir)?;
        fs::write(dir.path().join("topology.yaml"), topology)?;
        let mut arguments = vec!["--memory-limit".to_owned(), options.memory_limit.clone()];
        if !topology.is_empty() {
            let file = dir.path().join("topology.yaml");
            arguments.extend(["--topology".to_owned(), file.to_string_lossy().into_owned()]);
        }
        Ok(Self {
            dir,
            binary: options.binary.clone(),
            arguments,
        })
    }

    /// The same, started with another option.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.arguments.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// Takes away its disk and gives it an empty one; nothing may run on it.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn wipe(&self) -> Result<()> {
        Ok(fs::remove_dir_all(self.data_dir())?)
    }

    /// Starts a broker and waits until it is ready.
    ///
    /// # Errors
    /// It ends instead.
    pub async fn start(&self) -> Result<Broker> {
        let (broker, _) = self.launch().await?;
        Ok(broker)
    }

    /// Starts a broker and measures how long it takes until a message of `queue` is received.
    ///
    /// # Errors
    /// It ends instead, or the queue has no message.
    pub async fn start_until_received(&self, queue: &str) -> Result<(Broker, Started)> {
        let (broker, began) = self.launch().await?;
        let ready = began.elapsed();
        let options = ReceiveOptions {
            wait: Duration::from_secs(30),
            ..ReceiveOptions::default()
        };
        let received = broker.client()?.receive(queue, options).await?;
        if received.is_empty() {
            bail!("{queue} has no message after the restart");
        }
        let received = began.elapsed();
        Ok((broker, Started { ready, received }))
    }

    async fn launch(&self) -> Result<(Broker, Instant)> {
        let ready = self.dir.path().join("ready");
        drop(fs::remove_file(&ready));
        let log = self.dir.path().join("log");
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--data-dir").arg(self.data_dir());
        for listen in ["--listen", "--control-listen", "--metrics-listen"] {
            command.args([listen, "127.0.0.1:0"]);
        }
        command
            .arg("--ready-file")
            .arg(&ready)
            .args(&self.arguments);
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(File::create(&log)?);
        let began = Instant::now();
        let child = command.spawn();
        let child = child.with_context(|| format!("cannot start {}", self.binary.display()))?;
        let mut starting = Starting(Some(child));
        let addresses = loop {
            if let Some(status) = starting.child()?.try_wait()? {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("the broker ended with {status}:\n{said}");
            }
            // A file that is not there or not whole yet is looked at again.
            let addresses = fs::read(&ready).ok();
            let addresses = addresses.and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(addresses) = addresses
                && is_ready(addresses).await
            {
                break addresses;
            }
            if began.elapsed() > START_LIMIT {
                bail!("the broker does not serve after {START_LIMIT:?}");
            }
            tokio::time::sleep(PAUSE).await; // polls
        };
        let child = starting.0.take().context("it is taken once")?;
        Ok((Broker { child, addresses }, began))
    }

    /// Where its data is.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Bytes that its data takes on the disk.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn disk_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        each_file(&self.data_dir(), &mut |path| {
            bytes += fs::metadata(path).map_or(0, |file| file.len());
        })?;
        Ok(bytes)
    }

    /// Makes the next start read the disk: drops the data from the page cache, as far as the kernel
    /// takes the hint.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn forget_cached(&self) -> Result<()> {
        each_file(&self.data_dir(), &mut |path| {
            if let Ok(file) = File::open(path) {
                // Pages that are not written yet would stay. A refusal costs accuracy only.
                drop(file.sync_data());
                rustix::fs::fadvise(file.as_fd(), 0, None, Advice::DontNeed).ok();
            }
        })
    }
}

/// A child that is killed unless it is taken out.
struct Starting(Option<Child>);

impl Starting {
    fn child(&mut self) -> Result<&mut Child> {
        self.0.as_mut().context("it is taken once")
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            kill(child);
        }
    }
}

async fn is_ready(addresses: Addresses) -> bool {
    let asked = tokio::task::spawn_blocking(move || scrape::get(addresses.metrics, "/readyz"));
    asked.await.is_ok_and(|answer| answer.is_ok())
}

fn each_file(dir: &Path, look: &mut impl FnMut(&Path)) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            each_file(&path, look)?;
        } else {
            look(&path);
        }
    }
    Ok(())
}

impl Served for Broker {
    fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.url())?)
    }
}

impl Broker {
    /// Where clients connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addresses.clients)
    }

    /// A client of its control port.
    ///
    /// # Errors
    /// Never, in practice.
    pub fn control(&self) -> Result<Control> {
        let url = format!("http://{}", self.addresses.control);
        Ok(Control::connect(url, "none")?)
    }

    /// Its metrics.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn scrape(&self) -> Result<Scrape> {
        Scrape::of(self.addresses.metrics).await
    }

    /// What the kernel says of it.
    ///
    /// # Errors
    /// It is gone.
    pub fn usage(&self) -> Result<Usage> {
        process::usage(self.child.id())
    }

    /// Bytes that it has handed to the connections it has; `None` where the system does not tell.
    #[must_use]
    pub fn sent_bytes(&self) -> Option<u64> {
        process::sent_bytes(self.child.id())
    }

    /// Kills it where it is.
    pub fn kill(mut self) {
        kill(&mut self.child);
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
