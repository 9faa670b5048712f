//! Brokers over gRPC, at the control ports of their pods.

use std::net::IpAddr;

use millrace_crds::FoundingStatus;
use millrace_proto::membership::v1::identify_response::State;
use millrace_proto::membership::v1::membership_client::MembershipClient;
use millrace_proto::membership::v1::{BootstrapRequest, Founder, Founding, IdentifyRequest};
use millrace_proto::v1::cluster_client::ClusterClient;
use millrace_proto::v1::{self, NodeHosting, NodeRequest, NodesRequest, ShardsRequest};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::{Brokers, CALL_TIMEOUT, CONNECT_TIMEOUT, Unanswered};
use crate::cluster::build::Token;
use crate::cluster::desired::ClusterId;
use crate::cluster::facts::{Act, Answer, Blocker, Leader, Node, Question, Said, Shard, View};
use crate::names;

/// What 256 shards on nine nodes come to is a few tens of kilobytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Brokers at their ports.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Where they are steered; another one only in tests.
    pub(crate) control_port: u16,
}

impl Wire {
    /// A connection for one call: the next one may be to another pod of the same address.
    async fn channel(&self, at: IpAddr) -> Result<Channel, Unanswered> {
        let url = names::pod_url(at, self.control_port);
        let endpoint = Endpoint::from_shared(url).map_err(|error| unanswered(&error))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT);
        endpoint.connect().await.map_err(|error| unanswered(&error))
    }
}

fn unanswered(error: &(dyn std::error::Error + 'static)) -> Unanswered {
    Unanswered(crate::report(error))
}

fn refused(status: &Status) -> Unanswered {
    Unanswered(status.message().to_owned())
}

/// A request with the token, as every call of the control port wants it.
fn authorized<T>(message: T, token: &Token) -> Result<Request<T>, Unanswered> {
    let bearer = MetadataValue::<Ascii>::try_from(format!("Bearer {}", token.reveal()));
    let bearer = bearer.map_err(|_| Unanswered("no header can carry the token".to_owned()))?;
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer);
    Ok(request)
}

/// As brokers print it, too.
fn text(node_id: u64) -> String {
    format!("{node_id:016x}")
}

fn number(node_id: &str) -> Result<u64, Unanswered> {
    u64::from_str_radix(node_id, 16)
        .map_err(|_| Unanswered(format!("{node_id:?} is no id of a node")))
}

/// The record as it is sent.
fn record(cluster: &ClusterId, founding: &FoundingStatus) -> Result<Founding, Unanswered> {
    let small = |number: i32| {
        u32::try_from(number).map_err(|_| Unanswered(format!("{number} cannot be recorded")))
    };
    let founder = |founder: &millrace_crds::FounderStatus| {
        Ok(Founder {
            node_id: number(&founder.node_id)?,
            peer_address: founder.address.clone(),
        })
    };
    Ok(Founding {
        cluster_id: cluster.as_str().to_owned(),
        shards: small(founding.shards)?,
        replication: small(founding.replication)?,
        founders: founding
            .founders
            .iter()
            .map(founder)
            .collect::<Result<_, _>>()?,
    })
}

#[tonic::async_trait]
impl Brokers for Wire {
    async fn identify(&self, at: IpAddr, token: &Token) -> Result<Said, Unanswered> {
        let request = authorized(IdentifyRequest {}, token)?;
        let mut client = MembershipClient::new(self.channel(at).await?);
        let answer = client.identify(request).await;
        let answer = answer.map_err(|status| refused(&status))?.into_inner();
        let node_id = text(answer.node_id);
        match answer.state() {
            State::Empty | State::Joining => Ok(Said::Empty { node_id }),
            State::Member => Ok(Said::Member {
                node_id,
                cluster_id: answer.cluster_id,
            }),
            State::Unspecified => Err(Unanswered("a state that is not known here".to_owned())),
        }
    }

    async fn bootstrap(
        &self,
        at: IpAddr,
        token: &Token,
        cluster: &ClusterId,
        founding: &FoundingStatus,
    ) -> Result<(), Unanswered> {
        let founding = Some(record(cluster, founding)?);
        let request = authorized(BootstrapRequest { founding }, token)?;
        let mut client = MembershipClient::new(self.channel(at).await?);
        let told = client.bootstrap(request).await;
        told.map(drop).map_err(|status| refused(&status))
    }

    async fn view(&self, at: IpAddr, token: &Token) -> Result<View, Unanswered> {
        let channel = self.channel(at).await?;
        let mut client = ClusterClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let nodes = client.nodes(authorized(NodesRequest {}, token)?).await;
        let nodes = nodes.map_err(|status| refused(&status))?.into_inner();
        let shards = client.shards(authorized(ShardsRequest {}, token)?).await;
        let shards = shards.map_err(|status| refused(&status))?.into_inner();
        Ok(view(nodes.nodes, &shards.shards))
    }

    async fn ask(&self, at: IpAddr, token: &Token, what: &Question) -> Result<Answer, Unanswered> {
        let mut client = ClusterClient::new(self.channel(at).await?);
        let answer = match what {
            Question::CanStop(node) => client.can_stop(about(node, token)?).await,
            Question::CaughtUp(node) => client.caught_up(about(node, token)?).await,
        };
        let blockers = answer.map_err(|status| refused(&status))?.into_inner();
        let blockers: Vec<Blocker> = blockers.blockers.into_iter().map(blocker).collect();
        Ok(match blockers.is_empty() {
            true => Answer::Yes,
            false => Answer::No(blockers),
        })
    }

    async fn act(&self, at: IpAddr, token: &Token, act: Act, node: &str) -> Result<(), Unanswered> {
        let mut client = ClusterClient::new(self.channel(at).await?);
        let ordered = match act {
            Act::Drain => client.drain_node(about(node, token)?).await,
            Act::Undrain => client.undrain_node(about(node, token)?).await,
            Act::Cordon => client.cordon_node(about(node, token)?).await,
            Act::Uncordon => client.uncordon_node(about(node, token)?).await,
            Act::Forget => client.forget_node(about(node, token)?).await,
        };
        ordered.map(drop).map_err(|status| refused(&status))
    }
}

fn about(node: &str, token: &Token) -> Result<Request<NodeRequest>, Unanswered> {
    let node_id = node.to_owned();
    authorized(NodeRequest { node_id }, token)
}

fn blocker(blocker: v1::Blocker) -> Blocker {
    /// As brokers call it.
    const LEADS: &str = "Leads";
    let words = format!("shard {}: {}", blocker.shard, blocker.message);
    match blocker.reason.as_str() {
        LEADS => Blocker::Leads(words),
        _ => Blocker::Other(words),
    }
}

fn view(nodes: Vec<v1::Node>, shards: &[v1::Shard]) -> View {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let seats = |node: &str, votes: bool| {
        let members = shards.iter().flat_map(|shard| &shard.members);
        let seats = members.filter(|it| it.node_id == node && it.votes == votes);
        count(seats.count())
    };
    let node = |node: v1::Node| {
        let seen = Node {
            is_drained: node.drained,
            is_cordoned: node.hosting() == NodeHosting::Cordoned,
            leads: node.leads,
            votes: seats(&node.node_id, true),
            learns: seats(&node.node_id, false),
            version: node.version,
        };
        (node.node_id, seen)
    };
    let shard = |shard: &v1::Shard| {
        let voters = shard.members.iter().filter(|it| it.votes);
        let copies = voters.clone().filter(|it| it.active);
        let seen = Shard {
            voters: count(voters.count()),
            copies: count(copies.count()),
            is_changing: shard.changing,
            leader: match shard.leader.as_str() {
                "" => Leader::Nobody,
                node => Leader::Node(node.to_owned()),
            },
        };
        (shard.shard, seen)
    };
    View {
        nodes: nodes.into_iter().map(node).collect(),
        shards: shards.iter().map(shard).collect(),
    }
}

#[cfg(test)]
mod tests;
