//! What is declared: changing it, and telling how far that has come.

use millrace_engine::catalogue::{CatalogueCommand, Declared, PlacedState, Removed};
use millrace_types::{ErrorCode, Refusal, ShardId};

use super::Broker;
use crate::facts::{Metadata, ObjectState, Problem};
use crate::input::Input;
use crate::reply::Reply;
use crate::view::{CatalogueView, ObjectKind};

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
        let cluster = self.node.data_dir.cluster_id();
        if let Some(expected) = delta.cluster_id.filter(|expected| expected != cluster) {
            return Err(self.node.figures.refused(Refusal::new(
                ErrorCode::WrongCluster,
                format!("this is cluster {cluster}, not {expected}"),
            )));
        }
        let slot = self.node.slot(ShardId::METADATA)?;
        let command = CatalogueCommand::ApplyTopology {
            base_revision: delta.base_revision,
            upserts: delta.upserts,
            removals: delta.removals,
        };
        let (reply, pending) = Reply::channel();
        slot.inbox.send(Input::ProposeCatalogue(command, reply));
        pending.answer().await
    }

    /// Who this cluster is and which topology it has.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE`.
    pub async fn metadata(&self) -> Result<Metadata, Refusal> {
        let dir = &self.node.data_dir;
        let (cluster_id, node_id) = (dir.cluster_id().to_owned(), dir.node());
        let shards = dir.data_shards();
        let mut metadata = self
            .node
            .ask_catalogue(move |catalogue| Metadata {
                cluster_id,
                node_id,
                shards,
                revision: catalogue.revision(),
                applied_revision: catalogue.applied_revision(),
                digest: catalogue.digest(),
                objects: catalogue
                    .objects()
                    .filter(|placed| !placed.is_implicit())
                    .map(|placed| ObjectState {
                        address: placed.address.clone(),
                        uid: placed.uid.clone(),
                        generation: placed.generation,
                        applied: catalogue.is_applied(&placed.address),
                        orphaned: placed.state == PlacedState::Orphaned,
                        problems: catalogue
                            .problems(&placed.address)
                            .into_iter()
                            .map(|problem| Problem {
                                reason: problem.kind.reason().into(),
                                message: problem.message,
                            })
                            .collect(),
                    })
                    .collect(),
            })
            .await?;
        let view = self.node.view.borrow().clone();
        for object in &mut metadata.objects {
            self.add_problems(&view, object);
        }
        Ok(metadata)
    }

    /// What the catalogue cannot know: pumps that do not go on, shards that do not serve.
    fn add_problems(&self, view: &CatalogueView, object: &mut ObjectState) {
        let Some(declared) = view.lookup(&object.address) else {
            return;
        };
        let shards = match &declared.kind {
            ObjectKind::Queue { shard, log, .. } => {
                object
                    .problems
                    .extend(self.node.pumps.problems(*shard, *log));
                vec![*shard]
            }
            ObjectKind::Topic { partitions } => {
                partitions.iter().map(|(shard, _)| *shard).collect()
            }
        };
        let down = shards
            .into_iter()
            .find_map(|shard| self.node.slot(shard).err());
        object.problems.extend(down.map(|refusal| Problem {
            reason: "ShardUnavailable".into(),
            message: refusal.message,
        }));
    }
}
