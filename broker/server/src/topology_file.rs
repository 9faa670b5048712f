//! `--topology FILE`: the very YAML that Kubernetes takes, made the node's topology. The file is
//! the whole truth: what is declared and not in it is removed, by its own deletion policy.
//!
//! Objects keep the uid under which the data directory knows them, so that their messages stay
//! theirs; a new one gets a uid derived from its address.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_proto::v1::TopologyObject;
use millrace_types::{ErrorCode, Refusal, TEXT_BYTES_MAX};
use prost::Message as _;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::convert::topology;
use crate::validate;
use millrace_engine::catalogue::{DELTA_OBJECTS_MAX, Declared, Removed};
use millrace_node::{Broker, CatalogueView, TopologyDelta};

/// Largest topology file: a thousand queues take well under a mebibyte.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// How long the shards have to take on a new topology before the node serves all the same.
const APPLIED_WITHIN: Duration = Duration::from_secs(10);

/// What a file declares.
#[derive(Debug)]
pub(crate) struct TopologyFile {
    path: PathBuf,
    objects: Vec<TopologyObject>,
}

/// Why a topology file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// Cannot be read.
    #[error("cannot read topology file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What it says is wrong.
    #[error("topology file {path} is wrong:\n{problems}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// One a line: line of the file, object, field path, what is wrong.
        problems: String,
    },
    /// The broker does not take it.
    #[error("topology file {path} cannot be applied")]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Refusal,
    },
}

impl TopologyFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, or names every wrong field with its line.
    pub(crate) fn read(path: &Path) -> Result<Self, TopologyError> {
        let fail = |source| TopologyError::Read {
            path: path.to_owned(),
            source,
        };
        if std::fs::metadata(path).map_err(fail)?.len() > FILE_BYTES_MAX {
            let text = format!("is larger than {FILE_BYTES_MAX} bytes");
            return Err(fail(io::Error::other(text)));
        }
        let yaml = std::fs::read_to_string(path).map_err(fail)?;
        let objects = millrace_crds::load(&yaml).map_err(|report| TopologyError::Wrong {
            path: path.to_owned(),
            problems: report.to_string(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            objects,
        })
    }

    /// Brings the broker's topology to what the file says; does nothing when it is that already.
    ///
    /// # Errors
    /// When the broker refuses it.
    pub(crate) async fn apply(self, broker: &Broker) -> Result<(), TopologyError> {
        let path = self.path.clone();
        self.bring(broker)
            .await
            .map_err(|source| TopologyError::Refused { path, source })
    }

    async fn bring(self, broker: &Broker) -> Result<(), Refusal> {
        let view = broker.catalogue().borrow().clone();
        let (upserts, removals) = changes(&view, self.objects)?;
        info!(
            upserts = upserts.len(),
            removals = removals.len(),
            "applying the topology file"
        );
        let mut revision = view.revision();
        for delta in deltas(upserts, removals) {
            let base_revision = revision;
            let delta = TopologyDelta {
                base_revision,
                ..delta
            };
            revision = broker.apply_topology(delta).await?;
        }
        wait_applied(broker, revision).await;
        Ok(())
    }
}

/// What differs between the catalogue and the file.
fn changes(
    view: &CatalogueView,
    objects: Vec<TopologyObject>,
) -> Result<(Vec<Declared>, Vec<Removed>), Refusal> {
    let mut wanted = BTreeMap::new();
    for object in objects {
        let address = validate::address(&object.address)?;
        if wanted.insert(address, object.clone()).is_some() {
            let text = format!("{} is declared twice", object.address);
            return Err(Refusal::new(ErrorCode::InvalidArgument, text));
        }
    }
    let mut removals = Vec::new();
    for (address, known) in view.iter() {
        if !known.orphaned && !wanted.contains_key(address) {
            removals.push(Removed {
                address: address.clone(),
                uid: known.uid.to_owned(),
            });
        }
    }
    let mut upserts = Vec::new();
    for (address, mut object) in wanted {
        // Derived from the address, whose longest form is longer than a uid may be. Cutting it is
        // safe: a uid tells apart the lives of one address, and here there is only one.
        object.uid.truncate(TEXT_BYTES_MAX);
        if let Some(known) = view.lookup(&address) {
            known.uid.clone_into(&mut object.uid);
            object.generation = known.generation;
            if !known.orphaned && *known.wire == object.encode_to_vec() {
                continue;
            }
            object.generation += 1;
        }
        upserts.push(topology::declared(&object)?);
    }
    Ok((upserts, removals))
}

/// Cuts changes into deltas the catalogue takes. Their base revisions are filled in as they go.
fn deltas(upserts: Vec<Declared>, removals: Vec<Removed>) -> Vec<TopologyDelta> {
    let mut deltas = Vec::new();
    for removals in removals.chunks(DELTA_OBJECTS_MAX) {
        deltas.push(TopologyDelta {
            cluster_id: None,
            base_revision: 0,
            upserts: Vec::new(),
            removals: removals.to_vec(),
        });
    }
    for upserts in upserts.chunks(DELTA_OBJECTS_MAX) {
        deltas.push(TopologyDelta {
            cluster_id: None,
            base_revision: 0,
            upserts: upserts.to_vec(),
            removals: Vec::new(),
        });
    }
    deltas
}

/// Waits until every shard has it, so that a client's first call finds its queue.
async fn wait_applied(broker: &Broker, revision: u64) {
    let mut catalogue = broker.catalogue();
    let applied = catalogue.wait_for(|view| view.applied_revision() >= revision);
    if timeout(APPLIED_WITHIN, applied).await.is_err() {
        warn!(revision, "not every shard has taken on the topology yet");
    }
}
