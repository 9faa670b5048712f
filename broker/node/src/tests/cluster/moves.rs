//! Replicas come to nodes and leave them, and leaders hand over, while messages are published.

use super::*;
use crate::Leading;

const QUEUE: &str = "queue/test/orders";

/// Three founders and a fourth node that joins; everything is where it belongs.
async fn four(cluster: &Cluster) -> usize {
    cluster.declare(vec![queue(QUEUE)]).await;
    cluster.settles(&[0, 1, 2]).await;
    let fourth = cluster.add(0, None).await;
    cluster.settles(&[0, 1, 2, fourth]).await;
    fourth
}

/// Nodes that the catalogue has a replica of a shard on, and the one it has not.
fn split(cluster: &Cluster, shard: ShardId) -> (Vec<usize>, Vec<usize>) {
    let voters = cluster.voters(cluster.alive()[0], shard);
    let has = |node: &usize| voters.contains(&cluster.id(*node));
    cluster.alive().into_iter().partition(has)
}

#[test]
fn a_replica_moves_to_another_node_while_messages_are_published() {
    for seed in [101, 103] {
        live(
            seed,
            |_| {},
            |cluster| async move {
                let fourth = four(&cluster).await;
                let shard = cluster.shard(QUEUE);
                let load = cluster.load(QUEUE);
                load.goes_on(20).await;
                // The leader's own: it has to hand over first.
                let (there, free) = split(&cluster, shard);
                let from = cluster.leader(shard, &there).await;
                let to = free[0];
                let (from, to_id) = (cluster.id(from), cluster.id(to));
                let through = cluster.broker(fourth);
                through.move_replica(shard, from, to_id).await.unwrap();

                let since = cluster.host.elapsed();
                while !cluster.voters(fourth, shard).contains(&cluster.id(to)) {
                    cluster.wait_long(since, "it has moved").await;
                }
                cluster.settles(&[0, 1, 2, fourth]).await;
                load.goes_on(20).await;
                let (_, without) = split(&cluster, shard);
                for node in without {
                    cluster.is_let_go(node, shard).await;
                }
                // What has moved is all there: the two others that had it are not needed.
                load.check().await;
            },
        );
    }
}

#[test]
fn a_node_is_drained_and_comes_back_while_messages_are_published() {
    live(
        111,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![queue(QUEUE)]).await;
            cluster.settles(&[0, 1, 2]).await;
            let shard = cluster.shard(QUEUE);
            let load = cluster.load(QUEUE);
            load.goes_on(20).await;
            let drained = cluster.leader(shard, &[0, 1, 2]).await;
            let (id, other) = (cluster.id(drained), (drained + 1) % 3);
            let since = cluster.host.elapsed();
            while cluster.broker(other).drain_node(id).await.is_err() {
                cluster.wait(since, "it is drained").await;
            }
            let blockers = async || cluster.broker(other).can_stop(id).await;
            while !blockers().await.is_ok_and(|blockers| blockers.is_empty()) {
                cluster.wait_long(since, "it can be stopped").await;
            }

            cluster.kill(drained);
            load.goes_on(30).await;
            cluster.start(drained);
            cluster.settles(&[0, 1, 2]).await;
            let led = || (0..=SHARDS).map(ShardId::new);
            let leaders = &cluster.broker(drained).node.leaders;
            assert!(led().all(|shard| leaders.get(shard) != Led::Here));
            cluster.broker(drained).undrain_node(id).await.unwrap();
            let nodes = cluster.broker(drained).nodes().await.unwrap();
            assert!(nodes.iter().all(|node| node.leading == Leading::Allowed));
            load.goes_on(20).await;
            load.check().await;
        },
    );
}

#[test]
fn a_cordoned_node_loses_its_replicas_and_an_open_one_gets_some_again() {
    live(
        121,
        |_| {},
        |cluster| async move {
            let fourth = four(&cluster).await;
            let load = cluster.load(QUEUE);
            load.goes_on(20).await;
            let id = cluster.id(1);
            cluster.broker(fourth).cordon_node(id).await.unwrap();
            let data = || (1..=SHARDS).map(ShardId::new);
            let since = cluster.host.elapsed();
            while data().any(|shard| cluster.voters(fourth, shard).contains(&id)) {
                cluster.wait_long(since, "its replicas have moved").await;
            }
            for shard in data() {
                cluster.is_let_go(1, shard).await;
            }
            load.goes_on(20).await;

            // What it had is not what it gets: each one comes with nothing, under another id.
            cluster.broker(fourth).uncordon_node(id).await.unwrap();
            cluster.settles(&[0, 1, 2, fourth]).await;
            let shard = cluster.shard(QUEUE);
            let (there, free) = split(&cluster, shard);
            if free.contains(&1) {
                let from = there.into_iter().find(|node| *node != fourth).unwrap();
                let through = cluster.broker(fourth);
                let from = cluster.id(from);
                through.move_replica(shard, from, id).await.unwrap();
                let since = cluster.host.elapsed();
                while !cluster.voters(fourth, shard).contains(&id) {
                    cluster.wait_long(since, "it has one again").await;
                }
            }
            load.goes_on(20).await;
            load.check().await;
        },
    );
}
