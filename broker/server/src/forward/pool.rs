//! Connections to the client ports of other nodes: a few for each, made when they are needed, kept,
//! and made anew when a node has moved.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_node::Peer;
use millrace_types::{ErrorCode, NodeId, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::{Channel, Endpoint};

/// Connections to one node, among which calls are spread: one of them loses a frame or is full
/// without holding up the others.
const CONNECTIONS: usize = 4;
/// Calls under way to one node: what its connections take at once, with some to spare, so that none
/// waits unseen for another to end.
const CALLS_MAX: usize = 3_600;
/// A node that is there accepts at once; who asks has a leader's change to wait for, too.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// As the server's own: what one stream may have on the way.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Many streams whose clients have stalled must not hold up the others: each stalls with a window.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// A quiet connection is asked for a sign of life this often,
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(2);
/// and given up when none comes within this: a node that is cut off must not hold calls for long.
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(4);

/// Connections to all nodes.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<BTreeMap<NodeId, Entry>>);

#[derive(Debug)]
struct Entry {
    client: Arc<str>,
    channels: Vec<Channel>,
    calls: Arc<Semaphore>,
    next: AtomicUsize,
}

/// A connection, and the right to one call on it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) channel: Channel,
    pub(super) permit: OwnedSemaphorePermit,
}

impl Pool {
    /// The way to a node. Connects nothing yet.
    ///
    /// # Errors
    /// `OVERLOADED` when too many calls are under way to it, `NOT_LEADER` when its address is none.
    pub(super) fn line(&self, peer: &Peer) -> Result<Line, Refusal> {
        // Nothing panics while holding it.
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = entries.get(&peer.node);
        if known.is_none_or(|entry| entry.client != peer.client) {
            entries.insert(peer.node, Entry::new(peer)?);
        }
        let Some(entry) = entries.get(&peer.node) else {
            return Err(Refusal::new(ErrorCode::Internal, "a connection vanished"));
        };
        let permit = Arc::clone(&entry.calls).try_acquire_owned();
        let permit = permit.map_err(|_| {
            let text = format!("{CALLS_MAX} calls are under way to node {}", peer.node);
            Refusal::new(ErrorCode::Overloaded, text)
                .with("limit", CALLS_MAX.to_string())
                .retry_after_millis(RETRY_AFTER_MS)
        })?;
        let turn = entry.next.fetch_add(1, Ordering::Relaxed) % entry.channels.len().max(1);
        match entry.channels.get(turn) {
            Some(channel) => Ok(Line {
                channel: channel.clone(),
                permit,
            }),
            None => Err(Refusal::new(ErrorCode::Internal, "no connection")),
        }
    }
}

/// Calls end, mostly, in less.
const RETRY_AFTER_MS: u64 = 100;

impl Entry {
    fn new(peer: &Peer) -> Result<Self, Refusal> {
        let url = format!("http://{}", peer.client);
        let endpoint = Endpoint::from_shared(url).map_err(|_| {
            let text = format!("node {} has no address: {:?}", peer.node, peer.client);
            Refusal::new(ErrorCode::NotLeader, text).retry_after_millis(RETRY_AFTER_MS)
        })?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
            .keep_alive_timeout(KEEP_ALIVE_WITHIN)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        Ok(Self {
            client: Arc::clone(&peer.client),
            channels: (0..CONNECTIONS).map(|_| endpoint.connect_lazy()).collect(),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            next: AtomicUsize::new(0),
        })
    }
}
