//! What a node is started with. Checked values only: whoever reads the command line parses them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use millrace_types::{REPLICATION_DEFAULT, SHARDS_DEFAULT};

/// Where clients connect unless told otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7070";
/// Where the broker is steered unless told otherwise.
pub const CONTROL_LISTEN_DEFAULT: &str = "127.0.0.1:7071";
/// Where metrics and health are unless told otherwise.
pub const METRICS_LISTEN_DEFAULT: &str = "127.0.0.1:7072";
/// How long clients have to finish when the node goes down: within the 30 s that Kubernetes gives a
/// pod, with time left for a last checkpoint.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// A node's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept; created when missing.
    pub data_dir: PathBuf,
    /// For clients; port 0 takes a free one.
    pub listen: SocketAddr,
    /// For the operator; anything but loopback needs `control_token_file`.
    pub control_listen: SocketAddr,
    /// For HTTP: metrics and health.
    pub metrics_listen: SocketAddr,
    /// The token callers of the control port, and peers, must bring; read again when it changes.
    pub control_token_file: Option<PathBuf>,
    /// Declares the topology; `None` keeps what the data directory has.
    pub topology: Option<PathBuf>,
    /// How it meets the other nodes of its cluster; `None`: it is the only one.
    pub peering: Option<Peering>,
    /// The cluster this node belongs to; `None` takes the data directory's, or mints one.
    pub cluster_id: Option<String>,
    /// Data shards.
    pub shards: u32,
    /// Threads that own the shards; `None` takes half of the cores.
    pub workers: Option<usize>,
    /// Bytes of bodies in memory; `None` takes a share of what the cgroup or the machine has.
    pub memory_limit: Option<u64>,
    /// Bytes of a journal file, and of journal after which a shard makes a checkpoint; `None` takes
    /// what suits a broker. For tests.
    pub journal_file_size: Option<u64>,
    /// How long clients have to finish when the node goes down.
    pub drain_timeout: Duration,
    /// Written once the node serves: its addresses, as JSON.
    pub ready_file: Option<PathBuf>,
}

/// How a node meets the other nodes of its cluster. Checked when the node starts.
#[derive(Clone, Debug)]
pub struct Peering {
    /// For the other nodes; anything but loopback needs `control_token_file`.
    pub listen: SocketAddr,
    /// Where they find it, `HOST:PORT`; `None`: where it listens.
    pub advertise: Option<String>,
    /// Where clients find it, `HOST:PORT`; `None`: where it listens for them, or at the host that
    /// peers find it at.
    pub client_advertise: Option<String>,
    /// What it does while it belongs to no cluster.
    pub meeting: Meeting,
    /// What fails together with it; empty when nobody said.
    pub zone: String,
    /// Replicas of a data shard, of a cluster that it founds.
    pub replication: u32,
}

/// What a node does while it belongs to no cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Founds one with the nodes at these peer addresses, its own among them, or joins them when
    /// they have one without it.
    Found(Vec<String>),
    /// Joins the cluster at one of these addresses, or waits until somebody sends a record.
    Join(Vec<String>),
}

impl Config {
    /// Defaults for a data directory, every listener on a free port of loopback: for tests and
    /// embedding.
    #[must_use]
    pub fn local(data_dir: impl Into<PathBuf>) -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            data_dir: data_dir.into(),
            listen: anywhere,
            control_listen: anywhere,
            metrics_listen: anywhere,
            control_token_file: None,
            topology: None,
            peering: None,
            cluster_id: None,
            shards: SHARDS_DEFAULT,
            workers: None,
            memory_limit: None,
            journal_file_size: None,
            drain_timeout: DRAIN_TIMEOUT_DEFAULT,
            ready_file: None,
        }
    }
}
