//! How a node that belongs to nobody comes to belong to a cluster: asks, decides (`plan`), acts,
//! and again, until its disk says so. `docs/decisions/2026-11-21-founding.md`.
//!
//! Promises: every step can be taken again, by this node or another one, whoever dies in between.

pub(crate) mod asking;
pub(crate) mod plan;
pub(crate) mod seat;
pub(crate) mod service;
pub(crate) mod settings;

use std::convert::Infallible;
use std::time::Duration;

use millrace_node::{Broker, Registration};
use millrace_types::{Founder, Founding};
use tokio::time::sleep;
use tracing::info;

use self::asking::Asking;
use self::plan::{Answer, Next, Own, PeerState};
use self::seat::Seat;
use crate::mesh::Mesh;
use crate::state::{State, StateCell};
use crate::tasks::Stop;

/// Between two rounds: a pod that has come up is found at once as people see it, and asking costs
/// next to nothing.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Between two rounds of a node that looks for the others again.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(1);

/// Finds the others again where it was told to look, as long as the catalogue does not say where
/// they are: those that the record has may have moved since, or be gone.
pub(crate) async fn look_around(
    seat: Seat,
    broker: Broker,
    asking: Asking,
    mesh: Mesh,
    stop: Stop,
) -> Result<(), Infallible> {
    let ours = seat.cluster().map(|cluster| cluster.id);
    let is_ours = |state: &PeerState| match state {
        PeerState::Member { cluster_id, .. } => Some(cluster_id) == ours.as_ref(),
        PeerState::Empty { .. } | PeerState::Joining => false,
    };
    while !broker.catalogue().borrow().roster().is_founded() {
        let answers = tokio::select! {
            biased;
            () = stop.ended() => return Ok(()),
            answers = asking.identify(&seat.settings().way) => answers,
        };
        let found = answers.into_values().filter_map(|answer| match answer {
            Answer::Peer(peer) if is_ours(&peer.state) => Some((peer.node, peer.address)),
            Answer::Peer(_) | Answer::Silence(_) => None,
        });
        mesh.reach(&found.collect::<Vec<_>>());
        tokio::select! {
            biased;
            () = stop.ended() => return Ok(()),
            () = sleep(LOOK_AROUND_EVERY) => {}
        }
    }
    Ok(())
}

/// Waits until the node belongs to a cluster, and does what it can to make it so. Cancel-safe.
pub(crate) async fn settle(seat: &Seat, asking: &Asking, state: &StateCell) {
    let own = Own {
        node: seat.node(),
        way: seat.settings().way.clone(),
        terms: seat.settings().terms.clone(),
    };
    let mut told = String::new();
    while seat.cluster().is_none() {
        let answers = asking.identify(&own.way).await;
        if seat.cluster().is_some() {
            // Somebody else's record came meanwhile.
            break;
        }
        let done = match plan::next(&own, &answers) {
            Next::Wait(reason) => Err(reason.to_string()),
            Next::Take(record) => take(seat, record).await,
            Next::Bootstrap(record) => bootstrap(seat, asking, record).await,
            Next::Join {
                addresses,
                founding,
            } => join(seat, asking, addresses, &founding).await,
        };
        let Err(why) = done else {
            break;
        };
        if why != told {
            info!(node = %own.node, "{why}");
            told.clone_from(&why);
        }
        state.set(State::Waiting(why));
        tokio::select! {
            biased;
            () = seat.belongs() => {}
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

async fn take(seat: &Seat, record: Founding) -> Result<(), String> {
    let cluster = record.cluster_id().to_owned();
    let taken = seat.found(record).await;
    taken.map_err(|refusal| format!("waits to be founded: {}", refusal.message))?;
    info!(%cluster, "is one of the founders");
    Ok(())
}

/// Sends the record to all founders, one after the other, itself among them. All who make a record
/// begin with the same node, so that the first one decides which it is.
async fn bootstrap(seat: &Seat, asking: &Asking, record: Founding) -> Result<(), String> {
    let mut founders: Vec<&Founder> = record.founders().iter().collect();
    founders.sort_by(|one, other| one.peer.cmp(&other.peer));
    for founder in founders {
        let address = &founder.peer;
        if founder.node == seat.node() {
            take(seat, record.clone()).await?;
            continue;
        }
        let sent = asking.bootstrap(address, &record).await;
        sent.map_err(|why| format!("waits to be founded: {address}: {why}"))?;
    }
    Ok(())
}

async fn join(
    seat: &Seat,
    asking: &Asking,
    addresses: Vec<String>,
    founding: &Founding,
) -> Result<(), String> {
    let registration = Registration {
        node: seat.node(),
        facts: seat.settings().facts.clone(),
        lost: Vec::new(),
    };
    let id = founding.cluster_id();
    let mut whys = Vec::new();
    for address in addresses {
        let registered = asking.register(&address, registration.clone(), id).await;
        match registered {
            Ok((mut cluster, metadata)) => {
                cluster.founding.get_or_insert_with(|| founding.clone());
                let joined = seat.join(cluster, metadata).await;
                joined.map_err(|refusal| format!("waits to join: {}", refusal.message))?;
                info!(cluster = id, "has joined");
                return Ok(());
            }
            Err(why) => whys.push(format!("{address}: {why}")),
        }
    }
    Err(format!("waits to join cluster {id}: {}", whys.join("; ")))
}
