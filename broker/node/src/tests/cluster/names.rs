//! What a node says of names that it has not heard of, or not yet.

use millrace_types::{Applied, ErrorCode, ReplicaId};

use super::*;

const QUEUE: &str = "queue/test/orders";
const TOPIC: &str = "topic/test/events";
const NOWHERE: &str = "queue/test/nowhere";

/// Not known yet is not unknown: whoever is told so comes back.
fn assert_retryable(refusal: &Refusal) {
    let codes = [ErrorCode::NotLeader, ErrorCode::ShardUnavailable];
    assert!(codes.contains(&refusal.code), "{refusal:?}");
    assert_eq!(refusal.applied, Applied::No);
    assert!(refusal.retry_after_ms.is_some(), "{refusal:?}");
}

fn delta(base_revision: u64, upserts: Vec<Declared>) -> TopologyDelta {
    TopologyDelta {
        cluster_id: None,
        base_revision,
        upserts,
        removals: Vec::new(),
    }
}

#[test]
fn a_node_that_is_behind_asks_who_leads_before_it_says_that_a_name_is_unknown() {
    live(
        61,
        |_| {},
        |cluster| async move {
            let leader = cluster.leader(ShardId::METADATA, &[0, 1, 2]).await;
            let behind = (leader + 1) % 3;
            let broker = cluster.broker(behind);
            let declared = delta(0, vec![queue(QUEUE), topic(TOPIC, 2)]);
            let declared = cluster.broker(leader).apply_topology(declared).await;
            let revision = declared.unwrap();
            let known = broker.node.view.borrow().lookup(&address(QUEUE)).is_some();
            assert!(!known, "it would have to be behind");

            assert_eq!(broker.find(&address(QUEUE)).await, Ok(()));
            assert_eq!(broker.find_partition(&address(TOPIC), 1).await, Ok(()));

            // A topic that has grown is the same.
            let grown = delta(revision, vec![topic(TOPIC, 4)]);
            let grown = cluster.broker(leader).apply_topology(grown).await;
            grown.unwrap();
            assert_eq!(broker.find_partition(&address(TOPIC), 3).await, Ok(()));
            let refusal = broker.find_partition(&address(TOPIC), 4).await;
            assert_eq!(refusal.unwrap_err().code, ErrorCode::NoSuchPartition);
            for node in 0..3 {
                let refusal = cluster.broker(node).find(&address(NOWHERE)).await;
                assert_eq!(refusal.unwrap_err().code, ErrorCode::NoSuchQueue);
            }
        },
    );
}

#[test]
fn a_node_that_reaches_nobody_does_not_say_that_a_name_is_unknown() {
    live(
        62,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![queue(QUEUE)]).await;
            let leader = cluster.leader(ShardId::METADATA, &[0, 1, 2]).await;
            for away in [(leader + 1) % 3, leader] {
                cluster.isolate(away);
                let broker = cluster.broker(away);
                assert_eq!(broker.find(&address(QUEUE)).await, Ok(()), "it knows that");
                let began = cluster.host.elapsed();
                let refusal = broker.find(&address(NOWHERE)).await.unwrap_err();
                assert_retryable(&refusal);
                assert!(cluster.host.elapsed() - began < Duration::from_secs(2));
                cluster.join(away);
            }
        },
    );
}

#[test]
fn a_node_without_a_catalogue_does_not_say_that_nothing_is_declared() {
    live(
        63,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![queue(QUEUE)]).await;
            let blank = Member::new(&cluster.host, |dir| {
                let ours = millrace_storage::Cluster {
                    id: "ours".into(),
                    shards: SHARDS,
                    founding: None,
                };
                dir.join(ours, ReplicaId::new(4_710)).unwrap();
            });
            cluster.members().push(blank);
            cluster.start(3);
            let broker = cluster.broker(3);
            let sent = broker.publish(&address(QUEUE), vec![batch(&[message("no", "")])]);
            assert_retryable(&sent.await.remove(0).unwrap_err());
            assert_retryable(&broker.find(&address(QUEUE)).await.unwrap_err());
            let taken = broker.receive(receive(QUEUE, 1, Duration::ZERO)).await;
            assert_retryable(&taken.unwrap_err());
        },
    );
}
