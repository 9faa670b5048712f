//! Nodes are registered, drained and let go of by name.

use super::*;
use crate::Leading;

#[test]
fn a_drained_node_hands_over_and_can_be_stopped() {
    live(
        41,
        |_| {},
        |cluster| async move {
            let since = cluster.host.elapsed();
            loop {
                let nodes = cluster.broker(0).nodes().await.unwrap_or_default();
                if nodes.len() == 3 && nodes.iter().all(|node| node.facts.feature_level > 0) {
                    break;
                }
                cluster.wait(since, "all have registered").await;
            }
            let node = cluster.leader(ShardId::METADATA, &[0, 1, 2]).await;
            let (id, other) = (cluster.id(node), (node + 1) % 3);
            // Leadership may be on its way to the preferred node just now.
            let mut drained = 0;
            while drained < 2 {
                match cluster.broker(other).drain_node(id).await {
                    Ok(()) => drained += 1,
                    Err(refusal) => assert!(refusal.code.is_retryable(), "{refusal}"),
                }
                cluster.wait(since, "it is drained, twice").await;
            }
            let since = cluster.host.elapsed();
            loop {
                let blockers = cluster.broker(other).can_stop(id).await;
                if blockers.is_ok_and(|blockers| blockers.is_empty()) {
                    break;
                }
                cluster.wait(since, "it can be stopped").await;
            }
            let shards = cluster.broker(other).shards().await.unwrap();
            assert_eq!(shards.len(), 1 + SHARDS as usize);
            assert!(shards.iter().all(|shard| shard.leader.is_some()));
            assert!(shards.iter().all(|shard| shard.leader != Some(id)));
            let nodes = cluster.broker(node).nodes().await.unwrap();
            let drained = nodes.iter().find(|state| state.node == id).unwrap();
            assert_eq!((drained.leading, drained.leads), (Leading::Drained, 0));
        },
    );
}
