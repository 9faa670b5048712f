//! Talks to a broker's control port: reads what it has, sends it pages of changes.
//!
//! Promises: a page that the broker refuses because of one object is cut until that object alone is
//! refused; everything else goes through, if not at once. Does not decide what is sent.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use millrace_client::{ClientOptions, Code, Control, Error};

use super::convert;
use super::delta::Page;
use super::report::{Answer, Refused};
use crate::cluster::build::Token;
use crate::cluster::desired::ClusterId;
use crate::reasons;

/// A broker that does not accept a connection within this long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A page of 1000 objects is one synced entry and its effects on each shard.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Calls of one push. All that a cluster may declare is 200 pages; what is left serves to find
/// objects at fault, and a push that has many of them goes on the next time.
pub(super) const CALLS_MAX: usize = 300;
/// Reasons in the broker's answers that have to be told apart here.
const REVISION_CONFLICT: &str = "REVISION_CONFLICT";
const WRONG_CLUSTER: &str = "WRONG_CLUSTER";
/// Of the cluster, or of a topic: what is beyond it is refused, what is within goes through.
const LIMIT_REACHED: &str = "LIMIT_REACHED";

/// A broker's control port.
#[derive(Debug)]
pub struct Exchange<'a> {
    control: Control,
    cluster_id: &'a ClusterId,
}

/// What the broker has, with its digest over it.
#[derive(Clone, Debug, PartialEq)]
pub struct Looked {
    /// What it has.
    pub answer: Answer,
    /// SHA-256 over the encodings of what it has and serves, in order of addresses.
    pub digest: Vec<u8>,
}

/// What became of a push.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pushed {
    /// What the last page made the topology.
    pub revision: u64,
    /// Objects that were refused, by address.
    pub refused: BTreeMap<String, Refused>,
    /// Pages that are left for the next time.
    pub unsent: VecDeque<Page>,
}

/// Why an exchange ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The broker cannot be asked, or does not do as it is told.
    #[error("{message}")]
    Unavailable {
        /// One of `reasons`.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// Somebody else changed the topology in between; look again.
    #[error("the topology changed in between")]
    Conflict,
    /// The broker shows an older topology than the cluster is known to have.
    #[error("the broker shows revision {shown} of the topology and the cluster has {known}")]
    Behind {
        /// What it shows.
        shown: u64,
        /// What a broker of the cluster said before.
        known: u64,
    },
}

impl<'a> Exchange<'a> {
    /// Prepares the exchange; the first call connects.
    ///
    /// # Errors
    /// The token cannot be sent.
    pub fn open(url: &str, token: &Token, cluster_id: &'a ClusterId) -> Result<Self, Failure> {
        let options = ClientOptions {
            connect_timeout: CONNECT_TIMEOUT,
            call_timeout: CALL_TIMEOUT,
            ..ClientOptions::new(url)
        };
        let control = Control::connect(options, token.reveal()).map_err(failure)?;
        Ok(Self {
            control,
            cluster_id,
        })
    }

    /// What the broker has.
    ///
    /// # Errors
    /// It does not answer, or is of another cluster.
    pub async fn look(&self) -> Result<Looked, Failure> {
        let metadata = self.control.metadata().await.map_err(failure)?;
        if metadata.cluster_id != self.cluster_id.as_str() {
            let message = format!(
                "the broker belongs to cluster {:?}, not to {:?}",
                metadata.cluster_id,
                self.cluster_id.as_str()
            );
            return Err(Failure::Unavailable {
                reason: reasons::WRONG_CLUSTER,
                message,
            });
        }
        let topology = metadata.topology.as_ref();
        let digest = topology.map(|topology| topology.digest.to_vec());
        Ok(Looked {
            digest: digest.unwrap_or_default(),
            answer: convert::answer(metadata),
        })
    }

    /// Sends pages one after the other, each against the revision the one before it made, with at
    /// most [`CALLS_MAX`] calls.
    ///
    /// # Errors
    /// The broker does not answer, or has another topology than was looked at. What was sent before
    /// stays.
    pub async fn push(
        &self,
        mut revision: u64,
        mut pages: VecDeque<Page>,
    ) -> Result<Pushed, Failure> {
        let mut refused = BTreeMap::new();
        for _ in 0..CALLS_MAX {
            let Some(page) = pages.pop_front() else {
                break;
            };
            let request = page.request(self.cluster_id.as_str(), revision);
            match self.control.apply_topology(request).await {
                Ok(response) => revision = response.revision,
                Err(error) if is_about_an_object(&error) => {
                    for part in at_fault(page, &error, &mut refused).into_iter().rev() {
                        pages.push_front(part);
                    }
                }
                Err(error) => return Err(failure(error)),
            }
        }
        let unsent = pages;
        Ok(Pushed {
            revision,
            refused,
            unsent,
        })
    }
}

/// Notes a refused object, or returns smaller pages to find it with.
fn at_fault(page: Page, error: &Error, refused: &mut BTreeMap<String, Refused>) -> Vec<Page> {
    if page.len() > 1 {
        return page.halves().into();
    }
    let note = |generation| Refused {
        generation,
        message: error.message.clone(),
    };
    for object in page.upserts {
        refused.insert(object.address, note(object.generation));
    }
    for removal in page.removals {
        tracing::warn!(address = %removal.address, error = %error, "broker refuses a removal");
    }
    Vec::new()
}

/// Whether the broker objects to what a page says, rather than to the call as a whole.
fn is_about_an_object(error: &Error) -> bool {
    let of_the_call = [REVISION_CONFLICT, WRONG_CLUSTER];
    let code = matches!(
        error.code,
        Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound | Code::AlreadyExists
    );
    (code || error.reason == LIMIT_REACHED) && !of_the_call.contains(&error.reason.as_str())
}

fn failure(error: Error) -> Failure {
    match error.reason.as_str() {
        REVISION_CONFLICT => Failure::Conflict,
        WRONG_CLUSTER => Failure::Unavailable {
            reason: reasons::WRONG_CLUSTER,
            message: error.message,
        },
        _ => Failure::Unavailable {
            reason: reasons::BROKER_UNAVAILABLE,
            message: error.to_string(),
        },
    }
}
