//! What somebody orders who steers a cluster, and what has to become of it in peace: every shard
//! has the replicas that it should have, all of which keep up, and nothing is on its way any more.

use std::sync::{Arc, Mutex, PoisonError};

use millrace_node::{Broker, ShardStanding};
use millrace_types::{NodeId, Refusal, ShardId};

use super::cluster::REPLICATION;
use super::{Over, World};
use crate::event::Event;
use crate::plan::Steer;

/// Between two attempts to take everything back that was ordered.
const LOOK_MS: u64 = 1_000;
/// Attempts.
const LOOKS_MAX: u32 = 60;

/// What is to be done, with ids in the place of places.
#[derive(Clone, Copy)]
enum Order {
    Drain(NodeId),
    Undrain(NodeId),
    Cordon(NodeId),
    Uncordon(NodeId),
    Transfer(ShardId, NodeId),
    Move(ShardId, NodeId, NodeId),
    Replication(u32),
}

impl Order {
    async fn carry_out(self, broker: &Broker) -> Result<(), Refusal> {
        match self {
            Self::Drain(node) => broker.drain_node(node).await,
            Self::Undrain(node) => broker.undrain_node(node).await,
            Self::Cordon(node) => broker.cordon_node(node).await,
            Self::Uncordon(node) => broker.uncordon_node(node).await,
            Self::Transfer(shard, node) => broker.transfer_leader(shard, node).await,
            Self::Move(shard, from, to) => broker.move_replica(shard, from, to).await,
            Self::Replication(count) => broker.set_replication(count).await,
        }
    }
}

impl World<'_> {
    /// Orders something, over any node.
    pub(super) fn steer(&mut self, steer: Steer) {
        let asked = self.anybody();
        let (Some(order), Some(client)) = (self.order(steer), self.client(asked).cloned()) else {
            return;
        };
        let asking = client.clone();
        client.run(async move {
            let done = order.carry_out(&asking.broker).await;
            let what = match done {
                Ok(()) => format!("{steer:?}"),
                Err(refusal) => format!("{steer:?} is refused: {refusal}"),
            };
            asking.tell(&Event::Trouble { what });
        });
    }

    fn order(&self, steer: Steer) -> Option<Order> {
        let id = |place: usize| self.net.id(place % self.nodes.len());
        let shard = |shard: u32| ShardId::new(shard % (self.plan.node.shards + 1));
        Some(match steer {
            Steer::Drain(who) => Order::Drain(id(who.resolve(self))?),
            Steer::Undrain(who) => Order::Undrain(id(who.resolve(self))?),
            Steer::Cordon(who) => Order::Cordon(id(who.resolve(self))?),
            Steer::Uncordon(who) => Order::Uncordon(id(who.resolve(self))?),
            Steer::Transfer(of, to) => Order::Transfer(shard(of), id(to)?),
            Steer::Move(of, from, to) => Order::Move(shard(of), id(from.resolve(self))?, id(to)?),
            Steer::Replication(count) => Order::Replication(count),
        })
    }

    /// Takes back what was ordered: every node may lead and have replicas, and there are as many of
    /// each shard as there were.
    pub(super) fn take_back(&mut self) -> Result<(), Over> {
        if self.is_alone() {
            return Ok(());
        }
        let done = Arc::new(Mutex::new(None));
        for _ in 0..LOOKS_MAX {
            let nodes = (0..self.nodes.len()).filter_map(|place| self.net.id(place));
            let orders = nodes.flat_map(|id| [Order::Undrain(id), Order::Uncordon(id)]);
            let orders: Vec<Order> = orders.chain([Order::Replication(REPLICATION)]).collect();
            let asked = self.anybody();
            if let Some(client) = self.client(asked).cloned() {
                let (broker, done) = (client.broker.clone(), Arc::clone(&done));
                client.run(async move {
                    let mut outcome = Ok(());
                    for order in orders {
                        outcome = outcome.and(order.carry_out(&broker).await);
                    }
                    *done.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
                });
            }
            self.wait(LOOK_MS)?;
            self.stop_at_violation()?;
            if matches!(
                *done.lock().unwrap_or_else(PoisonError::into_inner),
                Some(Ok(()))
            ) {
                return Ok(());
            }
        }
        let outcome = done.lock().map(|done| done.clone());
        Err(self.violated("liveness", format!("nobody takes orders: {outcome:?}")))
    }

    /// Asks how the shards stand; the answer comes later.
    pub(super) fn ask_standing(&mut self) -> Arc<Mutex<Option<Vec<ShardStanding>>>> {
        let told = Arc::new(Mutex::new(None));
        let asked = self.anybody();
        if let Some(client) = self.client(asked).cloned() {
            let (broker, told) = (client.broker.clone(), Arc::clone(&told));
            client.run(async move {
                let shards = broker.shards().await.ok();
                *told.lock().unwrap_or_else(PoisonError::into_inner) = shards;
            });
        }
        told
    }

    /// What is not as it has to be in peace, by what leaders said.
    pub(super) fn unsteady(&self, told: &Mutex<Option<Vec<ShardStanding>>>) -> Option<String> {
        let told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(shards) = told.as_ref() else {
            return Some("nobody says how the shards stand".into());
        };
        let nodes = self.nodes.len();
        let replication = usize::try_from(REPLICATION).unwrap_or(usize::MAX);
        let mut shards = shards.iter();
        let unsteady = shards.find(|it| {
            let wanted = match it.shard {
                ShardId::METADATA => nodes,
                _ => nodes.min(replication),
            };
            let well = it
                .members
                .iter()
                .all(|member| member.active && member.votes);
            it.leader.is_none() || it.changing || it.members.len() != wanted || !well
        });
        unsteady.map(|shard| format!("shard {} is not as it should be: {shard:?}", shard.shard))
    }
}
