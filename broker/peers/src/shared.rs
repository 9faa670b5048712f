//! What the tasks of all streams have in common.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_types::NodeId;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::caller::Caller;
use crate::handshake::Identity;
use crate::inbound::{Credential, Inbound};
use crate::incoming::Incoming;
use crate::line::Line;
use crate::options::{QueueLimits, Timing};

/// Everything but the handle.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) queues: [QueueLimits; 3],
    pub(crate) timing: Timing,
    pub(crate) inbound: Arc<dyn Inbound>,
    pub(crate) credential: Arc<dyn Credential>,
    pub(crate) incoming: Incoming,
    /// Places for streams that come in.
    pub(crate) places: Arc<Semaphore>,
    /// Places for questions.
    pub(crate) questions: Arc<Semaphore>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) runtime: Handle,
    pub(crate) peers: Mutex<BTreeMap<NodeId, Peer>>,
}

/// A node that we dial.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: watch::Sender<String>,
    pub(crate) lines: [Arc<Line>; 3],
    /// For questions.
    pub(crate) caller: Arc<Caller>,
    /// Ends its dialers.
    pub(crate) stop: CancellationToken,
}

impl Shared {
    pub(crate) fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Peer>> {
        // A peer is put in and taken out whole.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
