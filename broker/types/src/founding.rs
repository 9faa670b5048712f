//! How a cluster begins: who founds it, and which of them has which replica of which shard.
//!
//! A pure function of one record, so that everybody who has the record comes to the same members
//! without asking anybody. Does not say what becomes of them later: members change, the record
//! does not.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{NodeId, ReplicaId, ShardId};
use crate::limits::{
    ADDRESS_BYTES_MAX, CLUSTER_ID_BYTES_MAX, FOUNDERS_MAX, METADATA_VOTERS_MAX, SHARDS_MAX,
};

/// One of those who found a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Founder {
    /// Who.
    pub node: NodeId,
    /// Where its peers reach it, `HOST:PORT`; empty when it founds alone and has none.
    pub peer: String,
}

/// What a record of a founding is made of; `Founding::try_from` checks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundingDraft {
    /// The cluster's id.
    pub cluster_id: String,
    /// Data shards; the metadata shard comes on top.
    pub shards: u32,
    /// Replicas of a data shard, as far as there are founders.
    pub replication: u32,
    /// Everybody who begins with it, in any order.
    pub founders: Vec<Founder>,
}

/// A record of how a cluster was founded. Its founders are sorted by node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FoundingDraft", into = "FoundingDraft")]
pub struct Founding(FoundingDraft);

/// Why a record makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FoundingError {
    /// Empty, too long, or not printable.
    #[error("a cluster id has 1 to {CLUSTER_ID_BYTES_MAX} printable characters without blanks")]
    ClusterId,
    /// None, or too many.
    #[error("{given} data shards; between 1 and {SHARDS_MAX} are possible")]
    Shards {
        /// How many.
        given: u32,
    },
    /// None.
    #[error("each shard needs at least one replica")]
    NoReplica,
    /// None, or too many.
    #[error("{given} founders; between 1 and {FOUNDERS_MAX} are possible")]
    Founders {
        /// How many.
        given: usize,
    },
    /// A founder's node id is none, or there twice.
    #[error("node {node} is no founder, or is named twice")]
    Node {
        /// Which.
        node: NodeId,
    },
    /// A founder among several cannot be reached, or at the address of another one.
    #[error("node {node} has no address of its own that others could reach it at")]
    Address {
        /// Which.
        node: NodeId,
    },
}

impl Founding {
    /// The record of a node that founds a cluster by itself.
    ///
    /// # Errors
    /// When the id or the number of shards is out of bounds.
    pub fn alone(cluster_id: &str, shards: u32, node: NodeId) -> Result<Self, FoundingError> {
        let peer = String::new();
        Self::try_from(FoundingDraft {
            cluster_id: cluster_id.into(),
            shards,
            replication: 1,
            founders: Vec::from([Founder { node, peer }]),
        })
    }

    /// The id of a cluster that these nodes found, unless it was given one: whoever of them makes
    /// the record, and however often, makes the same.
    #[must_use]
    pub fn cluster_id_of(nodes: impl IntoIterator<Item = NodeId>) -> String {
        let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
        nodes.sort_unstable();
        nodes.dedup();
        let fold = |seed: u64| nodes.iter().fold(seed, |sum, node| mix(sum ^ node.get()));
        format!("{:016x}{:016x}", fold(1), fold(2))
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.0.cluster_id
    }

    /// Data shards; the metadata shard comes on top.
    #[must_use]
    pub const fn shards(&self) -> u32 {
        self.0.shards
    }

    /// Replicas of a data shard, as far as there are founders.
    #[must_use]
    pub const fn replication(&self) -> u32 {
        self.0.replication
    }

    /// Who founds it, by node id.
    #[must_use]
    pub fn founders(&self) -> &[Founder] {
        &self.0.founders
    }

    /// Whether a node is one of them.
    #[must_use]
    pub fn is_founder(&self, node: NodeId) -> bool {
        self.0.founders.iter().any(|founder| founder.node == node)
    }

    /// Whether both make the same cluster: of addresses, people may have written others.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let nodes = |founding: &Self| -> Vec<NodeId> {
            founding.founders().iter().map(|f| f.node).collect()
        };
        (self.cluster_id(), self.shards(), self.replication())
            == (other.cluster_id(), other.shards(), other.replication())
            && nodes(self) == nodes(other)
    }

    /// The first members of a shard, all of them voters: of the metadata shard, the founders as far
    /// as more would be too many to agree; of a data shard, as many as it shall have replicas, each
    /// shard beginning with another founder. None for a shard that there is not.
    #[must_use]
    pub fn members(&self, shard: ShardId) -> Vec<(ReplicaId, NodeId)> {
        if shard.get() > self.shards() {
            return Vec::new();
        }
        let founders = self.founders();
        let (first, count) = match shard.get().checked_sub(1) {
            None => (0, METADATA_VOTERS_MAX),
            Some(data) => (in_memory(data), in_memory(self.replication())),
        };
        let turned = founders
            .iter()
            .cycle()
            .skip(first % founders.len())
            .take(count.min(founders.len()));
        turned
            .map(|founder| (self.replica_of(shard, founder.node), founder.node))
            .collect()
    }

    /// The replica that a founder begins with; `None` when it has none of this shard.
    #[must_use]
    pub fn replica(&self, shard: ShardId, node: NodeId) -> Option<ReplicaId> {
        let members = self.members(shard);
        let own = members.into_iter().find(|(_, member)| *member == node);
        own.map(|(replica, _)| replica)
    }

    /// Different for each founder of a shard, as `mix` maps no two numbers to one.
    fn replica_of(&self, shard: ShardId, node: NodeId) -> ReplicaId {
        let cluster = self.cluster_id().bytes();
        let cluster = cluster.fold(0, |sum, byte| mix(sum ^ u64::from(byte)));
        let place = mix(cluster ^ u64::from(shard.get()));
        // 0 is nobody; that one founder in 2^64 has the other number that nobody would draw.
        ReplicaId::new(mix(place ^ node.get()).max(1))
    }
}

impl TryFrom<FoundingDraft> for Founding {
    type Error = FoundingError;

    fn try_from(mut draft: FoundingDraft) -> Result<Self, FoundingError> {
        let id = draft.cluster_id.as_bytes();
        if !(1..=CLUSTER_ID_BYTES_MAX).contains(&id.len()) || !id.iter().all(u8::is_ascii_graphic) {
            return Err(FoundingError::ClusterId);
        }
        if !(1..=SHARDS_MAX).contains(&draft.shards) {
            let given = draft.shards;
            return Err(FoundingError::Shards { given });
        }
        if draft.replication == 0 {
            return Err(FoundingError::NoReplica);
        }
        let given = draft.founders.len();
        if !(1..=FOUNDERS_MAX).contains(&given) {
            return Err(FoundingError::Founders { given });
        }
        draft.founders.sort_unstable();
        check(&draft.founders)?;
        Ok(Self(draft))
    }
}

impl From<Founding> for FoundingDraft {
    fn from(founding: Founding) -> Self {
        founding.0
    }
}

/// Whether each founder, of those sorted by node, is somebody, somewhere, once.
fn check(founders: &[Founder]) -> Result<(), FoundingError> {
    for (place, founder) in founders.iter().enumerate() {
        let node = founder.node;
        let before = &founders[..place];
        if node.get() == 0 || before.last().is_some_and(|other| other.node == node) {
            return Err(FoundingError::Node { node });
        }
        let reachable = (1..=ADDRESS_BYTES_MAX).contains(&founder.peer.len());
        let is_taken = before.iter().any(|other| other.peer == founder.peer);
        let is_alone = founders.len() == 1 && founder.peer.is_empty();
        if (!reachable && !is_alone) || is_taken {
            return Err(FoundingError::Address { node });
        }
    }
    Ok(())
}

/// Spreads bits: every number becomes another one, and none twice (the end of splitmix64).
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn in_memory(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::string::ToString;

    use super::*;

    fn draft(nodes: &[u64]) -> FoundingDraft {
        let founder = |node: &u64| Founder {
            node: NodeId::new(*node),
            peer: format!("host-{node}:7073"),
        };
        FoundingDraft {
            cluster_id: "ours".to_string(),
            shards: 4,
            replication: 3,
            founders: nodes.iter().map(founder).collect(),
        }
    }

    fn founding(nodes: &[u64]) -> Founding {
        draft(nodes).try_into().unwrap()
    }

    fn nodes(founding: &Founding, shard: u32) -> Vec<u64> {
        let members = founding.members(ShardId::new(shard));
        members.into_iter().map(|(_, node)| node.get()).collect()
    }

    #[test]
    fn each_data_shard_begins_with_another_founder() {
        let three = founding(&[30, 10, 20]);
        assert_eq!(nodes(&three, 0), [10, 20, 30]);
        assert_eq!(nodes(&three, 1), [10, 20, 30]);
        assert_eq!(nodes(&three, 2), [20, 30, 10]);
        assert_eq!(nodes(&three, 4), [10, 20, 30]);
        assert!(nodes(&three, 5).is_empty());
        let seven = founding(&[1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(nodes(&seven, 0), [1, 2, 3, 4, 5]);
        assert_eq!(nodes(&seven, 4), [4, 5, 6]);
        assert_eq!(nodes(&founding(&[8, 9]), 2), [9, 8]);
    }

    #[test]
    fn replicas_depend_on_cluster_shard_and_node_and_on_nothing_else() {
        let ours = founding(&[1, 2, 3]);
        let mut theirs = draft(&[3, 2, 1]);
        theirs.founders[0].peer = "elsewhere:1".to_string();
        let same = Founding::try_from(theirs.clone()).unwrap();
        assert!(same.is_same(&ours) && same != ours);
        theirs.cluster_id = "theirs".to_string();
        let other = Founding::try_from(theirs).unwrap();
        assert!(!other.is_same(&ours));

        let mut seen = BTreeSet::new();
        for shard in (0..=4).map(ShardId::new) {
            let mut members = ours.members(shard);
            for (replica, node) in &members {
                assert_eq!(ours.replica(shard, *node), Some(*replica));
                assert!(seen.insert(*replica));
                assert!(seen.insert(other.replica(shard, *node).unwrap()));
            }
            members.sort_unstable();
            let mut again = same.members(shard);
            again.sort_unstable();
            assert_eq!(again, members);
        }
        assert_eq!(ours.replica(ShardId::new(1), NodeId::new(9)), None);
        // Whoever builds a later version must come to the same ids.
        let first = ours.replica(ShardId::METADATA, NodeId::new(1));
        assert_eq!(first, Some(ReplicaId::new(FIRST)));
    }

    const FIRST: u64 = 16_814_548_595_131_214_139;

    #[test]
    fn the_id_of_a_cluster_is_that_of_its_founders_in_any_order() {
        let id = |nodes: &[u64]| Founding::cluster_id_of(nodes.iter().copied().map(NodeId::new));
        assert_eq!(id(&[1, 2, 3]), id(&[3, 1, 2]));
        assert_ne!(id(&[1, 2, 3]), id(&[1, 2, 4]));
        assert_eq!(id(&[1]).len(), 32);
    }

    #[test]
    fn a_record_that_makes_no_sense_is_refused() {
        let refused = |change: &dyn Fn(&mut FoundingDraft)| {
            let mut draft = draft(&[1, 2, 3]);
            change(&mut draft);
            Founding::try_from(draft).unwrap_err()
        };
        let (one, two) = (NodeId::new(1), NodeId::new(2));
        assert_eq!(refused(&|d| d.cluster_id.clear()), FoundingError::ClusterId);
        let blank = refused(&|d| d.cluster_id = "a b".to_string());
        assert_eq!(blank, FoundingError::ClusterId);
        assert_eq!(
            refused(&|d| d.shards = 0),
            FoundingError::Shards { given: 0 }
        );
        assert_eq!(refused(&|d| d.replication = 0), FoundingError::NoReplica);
        let none = refused(&|d| d.founders.clear());
        assert_eq!(none, FoundingError::Founders { given: 0 });
        let twice = refused(&|d| d.founders[0].node = two);
        assert_eq!(twice, FoundingError::Node { node: two });
        let nobody = refused(&|d| d.founders[0].node = NodeId::new(0));
        assert!(matches!(nobody, FoundingError::Node { .. }));
        let nowhere = refused(&|d| d.founders[0].peer.clear());
        assert_eq!(nowhere, FoundingError::Address { node: one });
        let shared = refused(&|d| d.founders[1].peer = d.founders[0].peer.clone());
        assert_eq!(shared, FoundingError::Address { node: two });
        assert!(Founding::alone("ours", 2, one).is_ok());
    }
}
