//! `--topology FILE`: the very YAML that Kubernetes takes, made the node's topology. The file is
//! the whole truth: what is declared and not in it is removed, by its own deletion policy.
//!
//! Objects keep the uid under which the data directory knows them, so that their messages stay
//! theirs; a new one gets a uid derived from its address.
//!
//! What differs goes to the catalogue in deltas of the size it takes, removals first, because they
//! make room. A node that dies in between has some of them, and finds the rest at its next start.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_proto::v1::TopologyObject;
use millrace_types::{ErrorCode, Refusal, TEXT_BYTES_MAX};
use prost::Message as _;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::convert::topology;
use crate::tasks::Stop;
use crate::validate;
use millrace_crds::FILE_BYTES_MAX;
use millrace_engine::catalogue::{DELTA_BYTES_MAX, DELTA_OBJECTS_MAX, Declared, Removed};
use millrace_node::{Broker, CatalogueView, TopologyDelta};

/// How long the shards have to take on a new topology before the node serves all the same.
const APPLIED_WITHIN: Duration = Duration::from_secs(10);

/// Between two attempts while nobody leads the catalogue, or another node is about to change it.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What a file declares.
#[derive(Clone, Debug)]
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
    /// Too large.
    #[error("topology file {path} has {bytes} bytes, more than {FILE_BYTES_MAX}")]
    Large {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
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
        let bytes = std::fs::metadata(path).map_err(fail)?.len();
        if bytes > FILE_BYTES_MAX as u64 {
            let path = path.to_owned();
            return Err(TopologyError::Large { path, bytes });
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

    /// The same for one of several nodes: tries until it is so, because this node or another one
    /// made it so.
    ///
    /// # Errors
    /// When the broker refuses it for good.
    pub(crate) async fn apply_in_time(
        self,
        broker: Broker,
        stop: Stop,
    ) -> Result<(), TopologyError> {
        loop {
            let refusal = tokio::select! {
                biased;
                () = stop.draining() => return Ok(()),
                brought = self.clone().bring(&broker) => match brought {
                    Ok(()) => return Ok(()),
                    Err(refusal) => refusal,
                },
            };
            let is_another = refusal.code == ErrorCode::RevisionConflict;
            if !refusal.code.is_retryable() && !is_another {
                let path = self.path.clone();
                let source = refusal;
                return Err(TopologyError::Refused { path, source });
            }
            tokio::select! {
                biased;
                () = stop.draining() => return Ok(()),
                () = sleep(AGAIN_AFTER) => {}
            }
        }
    }

    async fn bring(self, broker: &Broker) -> Result<(), Refusal> {
        let view = broker.catalogue().borrow().clone();
        let (upserts, removals) = changes(&view, self.objects)?;
        if !upserts.is_empty() || !removals.is_empty() {
            debug!(
                upserts = upserts.len(),
                removals = removals.len(),
                "the topology file says something else"
            );
        }
        let mut revision = view.revision();
        for delta in deltas(upserts, removals) {
            let base_revision = revision;
            let delta = TopologyDelta {
                base_revision,
                ..delta
            };
            revision = broker.apply_topology(delta).await?;
        }
        if revision > view.revision() {
            info!(revision, "the topology file is applied");
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
    // Topics first: a queue that is bound to one which comes later is configured twice.
    upserts.sort_by_key(|declared| declared.address.is_queue());
    Ok((upserts, removals))
}

/// Cuts changes into deltas the catalogue takes. Their base revisions are filled in as they go.
fn deltas(upserts: Vec<Declared>, removals: Vec<Removed>) -> Vec<TopologyDelta> {
    let delta = |upserts, removals| TopologyDelta {
        cluster_id: None,
        base_revision: 0,
        upserts,
        removals,
    };
    let pages = removals.chunks(DELTA_OBJECTS_MAX);
    let mut deltas: Vec<TopologyDelta> =
        pages.map(|page| delta(Vec::new(), page.to_vec())).collect();
    let (mut page, mut bytes) = (Vec::new(), 0);
    for declared in upserts {
        let more = bytes + declared.wire.len();
        // An object that is too large by itself is alone in its delta, and refused with its name.
        if page.len() == DELTA_OBJECTS_MAX || (more > DELTA_BYTES_MAX && !page.is_empty()) {
            deltas.push(delta(std::mem::take(&mut page), Vec::new()));
            bytes = 0;
        }
        bytes += declared.wire.len();
        page.push(declared);
    }
    if !page.is_empty() {
        deltas.push(delta(page, Vec::new()));
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

#[cfg(test)]
mod tests {
    use millrace_engine::catalogue;

    use super::*;

    fn declared(text: &str) -> Vec<Declared> {
        let objects = millrace_crds::load(text).unwrap();
        let (upserts, removals) = changes(&CatalogueView::default(), objects).unwrap();
        assert_eq!(removals, []);
        upserts
    }

    fn queues(count: usize, spec: &str) -> String {
        let queue = |n| {
            format!(
                "apiVersion: millrace.dev/v1alpha1\nkind: Queue\n\
                 metadata: {{name: q{n}, namespace: test}}\nspec: {spec}\n---\n"
            )
        };
        (0..count).map(queue).collect()
    }

    /// How many objects each delta has; none is refused for its size.
    fn pages(upserts: Vec<Declared>, removals: Vec<Removed>) -> Vec<usize> {
        let deltas = deltas(upserts, removals).into_iter();
        let len = |delta: TopologyDelta| {
            catalogue::check_size(&delta.upserts, &delta.removals).unwrap();
            delta.upserts.len() + delta.removals.len()
        };
        deltas.map(len).collect()
    }

    #[test]
    fn what_differs_is_cut_where_a_delta_would_have_too_many_objects() {
        let many = declared(&queues(2 * DELTA_OBJECTS_MAX + 1, "{}"));
        let gone = |declared: &Declared| Removed {
            address: declared.address.clone(),
            uid: declared.uid.clone(),
        };
        let gone = many.iter().take(3).map(gone).collect();
        let full = DELTA_OBJECTS_MAX;
        assert_eq!(pages(many, gone), [3, full, full, 1]);
        assert_eq!(pages(Vec::new(), Vec::new()), [0; 0]);
    }

    #[test]
    fn what_differs_is_cut_where_a_delta_would_have_too_many_bytes() {
        let value = "v".repeat(255);
        let header = format!("{{name: h, value: {value}}}");
        let headers = vec![header; 16].join(", ");
        let binding = format!("{{topic: {{name: x}}, headers: [{headers}], match: Any}}");
        let bindings = vec![binding; 32].join(", ");
        let fat = declared(&queues(40, &format!("{{bindings: [{bindings}]}}")));
        let bytes: usize = fat.iter().map(|declared| declared.wire.len()).sum();
        assert!(bytes > DELTA_BYTES_MAX, "{bytes}");
        let pages = pages(fat, Vec::new());
        assert_eq!((pages.len(), pages.iter().sum::<usize>()), (2, 40));
    }

    #[test]
    fn topics_come_before_queues() {
        let topic = "apiVersion: millrace.dev/v1alpha1\nkind: Topic\n\
                     metadata: {name: z, namespace: test}\nspec: {partitions: 2}\n";
        let upserts = declared(&(queues(2, "{}") + topic));
        let kinds: Vec<bool> = upserts.iter().map(|one| one.address.is_queue()).collect();
        assert_eq!(kinds, [false, true, true]);
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_with_the_limit() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes = FILE_BYTES_MAX as u64 + 1;
        file.as_file().set_len(bytes).unwrap();
        let error = TopologyFile::read(file.path()).unwrap_err().to_string();
        assert!(error.contains(&bytes.to_string()), "{error}");
        assert!(error.contains(&FILE_BYTES_MAX.to_string()), "{error}");
    }
}
