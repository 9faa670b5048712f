//! Queues that ask for a replication of their own, on shards that come when they do.

use super::*;

const ONE: &str = "queue/test/one";
const TWO: &str = "queue/test/two";
const ALL: &str = "queue/test/all";

fn asking(at: &str, replication: u32) -> Declared {
    queue_with(at, |queue| queue.class.replication = Some(replication))
}

impl Cluster {
    /// Publishes through any node's view, where the queue is led.
    async fn send(&self, to: &str, text: &str) -> Acknowledged {
        let leader = self.leader(self.shard(to), &self.alive()).await;
        self.publish(leader, to, text).await.unwrap()
    }

    /// Nodes with a replica of a shard.
    fn hosts(&self, shard: ShardId) -> Vec<usize> {
        let hosts = |node: &usize| self.broker(*node).node.hosts(shard);
        self.alive().into_iter().filter(hosts).collect()
    }
}

#[test]
fn each_queue_has_as_many_replicas_as_it_asks_for_and_says_so() {
    live(
        51,
        |_| {},
        |cluster| async move {
            let plain = queue("queue/test/plain");
            cluster
                .declare(vec![plain, asking(ONE, 1), asking(TWO, 2), asking(ALL, 3)])
                .await;
            for (queue, replicas) in [("queue/test/plain", 3), (ONE, 1), (TWO, 2), (ALL, 3)] {
                let acknowledged = cluster.send(queue, "text").await;
                assert_eq!(acknowledged.replicas, replicas, "{queue}");
                let hosts = cluster.hosts(cluster.shard(queue));
                assert_eq!(hosts.len(), usize::try_from(replicas).unwrap());
            }
            assert!(cluster.shard(ONE).get() > SHARDS);
            assert_eq!(
                cluster.broker(0).metadata().await.unwrap().shards,
                SHARDS + 3
            );
        },
    );
}

#[test]
fn what_is_on_shards_of_a_class_survives_that_all_nodes_die_before_any_checkpoint() {
    for seed in [52, 53] {
        live(
            seed,
            |_| {},
            |cluster| async move {
                cluster.declare(vec![asking(ONE, 1), asking(ALL, 3)]).await;
                for queue in [ONE, ALL] {
                    cluster.send(queue, "before").await;
                }
                (0..3).for_each(|node| cluster.kill(node));
                (0..3).for_each(|node| cluster.start(node));
                cluster.leader(ShardId::METADATA, &[0, 1, 2]).await;
                for queue in [ONE, ALL] {
                    let leader = cluster.leader(cluster.shard(queue), &[0, 1, 2]).await;
                    assert_eq!(cluster.take(leader, queue).await, ["before"]);
                    cluster.send(queue, "after").await;
                    assert_eq!(cluster.take(leader, queue).await, ["after"]);
                }
            },
        );
    }
}

#[test]
fn a_queue_with_three_replicas_goes_on_without_one_and_a_queue_with_one_waits_for_it() {
    live(
        54,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![asking(ONE, 1), asking(ALL, 3)]).await;
            let alone = cluster.leader(cluster.shard(ONE), &[0, 1, 2]).await;
            cluster.send(ONE, "kept").await;
            cluster.kill(alone);
            cluster.send(ALL, "through").await;

            let other = cluster.alive()[0];
            assert!(cluster.publish(other, ONE, "refused").await.is_err());
            cluster.start(alone);
            let again = cluster.leader(cluster.shard(ONE), &[alone]).await;
            assert_eq!(cluster.take(again, ONE).await, ["kept"]);
        },
    );
}

#[test]
fn a_node_may_stop_although_a_queue_asked_for_one_replica_on_it() {
    live(
        55,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![asking(ONE, 1)]).await;
            let alone = cluster.leader(cluster.shard(ONE), &[0, 1, 2]).await;
            let (id, since) = (cluster.id(alone), cluster.host.elapsed());
            cluster.broker(alone).drain_node(id).await.unwrap();
            while !cluster.broker(alone).can_stop(id).await.unwrap().is_empty() {
                cluster.wait(since, "it can stop").await;
            }
        },
    );
}
