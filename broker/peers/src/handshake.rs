//! Who may speak to whom: judges the hello of the other side. Pure; the token was looked at before.

use std::ops::RangeInclusive;

use millrace_replica::Lane;
use millrace_types::NodeId;

use crate::convert::Hello;
use crate::error::{Reason, Refusal};

/// Versions of the protocol that this build speaks.
pub const PROTOCOL_VERSIONS: RangeInclusive<u32> = 1..=1;

/// Who a node is, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster; a node that is of none yet has no peers.
    pub cluster_id: String,
    /// The node.
    pub node: NodeId,
    /// Versions of the protocol it speaks: [`PROTOCOL_VERSIONS`].
    pub versions: RangeInclusive<u32>,
    /// What its engine can do.
    pub feature_level: u32,
    /// The build's version, for people.
    pub build: String,
}

/// What both sides of a stream know after their hellos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The other side.
    pub node: NodeId,
    /// What the stream carries.
    pub lane: Lane,
    /// Version of the protocol: the highest that both speak.
    pub version: u32,
    /// What the other side's engine can do.
    pub feature_level: u32,
    /// The other side's build, for people.
    pub build: String,
}

impl Identity {
    /// What we say first.
    pub(crate) fn hello(&self, to: NodeId, lane: Lane) -> Hello {
        Hello {
            identity: self.clone(),
            to,
            lane,
        }
    }

    /// Judges who called us.
    ///
    /// # Errors
    /// A refusal for the caller.
    pub(crate) fn judge_caller(&self, hello: Hello) -> Result<Agreed, Refusal> {
        self.same_cluster(&hello)?;
        let (us, caller) = (self.node, hello.identity.node);
        if caller == us {
            let text = format!("node {caller} called itself");
            return Err(Refusal::new(Reason::Itself, text));
        }
        if hello.to != us {
            let text = format!("node {caller} wants node {}, this is node {us}", hello.to);
            return Err(Refusal::new(Reason::Node, text));
        }
        self.agree(hello)
    }

    /// Judges who answered when we called node `to`.
    ///
    /// # Errors
    /// Our refusal.
    pub(crate) fn judge_answer(
        &self,
        hello: Hello,
        to: NodeId,
        lane: Lane,
    ) -> Result<Agreed, Refusal> {
        self.same_cluster(&hello)?;
        let (us, found) = (self.node, hello.identity.node);
        if found != to {
            let text = format!("node {us} wants node {to} and found node {found}");
            return Err(Refusal::new(Reason::Node, text));
        }
        if (hello.to, hello.lane) != (us, lane) {
            let text = format!(
                "node {us} opened lane {lane}; node {found} answers node {} in lane {}",
                hello.to, hello.lane
            );
            return Err(Refusal::new(Reason::Protocol, text));
        }
        self.agree(hello)
    }

    fn same_cluster(&self, hello: &Hello) -> Result<(), Refusal> {
        let theirs = &hello.identity;
        // Nodes that are of no cluster yet have nothing to say to each other.
        if theirs.cluster_id == self.cluster_id && !self.cluster_id.is_empty() {
            return Ok(());
        }
        let text = format!(
            "node {} is of cluster {:?}, node {} is of cluster {:?}",
            self.node, self.cluster_id, theirs.node, theirs.cluster_id
        );
        Err(Refusal::new(Reason::Cluster, text))
    }

    fn agree(&self, hello: Hello) -> Result<Agreed, Refusal> {
        let (ours, theirs) = (&self.versions, &hello.identity.versions);
        let version = *ours.end().min(theirs.end());
        if !ours.contains(&version) || !theirs.contains(&version) {
            let (us, them) = (self.node, hello.identity.node);
            let text = format!(
                "node {us} speaks versions {ours:?} of the peer protocol, \
                 node {them} speaks {theirs:?}"
            );
            return Err(Refusal::new(Reason::Version, text));
        }
        Ok(Agreed {
            node: hello.identity.node,
            lane: hello.lane,
            version,
            feature_level: hello.identity.feature_level,
            build: hello.identity.build,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(node: u64, versions: RangeInclusive<u32>) -> Identity {
        Identity {
            cluster_id: "c1".to_owned(),
            node: NodeId::new(node),
            versions,
            feature_level: 7,
            build: "0.1.0".to_owned(),
        }
    }

    fn reason(judged: Result<Agreed, Refusal>) -> Reason {
        judged.unwrap_err().reason
    }

    #[test]
    fn neighbouring_versions_agree_on_the_older_ones_newest() {
        for (one, other, agreed) in [
            (1..=1, 1..=1, Some(1)),
            (1..=2, 1..=1, Some(1)),
            (1..=2, 2..=3, Some(2)),
            (2..=2, 1..=1, None),
            (3..=4, 1..=2, None),
        ] {
            let (one, other) = (node(1, one), node(2, other));
            let to_two = one.hello(other.node, Lane::Votes);
            let to_one = other.hello(one.node, Lane::Votes);
            let called = other.judge_caller(to_two);
            let answered = one.judge_answer(to_one, other.node, Lane::Votes);
            match agreed {
                Some(version) => {
                    assert_eq!(called.unwrap().version, version);
                    assert_eq!(answered.unwrap().version, version);
                }
                None => {
                    let refusal = called.unwrap_err();
                    assert_eq!(refusal.reason, Reason::Version);
                    assert!(refusal.text.contains("node 1"), "{refusal}");
                    assert!(refusal.text.contains("node 2"), "{refusal}");
                    assert_eq!(reason(answered), Reason::Version);
                }
            }
        }
    }

    #[test]
    fn a_caller_of_another_cluster_or_for_another_node_or_itself_is_refused() {
        let us = node(1, 1..=1);
        let mut stranger = node(2, 1..=1);
        stranger.cluster_id = "c2".to_owned();
        let hello = stranger.hello(us.node, Lane::Appends);
        assert_eq!(reason(us.judge_caller(hello)), Reason::Cluster);

        let hello = node(2, 1..=1).hello(NodeId::new(3), Lane::Appends);
        assert_eq!(reason(us.judge_caller(hello)), Reason::Node);

        let hello = us.hello(NodeId::new(3), Lane::Appends);
        assert_eq!(reason(us.judge_caller(hello)), Reason::Itself);
    }

    #[test]
    fn nodes_of_no_cluster_are_not_of_the_same_one() {
        let nowhere = |number| Identity {
            cluster_id: String::new(),
            ..node(number, 1..=1)
        };
        let hello = nowhere(2).hello(NodeId::new(1), Lane::Votes);
        assert_eq!(reason(nowhere(1).judge_caller(hello)), Reason::Cluster);
    }

    #[test]
    fn an_answer_of_another_node_or_for_another_stream_is_refused() {
        let us = node(1, 1..=1);
        let wanted = NodeId::new(2);
        let judge = |hello| reason(us.judge_answer(hello, wanted, Lane::Appends));
        let answer = |from: u64, to: u64, lane| node(from, 1..=1).hello(NodeId::new(to), lane);
        assert_eq!(judge(answer(3, 1, Lane::Appends)), Reason::Node);
        assert_eq!(judge(answer(2, 4, Lane::Appends)), Reason::Protocol);
        assert_eq!(judge(answer(2, 1, Lane::Votes)), Reason::Protocol);
    }
}
