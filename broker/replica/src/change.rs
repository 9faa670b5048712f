//! A change of members: checked against those there are before it is proposed, carried out the
//! same way on every replica when it is applied.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millrace_types::{NodeId, ReplicaId};
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};
use serde::{Deserialize, Serialize};

use super::error::ChangeError;
use super::members::{Members, Seat};
use super::options::MEMBERS_MAX;

/// One of the things that a change does. Several at once are one change in two steps, in between
/// which both the old and the new majority are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A new copy, as a learner: it catches up before it counts.
    Add {
        /// An id that was never used.
        replica: ReplicaId,
        /// Where it is.
        node: NodeId,
    },
    /// A learner becomes a voter.
    Promote {
        /// Which.
        replica: ReplicaId,
    },
    /// A voter becomes a learner.
    Demote {
        /// Which.
        replica: ReplicaId,
    },
    /// A copy is given up; its id is never used again.
    Remove {
        /// Which.
        replica: ReplicaId,
    },
}

impl Change {
    /// Whom it is about.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        match self {
            Self::Add { replica, .. }
            | Self::Promote { replica }
            | Self::Demote { replica }
            | Self::Remove { replica } => *replica,
        }
    }

    const fn kind(&self) -> ConfChangeType {
        match self {
            Self::Add { .. } | Self::Demote { .. } => ConfChangeType::AddLearnerNode,
            Self::Promote { .. } => ConfChangeType::AddNode,
            Self::Remove { .. } => ConfChangeType::RemoveNode,
        }
    }
}

/// Whether the changes, together, can be made to these members.
///
/// # Errors
/// Why not.
pub(crate) fn check(changes: &[Change], members: &Members) -> Result<(), ChangeError> {
    if changes.is_empty() {
        return Err(ChangeError::Nothing);
    }
    if members.is_joint() {
        return Err(ChangeError::Pending);
    }
    let mut named = BTreeSet::new();
    let mut nodes: BTreeSet<NodeId> = members.iter().map(|member| member.node).collect();
    let voters = members.iter().filter(|member| member.seat == Seat::Voter);
    let mut voters = voters.count();
    for change in changes {
        let replica = change.replica();
        if !named.insert(replica) {
            return Err(ChangeError::Twice { replica });
        }
        let found = members.find(replica);
        match (change, found.map(|member| member.seat)) {
            (Change::Add { node, .. }, None) => {
                if replica.get() == 0 || members.is_retired(replica) {
                    return Err(ChangeError::IdUsed { replica });
                }
                if !nodes.insert(*node) {
                    return Err(ChangeError::NodeTaken { node: *node });
                }
            }
            (Change::Add { .. }, Some(_)) => return Err(ChangeError::IdUsed { replica }),
            (_, None) => return Err(ChangeError::NotMember { replica }),
            (Change::Promote { .. }, Some(Seat::Learner)) => voters += 1,
            (Change::Promote { .. }, Some(_)) => return Err(ChangeError::NotLearner { replica }),
            (Change::Demote { .. }, Some(Seat::Voter)) => voters -= 1,
            (Change::Demote { .. }, Some(_)) => return Err(ChangeError::NotVoter { replica }),
            (Change::Remove { .. }, Some(seat)) => voters -= usize::from(seat == Seat::Voter),
        }
    }
    if voters == 0 {
        return Err(ChangeError::NoVoterLeft);
    }
    let max = MEMBERS_MAX;
    if members.len() + changes.len() > max {
        return Err(ChangeError::TooMany { max });
    }
    Ok(())
}

/// The header of its entry.
pub(crate) fn encode(changes: &[Change]) -> Bytes {
    let encoded = postcard::to_allocvec(changes).expect("a change is plain data");
    Bytes::from(encoded)
}

/// What an entry of kind `Members` does.
pub(crate) struct Decoded {
    /// For raft-rs.
    pub(crate) change: ConfChangeV2,
    /// Where new members are.
    pub(crate) nodes: BTreeMap<ReplicaId, NodeId>,
}

/// Reads the header of an entry; empty is the second step of a change in two.
///
/// # Errors
/// When it is none. All replicas have the same bytes, so all of them leave it out.
pub(crate) fn decode(header: &[u8]) -> Result<Decoded, postcard::Error> {
    let mut decoded = Decoded {
        change: ConfChangeV2::default(),
        nodes: BTreeMap::new(),
    };
    if header.is_empty() {
        return Ok(decoded);
    }
    let changes: Vec<Change> = postcard::from_bytes(header)?;
    for change in changes {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(change.kind());
        single.node_id = change.replica().get();
        decoded.change.mut_changes().push(single);
        if let Change::Add { replica, node } = change {
            decoded.nodes.insert(replica, node);
        }
    }
    Ok(decoded)
}
