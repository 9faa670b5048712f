//! The first part of a node's life when there are others: until its data directory belongs to a
//! cluster, it says who it is on the peer and control ports, refuses clients, and waits.
//!
//! Listens on copies of the ports, so that whoever connects while the node starts waits for it.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use millrace_node::Broker;
use millrace_storage::{DataDir, Disk, Expect, RealDisk};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tonic_health::ServingStatus;
use tonic_health::server::health_reporter;
use tracing::info;

use super::{END_WITHIN, Outside, Ports, serve, set_health};
use crate::config::{Config, Peering};
use crate::founding;
use crate::founding::asking::Asking;
use crate::founding::seat::Seat;
use crate::founding::settings::{Listening, Settings};
use crate::listeners;
use crate::start_error::StartError;
use crate::tasks::{Kind, Stop, Tasks};

/// The node's place, before it has one: opens the data directory, and mints the node's id there at
/// the first start.
pub(super) async fn seat(
    config: &Config,
    peering: &Peering,
    ports: &Ports,
    peers: &TcpListener,
) -> Result<Seat, StartError> {
    let address = |listener: &TcpListener| {
        let address = listener.local_addr();
        address.map_err(|error| StartError::Internal(format!("a listener has no address: {error}")))
    };
    let listening = Listening {
        peers: address(peers)?,
        clients: address(&ports.clients)?,
    };
    let settings = Settings::new(config, peering, listening)?;
    Ok(Seat::new(open(config).await?, settings))
}

/// Returns when the node belongs to a cluster; its directory is nobody's then.
pub(super) async fn enter(
    seat: &Seat,
    ports: &Ports,
    outside: Outside<'_>,
) -> Result<(), StartError> {
    if seat.cluster().is_none() {
        let (guard, tasks) = (outside.guard, Tasks::new(Stop::default()));
        let (health, answers) = health_reporter();
        set_health(&health, ServingStatus::NotServing).await;
        let router = listeners::waiting_clients(answers);
        serve(&tasks, "client listener", router, copy(&ports.clients)?);
        let router = listeners::waiting_control(seat, guard);
        serve(&tasks, "control listener", router, copy(&ports.control)?);

        let (node, peers) = (seat.node(), &seat.settings().facts.peer_address);
        info!(%node, peers, "belongs to no cluster yet");
        founding::settle(seat, &Asking::new(Arc::clone(guard)), outside.state).await;
        tasks.stop().drain();
        // Whoever keeps a connection open is left to it: nothing is served there any more.
        let _left = timeout(END_WITHIN, tasks.join()).await;
    }
    seat.leave().await;
    Ok(())
}

/// The broker runs: connects it with the others.
pub(super) async fn run(seat: &Seat, broker: &Broker, outside: Outside<'_>) {
    let Outside { mesh, peers, .. } = outside;
    seat.run(broker.clone()).await;
    if let Some(cluster) = seat.cluster() {
        mesh.open(broker, &cluster.id);
    }
    let following = mesh.clone().follow(broker.clone(), peers.stop().clone());
    peers.spawn(Kind::Vital, "peers' addresses", following);
    let asking = Asking::new(Arc::clone(outside.guard));
    let (to, stop) = (mesh.clone(), peers.stop().clone());
    let looking = founding::look_around(seat.clone(), broker.clone(), asking, to, stop);
    peers.spawn(Kind::Vital, "looking for peers", looking);
}

async fn open(config: &Config) -> Result<DataDir, StartError> {
    let (path, cluster_id) = (config.data_dir.clone(), config.cluster_id.clone());
    let open = move || {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let random = Arc::new(|| getrandom::u64().map_err(std::io::Error::from));
        let dir = DataDir::open(disk, &path, random)?;
        dir.check(Expect {
            cluster_id: cluster_id.as_deref(),
            shards: dir.data_shards(),
        })?;
        Ok::<_, millrace_storage::OpenError>(dir)
    };
    let opened = tokio::task::spawn_blocking(open).await;
    let opened = opened.map_err(|error| {
        StartError::Internal(format!("the data directory was not opened: {error}"))
    })?;
    Ok(opened.map_err(millrace_node::StartError::from)?)
}

/// Another handle to the same socket.
fn copy(listener: &TcpListener) -> Result<TcpListener, StartError> {
    let copied = listener.as_fd().try_clone_to_owned();
    let copied = copied.map(std::net::TcpListener::from);
    copied
        .and_then(TcpListener::from_std)
        .map_err(|error| StartError::Internal(format!("a listener cannot be copied: {error}")))
}
