//! What a client knows of its cluster: nodes, leaders, where queues and topics live, and which
//! nodes could not be reached lately. Bounded; pure but for the connections it keeps.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_proto::v1::RoutingState;
use tokio::time::Instant;
use tonic::transport::Channel;

/// Queues and topics whose shards are remembered: more than most clients use; the others are asked
/// for again.
const PLACES_MAX: usize = 10_000;
/// A node that could not be reached is left alone for this long, and for twice as long each time
/// after that,
const SHUN_MIN: Duration = Duration::from_secs(1);
/// up to this.
const SHUN_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Knowledge {
    /// The node behind the server that was given, and which of those that were.
    own: String,
    own_server: usize,
    nodes: BTreeMap<String, Node>,
    leaders: BTreeMap<u32, String>,
    /// Who leads, as each of those said last who are watched.
    claims: [BTreeMap<u32, String>; 2],
    /// By address: of a queue its shard, of a topic those of its partitions.
    places: BTreeMap<String, Vec<u32>>,
}

#[derive(Debug)]
struct Node {
    client: String,
    /// Made when it is needed.
    channel: Option<Channel>,
    shunned: Option<Shunned>,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// This one of the servers that were given.
    Given(usize),
    /// The other node that is watched.
    Other,
}

impl Node {
    fn is_shunned(&self, now: Instant) -> bool {
        self.shunned.is_some_and(|shunned| now < shunned.until)
    }
}

#[derive(Clone, Copy, Debug)]
struct Shunned {
    until: Instant,
    next: Duration,
}

impl Knowledge {
    /// Takes over what a node says; connections to those that are where they were stay.
    pub(super) fn update(&mut self, source: Source, state: RoutingState) {
        if let Source::Given(server) = source {
            (self.own, self.own_server) = (state.node_id, server);
        }
        let mut old = std::mem::take(&mut self.nodes);
        for node in state.nodes {
            let (id, client) = (node.node_id, node.client_address);
            let kept = old.remove(&id).filter(|known| known.client == client);
            let known = kept.unwrap_or(Node {
                client,
                channel: None,
                shunned: None,
            });
            self.nodes.insert(id, known);
        }
        let leaders = state.leaders.into_iter();
        let leaders = leaders.map(|leader| (leader.shard, leader.node_id));
        self.claim(source, leaders.collect());
    }

    /// News count, whoever has them first; who says nothing new may be behind.
    fn claim(&mut self, source: Source, new: BTreeMap<u32, String>) {
        let [given, other] = &mut self.claims;
        let (own, rest) = match source {
            Source::Given(_) => (given, other),
            Source::Other => (other, given),
        };
        let old = std::mem::replace(own, new);
        for shard in old.keys().filter(|shard| !own.contains_key(shard)) {
            // Nobody, as one of them says: unless the other one knows better by now.
            if self.leaders.get(shard) == old.get(shard) {
                match rest
                    .get(shard)
                    .filter(|leader| old.get(shard) != Some(leader))
                {
                    Some(leader) => self.leaders.insert(*shard, leader.clone()),
                    None => self.leaders.remove(shard),
                };
            }
        }
        for (shard, leader) in own.iter() {
            if old.get(shard) != Some(leader) || !self.leaders.contains_key(shard) {
                self.leaders.insert(*shard, leader.clone());
            }
        }
    }

    /// Who leads a shard, as far as it is known.
    pub(super) fn led_by(&self, shard: u32) -> Option<&String> {
        self.leaders.get(&shard)
    }

    /// Whether a node is the one behind the server that was given.
    pub(super) fn is_own(&self, node: &str) -> bool {
        self.own == node
    }

    /// Another node than the one that was given, to be watched, too: the `nth` of them.
    pub(super) fn other(&self, nth: usize, now: Instant) -> Option<(String, String)> {
        let others = self.nodes.iter();
        let others = others.filter(|(id, node)| **id != self.own && !node.is_shunned(now));
        let others: Vec<_> = others.collect();
        let (id, node) = others.get(nth.checked_rem(others.len())?)?;
        Some(((*id).clone(), node.client.clone()))
    }

    /// Whether anybody but the server that was given could lead.
    pub(super) fn has_several_nodes(&self) -> bool {
        self.nodes.keys().any(|node| *node != self.own)
    }

    /// The shard of a queue, or of a partition of a topic, if it is remembered.
    pub(super) fn place(&self, address: &str, partition: u32) -> Option<u32> {
        let shards = self.places.get(address)?;
        let at = usize::try_from(partition).ok()?;
        shards.get(at).copied()
    }

    pub(super) fn set_places(&mut self, address: &str, shards: Vec<u32>) {
        if self.places.len() >= PLACES_MAX {
            self.places.clear();
        }
        self.places.insert(address.to_owned(), shards);
    }

    /// Something was not where it was.
    pub(super) fn forget_places(&mut self) {
        self.places.clear();
    }

    /// Who leads a shard and where it is, if it is another node than the one behind the server that
    /// is in use, and may be tried.
    pub(super) fn leader(
        &self,
        shard: u32,
        server: usize,
        now: Instant,
    ) -> Option<(String, String)> {
        let leader = self.leaders.get(&shard)?;
        let is_given = *leader == self.own && server == self.own_server;
        let node = self.nodes.get(leader).filter(|_| !is_given)?;
        (!node.is_shunned(now)).then(|| (leader.clone(), node.client.clone()))
    }

    /// The connection to a node, made now if there is none.
    pub(super) fn channel<E>(
        &mut self,
        node: &str,
        client: &str,
        connect: impl FnOnce() -> Result<Channel, E>,
    ) -> Option<Channel> {
        let node = self
            .nodes
            .get_mut(node)
            .filter(|node| node.client == client)?;
        if node.channel.is_none() {
            node.channel = connect().ok();
        }
        node.channel.clone()
    }

    /// A node could not be reached: it is left alone for a while.
    pub(super) fn shun(&mut self, node: &str, now: Instant) {
        if let Some(node) = self.nodes.get_mut(node) {
            let length = node.shunned.map_or(SHUN_MIN, |shunned| shunned.next);
            node.shunned = Some(Shunned {
                until: now + length,
                next: (length * 2).min(SHUN_MAX),
            });
        }
    }

    /// A node answers.
    pub(super) fn reached(&mut self, node: &str) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.shunned = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_proto::v1::{RoutingNode, ShardLeader};

    use super::*;

    const GIVEN: Source = Source::Given(0);

    fn state(leader: &str) -> RoutingState {
        let node = |id: &str| RoutingNode {
            node_id: id.into(),
            client_address: format!("{id}:7070"),
        };
        RoutingState {
            node_id: "a".into(),
            nodes: vec![node("a"), node("b")],
            leaders: vec![ShardLeader {
                shard: 3,
                node_id: leader.into(),
            }],
            ..RoutingState::default()
        }
    }

    #[test]
    fn only_a_leader_elsewhere_is_gone_to_directly() {
        let (mut known, now) = (Knowledge::default(), Instant::now());
        known.update(GIVEN, state("b"));
        assert!(known.has_several_nodes());
        assert_eq!(known.leader(3, 0, now), Some(("b".into(), "b:7070".into())));
        assert_eq!(known.leader(4, 0, now), None);
        known.update(GIVEN, state("a"));
        assert_eq!(known.leader(3, 0, now), None);
    }

    #[test]
    fn news_of_a_leader_count_whoever_has_them_first() {
        let nobody = || RoutingState {
            leaders: Vec::new(),
            ..state("b")
        };
        let (mut known, led) = (Knowledge::default(), |leader: &str| leader.to_owned());
        known.update(GIVEN, state("a"));
        known.update(Source::Other, state("a"));
        // The one that was given stands still, the other one lives through an election.
        known.update(Source::Other, nobody());
        known.update(Source::Other, state("b"));
        assert_eq!(known.led_by(3), Some(&led("b")));
        // Awake again, it says first what it knew, then that it leads no more.
        known.update(GIVEN, state("a"));
        assert_eq!(known.led_by(3), Some(&led("b")));
        known.update(GIVEN, nobody());
        assert_eq!(known.led_by(3), Some(&led("b")));
        known.update(GIVEN, state("b"));
        known.update(Source::Other, nobody());
        known.update(GIVEN, nobody());
        assert_eq!(known.led_by(3), None);
    }

    #[test]
    fn a_server_that_was_given_and_is_not_in_use_is_gone_to_directly() {
        let (mut known, now) = (Knowledge::default(), Instant::now());
        known.update(GIVEN, state("a"));
        assert_eq!(known.leader(3, 0, now), None);
        assert!(known.leader(3, 1, now).is_some());
        assert_eq!(known.other(5, now), Some(("b".into(), "b:7070".into())));
    }

    #[test]
    fn a_node_that_cannot_be_reached_is_left_alone_for_longer_each_time() {
        let (mut known, now) = (Knowledge::default(), Instant::now());
        known.update(GIVEN, state("b"));
        known.shun("b", now);
        assert_eq!(known.leader(3, 0, now), None);
        let later = now + SHUN_MIN;
        assert!(known.leader(3, 0, later).is_some());
        known.shun("b", later);
        // What others say of leaders changes nothing about that.
        known.update(GIVEN, state("b"));
        assert_eq!(known.leader(3, 0, later + SHUN_MIN), None);
        assert!(known.leader(3, 0, later + 2 * SHUN_MIN).is_some());
        known.reached("b");
        assert!(known.leader(3, 0, later).is_some());
    }

    #[test]
    fn places_are_remembered_up_to_a_limit() {
        let mut known = Knowledge::default();
        known.set_places("topic/a/t", vec![1, 2]);
        assert_eq!(known.place("topic/a/t", 1), Some(2));
        assert_eq!(known.place("topic/a/t", 2), None);
        (0..PLACES_MAX).for_each(|n| known.set_places(&format!("queue/a/q{n}"), vec![1]));
        assert!(known.places.len() <= PLACES_MAX);
    }
}
