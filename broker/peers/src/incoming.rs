//! The streams that peers have opened, one for each node and lane.
//!
//! Decides who is heard when two speak for the same: the later one, since a node that dials again
//! has given up its earlier stream, whatever the network still thinks of it. The earlier one is
//! told, so that two nodes with one id both find out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use millrace_replica::Lane;
use millrace_types::NodeId;
use tokio_util::sync::CancellationToken;

use crate::error::{Reason, Refusal};
use crate::handshake::Agreed;
use crate::limits::SESSIONS_MAX;
use crate::status::{IncomingStatus, OpenStream};

type Key = (NodeId, Lane);

/// All of them, and what is known of those that ended.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    places: Mutex<BTreeMap<Key, Place>>,
}

#[derive(Debug, Default)]
struct Place {
    live: Option<Live>,
    arrived: Arc<Arrived>,
    refusal: Option<Refusal>,
    superseded: u64,
}

#[derive(Debug)]
struct Live {
    open: OpenStream,
    ending: Arc<Ending>,
}

/// What came in at one place.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    messages: AtomicU64,
    bytes: AtomicU64,
    skipped: AtomicU64,
}

/// How a stream is told to end, and how it tells that it has.
#[derive(Debug, Default)]
struct Ending {
    asked: CancellationToken,
    why: OnceLock<Refusal>,
    left: CancellationToken,
}

/// The right to be heard as a node in a lane; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    incoming: &'a Incoming,
    key: Key,
    ending: Arc<Ending>,
    pub(crate) arrived: Arc<Arrived>,
}

impl Incoming {
    /// Takes the place of a node in a lane. When this returns nobody else is heard there.
    pub(crate) async fn claim(&self, agreed: Agreed, from: Option<SocketAddr>) -> Claim<'_> {
        let key = (agreed.node, agreed.lane);
        let ending = Arc::new(Ending::default());
        let open = OpenStream {
            from,
            since: SystemTime::now(),
            agreed,
        };
        let (before, arrived) = self.enter(key, open, &ending);
        let claim = Claim {
            incoming: self,
            key,
            ending,
            arrived,
        };
        if let Some(before) = before {
            before.left.cancelled().await;
        }
        claim
    }

    /// Puts the newcomer in its place and asks whoever is there to leave.
    fn enter(
        &self,
        key: Key,
        open: OpenStream,
        ending: &Arc<Ending>,
    ) -> (Option<Arc<Ending>>, Arc<Arrived>) {
        let from = open.from;
        let mut places = self.lock();
        let place = places.entry(key).or_default();
        let live = Live {
            open,
            ending: Arc::clone(ending),
        };
        let before = place.live.replace(live).map(|before| {
            let text = superseded(key, before.open.from, from);
            let refusal = Refusal::new(Reason::Superseded, text);
            place.superseded += 1;
            place.refusal = Some(refusal.clone());
            before.ending.end(refusal);
            before.ending
        });
        let arrived = Arc::clone(&place.arrived);
        prune(&mut places);
        (before, arrived)
    }

    /// Ends what a node has opened.
    pub(crate) fn end(&self, node: NodeId, refusal: &Refusal) {
        let places = self.lock();
        let of_node = places.range((node, Lane::Votes)..=(node, Lane::Snapshots));
        for live in of_node.filter_map(|(_, place)| place.live.as_ref()) {
            live.ending.end(refusal.clone());
        }
    }

    /// Keeps for the status why a node was refused.
    pub(crate) fn refused(&self, node: NodeId, lane: Lane, refusal: &Refusal) {
        let mut places = self.lock();
        places.entry((node, lane)).or_default().refusal = Some(refusal.clone());
        prune(&mut places);
    }

    /// Nodes that were heard of, in order.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.lock().keys().map(|(node, _)| *node).collect();
        nodes.dedup();
        nodes
    }

    pub(crate) fn status(&self, node: NodeId, lane: Lane) -> IncomingStatus {
        let places = self.lock();
        let Some(place) = places.get(&(node, lane)) else {
            return IncomingStatus::default();
        };
        IncomingStatus {
            open: place.live.as_ref().map(|live| live.open.clone()),
            refusal: place.refusal.clone(),
            superseded: place.superseded,
            received_messages: place.arrived.messages.load(Ordering::Relaxed),
            received_bytes: place.arrived.bytes.load(Ordering::Relaxed),
            skipped_messages: place.arrived.skipped.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Place>> {
        // A place is whole after each statement.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets places that nobody holds once there are more than can be held: node ids are the callers'
/// to choose.
fn prune(places: &mut BTreeMap<Key, Place>) {
    if places.len() > 2 * SESSIONS_MAX {
        places.retain(|_, place| place.live.is_some());
    }
}

fn superseded(key: Key, old: Option<SocketAddr>, new: Option<SocketAddr>) -> String {
    let (node, lane) = key;
    let at = |address: Option<SocketAddr>| {
        address.map_or_else(|| "an unknown address".to_owned(), |at| at.to_string())
    };
    let (old, new) = (at(old), at(new));
    format!("node {node} opened lane {lane} from {new}, which ends its stream from {old}")
}

impl Arrived {
    pub(crate) fn frame(&self, messages: usize, bytes: usize) {
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn skipped(&self, messages: usize) {
        self.skipped.fetch_add(messages as u64, Ordering::Relaxed);
    }
}

impl Ending {
    fn end(&self, refusal: Refusal) {
        // The first reason stays.
        let _first = self.why.set(refusal);
        self.asked.cancel();
    }
}

impl Claim<'_> {
    /// Waits until somebody else has taken the place. Cancel-safe.
    pub(crate) async fn ended(&self) -> Refusal {
        self.ending.asked.cancelled().await;
        let why = self.ending.why.get().cloned();
        why.unwrap_or_else(|| Refusal::new(Reason::Closing, "the stream was ended"))
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut places = self.incoming.lock();
        if let Some(place) = places.get_mut(&self.key) {
            let is_ours = |live: &mut Live| Arc::ptr_eq(&live.ending, &self.ending);
            place.live.take_if(is_ours);
        }
        drop(places);
        self.ending.left.cancel();
    }
}
