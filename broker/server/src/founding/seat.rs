//! A node's place in its cluster, from before it has one: what it says of itself, and the one way
//! for a record to reach its disk. Cheap to clone.
//!
//! Promises: what it says it belongs to is on its disk; while it waits, nobody else has its data
//! directory, and nobody any more once `leave` has returned.

use std::sync::Arc;

use millrace_node::{Broker, Cluster, Registered, Registration};
use millrace_storage::{BelongError, DataDir};
use millrace_types::{ErrorCode, Founding, NodeId, Refusal, ReplicaId};
use tokio::sync::{Mutex, watch};

use super::settings::Settings;

/// A node that has just begun to run knows little: whoever asks comes back after this.
const RETRY_AFTER_MS: u64 = 500;

/// A node's place in its cluster.
#[derive(Clone)]
pub(crate) struct Seat(Arc<Inner>);

struct Inner {
    node: NodeId,
    settings: Settings,
    cluster: watch::Sender<Option<Cluster>>,
    stage: Arc<Mutex<Stage>>,
}

/// Who has the data directory.
enum Stage {
    /// This.
    Waits(DataDir),
    /// The broker, which starts.
    Starts,
    /// The broker.
    Runs(Broker),
}

impl Seat {
    /// Of a node that does not run yet.
    pub(crate) fn new(dir: DataDir, settings: Settings) -> Self {
        Self(Arc::new(Inner {
            node: dir.node(),
            settings,
            cluster: watch::Sender::new(dir.cluster()),
            stage: Arc::new(Mutex::new(Stage::Waits(dir))),
        }))
    }

    /// The node.
    pub(crate) fn node(&self) -> NodeId {
        self.0.node
    }

    /// What it was told.
    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The cluster it belongs to.
    pub(crate) fn cluster(&self) -> Option<Cluster> {
        self.0.cluster.borrow().clone()
    }

    /// Waits until it belongs to one. Cancel-safe.
    pub(crate) async fn belongs(&self) {
        let mut cluster = self.0.cluster.subscribe();
        // The sender lives as long as this.
        cluster.wait_for(Option::is_some).await.ok();
    }

    /// Takes a record; the same again is no error. What is answered is on disk.
    ///
    /// # Errors
    /// `WRONG_CLUSTER` when it belongs to one by another record, `INVALID_ARGUMENT` when it is not
    /// in this one, `SHARD_UNAVAILABLE` when the disk fails.
    pub(crate) async fn found(&self, founding: Founding) -> Result<Founding, Refusal> {
        let asked = founding.clone();
        let found = move |dir: &DataDir| dir.found(&asked);
        match self.write(found).await {
            Some(result) => result.map_err(|error| refusal(&error))?,
            None => self.is_founded_by(&founding)?,
        }
        let cluster = self.cluster();
        let recorded = cluster.and_then(|cluster| cluster.founding);
        Ok(recorded.unwrap_or(founding))
    }

    /// Joins a cluster.
    ///
    /// # Errors
    /// `WRONG_CLUSTER`, `SHARD_UNAVAILABLE`: as `found`.
    pub(crate) async fn join(&self, cluster: Cluster, metadata: ReplicaId) -> Result<(), Refusal> {
        let join = move |dir: &DataDir| dir.join(cluster, metadata);
        let joined = self.write(join).await;
        joined.map_or(Ok(()), |result| result.map_err(|error| refusal(&error)))
    }

    /// Changes the directory while it is this node's to change; `None` when it runs already.
    async fn write(
        &self,
        change: impl FnOnce(&DataDir) -> Result<(), BelongError> + Send + 'static,
    ) -> Option<Result<(), BelongError>> {
        let stage = Arc::clone(&self.0.stage).lock_owned().await;
        let this = self.clone();
        // Whoever asked may go away; the lock stays with the disk's work.
        let work = tokio::task::spawn_blocking(move || {
            let Stage::Waits(dir) = &*stage else {
                return None;
            };
            let result = change(dir);
            let cluster = dir.cluster();
            this.0.cluster.send_if_modified(|known| {
                let is_new = *known != cluster;
                *known = cluster;
                is_new
            });
            Some(result)
        });
        // It ends: it neither panics nor is it cancelled.
        work.await.ok().flatten()
    }

    /// Whether a node that runs was founded by this record.
    fn is_founded_by(&self, asked: &Founding) -> Result<(), Refusal> {
        let node = self.node();
        if !asked.is_founder(node) {
            return Err(refusal(&BelongError::NotFounder { node }));
        }
        let cluster = self.cluster();
        let known = cluster.as_ref().and_then(|it| it.founding.as_ref());
        if known.is_some_and(|known| known.is_same(asked)) {
            return Ok(());
        }
        let found = cluster.map(|cluster| cluster.id).unwrap_or_default();
        Err(refusal(&BelongError::Already { node, found }))
    }

    /// Lets go of the data directory, for the broker.
    pub(crate) async fn leave(&self) {
        *self.0.stage.lock().await = Stage::Starts;
    }

    /// The broker runs.
    pub(crate) async fn run(&self, broker: Broker) {
        *self.0.stage.lock().await = Stage::Runs(broker);
    }

    /// Has the cluster write down what a node says of itself.
    ///
    /// # Errors
    /// `WRONG_CLUSTER` when it means another one, `SHARD_UNAVAILABLE` when there is none here yet,
    /// what the cluster says.
    pub(crate) async fn register(
        &self,
        registration: Registration,
        cluster_id: &str,
    ) -> Result<Registered, Refusal> {
        let broker = match &*self.0.stage.lock().await {
            Stage::Runs(broker) => broker.clone(),
            Stage::Waits(_) | Stage::Starts => {
                let node = self.node();
                let message = format!("node {node} does not run yet");
                let refusal = Refusal::new(ErrorCode::ShardUnavailable, message);
                return Err(refusal.retry_after_millis(RETRY_AFTER_MS));
            }
        };
        let ours = self.cluster().map(|cluster| cluster.id).unwrap_or_default();
        if !cluster_id.is_empty() && cluster_id != ours {
            let message = format!("this is cluster {ours}, not {cluster_id}");
            return Err(Refusal::new(ErrorCode::WrongCluster, message));
        }
        broker.register(registration).await
    }
}

fn refusal(error: &BelongError) -> Refusal {
    let text = error.to_string();
    match error {
        BelongError::Disk(failure) => {
            let text = crate::report(failure);
            tracing::error!(
                error = text,
                "what the node belongs to cannot be written down"
            );
            Refusal::new(ErrorCode::ShardUnavailable, text).retry_after_millis(RETRY_AFTER_MS)
        }
        BelongError::Already { .. } => Refusal::new(ErrorCode::WrongCluster, text),
        BelongError::NotFounder { .. }
        | BelongError::Founder { .. }
        | BelongError::NoCluster { .. }
        | BelongError::NoShard { .. }
        | BelongError::NotMember { .. }
        | BelongError::Held { .. }
        | BelongError::Retired { .. } => Refusal::new(ErrorCode::InvalidArgument, text),
    }
}
