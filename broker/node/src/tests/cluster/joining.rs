//! A cluster of one becomes one of three, and a node that lost its disk gets its replicas again,
//! while messages are published.

use millrace_engine::catalogue::{NodeFacts, Registration, Role as Seat};
use millrace_types::FEATURE_LEVEL;

use super::*;

const QUEUE: &str = "queue/test/orders";

impl Cluster {
    /// A node with an empty disk, at an address, that joins through another one.
    pub(super) async fn add(&self, through: usize, at: Option<String>) -> usize {
        let mut member = Member::new(&self.host, |_| {});
        member.address = at.unwrap_or(member.address);
        let registration = Registration {
            node: member.id,
            facts: NodeFacts {
                peer_address: member.address.clone(),
                feature_level: FEATURE_LEVEL,
                ..NodeFacts::default()
            },
            lost: Vec::new(),
        };
        let since = self.host.elapsed();
        let registered = loop {
            let broker = self.broker(through);
            if let Ok(registered) = broker.register(registration.clone()).await {
                break registered;
            }
            self.wait(since, "it is registered").await;
        };
        let chance = self.host.clone();
        let random = Arc::new(move || chance.random());
        let disk = Arc::new(member.disk.clone());
        let dir = DataDir::open(disk, Path::new("data"), random).unwrap();
        dir.join(registered.cluster, registered.metadata).unwrap();
        drop(dir);
        let node = {
            let mut members = self.members();
            members.push(member);
            members.len() - 1
        };
        self.start(node);
        node
    }

    /// Waits until every shard has what it should have, and nodes all that they should.
    pub(super) async fn settles(&self, nodes: &[usize]) {
        let since = self.host.elapsed();
        while !self.is_settled(nodes).await {
            self.wait_long(since, "replicas are where they belong")
                .await;
        }
    }

    async fn is_settled(&self, nodes: &[usize]) -> bool {
        let broker = self.broker(nodes[0]);
        let view = broker.node.view.borrow().clone();
        let mut shards = view.roster().shards();
        if view.topology().is_err() || !shards.all(|(_, replicas)| replicas.is_converged()) {
            return false;
        }
        for node in nodes {
            let blockers = broker.caught_up(self.id(*node)).await;
            if !blockers.is_ok_and(|blockers| blockers.is_empty()) {
                return false;
            }
        }
        true
    }

    /// Voters of a shard by node, as the catalogue has them.
    pub(super) fn voters(&self, through: usize, shard: ShardId) -> Vec<NodeId> {
        let view = self.broker(through).node.view.borrow().clone();
        let members = view.roster().shard(shard).unwrap().actual().members();
        let voters = members.iter().filter(|it| it.role == Seat::Voter);
        voters.map(|it| it.node).collect()
    }

    /// What a node's disk still has of a shard.
    pub(super) fn files(&self, node: usize, shard: ShardId) -> Vec<String> {
        use millrace_storage::Disk as _;
        let directory = Path::new("data").join(format!("shards/{shard}"));
        let disk = self.disk(node);
        let mut names = disk.list(&directory).unwrap_or_default();
        names.extend(disk.list(&directory.join("segments")).unwrap_or_default());
        names.retain(|name| name != "segments");
        names
    }

    /// Waits until nothing of a shard is left on a node.
    pub(super) async fn is_let_go(&self, node: usize, shard: ShardId) {
        let since = self.host.elapsed();
        while self.broker(node).node.data_dir.replica(shard).is_some()
            || !self.files(node, shard).is_empty()
        {
            self.wait_long(since, "the former replica is gone from the disk")
                .await;
        }
    }

    /// As `wait`, for what takes several changes of members.
    pub(super) async fn wait_long(&self, since: Duration, what: &str) {
        if self.host.elapsed() >= since + 6 * SOON {
            panic!("never: {what}: {:#?}", self.picture().await);
        }
        self.host.sleep(Duration::from_millis(200)).await;
    }

    /// Nodes and replicas as each node sees them, for a test that fails.
    async fn picture(&self) -> Vec<String> {
        let mut all = Vec::new();
        for node in self.alive() {
            let broker = self.broker(node);
            let view = broker.node.view.borrow().clone();
            let missing = view.topology().err();
            all.push(format!("{node}: {:x} {missing:?}", self.id(node).get()));
            let nodes = view.roster().nodes();
            all.extend(nodes.map(|(id, it)| format!("  {:x} {it:?}", id.get())));
            for (shard, replicas) in view.roster().shards() {
                let held = broker.node.data_dir.replica(shard);
                let led = broker.node.led(shard);
                all.push(format!("  {shard} {held:?} {led:?} {replicas:?}"));
            }
        }
        if let Ok(shards) = self.broker(self.alive()[0]).shards().await {
            all.extend(shards.iter().map(|it| format!("{it:?}")));
        }
        all
    }
}

#[test]
fn one_node_becomes_three_while_messages_are_published() {
    for seed in [91, 92] {
        alone(seed, |cluster| async move {
            cluster.declare(vec![queue(QUEUE)]).await;
            let load = cluster.load(QUEUE);
            load.goes_on(20).await;
            let second = cluster.add(0, None).await;
            let third = cluster.add(0, None).await;
            cluster.settles(&[0, second, third]).await;
            for shard in (0..=SHARDS).map(ShardId::new) {
                assert_eq!(cluster.voters(0, shard).len(), 3, "shard {shard}");
            }
            load.goes_on(20).await;

            // The first one is not needed any more.
            cluster.kill(0);
            load.goes_on(20).await;
            load.check().await;
        });
    }
}

#[test]
fn a_node_that_lost_its_disk_gets_its_replicas_again_under_other_ids() {
    for seed in [93, 94] {
        live(
            seed,
            |_| {},
            |cluster| async move {
                cluster.declare(vec![queue(QUEUE)]).await;
                cluster.settles(&[0, 1, 2]).await;
                let load = cluster.load(QUEUE);
                load.goes_on(20).await;
                let leader = cluster.leader(cluster.shard(QUEUE), &[0, 1, 2]).await;
                let wiped = (leader + 1) % 3;
                let (id, address) = (cluster.id(wiped), cluster.members()[wiped].address.clone());
                cluster.kill(wiped);
                load.goes_on(20).await;

                let next = cluster.add(leader, Some(address)).await;
                cluster.settles(&[next]).await;

                let since = cluster.host.elapsed();
                let view = cluster.broker(leader).catalogue();
                while view.borrow().roster().node(id).is_some() {
                    cluster
                        .wait_long(since, "the former node is forgotten")
                        .await;
                }
                for shard in (0..=SHARDS).map(ShardId::new) {
                    let voters = cluster.voters(leader, shard);
                    assert!(voters.contains(&cluster.id(next)) && voters.len() == 3);
                }
                // It counts: with it and one other everything goes on.
                load.goes_on(20).await;
                cluster.kill(leader);
                load.goes_on(20).await;
                load.check().await;
            },
        );
    }
}

#[test]
fn a_node_that_was_replaced_by_mistake_is_back_when_it_starts_again() {
    live(
        95,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![queue(QUEUE)]).await;
            cluster.settles(&[0, 1, 2]).await;
            let load = cluster.load(QUEUE);
            load.goes_on(20).await;
            let leader = cluster.leader(ShardId::METADATA, &[0, 1, 2]).await;
            let (away, id) = ((leader + 1) % 3, cluster.id((leader + 1) % 3));
            let address = cluster.members()[away].address.clone();
            cluster.kill(away);
            let other = cluster.add(leader, Some(address)).await;
            // It is gone before it has everything.
            cluster.kill(other);
            cluster.start(away);

            cluster.settles(&[away]).await;
            let view = cluster.broker(leader).catalogue();
            assert!(view.borrow().roster().node(id).unwrap().may_lead());
            load.goes_on(20).await;
            cluster.kill((leader + 2) % 3);
            load.goes_on(20).await;
            load.check().await;
        },
    );
}
