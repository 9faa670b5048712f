//! What a shard's leader can do about members and leadership.

use millrace_replica::{Change, ChangeError, Members, Progress, Seat, TransferError};
use millrace_types::{LogIndex, NodeId, Refusal, ReplicaId, ShardId};

use super::{ShardLog, Standing};
use crate::calls::steering::no_voter;
use crate::placement::standing::{MemberStanding, ShardStanding};

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

    /// How far each member is, as a leader knows. It forgets once a round who is active and hears
    /// of them again a moment later; who was there a moment ago counts as being so.
    pub(crate) fn progress(&self) -> Vec<Progress> {
        let mut progress = self.replica.progress();
        for member in &mut progress {
            member.active |= self.keeping.was_there(member.replica);
        }
        progress
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

    /// How the shard stands, as its leader sees it.
    pub(crate) fn standing_of_shard(&self, own: NodeId) -> Option<ShardStanding> {
        if !self.leads() {
            return None;
        }
        let (progress, last) = (self.progress(), self.replica.last());
        let member = |m| MemberStanding::of(m, &progress, self.id(), last);
        Some(ShardStanding {
            shard: self.shard(),
            leader: Some(own),
            term: self.term(),
            last,
            applied: self.applied_to(),
            changing: self.members().is_joint() || self.replica.heir().is_some(),
            members: self.members().iter().map(member).collect(),
        })
    }

    /// Has a node's replica lead, if it votes. Nothing to do when it does.
    ///
    /// # Errors
    /// `NOT_LEADER`; `INVALID_ARGUMENT` when there is no such voter.
    pub(crate) fn hand_over_to(&mut self, node: NodeId) -> Result<(), Refusal> {
        if !self.leads() {
            return Err(self.not_leader());
        }
        let heir = self.members().iter().find(|member| member.node == node);
        match heir.map(|heir| heir.replica) {
            Some(heir) if heir == self.id() => Ok(()),
            Some(heir) => {
                let handed = self.hand_over(heir);
                handed.map_err(|_| no_voter(self.shard(), node))
            }
            None => Err(no_voter(self.shard(), node)),
        }
    }

    /// Has another voter lead, the one that has most, if any is there; whether one is about to.
    pub(crate) fn leave(&mut self) -> bool {
        if !self.leads() {
            return false;
        }
        if self.replica.heir().is_some() {
            return true;
        }
        let own = self.id();
        let followers = self.replica.progress().into_iter();
        let votes = |id| {
            self.members()
                .find(id)
                .is_some_and(|m| m.seat == Seat::Voter)
        };
        let there = followers.filter(|p| p.active && p.replica != own && votes(p.replica));
        let heir = there.max_by_key(|follower| follower.matched);
        heir.is_some_and(|heir| self.hand_over(heir.replica).is_ok())
    }

    /// Whether another replica decides, or nobody does.
    pub(crate) fn follows(&self) -> bool {
        self.standing() == Standing::Follows
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
