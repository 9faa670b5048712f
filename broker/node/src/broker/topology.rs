//! What is declared: changing it, and telling how far that has come.

use std::time::Duration;

use millrace_engine::catalogue::{self, CatalogueCommand, Declared, Object, Removed, Topology};
use millrace_types::{Address, ErrorCode, Refusal};

use super::Broker;
use crate::facts::{Metadata, ObjectState, Problem};

/// A change of what is declared.
#[derive(Clone, Debug)]
pub struct TopologyDelta {
    /// Refused unless it is this cluster's; `None` is not checked.
    pub cluster_id: Option<String>,
    /// The revision it was made against.
    pub base_revision: u64,
    /// New and changed objects.
    pub upserts: Vec<Declared>,
    /// Objects whose resource is gone.
    pub removals: Vec<Removed>,
}

impl Broker {
    /// Changes what is declared: all of it, or nothing. Answers with the new revision once the
    /// metadata shard has it on disk; `metadata` tells when all shards have.
    ///
    /// # Errors
    /// `WRONG_CLUSTER`, `REVISION_CONFLICT`, `INVALID_ARGUMENT`, `SHARD_UNAVAILABLE`, `DRAINING`.
    pub async fn apply_topology(&self, delta: TopologyDelta) -> Result<u64, Refusal> {
        self.node.check_serving()?;
        let cluster = self.node.cluster_id();
        if let Some(expected) = delta.cluster_id.filter(|expected| *expected != cluster) {
            return Err(self.node.figures.refused(Refusal::new(
                ErrorCode::WrongCluster,
                format!("this is cluster {cluster}, not {expected}"),
            )));
        }
        catalogue::check_size(&delta.upserts, &delta.removals)
            .map_err(|refusal| self.node.figures.refused(refusal))?;
        let command = CatalogueCommand::ApplyTopology {
            base_revision: delta.base_revision,
            upserts: delta.upserts,
            removals: delta.removals,
        };
        let ordered = self.node.order_catalogue(command);
        self.node.in_time(Duration::ZERO, ordered).await
    }

    /// Who this cluster is and which topology it has.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE`; `NOT_LEADER` when this node has not got the catalogue yet.
    pub async fn metadata(&self) -> Result<Metadata, Refusal> {
        let (dir, view) = (&self.node.data_dir, self.node.first_view().await);
        let topology = view.topology()?;
        let object = |(address, object): (&Address, Object<'_>)| ObjectState {
            address: address.clone(),
            uid: object.uid.to_owned(),
            generation: object.generation,
            applied: topology.is_applied(address),
            orphaned: object.orphaned,
            problems: self.problems(topology, address, &object),
        };
        Ok(Metadata {
            cluster_id: self.node.cluster_id(),
            node_id: dir.node(),
            shards: self.node.data_shards(),
            revision: topology.revision(),
            applied_revision: topology.applied_revision(),
            digest: view.digest(),
            objects: topology.iter().map(object).collect(),
        })
    }

    /// What keeps an object from working as declared. The catalogue does not know all of it: pumps
    /// that do not go on, shards that do not serve.
    fn problems(
        &self,
        topology: &Topology,
        address: &Address,
        object: &Object<'_>,
    ) -> Vec<Problem> {
        let problems = topology.problems(address).into_iter();
        let mut problems: Vec<Problem> = problems
            .map(|problem| Problem {
                reason: problem.kind.reason().into(),
                message: problem.message,
            })
            .collect();
        if let Some((shard, log)) = object.queue() {
            problems.extend(self.node.pumps.problems(shard, log));
        }
        let partitions = object.partitions().iter().map(|(shard, _)| *shard);
        let mut shards = object
            .queue()
            .map(|(shard, _)| shard)
            .into_iter()
            .chain(partitions);
        let down = shards.find_map(|shard| self.node.slot(shard).err());
        problems.extend(down.map(|refusal| Problem {
            reason: "ShardUnavailable".into(),
            message: refusal.message,
        }));
        problems
    }
}
