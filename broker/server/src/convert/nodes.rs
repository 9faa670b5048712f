//! Nodes and shards as they go over the wire.

use millrace_node::{Blocker, Hosting, Leading, MemberStanding, NodeState, ShardStanding};
use millrace_proto::v1;
use millrace_types::{NodeId, Refusal, ShardId};

use crate::validate::invalid;

/// Digits of a node's id, hexadecimal.
const DIGITS: usize = 16;

/// A node's id as it is written.
fn name(node: NodeId) -> String {
    format!("{:016x}", node.get())
}

/// A node's id as it was written.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(crate) fn node_id(field: &'static str, text: &str) -> Result<NodeId, Refusal> {
    let is_hex = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten();
    let wrong = || {
        invalid(
            field,
            format!("{text:?} is no node: ids have 16 hexadecimal digits"),
        )
    };
    number.map(NodeId::new).ok_or_else(wrong)
}

/// A shard by its number; whether there is one is for others to know.
pub(crate) const fn shard(number: u32) -> ShardId {
    ShardId::new(number)
}

pub(crate) fn node(state: NodeState) -> v1::Node {
    let hosting = match state.hosting {
        Hosting::Open => v1::NodeHosting::Open,
        Hosting::Cordoned => v1::NodeHosting::Cordoned,
        Hosting::Replaced { .. } => v1::NodeHosting::Replaced,
    };
    v1::Node {
        node_id: name(state.node),
        peer_address: state.facts.peer_address,
        client_address: state.facts.client_address,
        zone: state.facts.zone,
        version: state.facts.version,
        hosting: hosting.into(),
        drained: state.leading == Leading::Drained,
        answers: state.answers,
        leads: state.leads,
        replicas: state.replicas,
        lost: state.lost,
    }
}

pub(crate) fn standing(standing: ShardStanding) -> v1::Shard {
    v1::Shard {
        shard: standing.shard.get(),
        leader: standing.leader.map(name).unwrap_or_default(),
        term: standing.term.get(),
        last: standing.last.get(),
        applied: standing.applied.get(),
        changing: standing.changing,
        members: standing.members.into_iter().map(member).collect(),
    }
}

fn member(member: MemberStanding) -> v1::ShardMember {
    v1::ShardMember {
        replica: member.replica.get(),
        node_id: name(member.node),
        votes: member.votes,
        lag: member.lag,
        active: member.active,
    }
}

pub(crate) fn blockers(blockers: Vec<Blocker>) -> v1::BlockersResponse {
    let blocker = |blocker: Blocker| v1::Blocker {
        shard: blocker.shard.get(),
        reason: blocker.reason.reason().into(),
        message: blocker.message,
    };
    v1::BlockersResponse {
        blockers: blockers.into_iter().map(blocker).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_sixteen_hexadecimal_digits() {
        let node = NodeId::new(0xab);
        assert_eq!(node_id("node_id", &name(node)), Ok(node));
        for wrong in [
            "",
            "ab",
            "00000000000000zz",
            "+0000000000000ab",
            "000000000000000ab",
        ] {
            assert!(node_id("node_id", wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
