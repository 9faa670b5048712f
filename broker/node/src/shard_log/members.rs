//! What a shard's leader can do about members and leadership.

use millrace_replica::{Change, ChangeError, Members, Progress, TransferError};
use millrace_types::{LogIndex, ReplicaId, ShardId};

use super::ShardLog;

impl<E> ShardLog<E> {
    /// Whether members or leadership have changed since the last time.
    pub(crate) const fn regrouped(&mut self) -> bool {
        std::mem::replace(&mut self.regrouped, false)
    }

    /// Whose log it is.
    pub(crate) const fn shard(&self) -> ShardId {
        self.replica.shard()
    }

    /// The own replica.
    pub(crate) const fn id(&self) -> ReplicaId {
        self.replica.id()
    }

    /// The members, as of what is applied.
    pub(crate) const fn members(&self) -> &Members {
        self.replica.members()
    }

    /// Up to where that is.
    pub(crate) fn applied_to(&self) -> LogIndex {
        self.replica.applied_to()
    }

    /// How far each member is, as a leader knows.
    pub(crate) fn progress(&self) -> Vec<Progress> {
        self.replica.progress()
    }

    /// Puts a change of members on its way.
    ///
    /// # Errors
    /// When it cannot be made, or another one is under way.
    pub(crate) fn change_members(&mut self, changes: &[Change]) -> Result<(), ChangeError> {
        self.replica.change_members(changes)?;
        self.news = true;
        Ok(())
    }

    /// Asks another voter to lead.
    ///
    /// # Errors
    /// When this replica does not lead or the other does not vote.
    pub(crate) fn hand_over(&mut self, to: ReplicaId) -> Result<(), TransferError> {
        self.replica.transfer_to(to)?;
        self.news = true;
        Ok(())
    }
}
