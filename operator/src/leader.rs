//! Elects the acting operator by a Lease: of those that run, one works and the others wait for it.
//!
//! Promises: whoever acts has renewed within [`RENEW_LIMIT`] and a [`PERIOD`], and others take over
//! only after [`LEASE`] without a renewal, so that there is a pause between them, also when the API
//! server answers late or not at all. Clocks of different machines
//! are never compared: a Lease counts as expired when it was *seen* unchanged for long enough.

mod election;

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use election::{Claim, Election, LEASE, PERIOD, RENEW_LIMIT, Turn, left};

/// One operator's part in the election.
pub(crate) struct Elector {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    election: Election,
    /// When the last attempt that succeeded began.
    renewed: Option<Instant>,
}

/// The Lease was lost: somebody else may act now.
#[derive(Debug, thiserror::Error)]
#[error("the lease was lost or could not be renewed in time; another operator may act now")]
pub(crate) struct Lost;

/// Why the Lease was neither taken nor seen with somebody else.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("the API server does not answer")]
    Silent,
}

impl Elector {
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            election: Election::new(identity),
            renewed: None,
        }
    }

    /// Returns when this operator acts. `standby` is called when another one is seen to.
    pub(crate) async fn acquire(&mut self, mut standby: impl FnMut()) {
        loop {
            match self.attempt(RENEW_LIMIT).await {
                Ok(true) => {
                    tracing::info!(lease = self.name, identity = self.identity, "acting");
                    return;
                }
                Ok(false) => standby(),
                Err(error) => {
                    let error = crate::report(&error);
                    tracing::warn!(lease = self.name, error, "lease cannot be read or written");
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Renews until `stop`, then gives the Lease up for the next one to take at once.
    ///
    /// # Errors
    /// When it could not be renewed in time, or another one has it.
    pub(crate) async fn keep(&mut self, stop: &CancellationToken) -> Result<(), Lost> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(PERIOD) => {}
            }
            match self.attempt(self.left()).await {
                Ok(true) => {}
                Ok(false) => return Err(Lost),
                Err(error) => {
                    let error = crate::report(&error);
                    tracing::warn!(lease = self.name, error, "lease is not renewed");
                }
            }
            if self.left().is_zero() {
                return Err(Lost);
            }
        }
    }

    fn left(&self) -> Duration {
        self.renewed
            .map_or(Duration::ZERO, |renewed| left(renewed, Instant::now()))
    }

    /// One attempt that ends within `limit`.
    async fn attempt(&mut self, limit: Duration) -> Result<bool, AttemptError> {
        let began = Instant::now();
        let taken = tokio::time::timeout(limit, self.take());
        let taken = taken.await.map_err(|_| AttemptError::Silent)??;
        if taken {
            self.renewed = Some(began);
        }
        Ok(taken)
    }

    /// Gives the Lease up. Best effort: it expires by itself.
    pub(crate) async fn release(&mut self) {
        let released = async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = None;
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await
                .map(drop)
        };
        if let Err(error) = released.await {
            let error = crate::report(&error);
            tracing::warn!(lease = self.name, error, "lease is not released");
        }
    }

    /// Takes or renews the Lease if it is this operator's turn. Writes against the version that was
    /// read: of two that try at once, one fails.
    async fn take(&mut self) -> kube::Result<bool> {
        let found = self.api.get_opt(&self.name).await?;
        let claim = found.as_ref().map(claim_of);
        let now = Instant::now();
        let turn = self.election.turn(claim, now);
        let written = match (found, turn) {
            (_, Turn::Wait) => return Ok(false),
            (None, Turn::Take | Turn::Renew) => {
                let lease = self.lease(ObjectMeta::default(), None, turn);
                self.api.create(&PostParams::default(), &lease).await
            }
            (Some(found), Turn::Take | Turn::Renew) => {
                let lease = self.lease(found.metadata, found.spec, turn);
                self.api
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await
            }
        };
        match written {
            Ok(lease) => {
                self.election.wrote(claim_of(&lease), now);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn lease(&self, metadata: ObjectMeta, before: Option<LeaseSpec>, turn: Turn) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = before.unwrap_or_default();
        let changes = turn == Turn::Take;
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..metadata
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
                renew_time: Some(now.clone()),
                acquire_time: if changes {
                    Some(now)
                } else {
                    before.acquire_time
                },
                lease_transitions: Some(
                    before
                        .lease_transitions
                        .unwrap_or(0)
                        .saturating_add(i32::from(changes)),
                ),
                ..before
            }),
        }
    }
}

fn claim_of(lease: &Lease) -> Claim {
    Claim {
        holder: lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.clone()),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
