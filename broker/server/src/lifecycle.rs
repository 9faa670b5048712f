//! The life of a node: start, serve, drain, end. Usable as a library; the binary adds signals and
//! logging.
//!
//! Start: check, bind every port, answer health, belong to a cluster (`enter.rs`), replay the data
//! directory, apply the topology file, then take calls. Stop: not ready, no new connections, tell
//! streams, let what is under way finish within its time, then the node's own drain. Health is
//! answered to the last.

mod enter;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millrace_proto::v1;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tonic::transport::server::Router;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use tracing::{info, warn};

use crate::config::Config;
use crate::connections::Connections;
use crate::forward::Forward;
use crate::founding::seat::Seat;
use crate::http::{self, Pages};
use crate::listeners;
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::services::Context;
use crate::start_error::StartError;
use crate::state::{State, StateCell};
use crate::tasks::{Kind, Stop, Tasks};
use crate::token::{Guard, TokenFile};
use crate::topology_file::TopologyFile;
use millrace_node::{Broker, CatalogueView, NodeOptions};

/// How long streams have to say goodbye once their time is up: one write each.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Addresses {
    /// For clients: gRPC.
    pub clients: SocketAddr,
    /// For the operator: gRPC with the control token.
    pub control: SocketAddr,
    /// For Prometheus and the kubelet: HTTP.
    pub metrics: SocketAddr,
    /// For the other nodes of the cluster: gRPC with the control token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<SocketAddr>,
}

/// A node that serves. Stop it with [`Running::stop`]; dropping it leaves it running.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    broker: Broker,
    state: StateCell,
    health: HealthReporter,
    drain_timeout: Duration,
    /// Everything that talks to clients.
    clients: Tasks,
    mesh: Mesh,
    /// Everything that talks to other nodes: it ends after the broker, which hands over what is
    /// under way.
    peers: Tasks,
    /// Metrics and health: they end last.
    pages: Tasks,
}

/// Starts nodes.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts a node; it takes calls when this returns.
    ///
    /// # Errors
    /// When anything it needs is not to be had; nothing is left running then.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        let guard = Arc::new(guard(&config)?);
        let topology = config
            .topology
            .as_deref()
            .map(TopologyFile::read)
            .transpose()?;
        let listeners = Listeners::bind(&config).await?;
        let addresses = listeners.addresses;

        let mesh = Mesh::new(Arc::clone(&guard));
        let state = StateCell::new();
        let metrics = Metrics::new(state.clone(), mesh.clone());
        let pages = Tasks::new(Stop::default());
        let shown = Pages {
            state: state.clone(),
            metrics: metrics.clone(),
        };
        let serving = http::serve(listeners.metrics, shown, pages.stop().clone());
        pages.spawn(Kind::Vital, "metrics listener", serving);

        let peers = Tasks::new(Stop::default());
        let ports = listeners.ports;
        let outside = Outside {
            guard: &guard,
            mesh: &mesh,
            peers: &peers,
            state: &state,
        };
        let opened = open(&config, &ports, listeners.peers, topology, outside).await;
        let (broker, seat) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                for tasks in [peers, pages] {
                    tasks.stop().end();
                    tasks.join().await;
                }
                return Err(error);
            }
        };
        metrics.watch(&broker);

        let clients = Tasks::new(Stop::default());
        let context = Context {
            broker: broker.clone(),
            forward: Forward::new(&broker),
            tasks: clients.clone(),
        };
        let (health, answers) = health_reporter();
        let router = listeners::clients(&context, answers)?;
        serve(&clients, "client listener", router, ports.clients);
        let router = listeners::control(&context, &guard, seat.as_ref());
        serve(&clients, "control listener", router, ports.control);

        let running = Running {
            addresses,
            broker,
            state,
            health,
            drain_timeout: config.drain_timeout,
            clients,
            mesh,
            peers,
            pages,
        };
        if seat.is_none() || running.has_catalogue().await {
            running.ready(config.ready_file.as_deref()).await?;
        }
        Ok(running)
    }
}

impl Running {
    /// Where it listens; ports that were 0 are those taken.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits until the node cannot go on, and says why; never resolves otherwise. Cancel-safe.
    pub async fn failed(&self) -> String {
        let reason = tokio::select! {
            failure = self.broker.failed() => failure.to_string(),
            reason = self.clients.failed() => reason,
            reason = self.peers.failed() => reason,
            reason = self.pages.failed() => reason,
        };
        self.state.set(State::Failed(reason.clone()));
        reason
    }

    /// Drains and ends the node. Nothing acknowledged is lost, however long clients take.
    pub async fn stop(self) {
        info!("draining");
        self.state.set(State::Draining);
        set_health(&self.health, ServingStatus::NotServing).await;
        self.clients.stop().drain();
        self.broker.begin_drain();
        if timeout(self.drain_timeout, self.clients.join())
            .await
            .is_err()
        {
            warn!(
                drain_timeout_seconds = self.drain_timeout.as_secs(),
                "clients did not finish in time; their streams are ended"
            );
        }
        self.clients.stop().end();
        // Whoever does not even take a last frame is left to the end of the process.
        let _left = timeout(END_WITHIN, self.clients.join()).await;
        self.broker.drain().await;
        self.peers.stop().end();
        self.mesh.close().await;
        let _left = timeout(END_WITHIN, self.peers.join()).await;
        self.pages.stop().end();
        let _left = timeout(END_WITHIN, self.pages.join()).await;
        info!("stopped");
    }

    /// Waits until this node knows what is declared and where: without that, it could only turn
    /// everybody away. False when the node fails before that, which `failed` tells of.
    async fn has_catalogue(&self) -> bool {
        let mut views = self.broker.catalogue();
        let is_known = |view: &Arc<CatalogueView>| view.roster().is_founded();
        if is_known(&views.borrow()) {
            return true;
        }
        let reason = "waits for the catalogue: this node has no copy of it yet";
        self.state.set(State::Waiting(reason.to_owned()));
        info!("{reason}");
        tokio::select! {
            biased;
            _reason = self.failed() => false,
            // The sender lives as long as the broker.
            known = async { views.wait_for(is_known).await.is_ok() } => known,
        }
    }

    async fn ready(&self, ready_file: Option<&Path>) -> Result<(), StartError> {
        set_health(&self.health, ServingStatus::Serving).await;
        self.state.set(State::Serving);
        let Addresses {
            clients,
            control,
            metrics,
            peers,
        } = self.addresses;
        info!(%clients, %control, %metrics, ?peers, "ready");
        match ready_file {
            Some(path) => write_ready(path, self.addresses),
            None => Ok(()),
        }
    }
}

/// The guard of the control and peer ports; without a token only loopback will do.
fn guard(config: &Config) -> Result<Guard, StartError> {
    match &config.control_token_file {
        Some(path) => Ok(Guard::Token(TokenFile::open(path.clone())?)),
        None if config.control_listen.ip().is_loopback() => Ok(Guard::Open),
        None => Err(StartError::ControlOpen {
            address: config.control_listen,
        }),
    }
}

struct Listeners {
    ports: Ports,
    metrics: TcpListener,
    peers: Option<TcpListener>,
    addresses: Addresses,
}

/// Listeners that serve one thing while the node waits for a cluster, and another one later.
struct Ports {
    clients: TcpListener,
    control: TcpListener,
}

/// What is there before the broker.
#[derive(Clone, Copy)]
struct Outside<'a> {
    guard: &'a Arc<Guard>,
    mesh: &'a Mesh,
    peers: &'a Tasks,
    state: &'a StateCell,
}

impl Listeners {
    /// Binds all or none: a port in use is found out before the data directory is touched.
    async fn bind(config: &Config) -> Result<Self, StartError> {
        let (clients, for_clients) = bind(config.listen, "clients").await?;
        let (control, for_control) = bind(config.control_listen, "control").await?;
        let (metrics, for_metrics) = bind(config.metrics_listen, "metrics").await?;
        let peers = match &config.peering {
            Some(peering) => Some(bind(peering.listen, "peers").await?),
            None => None,
        };
        let (peers, for_peers) = peers.unzip();
        Ok(Self {
            ports: Ports { clients, control },
            metrics,
            peers,
            addresses: Addresses {
                clients: for_clients,
                control: for_control,
                metrics: for_metrics,
                peers: for_peers,
            },
        })
    }
}

async fn bind(
    address: SocketAddr,
    purpose: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let fail = |source| StartError::Listen {
        address,
        purpose,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    Ok((listener, bound))
}

/// Lets the node belong to a cluster, starts it, connects it with others, and brings the topology
/// to what the file says.
async fn open(
    config: &Config,
    ports: &Ports,
    peers: Option<TcpListener>,
    topology: Option<TopologyFile>,
    outside: Outside<'_>,
) -> Result<(Broker, Option<Seat>), StartError> {
    let mut options = node_options(config);
    let seat = match config.peering.as_ref().zip(peers) {
        None => None,
        Some((peering, peers)) => {
            let seat = enter::seat(config, peering, ports, &peers).await?;
            serve_peers(outside, &seat, peers);
            enter::enter(&seat, ports, outside).await?;
            Some(seat)
        }
    };
    if let Some(seat) = &seat {
        options.advertised = seat.settings().advertised();
        // Others have said so, or did when it was founded.
        let shards = seat.cluster().map(|cluster| cluster.shards);
        options.shards = shards.unwrap_or(options.shards);
    }
    outside.state.set(State::Starting);
    let broker = start(options, outside.mesh).await?;
    if let Some(seat) = &seat {
        enter::run(seat, &broker, outside).await;
    }
    match topology {
        None => {}
        // Somebody has to lead first, which may take others.
        Some(topology) if seat.is_some() => {
            let stop = outside.peers.stop().clone();
            let applying = topology.apply_in_time(broker.clone(), stop);
            outside.peers.spawn(Kind::Stream, "topology file", applying);
        }
        Some(topology) => {
            if let Err(error) = topology.apply(&broker).await {
                broker.drain().await;
                return Err(error.into());
            }
        }
    }
    Ok((broker, seat))
}

async fn start(options: NodeOptions, mesh: &Mesh) -> Result<Broker, StartError> {
    let network = Arc::new(mesh.clone());
    let starting = move || Broker::start_among(network, options);
    let started = tokio::task::spawn_blocking(starting).await;
    let started = started.map_err(|error| {
        StartError::Internal(format!(
            "the broker's start did not come to an end: {error}"
        ))
    })?;
    Ok(started?)
}

/// Room for several batches, so that a file is not used up by each.
const JOURNAL_FILE_BYTES_MIN: u64 = 1 << 20;

fn node_options(config: &Config) -> NodeOptions {
    let mut options = NodeOptions::new(&config.data_dir);
    options.cluster_id.clone_from(&config.cluster_id);
    options.shards = config.shards;
    options.memory_bytes_max = config
        .memory_limit
        .unwrap_or_else(crate::memory::limit_default);
    if let Some(workers) = config.workers {
        options.workers = workers;
    }
    if let Some(bytes) = config.journal_file_size {
        options.journal.file_bytes = bytes.max(JOURNAL_FILE_BYTES_MIN);
        options.checkpoint_journal_bytes = options.journal.file_bytes;
    }
    options
}

fn serve(tasks: &Tasks, name: &'static str, router: Router, listener: TcpListener) {
    let stop = tasks.stop().clone();
    let draining = async move { stop.draining().await };
    let connections = Connections::new(listener);
    let serving = router.serve_with_incoming_shutdown(connections, draining);
    tasks.spawn(Kind::Vital, name, serving);
}

/// Takes what other nodes say until the end, not only until the drain: what is under way needs
/// them.
fn serve_peers(outside: Outside<'_>, seat: &Seat, listener: TcpListener) {
    let stop = outside.peers.stop().clone();
    let ended = async move { stop.ended().await };
    let connections = Connections::with_places(listener, millrace_peers::CONNECTIONS_MAX);
    let router = listeners::peers(outside.mesh, seat, outside.guard);
    let serving = router.serve_with_incoming_shutdown(connections, ended);
    let tasks = outside.peers;
    tasks.spawn(Kind::Vital, "peer listener", serving);
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for service in [
        // The server as a whole.
        "",
        v1::publisher_server::SERVICE_NAME,
        v1::consumer_server::SERVICE_NAME,
        v1::stream_reader_server::SERVICE_NAME,
        v1::admin_server::SERVICE_NAME,
        v1::routing_server::SERVICE_NAME,
    ] {
        health.set_service_status(service, status).await;
    }
}

/// Writes the addresses beside the file and renames: whoever sees the file sees all of it.
fn write_ready(path: &Path, addresses: Addresses) -> Result<(), StartError> {
    let fail = |source| StartError::ReadyFile {
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_vec(&addresses).map_err(|error| fail(error.into()))?;
    let draft = path.with_extension("tmp");
    std::fs::write(&draft, text).map_err(fail)?;
    std::fs::rename(&draft, path).map_err(fail)
}
