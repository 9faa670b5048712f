//! What a node that belongs to nobody does next. Pure: all that it knows of the others is given.
//!
//! Promises: nobody founds a cluster alone that was told of others; a cluster is founded only when
//! all who were listed are there, belong to nobody and want the same; whoever makes the record
//! makes the same one; who is in a record takes it, and who is not joins as a new node, whatever it
//! was told to found. Does not ask and does not write.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use millrace_types::{Founder, Founding, FoundingDraft, FoundingError, NodeId};

/// What a node was told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Found a cluster with these, itself among them: their peer addresses.
    Found(BTreeSet<String>),
    /// Wait for a record, or for a cluster at one of these addresses.
    Join(BTreeSet<String>),
}

/// What a cluster would be founded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// `None`: made of the nodes' ids.
    pub(crate) cluster_id: Option<String>,
    pub(crate) shards: u32,
    pub(crate) replication: u32,
}

/// A node, and what it was told.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) node: NodeId,
    pub(crate) way: Way,
    pub(crate) terms: Terms,
}

/// What came of asking at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nobody answered, and why.
    Silence(String),
    /// A node.
    Peer(Peer),
}

/// A node, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    /// Where it says others find it.
    pub(crate) address: String,
    pub(crate) state: PeerState,
}

/// What a node belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// Nothing; it would found a cluster.
    Empty {
        /// With these.
        peers: BTreeSet<String>,
        /// So.
        terms: Terms,
    },
    /// Nothing; it founds none by itself.
    Joining,
    /// A cluster.
    Member {
        /// Its id.
        cluster_id: String,
        /// How it began, if the node knows.
        founding: Option<Founding>,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask again later.
    Wait(Reason),
    /// Send this record to all in it, and take it.
    Bootstrap(Founding),
    /// Take the record that others have.
    Take(Founding),
    /// Join the cluster of this record, at one of these addresses.
    Join {
        /// Where its members are.
        addresses: Vec<String>,
        /// How it began.
        founding: Founding,
    },
}

/// Why a node waits; for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Not everybody is there.
    Missing {
        reachable: usize,
        of: usize,
        /// Who is not, and why.
        silent: Vec<(String, String)>,
    },
    /// None of the addresses is this node's.
    NotListed { node: NodeId },
    /// Two addresses are one node.
    Twice { one: String, other: String },
    /// A node was told to found with others.
    OtherPeers {
        address: String,
        peers: BTreeSet<String>,
    },
    /// A node was told to found another cluster, or in another way.
    OtherTerms { address: String },
    /// A node was told to join.
    OnlyJoins { address: String },
    /// Another one makes the record.
    Founds { node: NodeId },
    /// There are two clusters.
    TwoClusters { one: String, other: String },
    /// There is a cluster, and it is not the one that was asked for.
    OtherCluster { found: String, asked: String },
    /// There is a cluster, and nobody who says how it began.
    NoRecord { cluster_id: String },
    /// All agree on a record that makes no sense.
    NoSense(FoundingError),
    /// There is nobody to join yet.
    NoCluster { reachable: usize },
}

/// What to do, from what came of asking at each address.
pub(crate) fn next(own: &Own, answers: &BTreeMap<String, Answer>) -> Next {
    match member(own, answers) {
        Err(reason) => return Next::Wait(reason),
        Ok(Some(next)) => return next,
        Ok(None) => {}
    }
    match &own.way {
        Way::Join(_) => {
            let is_other = |peer: &&Peer| peer.node != own.node;
            let reachable = peers(answers).map(|(_, peer)| peer).filter(is_other);
            let reachable = reachable.count();
            Next::Wait(Reason::NoCluster { reachable })
        }
        Way::Found(listed) => match found(own, listed, answers) {
            Err(reason) => Next::Wait(reason),
            Ok(next) => next,
        },
    }
}

fn peers(answers: &BTreeMap<String, Answer>) -> impl Iterator<Item = (&String, &Peer)> {
    answers.iter().filter_map(|(address, answer)| match answer {
        Answer::Peer(peer) => Some((address, peer)),
        Answer::Silence(_) => None,
    })
}

/// What follows from there being a cluster already, if there is one.
fn member(own: &Own, answers: &BTreeMap<String, Answer>) -> Result<Option<Next>, Reason> {
    let mut known: Option<&str> = None;
    let mut record: Option<&Founding> = None;
    let mut addresses = Vec::new();
    for (address, peer) in peers(answers) {
        let PeerState::Member {
            cluster_id,
            founding,
        } = &peer.state
        else {
            continue;
        };
        let two = |one: &str| Reason::TwoClusters {
            one: one.into(),
            other: cluster_id.clone(),
        };
        match known {
            Some(one) if one != cluster_id => return Err(two(one)),
            _ => known = Some(cluster_id),
        }
        match (record, founding) {
            (Some(one), Some(other)) if !one.is_same(other) => return Err(two(cluster_id)),
            (None, Some(founding)) => record = Some(founding),
            _ => {}
        }
        addresses.push(address.clone());
    }
    let Some(cluster_id) = known else {
        return Ok(None);
    };
    if let Some(asked) = &own.terms.cluster_id
        && asked != cluster_id
    {
        let (found, asked) = (cluster_id.into(), asked.clone());
        return Err(Reason::OtherCluster { found, asked });
    }
    let no_record = || Reason::NoRecord {
        cluster_id: cluster_id.into(),
    };
    let founding = record.ok_or_else(no_record)?.clone();
    Ok(Some(if founding.is_founder(own.node) {
        Next::Take(founding)
    } else {
        Next::Join {
            addresses,
            founding,
        }
    }))
}

/// Whether everybody is there and wants the same, and who makes the record.
fn found(
    own: &Own,
    listed: &BTreeSet<String>,
    answers: &BTreeMap<String, Answer>,
) -> Result<Next, Reason> {
    let mut founders: BTreeMap<NodeId, &String> = BTreeMap::new();
    let mut silent = Vec::new();
    for address in listed {
        let peer = match answers.get(address) {
            Some(Answer::Peer(peer)) => peer,
            Some(Answer::Silence(why)) => {
                silent.push((address.clone(), why.clone()));
                continue;
            }
            None => {
                silent.push((address.clone(), "not asked yet".into()));
                continue;
            }
        };
        if let Some(other) = founders.insert(peer.node, address) {
            let (one, other) = (other.clone(), address.clone());
            return Err(Reason::Twice { one, other });
        }
        if peer.node != own.node {
            agrees(own, listed, address, peer)?;
        }
    }
    let (reachable, of) = (founders.len(), listed.len());
    if !silent.is_empty() {
        return Err(Reason::Missing {
            reachable,
            of,
            silent,
        });
    }
    if !founders.contains_key(&own.node) {
        return Err(Reason::NotListed { node: own.node });
    }
    match founders.keys().next() {
        Some(node) if *node != own.node => Err(Reason::Founds { node: *node }),
        _ => record(&own.terms, founders).map(Next::Bootstrap),
    }
}

fn agrees(own: &Own, listed: &BTreeSet<String>, address: &str, peer: &Peer) -> Result<(), Reason> {
    let address = || address.to_owned();
    match &peer.state {
        PeerState::Empty { peers, .. } if peers != listed => Err(Reason::OtherPeers {
            address: address(),
            peers: peers.clone(),
        }),
        PeerState::Empty { terms, .. } if *terms != own.terms => {
            Err(Reason::OtherTerms { address: address() })
        }
        PeerState::Empty { .. } => Ok(()),
        // Of members was taken care of before.
        PeerState::Joining | PeerState::Member { .. } => {
            Err(Reason::OnlyJoins { address: address() })
        }
    }
}

fn record(terms: &Terms, founders: BTreeMap<NodeId, &String>) -> Result<Founding, Reason> {
    let made = || Founding::cluster_id_of(founders.keys().copied());
    let founder = |(node, peer): (&NodeId, &&String)| Founder {
        node: *node,
        peer: (*peer).clone(),
    };
    let draft = FoundingDraft {
        cluster_id: terms.cluster_id.clone().unwrap_or_else(made),
        shards: terms.shards,
        replication: terms.replication,
        founders: founders.iter().map(founder).collect(),
    };
    Founding::try_from(draft).map_err(Reason::NoSense)
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("waits to be founded: ")?;
        match self {
            Self::Missing {
                reachable,
                of,
                silent,
            } => {
                write!(f, "{reachable} of {of} peers reachable")?;
                for (address, why) in silent {
                    write!(f, "; {address}: {why}")?;
                }
                Ok(())
            }
            Self::NotListed { node } => {
                write!(f, "none of the --peers is this node, {node}")
            }
            Self::Twice { one, other } => {
                write!(f, "{one} and {other} of the --peers are one node")
            }
            Self::OtherPeers { address, peers } => {
                let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
                write!(f, "{address} has other --peers: {}", peers.join(","))
            }
            Self::OtherTerms { address } => write!(
                f,
                "{address} has another --cluster-id, --shards or --replication"
            ),
            Self::OnlyJoins { address } => {
                write!(f, "{address} has no --peers and founds no cluster")
            }
            Self::Founds { node } => write!(f, "all are there, node {node} founds the cluster"),
            Self::TwoClusters { one, other } => write!(
                f,
                "the peers are of different clusters, {one} and {other}, or of one that was \
                 founded twice"
            ),
            Self::OtherCluster { found, asked } => {
                write!(f, "the peers are of cluster {found}, not {asked}")
            }
            Self::NoRecord { cluster_id } => {
                write!(f, "nobody reachable knows how cluster {cluster_id} began")
            }
            Self::NoSense(error) => error.fmt(f),
            Self::NoCluster { reachable } => write!(
                f,
                "no cluster to join yet, and nobody has sent a record; {reachable} other nodes \
                 reachable"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
