//! Who this node is, and how others come to belong to its cluster.

use millrace_engine::catalogue::{CatalogueCommand, RosterCommand};
use millrace_storage::Cluster;
use millrace_types::{ErrorCode, NodeId, Refusal, ReplicaId, ShardId};

pub use millrace_engine::catalogue::{NodeFacts, Registration};

use super::Broker;

/// A node that was registered but has no replica yet gets one with the planner's next turn.
const PLACED_WITHIN_MS: u64 = 200;

/// What a node is told that belongs to the cluster from now on.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The cluster.
    pub cluster: Cluster,
    /// The node's replica of the metadata shard.
    pub metadata: ReplicaId,
    /// All nodes that are known, the new one among them.
    pub nodes: Vec<(NodeId, NodeFacts)>,
}

impl Broker {
    /// This node's id.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.node.data_dir.node()
    }

    /// The cluster that it belongs to.
    ///
    /// # Errors
    /// Never: a node does not run without one.
    pub fn cluster(&self) -> Result<Cluster, Refusal> {
        let none = || Refusal::new(ErrorCode::Internal, "this node belongs to no cluster");
        self.node.data_dir.cluster().ok_or_else(none)
    }

    /// Writes down what a node says of itself, wherever the catalogue is led. A new node belongs to
    /// the cluster when this is answered: until it has a replica of the metadata shard, it is
    /// refused and should ask again.
    ///
    /// # Errors
    /// `NOT_LEADER`, `SHARD_UNAVAILABLE`: later; what the catalogue says against it.
    pub async fn register(&self, registration: Registration) -> Result<Registered, Refusal> {
        let cluster = self.cluster()?;
        if !self.node.view.borrow().roster().is_founded() {
            // Each attempt would be an entry of the log.
            let message = "the cluster is being founded";
            let refusal = Refusal::new(ErrorCode::ShardUnavailable, message);
            return Err(refusal.retry_after_millis(PLACED_WITHIN_MS));
        }
        let node = registration.node;
        let command = RosterCommand::RegisterNode(registration);
        let command = CatalogueCommand::Roster(Box::new(command));
        self.node.order_catalogue(command).await?;
        // As this node knows it, which may be a moment later than the leader.
        let view = self.node.view.borrow().clone();
        let roster = view.roster();
        let Some(metadata) = roster.wanted(ShardId::METADATA, node) else {
            let message = format!("node {node} is registered and gets a place in a moment");
            let refusal = Refusal::new(ErrorCode::ShardUnavailable, message);
            return Err(refusal.retry_after_millis(PLACED_WITHIN_MS));
        };
        let nodes = roster.nodes().map(|(id, node)| (id, node.facts.clone()));
        let nodes = nodes.collect();
        Ok(Registered {
            cluster,
            metadata,
            nodes,
        })
    }
}
