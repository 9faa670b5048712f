//! Where a call belongs: to this node, to another one, or to nobody for the moment. Advice for
//! those who forward calls, and for clients; the shard itself decides.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use millrace_types::{Address, NodeId, Offset, Refusal, ShardId};
use tokio::sync::watch;

use super::Broker;
use crate::leaders::Led;
use crate::node;
use crate::view::CatalogueView;

/// Another node, and where it takes calls of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub node: NodeId,
    /// `HOST:PORT`.
    pub client: Arc<str>,
}

/// Where the leader of a shard is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// This node leads it, or has to say why it does not serve.
    Here,
    /// Another one does.
    There(Peer),
    /// Nobody does for the moment, or nobody knows where.
    Nobody,
}

/// Who leads what, and where everybody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// The cluster.
    pub cluster_id: String,
    /// This node.
    pub node: NodeId,
    /// Where nodes take calls of clients, as far as it is known.
    pub nodes: BTreeMap<NodeId, Arc<str>>,
    /// Of all shards, by number.
    pub leaders: BTreeMap<ShardId, NodeId>,
}

impl Broker {
    /// Where a queue or a partition of a topic is led.
    ///
    /// # Errors
    /// `NO_SUCH_QUEUE`, `NO_SUCH_TOPIC`, `NO_SUCH_PARTITION`, `SHARD_UNAVAILABLE`.
    pub fn route(&self, address: &Address, partition: u32) -> Result<Route, Refusal> {
        let shard = if address.is_queue() {
            self.node.view.borrow().require_queue(address)?.0
        } else {
            self.partition(address, partition)?.0
        };
        Ok(self.route_of_shard(shard))
    }

    /// The shard of a queue.
    ///
    /// # Errors
    /// As `find`; `NO_SUCH_QUEUE`, `WRONG_KIND`, `SHARD_UNAVAILABLE`.
    pub async fn queue_shard(&self, address: &Address) -> Result<ShardId, Refusal> {
        self.find(address).await?;
        let view = self.node.view.borrow();
        view.require_queue(address).map(|(shard, _)| shard)
    }

    /// The shard of a topic's partition.
    ///
    /// # Errors
    /// As `find_partition`.
    pub async fn partition_shard(
        &self,
        address: &Address,
        partition: u32,
    ) -> Result<ShardId, Refusal> {
        self.find_partition(address, partition).await?;
        self.partition(address, partition).map(|(shard, _)| shard)
    }

    /// Where a shard is led.
    #[must_use]
    pub fn route_of_shard(&self, shard: ShardId) -> Route {
        match self.node.led(shard) {
            Led::Here => Route::Here,
            Led::There(node) => match self.node.client_address(node) {
                Some(client) => Route::There(Peer { node, client }),
                None => Route::Nobody,
            },
            Led::Nobody => Route::Nobody,
        }
    }

    /// The shards of a queue, or of a topic's partitions by number.
    ///
    /// # Errors
    /// As `find`.
    pub async fn shards_of(&self, address: &Address) -> Result<Vec<ShardId>, Refusal> {
        self.find(address).await?;
        let view = self.node.view.borrow().clone();
        let object = view.require(address)?;
        let queue = object.queue().map(|(shard, _)| shard);
        let partitions = object.partitions().iter().map(|(shard, _)| *shard);
        Ok(queue.into_iter().chain(partitions).collect())
    }

    /// Whether a partition of a topic is led here.
    ///
    /// # Errors
    /// `NO_SUCH_TOPIC`, `NO_SUCH_PARTITION`, `WRONG_KIND`, `SHARD_UNAVAILABLE`.
    pub fn leads(&self, address: &Address, partition: u32) -> Result<bool, Refusal> {
        let (shard, _) = self.partition(address, partition)?;
        Ok(self.node.led(shard) == Led::Here)
    }

    /// What is applied here of a partition; `None` without a replica that serves.
    #[must_use]
    pub fn held(&self, address: &Address, partition: u32) -> Option<Range<Offset>> {
        let (shard, log) = self.partition(address, partition).ok()?;
        let extent = self.node.logs.extent(log)?;
        self.node.hosts(shard).then(|| extent.borrow().clone())
    }

    /// Who leads what now.
    #[must_use]
    pub fn map(&self) -> Map {
        let own = self.node.data_dir.node();
        let shards = (0..=self.node.data_shards()).map(ShardId::new);
        let leaders = shards.filter_map(|shard| match self.node.led(shard) {
            Led::Here => Some((shard, own)),
            Led::There(node) => Some((shard, node)),
            Led::Nobody => None,
        });
        Map {
            cluster_id: self.node.cluster_id(),
            node: own,
            leaders: leaders.collect(),
            nodes: self.node.client_addresses(),
        }
    }

    /// Waits until a shard may be led elsewhere than a look at it said, up to a limit; whether it
    /// is worth another look.
    pub async fn rerouted(&self, shard: ShardId, from: &Route, limit: Duration) -> bool {
        let mut leaders = self.node.leaders.watch();
        let mut view = self.node.view.subscribe();
        let moved = async {
            loop {
                leaders.mark_unchanged();
                view.mark_unchanged();
                if self.route_of_shard(shard) != *from {
                    return;
                }
                tokio::select! {
                    biased;
                    Ok(()) = leaders.changed() => {}
                    Ok(()) = view.changed() => {}
                    else => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            biased;
            () = moved => true,
            () = self.draining() => false,
            () = self.node.host.sleep(limit) => false,
        }
    }

    /// Resolves when another node than this one leads a shard.
    pub async fn led_elsewhere(&self, shard: ShardId, than: NodeId) {
        let mut leaders = self.node.leaders.watch();
        loop {
            leaders.mark_unchanged();
            let elsewhere = match self.node.led(shard) {
                Led::Here => than != self.node.data_dir.node(),
                Led::There(node) => than != node,
                Led::Nobody => false,
            };
            if elsewhere {
                return;
            }
            if leaders.changed().await.is_err() {
                // Nothing changes any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// A way to wait until somebody else leads something, or somebody is elsewhere.
    #[must_use]
    pub fn map_changes(&self) -> MapChanges {
        MapChanges {
            leaders: self.node.leaders.watch(),
            directory: self.node.directory.subscribe(),
            view: self.node.view.subscribe(),
        }
    }

    /// Says where another node takes calls of clients, besides what the catalogue says.
    pub fn set_client_address(&self, node: NodeId, client: &str) {
        let client: Arc<str> = client.into();
        self.node
            .directory
            .send_if_modified(|known| known.insert(node, Arc::clone(&client)) != Some(client));
    }

    /// Who does not lead says so; with where the leader is, if that is known.
    #[must_use]
    pub fn not_leader(&self, shard: ShardId) -> Refusal {
        let leader = match self.node.led(shard) {
            Led::There(node) => Some(node),
            Led::Here | Led::Nobody => None,
        };
        self.hint(node::not_leader(shard, leader))
    }

    /// Adds to the refusal of who does not lead where the leader takes calls of clients.
    #[must_use]
    pub fn hint(&self, refusal: Refusal) -> Refusal {
        let leader = refusal.metadata.get("leader");
        let node = leader.and_then(|leader| leader.parse().ok());
        match node.and_then(|node| self.node.client_address(NodeId::new(node))) {
            Some(client) => refusal.with("leader_address", &*client),
            None => refusal,
        }
    }
}

/// Tells of changes of the `Map`.
#[derive(Debug)]
pub struct MapChanges {
    leaders: watch::Receiver<BTreeMap<ShardId, Led>>,
    directory: watch::Receiver<BTreeMap<NodeId, Arc<str>>>,
    view: watch::Receiver<Arc<CatalogueView>>,
}

impl MapChanges {
    /// The next change since the last call. Never resolves when the node is gone. Cancel-safe.
    pub async fn next(&mut self) {
        tokio::select! {
            biased;
            Ok(()) = self.leaders.changed() => {}
            Ok(()) = self.directory.changed() => {}
            Ok(()) = self.view.changed() => {}
            else => std::future::pending().await,
        }
    }
}
