//! What was read from the API server: facts the pure middle of the pipeline decides by.

use std::collections::BTreeMap;
use std::net::IpAddr;

use millrace_crds::BrokerClusterStatus;
use serde_json::Value;

use super::desired::{ClusterId, Desired};
use super::object::Kind;

/// What `dereference` found: everything outside the BrokerCluster that says who the cluster is.
#[derive(Clone, Debug, PartialEq)]
pub struct References {
    /// The claims that the cluster's pods will use, as far as they exist.
    pub claims: Vec<Claim>,
    /// The id in the claim template of an existing StatefulSet of this cluster.
    pub stateful_set_id: Option<String>,
    /// A fresh id, used if nothing has one yet.
    pub fresh_id: ClusterId,
    /// The image of a cluster that names none.
    pub default_image: String,
}

/// A claim of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// The pod that uses it.
    pub ordinal: u32,
    /// The cluster id it is annotated with.
    pub cluster_id: Option<String>,
    /// The node it is annotated with: that node belongs to the cluster.
    pub node_id: Option<String>,
    /// It is being deleted.
    pub leaving: bool,
}

/// What `observe` found of what the cluster should own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Existing objects with a wanted kind and name, whoever they belong to.
    pub objects: BTreeMap<(Kind, String), Value>,
    /// The Secret of the control port.
    pub token: TokenState,
    /// The cluster's pods.
    pub pods: Vec<Pod>,
    /// The claims of the cluster.
    pub claims: Vec<Claim>,
    /// What each broker says of itself, by pod; of pods without an address nothing.
    pub brokers: BTreeMap<String, Said>,
    /// What the brokers know of each other, if one of them said.
    pub view: Option<View>,
    /// What was asked about the node whose turn it is, if the plan needs to know.
    pub answer: Option<(Question, Answer)>,
    /// Who asks for most copies of its own messages, if the plan needs to know.
    pub asked: Option<Asked>,
    /// Status as last written, `None` when there is none.
    pub status: Option<BrokerClusterStatus>,
}

/// A queue or topic that says how many copies of its messages there should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its address.
    pub by: String,
    /// Copies.
    pub copies: u32,
}

/// What a broker says of itself when it is asked who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It does not answer, and why.
    Nothing(String),
    /// Its disk is empty: it waits to be told of a cluster, or to be let into one.
    Empty {
        /// On its disk.
        node_id: String,
    },
    /// It belongs to a cluster.
    Member {
        /// On its disk.
        node_id: String,
        /// The cluster's.
        cluster_id: String,
    },
}

impl Said {
    /// Who says it.
    #[must_use]
    pub fn node_id(&self) -> Option<&str> {
        match self {
            Self::Nothing(_) => None,
            Self::Empty { node_id } | Self::Member { node_id, .. } => Some(node_id),
        }
    }
}

/// The nodes and shards of a cluster as one of its brokers sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// By node id.
    pub nodes: BTreeMap<String, Node>,
    /// By number; 0 is the metadata shard.
    pub shards: BTreeMap<u32, Shard>,
}

impl View {
    /// Shards that nobody leads, for people.
    #[must_use]
    pub fn leaderless(&self) -> Vec<String> {
        let of = self.shards.iter();
        let of = of.filter(|(_, shard)| shard.leader == Leader::Nobody);
        of.map(|(number, _)| number.to_string()).collect()
    }

    /// Shards that do not have all the copies that the brokers can give them, or that get others
    /// just now, for people.
    #[must_use]
    pub fn thin(&self, size: &Desired) -> Vec<String> {
        let wanted = |number: u32, shard: &Shard| match number {
            0 => odd(size.replicas.min(METADATA_COPIES_MAX)),
            _ if number <= size.shards => size.replicas.min(size.replication),
            // Its queues and topics ask for a number of their own.
            _ => shard.voters,
        };
        let of = self.shards.iter();
        let of = of
            .filter(|(number, shard)| shard.is_changing || shard.copies < wanted(**number, shard));
        of.map(|(number, _)| number.to_string()).collect()
    }
}

/// Copies of the metadata shard that count for a majority, whatever the number of brokers: as the
/// brokers have it, like their number being odd.
const METADATA_COPIES_MAX: u32 = 5;

/// The largest odd number up to one that is at least 1.
const fn odd(number: u32) -> u32 {
    if number.is_multiple_of(2) {
        number.saturating_sub(1)
    } else {
        number
    }
}

/// A shard as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Who leads it.
    pub leader: Leader,
    /// Copies that count for a majority.
    pub voters: u32,
    /// Those of them that are up to date.
    pub copies: u32,
    /// Copies come or go, or the lead does.
    pub is_changing: bool,
}

/// Who leads a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leader {
    /// Nobody said that it does.
    Nobody,
    /// This node.
    Node(String),
}

/// A node as the others see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Of its build.
    pub version: String,
    /// It leads nothing, and is handed nothing.
    pub is_drained: bool,
    /// It gets no copies of shards and loses those it has.
    pub is_cordoned: bool,
    /// Shards it leads.
    pub leads: u32,
    /// Shards it votes in.
    pub votes: u32,
    /// Shards it follows without a vote.
    pub learns: u32,
}

/// What is done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Leads nothing any more, and is handed nothing.
    Drain,
    /// Ends that.
    Undrain,
    /// Gets no copies of shards, and loses those it has.
    Cordon,
    /// Ends that.
    Uncordon,
    /// Is struck off; refused while it has copies.
    Forget,
}

impl Act {
    /// For people.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Undrain => "undrain",
            Self::Cordon => "cordon",
            Self::Uncordon => "uncordon",
            Self::Forget => "forget",
        }
    }
}

/// What has to be asked before a pod may be touched, or the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// May this node stop?
    CanStop(String),
    /// Has this node everything that it missed?
    CaughtUp(String),
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Yes,
    /// No, for these reasons.
    No(Vec<Blocker>),
}

/// Why a node may not stop, or has not caught up; for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// It leads a shard: that passes when it is drained.
    Leads(String),
    /// Something that has to change elsewhere.
    Other(String),
}

impl Blocker {
    /// In words.
    #[must_use]
    pub fn words(&self) -> &str {
        match self {
            Self::Leads(words) | Self::Other(words) => words,
        }
    }
}

/// State of the control Secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenState {
    /// There is no such Secret.
    #[default]
    Missing,
    /// It is of a deleted cluster of the same name, or being deleted.
    Leaving,
    /// It is there without a token.
    Empty,
    /// It has a token.
    Present,
}

/// A broker pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid: deleting it names it, so that a pod that replaced it is never hit.
    pub uid: String,
    /// Hash of the template and settings it started with.
    pub template_hash: Option<String>,
    /// The image it was made with.
    pub image: String,
    /// It is being deleted.
    pub leaving: bool,
    /// It serves.
    pub ready: bool,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// What keeps it from serving, as far as Kubernetes says.
    pub trouble: Option<Trouble>,
}

/// Why a pod does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One of `reasons`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}
