//! What can be proposed about nodes and replicas.

use alloc::string::String;
use alloc::vec::Vec;

use millrace_types::{LogIndex, NodeId, ReplicaId, ShardId};
use serde::{Deserialize, Serialize};

use super::{Assigned, NodeFacts, Role};

/// A change of nodes and replicas. Variants keep their place, as those of `Command` do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RosterCommand {
    /// The shards' first replicas, as the metadata shard's first leader knows them. Said again it
    /// does nothing.
    Found(Founded),
    /// A node says who it is: at each start, and when anything of it has changed.
    RegisterNode(Registration),
    /// A node gets no new replicas and loses those it has.
    CordonNode {
        /// Which.
        node: NodeId,
    },
    /// A node may have replicas again.
    UncordonNode {
        /// Which.
        node: NodeId,
    },
    /// A node hands over what it leads and is handed nothing.
    DrainNode {
        /// Which.
        node: NodeId,
    },
    /// A node may lead again.
    UndrainNode {
        /// Which.
        node: NodeId,
    },
    /// A node without replicas is struck off. It may register again.
    ForgetNode {
        /// Which.
        node: NodeId,
    },
    /// Voters of a data shard when there are nodes enough.
    SetReplication {
        /// How many.
        replication: u32,
    },
    /// Where a shard's replicas belong from here on.
    Place {
        /// Which shard.
        shard: ShardId,
        /// The target it replaces; another one is refused.
        revision: u64,
        /// All replicas.
        replicas: Vec<Wish>,
        /// The node that should lead.
        leader: Option<NodeId>,
    },
    /// A shard's leader says who its members are.
    ReportMembers {
        /// Which shard.
        shard: ShardId,
        /// The log index at which it was so.
        index: LogIndex,
        /// All members.
        members: Vec<Assigned>,
    },
}

/// Where all shards began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founded {
    /// Voters of a data shard when there are nodes enough.
    pub replication: u32,
    /// The first nodes and their peer addresses.
    pub nodes: Vec<(NodeId, String)>,
    /// By shard, the metadata shard first: its first voters.
    pub shards: Vec<Vec<(ReplicaId, NodeId)>>,
}

/// A node, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Which.
    pub node: NodeId,
    /// What it says.
    pub facts: NodeFacts,
    /// Replicas on its disk that have lost something; those that nobody names are left out.
    pub lost: Vec<(ShardId, ReplicaId)>,
}

/// One replica of a new target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Where.
    pub node: NodeId,
    /// How it counts.
    pub role: Role,
    /// The one that is wanted or is there now; `None` for a new one, whose id is minted.
    pub replica: Option<ReplicaId>,
}
