//! Who has a copy of the shard, and who of them counts.
//!
//! Decides whether a table of members makes sense. Keeps the ids of those who left: an id is used
//! once, because a disk that lost something must not speak for what it once promised.

use std::collections::{BTreeMap, VecDeque};

use millrace_types::{NodeId, ReplicaId};
use raft::eraftpb::ConfState;
use serde::{Deserialize, Serialize};

use super::error::MembersError;
use super::options::MEMBERS_MAX;

/// Ids of former members that are remembered: replacements are rare, and one that is older than
/// this many others has long lost its disk.
pub const RETIRED_MAX: usize = 256;

/// How a member counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seat {
    /// Votes.
    Voter,
    /// Gets everything, counts for nothing.
    Learner,
    /// Votes after a change in two steps, and is asked already.
    Joining,
    /// Votes until a change in two steps is done, then is gone.
    Leaving,
    /// Votes until a change in two steps is done, then is a learner.
    Demoting,
}

/// One member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its copy of the shard.
    pub replica: ReplicaId,
    /// Where that is.
    pub node: NodeId,
    /// How it counts.
    pub seat: Seat,
}

/// All members of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    table: BTreeMap<ReplicaId, (NodeId, Seat)>,
    /// A change in two steps is half done: two majorities are needed.
    joint: bool,
    retired: VecDeque<ReplicaId>,
}

impl Members {
    /// The first members of a shard, all of them voters.
    ///
    /// # Errors
    /// When there is none or too many, or an id is 0 or there twice.
    pub fn founders(
        founders: impl IntoIterator<Item = (ReplicaId, NodeId)>,
    ) -> Result<Self, MembersError> {
        let mut members = Self::default();
        for (replica, node) in founders {
            if members.table.insert(replica, (node, Seat::Voter)).is_some() {
                return Err(MembersError::Twice { replica });
            }
        }
        members.check()?;
        Ok(members)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = Member> + '_ {
        let member = |(replica, (node, seat)): (&ReplicaId, &(NodeId, Seat))| Member {
            replica: *replica,
            node: *node,
            seat: *seat,
        };
        self.table.iter().map(member)
    }

    /// One of them.
    #[must_use]
    pub fn find(&self, replica: ReplicaId) -> Option<Member> {
        let (node, seat) = *self.table.get(&replica)?;
        Some(Member {
            replica,
            node,
            seat,
        })
    }

    /// Whether it was a member and is none any more, as far as is remembered.
    #[must_use]
    pub fn is_retired(&self, replica: ReplicaId) -> bool {
        self.retired.contains(&replica)
    }

    /// Whether a change in two steps is half done.
    #[must_use]
    pub const fn is_joint(&self) -> bool {
        self.joint
    }

    /// Whether nobody is known: a copy that has heard from no leader yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether it alone decides what is committed.
    #[must_use]
    pub fn is_only_voter(&self, replica: ReplicaId) -> bool {
        let mut voters = self.iter().filter(|member| member.seat != Seat::Learner);
        let only = voters.next().map(|member| (member.replica, member.seat));
        only == Some((replica, Seat::Voter)) && voters.next().is_none()
    }

    /// For a checkpoint.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("members are plain data")
    }

    /// From a checkpoint.
    ///
    /// # Errors
    /// When they are none, or make no sense.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembersError> {
        let members: Self = postcard::from_bytes(bytes).map_err(|_| MembersError::Unreadable)?;
        members.check()?;
        Ok(members)
    }

    /// Whether raft-rs can be given this.
    pub(crate) fn check(&self) -> Result<(), MembersError> {
        if self.table.len() > MEMBERS_MAX || self.retired.len() > RETIRED_MAX {
            return Err(MembersError::TooMany { max: MEMBERS_MAX });
        }
        if self.table.contains_key(&ReplicaId::new(0)) {
            return Err(MembersError::NoId);
        }
        let seats = || self.table.values().map(|(_, seat)| *seat);
        if !seats().any(|seat| matches!(seat, Seat::Voter | Seat::Joining)) {
            return Err(MembersError::NoVoter);
        }
        let half_done = |seat| matches!(seat, Seat::Joining | Seat::Leaving | Seat::Demoting);
        if !self.joint && seats().any(half_done) {
            return Err(MembersError::HalfDone);
        }
        let was_voter = |seat| matches!(seat, Seat::Voter | Seat::Leaving | Seat::Demoting);
        if self.joint && !seats().any(was_voter) {
            return Err(MembersError::NoVoter);
        }
        Ok(())
    }

    /// As raft-rs has it.
    pub(crate) fn conf_state(&self) -> ConfState {
        let with = |wanted: &[Seat]| -> Vec<u64> {
            let is_wanted = |member: &Member| wanted.contains(&member.seat);
            let members = self.iter().filter(is_wanted);
            members.map(|member| member.replica.get()).collect()
        };
        let mut state = ConfState::default();
        state.set_voters(with(&[Seat::Voter, Seat::Joining]));
        state.set_learners(with(&[Seat::Learner]));
        if self.joint {
            state.set_voters_outgoing(with(&[Seat::Voter, Seat::Leaving, Seat::Demoting]));
            state.set_learners_next(with(&[Seat::Demoting]));
            state.auto_leave = true;
        }
        state
    }

    /// What becomes of these members when raft-rs has come to `state`; `nodes` says where new ones
    /// are.
    pub(crate) fn after(&self, state: &ConfState, nodes: &BTreeMap<ReplicaId, NodeId>) -> Self {
        let mut table = BTreeMap::new();
        let incoming = state.get_voters();
        let outgoing = state.get_voters_outgoing();
        let joint = !outgoing.is_empty();
        let ids = [incoming, outgoing, state.get_learners()].concat();
        for id in ids {
            let seat = match (incoming.contains(&id), outgoing.contains(&id)) {
                (true, true) => Seat::Voter,
                (true, false) if joint => Seat::Joining,
                (true, false) => Seat::Voter,
                (false, true) if state.get_learners_next().contains(&id) => Seat::Demoting,
                (false, true) => Seat::Leaving,
                (false, false) => Seat::Learner,
            };
            let replica = ReplicaId::new(id);
            let known = self.table.get(&replica).map(|(node, _)| *node);
            let node = known.or_else(|| nodes.get(&replica).copied());
            table.insert(replica, (node.unwrap_or_default(), seat));
        }
        let mut retired = self.retired.clone();
        let gone = self.table.keys().filter(|id| !table.contains_key(id));
        retired.extend(gone);
        while retired.len() > RETIRED_MAX {
            retired.pop_front();
        }
        Self {
            table,
            joint,
            retired,
        }
    }
}
