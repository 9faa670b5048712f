//! Reads bodies for those who may not block: at once when they are in memory, by the host
//! when they are on disk. A read that finds damage quarantines the shard.

use std::io;
use std::sync::Arc;

use millrace_storage::{Action, Limits, ReadError, Store, StoredRecord};
use millrace_types::{ErrorCode, LogId, Offset, Refusal, ShardId};
use tokio::sync::Semaphore;

use super::host::{self, Host};
use super::node::quarantined;
use super::options::DISK_READ_WAIT_MAX;
use super::slot::{Damage, Hosted};

/// The way to one shard's bodies.
#[derive(Clone)]
pub(super) struct Bodies {
    store: Arc<Store>,
    host: Arc<dyn Host>,
    readers: Arc<Semaphore>,
    damage: Damage,
}

impl Bodies {
    /// Of this replica, with the node's limit of readers; damage is noted where the shard's slot
    /// has it.
    pub(super) fn new(hosted: Hosted, host: Arc<dyn Host>, readers: Arc<Semaphore>) -> Self {
        let Hosted { store, damage } = hosted;
        Self {
            store,
            host,
            readers,
            damage,
        }
    }

    /// Of which shard.
    pub(super) fn shard(&self) -> ShardId {
        self.store.shard()
    }

    /// Whether a snapshot has taken the place of what it reads: what came after is elsewhere.
    pub(super) fn is_replaced(&self) -> bool {
        self.store.is_retired()
    }

    /// These messages, in order; one result for each of those that have about `bytes_max` bytes
    /// together, the first in any case. The rest is left out.
    pub(super) async fn each(
        &self,
        log: LogId,
        offsets: Vec<Offset>,
        bytes_max: u64,
    ) -> Vec<Result<StoredRecord, ReadError>> {
        let (Some(first), Some(last)) = (offsets.iter().min(), offsets.iter().max()) else {
            return Vec::new();
        };
        let found = if self.store.is_resident(log, *first..last.plus(1)) {
            self.store.read_each(log, &offsets, bytes_max)
        } else {
            self.on_disk(move |store| store.read_each(log, &offsets, bytes_max))
                .await
                .unwrap_or_else(|error| vec![Err(error)])
        };
        let errors = found.iter().filter_map(|record| record.as_ref().err());
        errors.for_each(|error| self.note(error));
        found
    }

    /// What is there from an offset on, `first..end` at most.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn range(
        &self,
        log: LogId,
        from: Offset,
        end: Offset,
        limits: Limits,
    ) -> Result<Vec<StoredRecord>, ReadError> {
        let last = from.plus(limits.messages_max as u64).min(end);
        let found = if self.store.is_resident(log, from..last) {
            self.store.read(log, from, limits)
        } else {
            self.on_disk(move |store| store.read(log, from, limits))
                .await
                .flatten()
        };
        let mut records = found.inspect_err(|error| self.note(error))?;
        // The store may be ahead: what is not applied yet is not there for readers.
        records.retain(|record| record.offset < end);
        Ok(records)
    }

    /// Reads when it is this reader's turn. One that the disk keeps for too long keeps its place
    /// among the readers until the disk answers; who waited for it goes without.
    async fn on_disk<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let late = self.host.sleep(DISK_READ_WAIT_MAX);
        let reading = async {
            let permit = Arc::clone(&self.readers).acquire_owned().await;
            let store = Arc::clone(&self.store);
            let reading = host::blocking(&self.host, move || {
                let _permit = permit;
                read(&store)
            });
            reading.await
        };
        tokio::select! {
            biased;
            found = reading => match found {
                Some(records) => Ok(records),
                // Only when the host ends or the store panics; nobody is served by going on.
                None => std::panic::resume_unwind(Box::new("a read of stored messages has ended")),
            },
            () = late => Err(ReadError::Io {
                path: format!("shards/{}/segments", self.store.shard()).into(),
                action: Action::Read,
                source: io::ErrorKind::TimedOut.into(),
            }),
        }
    }

    /// Quarantines the shard when this is damage; the first reason stays.
    fn note(&self, error: &ReadError) {
        let is_damage = matches!(error, ReadError::Corrupt { .. });
        if is_damage && self.damage.set(error.to_string()).is_ok() {
            let shard = self.store.shard();
            tracing::error!(%shard, %error, "shard quarantined: it does not serve, the others do");
        }
    }

    /// What a client is told about bodies that cannot be read.
    pub(super) fn unreadable(&self, error: &ReadError) -> Refusal {
        let shard: ShardId = self.store.shard();
        let code = match error {
            ReadError::Corrupt { .. } => return quarantined(shard, &error.to_string()),
            // The disk may give it another time.
            ReadError::Io { .. } => ErrorCode::ShardUnavailable,
            ReadError::Discarded { .. } | ReadError::Missing { .. } => ErrorCode::Internal,
        };
        Refusal::new(code, format!("a stored message cannot be read: {error}"))
    }
}
