//! The handle that services work with. Cheap to clone. Starting and stopping are here; what clients
//! ask for is in the files below.

mod consume;
mod find;
mod inspect;
mod membership;
mod nodes;
mod peers;
mod publish;
mod read;
mod route;
mod topology;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use millrace_storage::{CountedDisk, Disk, RealDisk, ScrubberHandle};
use millrace_types::{Address, ErrorCode, Refusal};
use tokio::sync::{OnceCell, watch};

use super::facts::Admission;
use super::host::{self, Host, Join, SystemHost};
use super::input::Input;
use super::network::{Alone, Network};
use super::node::{Node, Phase};
use super::options::{
    IN_FLIGHT_BYTES_MAX, IN_FLIGHT_ENTRIES_MAX, NodeOptions, RETRY_AFTER_MS, StartError,
};
use super::reply::Reply;
use super::start;
use super::view::CatalogueView;

pub use membership::{NodeFacts, Registered, Registration};
pub use nodes::NodeState;
pub use publish::PublishFuture;
pub use route::{Map, MapChanges, Peer, Route};
pub use topology::TopologyDelta;

/// A running node. Dropping the last handle without `drain` ends the threads as a
/// kill would, and waits for them.
#[derive(Clone)]
pub struct Broker {
    pub(super) node: Arc<Node>,
    running: Arc<Running>,
}

/// The node's routines; they end with the last handle at the latest.
struct Running {
    node: Arc<Node>,
    workers: Mutex<Vec<Box<dyn Join>>>,
    disk: Mutex<Vec<Box<dyn Join>>>,
    scrubber: ScrubberHandle,
    drained: OnceCell<()>,
}

impl Running {
    /// Ends the routines and waits for them, if the host can. Does nothing the second time.
    fn stop(&self) {
        let (workers, disk) = (take(&self.workers), take(&self.disk));
        if workers.is_empty() {
            return;
        }
        self.node.pumps.cancel();
        self.node
            .inboxes
            .iter()
            .for_each(|inbox| inbox.send(Input::Stop));
        wait_for(workers);
        self.node.journal.drain();
        self.node.checkpointer.stop();
        self.scrubber.stop();
        wait_for(disk);
    }
}

fn take(routines: &Mutex<Vec<Box<dyn Join>>>) -> Vec<Box<dyn Join>> {
    std::mem::take(&mut *routines.lock().unwrap_or_else(PoisonError::into_inner))
}

fn wait_for(routines: Vec<Box<dyn Join>>) {
    for routine in routines {
        if !routine.join() {
            tracing::error!("a routine of the node panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Why the node stopped by itself; the process must end with exit code 70.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

impl Broker {
    /// Opens the data directory, replays it and starts the threads. Blocks on the disk; must be
    /// called inside a tokio runtime, whose blocking pool it uses for reads. A damaged shard does
    /// not keep the others from serving.
    ///
    /// # Errors
    /// When the directory is another cluster's, in use, damaged beyond one shard, of a newer
    /// version; when a thread cannot be started.
    pub fn start(options: NodeOptions) -> Result<Self, StartError> {
        Self::start_among(Arc::new(Alone), options)
    }

    /// The same, with a way to other nodes.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_among(
        network: Arc<dyn Network>,
        options: NodeOptions,
    ) -> Result<Self, StartError> {
        let disk = Arc::new(CountedDisk::new(RealDisk));
        Self::start_on(disk, Arc::new(SystemHost::current()), network, options)
    }

    /// The same, on a disk that may be a model or fail on purpose, on a host that may be simulated,
    /// and with a way to other nodes.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_on(
        disk: Arc<dyn Disk>,
        host: Arc<dyn Host>,
        network: Arc<dyn Network>,
        options: NodeOptions,
    ) -> Result<Self, StartError> {
        let started = start::start(disk, host, network, options)?;
        let running = Running {
            node: Arc::clone(&started.node),
            workers: Mutex::new(started.workers),
            disk: Mutex::new(started.disk),
            scrubber: started.scrubber,
            drained: OnceCell::new(),
        };
        let running = Arc::new(running);
        Ok(Self {
            node: started.node,
            running,
        })
    }

    /// The catalogue, and a way to wait for its next change.
    #[must_use]
    pub fn catalogue(&self) -> watch::Receiver<Arc<CatalogueView>> {
        self.node.view.subscribe()
    }

    /// How much publishers may have under way in one shard before they are refused.
    #[must_use]
    pub const fn admission(&self) -> Admission {
        Admission {
            messages_max: IN_FLIGHT_ENTRIES_MAX,
            bytes_max: IN_FLIGHT_BYTES_MAX,
        }
    }

    /// Has a checkpoint made of each shard that has anything new, but for those of which one is
    /// being made. Does not wait: `stats` says what checkpoints cover.
    pub fn checkpoint(&self) {
        self.tell_workers(|| Input::Checkpoint);
    }

    /// Refuses new work with `DRAINING` from now on and tells consumers; settling goes on.
    pub fn begin_drain(&self) {
        let begun = self.node.phase.send_if_modified(|phase| {
            let begin = *phase == Phase::Serving;
            if begin {
                *phase = Phase::Draining;
            }
            begin
        });
        if begun {
            self.tell_workers(|| Input::BeginDrain);
        }
    }

    /// Resolves when the node takes nothing new: it drains, or has failed.
    pub async fn draining(&self) {
        let mut phase = self.node.phase.subscribe();
        // The sender lives as long as this handle.
        phase.wait_for(|phase| *phase != Phase::Serving).await.ok();
    }

    /// Begins the drain if that has not happened, lets what is in flight finish, makes checkpoints
    /// and ends the threads. Afterwards everything is refused. Every call waits for the end.
    pub async fn drain(&self) {
        self.running.drained.get_or_init(|| self.drain_once()).await;
    }

    async fn drain_once(&self) {
        self.begin_drain();
        self.node.pumps.stop().await;
        self.node.snapshots.stop().await;
        let mut drained = Vec::new();
        for inbox in &self.node.inboxes {
            let (reply, pending) = Reply::channel();
            inbox.send(Input::Drain(reply));
            drained.push(pending);
        }
        for pending in drained {
            // A worker that has stopped already has nothing left to finish.
            pending.answer().await.ok();
        }
        self.stop().await;
    }

    /// Resolves when the node has failed: the disk could not be written. Never resolves otherwise.
    pub async fn failed(&self) -> Failure {
        let mut phase = self.node.phase.subscribe();
        loop {
            if let Phase::Failed(reason) = &*phase.borrow_and_update() {
                return Failure(reason.clone());
            }
            if phase.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops at once, as if the process were killed: nothing is finished, no checkpoint made.
    #[cfg(test)]
    pub(super) async fn abort(self) {
        self.node.pumps.stop().await;
        self.node.snapshots.stop().await;
        self.stop().await;
    }

    async fn stop(&self) {
        let running = Arc::clone(&self.running);
        let stopped = host::blocking(&self.node.host, move || running.stop()).await;
        if stopped.is_none() {
            tracing::error!("the node's threads could not be ended");
        }
        self.node.phase.send_if_modified(|phase| {
            let stop = !matches!(phase, Phase::Failed(_));
            if stop {
                *phase = Phase::Stopped;
            }
            stop
        });
    }

    fn tell_workers(&self, input: impl Fn() -> Input) {
        self.node
            .inboxes
            .iter()
            .for_each(|inbox| inbox.send(input()));
    }

    /// What is in the catalogue and unknown to its shard is being configured.
    fn unconfigured(&self, address: &Address, refusal: Refusal) -> Refusal {
        let unknown = matches!(
            refusal.code,
            ErrorCode::NoSuchQueue | ErrorCode::NoSuchTopic | ErrorCode::NoSuchPartition
        );
        if !unknown || self.node.view.borrow().lookup(address).is_none() {
            return refusal;
        }
        let message = format!("{address} was declared just now; its shard follows");
        Refusal::new(ErrorCode::ShardUnavailable, message)
            .with("address", address.to_string())
            .retry_after_millis(RETRY_AFTER_MS)
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("phase", &*self.node.phase.borrow())
            .finish_non_exhaustive()
    }
}
