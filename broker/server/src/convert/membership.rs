//! How nodes become a cluster, on the wire and as the broker's own values. Pure.

use std::collections::BTreeSet;

use millrace_node::{Cluster, NodeFacts, Registered, Registration};
use millrace_proto::membership::v1 as wire;
use millrace_proto::membership::v1::identify_response::State;
use millrace_types::{
    FOUNDERS_MAX, Founder, Founding, FoundingDraft, NodeId, Refusal, ReplicaId, SHARDS_MAX, ShardId,
};

use crate::founding::plan::{Peer, PeerState, Terms, Way};
use crate::founding::settings::Settings;
use crate::validate::invalid;

/// What a node says of itself.
pub(crate) fn identity(
    node: NodeId,
    settings: &Settings,
    cluster: Option<Cluster>,
) -> wire::IdentifyResponse {
    let facts = settings.facts.clone();
    let mut answer = wire::IdentifyResponse {
        node_id: node.get(),
        build: facts.version,
        feature_level: facts.feature_level,
        peer_address: facts.peer_address,
        client_address: facts.client_address,
        ..wire::IdentifyResponse::default()
    };
    let state = match (cluster, &settings.way) {
        (Some(cluster), _) => {
            answer.founding = cluster.founding.as_ref().map(founding);
            answer.cluster_id = cluster.id;
            State::Member
        }
        (None, Way::Found(peers)) => {
            answer.peers = peers.iter().cloned().collect();
            answer.terms = Some(terms(&settings.terms));
            State::Empty
        }
        (None, Way::Join(_)) => State::Joining,
    };
    answer.state = state.into();
    answer
}

/// What a node has said of itself.
///
/// # Errors
/// When it makes no sense.
pub(crate) fn peer(answer: wire::IdentifyResponse) -> Result<Peer, Refusal> {
    let state = match answer.state() {
        State::Unspecified => return Err(invalid("state", "it is missing")),
        State::Joining => PeerState::Joining,
        State::Member => PeerState::Member {
            founding: answer.founding.map(read_founding).transpose()?,
            cluster_id: answer.cluster_id,
        },
        State::Empty => {
            let terms = answer
                .terms
                .ok_or_else(|| invalid("terms", "they are missing"))?;
            if answer.peers.len() > FOUNDERS_MAX {
                return Err(invalid("peers", "there are too many"));
            }
            PeerState::Empty {
                peers: answer.peers.into_iter().collect::<BTreeSet<String>>(),
                terms: Terms {
                    cluster_id: Some(terms.cluster_id).filter(|id| !id.is_empty()),
                    shards: terms.shards,
                    replication: terms.replication,
                },
            }
        }
    };
    Ok(Peer {
        node: node(answer.node_id)?,
        address: answer.peer_address,
        state,
    })
}

fn terms(terms: &Terms) -> wire::Terms {
    wire::Terms {
        cluster_id: terms.cluster_id.clone().unwrap_or_default(),
        shards: terms.shards,
        replication: terms.replication,
    }
}

/// A record.
pub(crate) fn founding(founding: &Founding) -> wire::Founding {
    let founder = |founder: &Founder| wire::Founder {
        node_id: founder.node.get(),
        peer_address: founder.peer.clone(),
    };
    wire::Founding {
        cluster_id: founding.cluster_id().to_owned(),
        shards: founding.shards(),
        replication: founding.replication(),
        founders: founding.founders().iter().map(founder).collect(),
    }
}

/// A record that came.
///
/// # Errors
/// `INVALID_ARGUMENT` when it makes no sense.
pub(crate) fn read_founding(record: wire::Founding) -> Result<Founding, Refusal> {
    let founder = |founder: wire::Founder| Founder {
        node: NodeId::new(founder.node_id),
        peer: founder.peer_address,
    };
    let draft = FoundingDraft {
        cluster_id: record.cluster_id,
        shards: record.shards,
        replication: record.replication,
        founders: record.founders.into_iter().map(founder).collect(),
    };
    Founding::try_from(draft).map_err(|error| invalid("founding", error.to_string()))
}

/// Who a node is, for those who are to know.
pub(crate) fn registration(registration: Registration, cluster: &str) -> wire::RegisterRequest {
    let lost = registration.lost.into_iter();
    let facts = registration.facts;
    wire::RegisterRequest {
        node_id: registration.node.get(),
        peer_address: facts.peer_address,
        client_address: facts.client_address,
        zone: facts.zone,
        build: facts.version,
        feature_level: facts.feature_level,
        lost: lost
            .map(|(shard, replica)| wire::ReplicaPlace {
                shard: shard.get(),
                replica_id: replica.get(),
            })
            .collect(),
        cluster_id: cluster.to_owned(),
    }
}

/// Who a node says it is.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(crate) fn read_registration(request: wire::RegisterRequest) -> Result<Registration, Refusal> {
    if request.lost.len() > SHARDS_MAX as usize + 1 {
        return Err(invalid("lost", "there are more than there can be"));
    }
    let lost = request.lost.into_iter();
    Ok(Registration {
        node: node(request.node_id)?,
        facts: NodeFacts {
            peer_address: request.peer_address,
            client_address: request.client_address,
            zone: request.zone,
            version: request.build,
            feature_level: request.feature_level,
        },
        lost: lost
            .map(|it| (ShardId::new(it.shard), ReplicaId::new(it.replica_id)))
            .collect(),
    })
}

/// What a node is told that belongs to the cluster now.
pub(crate) fn registered(registered: Registered) -> wire::RegisterResponse {
    let known = |(node, facts): (NodeId, NodeFacts)| wire::KnownNode {
        node_id: node.get(),
        peer_address: facts.peer_address,
        client_address: facts.client_address,
    };
    wire::RegisterResponse {
        founding: registered.cluster.founding.as_ref().map(founding),
        cluster_id: registered.cluster.id,
        shards: registered.cluster.shards,
        metadata_replica_id: registered.metadata.get(),
        nodes: registered.nodes.into_iter().map(known).collect(),
    }
}

/// What it takes from that to belong.
///
/// # Errors
/// `INVALID_ARGUMENT` when it makes no sense.
pub(crate) fn read_registered(
    answer: wire::RegisterResponse,
) -> Result<(Cluster, ReplicaId), Refusal> {
    if answer.metadata_replica_id == 0 {
        return Err(invalid("metadata_replica_id", "it is missing"));
    }
    let cluster = Cluster {
        id: answer.cluster_id,
        shards: answer.shards,
        founding: answer.founding.map(read_founding).transpose()?,
    };
    Ok((cluster, ReplicaId::new(answer.metadata_replica_id)))
}

fn node(id: u64) -> Result<NodeId, Refusal> {
    let node = NodeId::new(id);
    let nobody = || invalid("node_id", "0 is nobody's");
    (id != 0).then_some(node).ok_or_else(nobody)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_and_a_registration_come_back_as_they_were_sent() {
        let founder = |node: u64| Founder {
            node: NodeId::new(node),
            peer: format!("host-{node}:1"),
        };
        let draft = FoundingDraft {
            cluster_id: "ours".into(),
            shards: 4,
            replication: 3,
            founders: [1, 2, 3].map(founder).into(),
        };
        let record = Founding::try_from(draft).unwrap();
        assert_eq!(read_founding(founding(&record)).unwrap(), record);
        let mut broken = founding(&record);
        broken.founders[0].node_id = 2;
        assert!(read_founding(broken).is_err());

        let node = Registration {
            node: NodeId::new(4),
            facts: NodeFacts {
                peer_address: "host-4:1".into(),
                client_address: "host-4:2".into(),
                zone: "z".into(),
                version: "1".into(),
                feature_level: 1,
            },
            lost: vec![(ShardId::new(1), ReplicaId::new(9))],
        };
        let sent = registration(node.clone(), "ours");
        assert_eq!(read_registration(sent).unwrap(), node);
    }
}
