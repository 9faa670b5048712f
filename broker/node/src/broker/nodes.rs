//! The verbs that steer nodes and replicas, and what they have to show. Any node answers them: it
//! asks the leaders of the shards, and orders changes where the catalogue is led.

use futures::future::join_all;
use millrace_engine::catalogue::{Hosting, Leading, NodeFacts, RosterCommand, Target, Wish};
use millrace_types::{ErrorCode, NodeId, Refusal, ShardId};

use super::Broker;
use crate::placement::standing::{
    self, Blocker, ShardStanding, accepts_stops, catch_up_blockers, stop_blockers,
};

/// A node, as the catalogue knows it and shards make use of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Which.
    pub node: NodeId,
    /// What it said of itself last.
    pub facts: NodeFacts,
    /// Whether it may have replicas.
    pub hosting: Hosting,
    /// Whether it may lead.
    pub leading: Leading,
    /// Whether it has answered just now.
    pub answers: bool,
    /// Shards it leads.
    pub leads: u32,
    /// Replicas on it.
    pub replicas: u32,
    /// Replicas on it that have lost something and are to be replaced.
    pub lost: u32,
}

impl Broker {
    /// All nodes, by id.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE` when the catalogue cannot be read.
    pub async fn nodes(&self) -> Result<Vec<NodeState>, Refusal> {
        let (shards, answered) = self.ask_all().await?;
        let view = self.node.view.borrow().clone();
        let state = |(node, known): (NodeId, &millrace_engine::catalogue::KnownNode)| {
            let leads = shards.iter().filter(|it| it.leader == Some(node));
            let members = shards.iter().flat_map(|it| &it.members);
            NodeState {
                node,
                facts: known.facts.clone(),
                hosting: known.hosting,
                leading: known.leading,
                answers: answered.contains(&node),
                leads: count(leads.count()),
                replicas: count(members.filter(|member| member.node == node).count()),
                lost: count(known.lost.len()),
            }
        };
        Ok(view.roster().nodes().map(state).collect())
    }

    /// All shards with their members, the metadata shard first.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE` when the catalogue cannot be read.
    pub async fn shards(&self) -> Result<Vec<ShardStanding>, Refusal> {
        Ok(self.ask_all().await?.0)
    }

    /// What keeps a node from stopping; empty when it can.
    ///
    /// # Errors
    /// `NO_SUCH_NODE`; `SHARD_UNAVAILABLE` when the catalogue cannot be read.
    pub async fn can_stop(&self, node: NodeId) -> Result<Vec<Blocker>, Refusal> {
        self.check_node(node)?;
        let mut shards = self.shards().await?;
        let view = self.node.view.borrow().clone();
        shards.retain(|it| !accepts_stops(view.roster(), it.shard));
        Ok(stop_blockers(node, &shards))
    }

    /// What a node still lacks; empty when it has all that it should have.
    ///
    /// # Errors
    /// As `can_stop`.
    pub async fn caught_up(&self, node: NodeId) -> Result<Vec<Blocker>, Refusal> {
        self.check_node(node)?;
        let shards = self.shards().await?;
        let view = self.node.view.borrow().clone();
        Ok(catch_up_blockers(node, &shards, view.roster()))
    }

    /// Has a node hand over what it leads, and keeps it from leading again. Answers when that is
    /// written down; `can_stop` tells when it is done. The same again does nothing.
    ///
    /// # Errors
    /// `NO_SUCH_NODE`, `NOT_LEADER`.
    pub async fn drain_node(&self, node: NodeId) -> Result<(), Refusal> {
        self.order_roster(RosterCommand::DrainNode { node }).await
    }

    /// Lets a node lead again.
    ///
    /// # Errors
    /// As `drain_node`.
    pub async fn undrain_node(&self, node: NodeId) -> Result<(), Refusal> {
        self.order_roster(RosterCommand::UndrainNode { node }).await
    }

    /// Has a node's replicas moved to others, and keeps it from getting new ones.
    ///
    /// # Errors
    /// `NO_SUCH_NODE`; `NODE_IN_USE` when nobody could take them; `NOT_LEADER`.
    pub async fn cordon_node(&self, node: NodeId) -> Result<(), Refusal> {
        self.order_roster(RosterCommand::CordonNode { node }).await
    }

    /// Lets a node have replicas again.
    ///
    /// # Errors
    /// As `drain_node`.
    pub async fn uncordon_node(&self, node: NodeId) -> Result<(), Refusal> {
        self.order_roster(RosterCommand::UncordonNode { node })
            .await
    }

    /// Strikes a node off that has no replicas any more.
    ///
    /// # Errors
    /// `NO_SUCH_NODE`; `NODE_IN_USE` when it has some; `NOT_LEADER`.
    pub async fn forget_node(&self, node: NodeId) -> Result<(), Refusal> {
        self.order_roster(RosterCommand::ForgetNode { node }).await
    }

    /// How many replicas of a data shard vote when there are nodes enough.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `NOT_LEADER`.
    pub async fn set_replication(&self, replication: u32) -> Result<(), Refusal> {
        self.order_roster(RosterCommand::SetReplication { replication })
            .await
    }

    /// Has another node lead a shard, and prefers it from here on. Answers when the hand-over has
    /// begun, or is not needed; leaders are spread over nodes, so another shard may go the other
    /// way.
    ///
    /// # Errors
    /// `NO_SUCH_NODE`; `INVALID_ARGUMENT` when the node has no replica that votes;
    /// `NODE_IN_USE` when it is drained; `NOT_LEADER`.
    pub async fn transfer_leader(&self, shard: ShardId, node: NodeId) -> Result<(), Refusal> {
        self.check_node(node)?;
        let view = self.node.view.borrow().clone();
        if !view
            .roster()
            .node(node)
            .is_some_and(|known| known.may_lead())
        {
            let text = format!("node {} is drained or cordoned", standing::name(node));
            return Err(Refusal::new(ErrorCode::NodeInUse, text));
        }
        let target = self.target(shard)?;
        if target.leader() != Some(node) {
            let wishes = kept(&target).collect();
            self.order_place(shard, target.revision(), wishes, Some(node))
                .await?;
        }
        self.node.hand_over(shard, node).await
    }

    /// Moves the replica of a shard from one node to another. Answers when that is planned; it may
    /// take long. Replicas are spread over nodes, so that another may go the other way.
    ///
    /// # Errors
    /// `NO_SUCH_NODE`; `INVALID_ARGUMENT` when `from` has none or `to` has one; `NODE_IN_USE` when
    /// `to` takes none; `REVISION_CONFLICT` when the shard is on its way elsewhere; `NOT_LEADER`.
    pub async fn move_replica(
        &self,
        shard: ShardId,
        from: NodeId,
        to: NodeId,
    ) -> Result<(), Refusal> {
        self.check_node(from)?;
        self.check_node(to)?;
        let view = self.node.view.borrow().clone();
        let target = self.target(shard)?;
        let is_on = |node| target.replicas().iter().any(|it| it.node == node);
        if !is_on(from) || is_on(to) {
            let (from, to) = (standing::name(from), standing::name(to));
            let text = format!("shard {shard} has to be on node {from} and not on node {to}");
            return Err(Refusal::new(ErrorCode::InvalidArgument, text));
        }
        let replicas = view.roster().shard(shard);
        if !replicas.is_some_and(|replicas| replicas.is_converged()) {
            let text = format!("the replicas of shard {shard} are on their way elsewhere");
            return Err(Refusal::new(ErrorCode::RevisionConflict, text));
        }
        let moved = |wish: Wish| match wish.node == from {
            true => Wish {
                node: to,
                replica: None,
                ..wish
            },
            false => wish,
        };
        let wishes = kept(&target).map(moved).collect();
        let leader = target.leader().filter(|leader| *leader != from);
        self.order_place(shard, target.revision(), wishes, leader)
            .await
    }

    async fn order_place(
        &self,
        shard: ShardId,
        revision: u64,
        replicas: Vec<Wish>,
        leader: Option<NodeId>,
    ) -> Result<(), Refusal> {
        self.order_roster(RosterCommand::Place {
            shard,
            revision,
            replicas,
            leader,
        })
        .await
    }

    async fn order_roster(&self, command: RosterCommand) -> Result<(), Refusal> {
        let ordered = self.node.order_catalogue(command.into()).await;
        ordered.map(|_| ())
    }

    fn target(&self, shard: ShardId) -> Result<Target, Refusal> {
        let view = self.node.view.borrow().clone();
        view.topology()?;
        let replicas = view.roster().shard(shard);
        replicas.map(|it| it.target().clone()).ok_or_else(|| {
            let text = format!("there is no shard {shard}");
            Refusal::new(ErrorCode::InvalidArgument, text)
        })
    }

    fn check_node(&self, node: NodeId) -> Result<(), Refusal> {
        let view = self.node.view.borrow().clone();
        view.topology()?;
        if view.roster().node(node).is_some() {
            return Ok(());
        }
        let name = standing::name(node);
        let text = format!("node {name} is not known");
        Err(Refusal::new(ErrorCode::NoSuchNode, text).with("node", name))
    }

    /// Asks every node what it leads, all at once; gives the shards, and who has answered.
    async fn ask_all(&self) -> Result<(Vec<ShardStanding>, Vec<NodeId>), Refusal> {
        let view = self.node.view.borrow().clone();
        view.topology()?;
        let roster = view.roster();
        let own = self.node.data_dir.node();
        let others = roster
            .nodes()
            .map(|(node, _)| node)
            .filter(|node| *node != own);
        let ask = |node| async move { (node, self.node.standing_of(node).await) };
        let asked = join_all(others.map(ask)).await;
        let mut told = self.node.standing_here().await;
        let mut answered = vec![own];
        for (node, answer) in asked {
            if let Ok(shards) = answer {
                answered.push(node);
                told.extend(shards);
            }
        }
        Ok((standing::complete(told, roster), answered))
    }
}

fn kept(target: &Target) -> impl Iterator<Item = Wish> + '_ {
    target.replicas().iter().map(|it| Wish {
        node: it.node,
        role: it.role,
        replica: Some(it.replica),
    })
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
