//! What commands do to nodes and replicas. Each answers whether it changed anything; a refused one
//! changed nothing.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use millrace_types::{ErrorCode, LogIndex, NodeId, Refusal, ReplicaId, SHARDS_MAX, ShardId};

use super::{
    Assigned, Founded, GONE_MAX, Hosting, KnownNode, Leading, NODE_ADDRESS_BYTES_MAX, NODES_MAX,
    NodeFacts, REPLICAS_MAX, REPLICATION_MAX, Registration, Replicas, Report, Role, Roster,
    RosterCommand, Target, VERSION_BYTES_MAX, Wish, ZONE_BYTES_MAX,
};
use crate::refusal::{being_founded, invalid};

impl Roster {
    /// Applies a command; says whether anything changed.
    pub(in crate::catalogue) fn apply(&mut self, command: &RosterCommand) -> Result<bool, Refusal> {
        let changed = match command {
            RosterCommand::Found(founded) => self.found(founded),
            RosterCommand::RegisterNode(registration) => self.register(registration),
            RosterCommand::CordonNode { node } => self.cordon(*node),
            RosterCommand::UncordonNode { node } => self.uncordon(*node),
            RosterCommand::DrainNode { node } => self.lead(*node, Leading::Drained),
            RosterCommand::UndrainNode { node } => self.lead(*node, Leading::Allowed),
            RosterCommand::ForgetNode { node } => self.forget(*node),
            RosterCommand::SetReplication { replication } => self.set_replication(*replication),
            RosterCommand::Place {
                shard,
                revision,
                replicas,
                leader,
            } => self.place(*shard, *revision, replicas, *leader),
            RosterCommand::ReportMembers {
                shard,
                index,
                members,
            } => self.report(*shard, *index, members),
        }?;
        if changed {
            self.revision = self.revision.saturating_add(1);
        }
        Ok(changed)
    }

    fn found(&mut self, founded: &Founded) -> Result<bool, Refusal> {
        if self.is_founded() {
            return Ok(false);
        }
        check_replication(founded.replication)?;
        let nodes: BTreeMap<NodeId, &String> =
            founded.nodes.iter().map(|(id, at)| (*id, at)).collect();
        if nodes.is_empty() || nodes.len() != founded.nodes.len() || nodes.len() > NODES_MAX {
            return Err(invalid(format!(
                "a cluster is founded by 1..={NODES_MAX} nodes"
            )));
        }
        for address in nodes.values() {
            check_text("peer address", address, NODE_ADDRESS_BYTES_MAX)?;
        }
        if founded.shards.is_empty() || founded.shards.len() > SHARDS_MAX as usize + 1 {
            return Err(invalid("a cluster is founded with all of its shards"));
        }
        let mut shards = BTreeMap::new();
        for (id, members) in (0..).map(ShardId::new).zip(&founded.shards) {
            let voter = |(replica, node): &(ReplicaId, NodeId)| Assigned {
                replica: *replica,
                node: *node,
                role: Role::Voter,
            };
            let members = checked(id, members.iter().map(voter).collect())?;
            if let Some(stranger) = members.iter().find(|it| !nodes.contains_key(&it.node)) {
                return Err(no_such_node(stranger.node));
            }
            let replicas = Replicas {
                target: Target {
                    replicas: members.clone(),
                    ..Target::default()
                },
                actual: Report {
                    members,
                    ..Report::default()
                },
                ..Replicas::default()
            };
            shards.insert(id, replicas);
        }
        self.shards = shards;
        self.replication = founded.replication;
        for (id, address) in nodes {
            let facts = NodeFacts {
                peer_address: address.clone(),
                ..NodeFacts::default()
            };
            self.nodes.insert(id, KnownNode::new(facts));
        }
        Ok(true)
    }

    fn register(&mut self, registration: &Registration) -> Result<bool, Refusal> {
        let Registration { node, facts, lost } = registration;
        if !self.is_founded() {
            return Err(being_founded());
        }
        check_facts(facts)?;
        let level = self.feature_level;
        if facts.feature_level < level.max(1) {
            return Err(invalid(format!(
                "node {node} has feature level {}, the cluster has come to {level}: a newer \
                 version is needed",
                facts.feature_level
            )));
        }
        if !self.nodes.contains_key(node) && self.nodes.len() >= NODES_MAX {
            let message = format!("a cluster has at most {NODES_MAX} nodes");
            let refusal = Refusal::new(ErrorCode::LimitReached, message);
            return Err(refusal.with("limit", NODES_MAX.to_string()));
        }
        let lost = self.lost(*node, lost);
        let mut changed = false;
        for (id, other) in &mut self.nodes {
            let is_replaced = matches!(other.hosting, Hosting::Replaced { .. });
            let at = &other.facts.peer_address;
            // Who is alone has none.
            let is_same = !at.is_empty() && *at == facts.peer_address;
            if id != node && is_same && !is_replaced {
                other.hosting = Hosting::Replaced { by: *node };
                changed = true;
            }
        }
        let known = self.nodes.entry(*node).or_insert_with(|| {
            changed = true;
            KnownNode::new(NodeFacts::default())
        });
        let before = known.clone();
        known.facts = facts.clone();
        known.lost = lost;
        if matches!(known.hosting, Hosting::Replaced { .. }) {
            // It lives, at another address than before.
            known.hosting = Hosting::Open;
        }
        changed |= before != *known;
        Ok(self.raise_feature_level() || changed)
    }

    /// Of what a node has lost, what anybody misses.
    fn lost(&self, node: NodeId, lost: &[(ShardId, ReplicaId)]) -> BTreeMap<ShardId, ReplicaId> {
        let is_named = |(shard, replica): &&(ShardId, ReplicaId)| {
            let Some(replicas) = self.shards.get(shard) else {
                return false;
            };
            let here = |it: Assigned| it.node == node;
            replicas.target.find(*replica).is_some_and(here)
                || replicas.actual.find(*replica).is_some_and(here)
        };
        lost.iter().filter(is_named).copied().collect()
    }

    fn raise_feature_level(&mut self) -> bool {
        let there = |node: &&KnownNode| !matches!(node.hosting, Hosting::Replaced { .. });
        let levels = self.nodes.values().filter(there);
        let all = levels.map(|node| node.facts.feature_level).min();
        let level = all.unwrap_or(0).max(self.feature_level);
        core::mem::replace(&mut self.feature_level, level) != level
    }

    fn known(&mut self, node: NodeId) -> Result<&mut KnownNode, Refusal> {
        self.nodes.get_mut(&node).ok_or_else(|| no_such_node(node))
    }

    fn cordon(&mut self, node: NodeId) -> Result<bool, Refusal> {
        if self.known(node)?.hosting != Hosting::Open {
            return Ok(false);
        }
        let mut others = self.nodes.iter().filter(|(id, _)| **id != node);
        if !others.any(|(_, other)| other.takes_replicas()) {
            let message = format!("no other node could take the replicas of node {node}");
            return Err(in_use(node, message));
        }
        self.known(node)?.hosting = Hosting::Cordoned;
        Ok(true)
    }

    fn uncordon(&mut self, node: NodeId) -> Result<bool, Refusal> {
        let known = self.known(node)?;
        let was = known.hosting == Hosting::Cordoned;
        if was {
            known.hosting = Hosting::Open;
        }
        Ok(was)
    }

    fn lead(&mut self, node: NodeId, leading: Leading) -> Result<bool, Refusal> {
        let known = self.known(node)?;
        Ok(core::mem::replace(&mut known.leading, leading) != leading)
    }

    fn forget(&mut self, node: NodeId) -> Result<bool, Refusal> {
        self.known(node)?;
        let on_it = |(id, replicas): (&ShardId, &Replicas)| {
            let is_there = replicas.nodes().any(|other| other == node);
            is_there.then(|| id.to_string())
        };
        let shards: Vec<String> = self.shards.iter().filter_map(on_it).collect();
        if !shards.is_empty() {
            let shards = shards.join(", ");
            let message = format!("node {node} has replicas of these shards: {shards}");
            return Err(in_use(node, message).with("shards", shards));
        }
        self.nodes.remove(&node);
        // Those that are left may all be able to do more.
        self.raise_feature_level();
        Ok(true)
    }

    fn set_replication(&mut self, replication: u32) -> Result<bool, Refusal> {
        check_replication(replication)?;
        Ok(core::mem::replace(&mut self.replication, replication) != replication)
    }

    fn place(
        &mut self,
        shard: ShardId,
        revision: u64,
        wishes: &[Wish],
        leader: Option<NodeId>,
    ) -> Result<bool, Refusal> {
        let target = &self.shard_of(shard)?.target;
        if target.revision != revision {
            let actual = target.revision;
            let message = format!(
                "the target of shard {shard} is at revision {actual}, this was made against \
                 {revision}"
            );
            return Err(Refusal::new(ErrorCode::RevisionConflict, message)
                .with("actual", actual.to_string()));
        }
        let (replicas, minted) = self.granted(shard, wishes)?;
        let leads = |it: &Assigned| Some(it.node) == leader && it.role == Role::Voter;
        if leader.is_some() && !replicas.iter().any(leads) {
            return Err(invalid(format!(
                "shard {shard} would be led by who does not vote"
            )));
        }
        let placed = self.shard_mut(shard)?;
        if placed.target.replicas == replicas && placed.target.leader == leader {
            return Ok(false);
        }
        let before = placed.target.replicas.clone();
        if placed.is_unborn() {
            if replicas.iter().any(|it| it.role != Role::Voter) {
                return Err(invalid(format!("shard {shard} would begin with a learner")));
            }
            placed.born.clone_from(&replicas);
            placed.actual.members.clone_from(&replicas);
        }
        placed.target = Target {
            revision: revision.saturating_add(1),
            replicas,
            leader,
        };
        placed.let_go(&before);
        self.minted = minted;
        self.forget_lost();
        Ok(true)
    }

    /// The replicas that a new target has, and the last id that was minted for it.
    fn granted(&self, shard: ShardId, wishes: &[Wish]) -> Result<(Vec<Assigned>, u64), Refusal> {
        let current = self.shard_of(shard)?;
        let mut minted = self.minted;
        let mut replicas = Vec::new();
        for Wish {
            node,
            role,
            replica,
        } in wishes.iter().copied()
        {
            let known = self.nodes.get(&node).ok_or_else(|| no_such_node(node))?;
            let replica = match replica {
                Some(replica) => {
                    let there = || current.actual.find(replica);
                    let kept = current.target.find(replica).or_else(there);
                    if kept.is_none_or(|kept| kept.node != node) {
                        return Err(invalid(format!(
                            "shard {shard} is not to have replica {replica} on node {node}"
                        )));
                    }
                    replica
                }
                None if known.takes_replicas() => {
                    minted = self.next_id(minted);
                    ReplicaId::new(minted)
                }
                None => return Err(in_use(node, format!("node {node} takes no new replicas"))),
            };
            replicas.push(Assigned {
                replica,
                node,
                role,
            });
        }
        Ok((checked(shard, replicas)?, minted))
    }

    /// Founders brought ids of their own.
    fn next_id(&self, minted: u64) -> u64 {
        let is_taken = |id: u64| {
            let replica = ReplicaId::new(id);
            let known = |it: &Replicas| it.names(replica) || it.gone.contains(&replica);
            self.shards.values().any(known)
        };
        let mut next = minted.saturating_add(1);
        while is_taken(next) {
            next = next.saturating_add(1);
        }
        next
    }

    fn report(
        &mut self,
        shard: ShardId,
        index: LogIndex,
        members: &[Assigned],
    ) -> Result<bool, Refusal> {
        let members = checked(shard, members.to_vec())?;
        if let Some(stranger) = members.iter().find(|it| !self.nodes.contains_key(&it.node)) {
            return Err(no_such_node(stranger.node));
        }
        let placed = self.shard_mut(shard)?;
        if index <= placed.actual.index || placed.actual.members == members {
            return Ok(false);
        }
        let before = core::mem::replace(&mut placed.actual, Report { index, members });
        placed.let_go(&before.members);
        // A leader that did not know the target has removed what is wanted: its id is spent.
        let was = |it: &&Assigned| before.members.iter().any(|m| m.replica == it.replica);
        let missed = placed.target.replicas.iter().filter(was);
        let missed: Vec<Assigned> = missed
            .filter(|it| placed.actual.find(it.replica).is_none())
            .copied()
            .collect();
        for it in missed {
            if let Some(node) = self.nodes.get_mut(&it.node) {
                node.lost.insert(shard, it.replica);
            }
        }
        self.forget_lost();
        Ok(true)
    }

    /// What nobody names any more needs no replacement.
    fn forget_lost(&mut self) {
        let shards = &self.shards;
        for node in self.nodes.values_mut() {
            node.lost.retain(|shard, replica| {
                let replicas = shards.get(shard);
                replicas.is_some_and(|replicas| replicas.names(*replica))
            });
        }
    }

    fn shard_of(&self, shard: ShardId) -> Result<&Replicas, Refusal> {
        self.shards.get(&shard).ok_or_else(|| no_such_shard(shard))
    }

    fn shard_mut(&mut self, shard: ShardId) -> Result<&mut Replicas, Refusal> {
        let replicas = self.shards.get_mut(&shard);
        replicas.ok_or_else(|| no_such_shard(shard))
    }
}

impl KnownNode {
    const fn new(facts: NodeFacts) -> Self {
        Self {
            facts,
            hosting: Hosting::Open,
            leading: Leading::Allowed,
            lost: BTreeMap::new(),
        }
    }
}

impl Replicas {
    /// Remembers those that nobody names any more.
    fn let_go(&mut self, before: &[Assigned]) {
        for former in before {
            let replica = former.replica;
            if !self.names(replica) && !self.gone.contains(&replica) {
                self.gone.push_back(replica);
            }
        }
        while self.gone.len() > GONE_MAX {
            self.gone.pop_front();
        }
    }
}

/// Replicas that can be those of one shard, in order of their ids.
fn checked(shard: ShardId, mut replicas: Vec<Assigned>) -> Result<Vec<Assigned>, Refusal> {
    if replicas.len() > REPLICAS_MAX {
        let message = format!("shard {shard} has at most {REPLICAS_MAX} replicas");
        return Err(Refusal::new(ErrorCode::LimitReached, message));
    }
    if !replicas.iter().any(|it| it.role == Role::Voter) {
        return Err(invalid(format!("no replica of shard {shard} would vote")));
    }
    replicas.sort_unstable();
    let twice = |pair: &[Assigned]| pair[0].replica == pair[1].replica;
    let nodes: BTreeSet<NodeId> = replicas.iter().map(|it| it.node).collect();
    let unique = nodes.len() == replicas.len() && !replicas.windows(2).any(twice);
    if !unique || replicas.iter().any(|it| it.replica.get() == 0) {
        return Err(invalid(format!(
            "shard {shard} has one replica on each of its nodes, with an id of its own"
        )));
    }
    Ok(replicas)
}

fn check_facts(facts: &NodeFacts) -> Result<(), Refusal> {
    check_text("peer address", &facts.peer_address, NODE_ADDRESS_BYTES_MAX)?;
    check_text(
        "client address",
        &facts.client_address,
        NODE_ADDRESS_BYTES_MAX,
    )?;
    check_text("zone", &facts.zone, ZONE_BYTES_MAX)?;
    check_text("version", &facts.version, VERSION_BYTES_MAX)
}

fn check_text(what: &str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.len() <= max {
        return Ok(());
    }
    Err(invalid(format!("a node's {what} has at most {max} bytes")).with("limit", max.to_string()))
}

fn check_replication(replication: u32) -> Result<(), Refusal> {
    if (1..=REPLICATION_MAX).contains(&replication) {
        return Ok(());
    }
    Err(invalid(format!(
        "a shard has 1..={REPLICATION_MAX} voters, not {replication}"
    )))
}

fn no_such_shard(shard: ShardId) -> Refusal {
    invalid(format!("there is no shard {shard}")).with("shard", shard.to_string())
}

fn no_such_node(node: NodeId) -> Refusal {
    let message = format!("node {node} is not known");
    Refusal::new(ErrorCode::NoSuchNode, message).with("node", node.to_string())
}

fn in_use(node: NodeId, message: String) -> Refusal {
    Refusal::new(ErrorCode::NodeInUse, message).with("node", node.to_string())
}
