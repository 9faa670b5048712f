//! What a call sees and what an acknowledgement means when another node leads: nothing that was
//! acknowledged is missing, nothing is stored twice, and who cannot know refuses.

use millrace_engine::command::{Dedup, DedupId};
use millrace_types::{ErrorCode, Offset};

use super::*;
use crate::{Peek, Position, Read, Taken};

const QUEUE: &str = "queue/test/orders";
const TOPIC: &str = "topic/test/events";

impl Cluster {
    async fn peek(&self, node: usize) -> Result<usize, Refusal> {
        let peek = Peek {
            address: address(QUEUE),
            from: Offset::new(0),
            messages_max: 1_000,
        };
        let answer = self.broker(node).peek(peek).await;
        answer.map(|answer| answer.messages.len())
    }

    async fn publish_once(&self, node: usize, dedup: Dedup) -> Result<Acknowledged, Refusal> {
        let batch = Batch {
            dedup: Some(dedup),
            ..batch(&[message("once", "")])
        };
        let sent = self.broker(node).publish(&address(QUEUE), vec![batch]);
        sent.await.remove(0)
    }
}

/// It did not happen, and may be tried again.
fn assert_not_now(refusal: &Refusal) {
    let codes = [ErrorCode::NotLeader, ErrorCode::ShardUnavailable];
    assert!(codes.contains(&refusal.code), "{refusal:?}");
    assert_eq!(refusal.applied, millrace_types::Applied::No);
    assert!(refusal.retry_after_ms.is_some(), "{refusal:?}");
}

#[test]
fn whichever_node_is_asked_shows_what_was_acknowledged_before() {
    live(
        21,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![queue(QUEUE), topic(TOPIC, 1)]).await;
            let leader = cluster.leader(cluster.shard(QUEUE), &[0, 1, 2]).await;
            for number in 1..=10 {
                cluster.publish(leader, QUEUE, "x").await.unwrap();
                for node in [0, 1, 2] {
                    assert_eq!(cluster.peek(node).await, Ok(number), "node {node}");
                    let described = cluster.broker(node).describe(&address(QUEUE)).await;
                    let Some(crate::SummaryKind::Queue(facts)) = described.unwrap().summary.kind
                    else {
                        panic!("a queue");
                    };
                    assert_eq!(facts.stats.ready, number as u64);
                }
            }
        },
    );
}

#[test]
fn the_end_of_a_partition_is_where_its_leader_has_it() {
    live(
        22,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![topic(TOPIC, 1)]).await;
            let view = cluster.broker(0).node.view.borrow().clone();
            let (shard, _) = view.require_topic(&address(TOPIC)).unwrap()[0];
            let leader = cluster.leader(shard, &[0, 1, 2]).await;
            for number in 1..=10 {
                cluster.publish(leader, TOPIC, "x").await.unwrap();
                for from in [Position::Latest, Position::Offset(Offset::new(number))] {
                    let read = Read {
                        address: address(TOPIC),
                        partition: 0,
                        from,
                        messages_max: 10,
                        bytes_max: 1_000,
                    };
                    let answer = cluster.broker((leader + 1) % 3).read(read).await.unwrap();
                    assert_eq!(answer.next, Offset::new(number));
                }
            }
        },
    );
}

#[test]
fn who_is_cut_off_shows_nothing_rather_than_something_old() {
    live(
        23,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![queue(QUEUE)]).await;
            let shard = cluster.shard(QUEUE);
            let first = cluster.leader(shard, &[0, 1, 2]).await;
            cluster.publish(first, QUEUE, "one").await.unwrap();

            for node in [first, (first + 1) % 3] {
                cluster.isolate(node);
                let began = cluster.host.elapsed();
                assert_not_now(&cluster.peek(node).await.unwrap_err());
                assert!(cluster.host.elapsed() - began < ELECTION);
                let others: Vec<usize> = (0..3).filter(|other| *other != node).collect();
                let leader = cluster.leader(shard, &others).await;
                cluster.publish(leader, QUEUE, "more").await.unwrap();
                assert_not_now(&cluster.peek(node).await.unwrap_err());
                cluster.join(node);
                cluster.follows(node, shard).await;
            }
            let began = cluster.host.elapsed();
            while cluster.peek(first).await != Ok(3) {
                cluster.wait(began, "it shows everything").await;
            }
        },
    );
}

#[test]
fn a_retry_at_the_next_leader_is_stored_once() {
    for seed in [31, 32, 33] {
        live(
            seed,
            |_| {},
            |cluster| async move {
                cluster.declare(vec![queue(QUEUE)]).await;
                let shard = cluster.shard(QUEUE);
                let first = cluster.leader(shard, &[0, 1, 2]).await;
                let id = DedupId::of_batch(b"producer", 7, 7);
                let stored = cluster.publish_once(first, Dedup { id, age_ms: 0 }).await;
                let stored = stored.unwrap();
                assert_eq!(stored.replicas, 3);
                cluster.kill(first);

                let second = cluster.leader(shard, &cluster.alive()).await;
                let age_ms = 4_000;
                let again = cluster.publish_once(second, Dedup { id, age_ms }).await;
                let again = again.unwrap();

                assert!(matches!(again.taken, Taken::Repeated(_)), "{again:?}");
                assert_eq!(again.offsets(), stored.offsets());
                assert_eq!(cluster.take(second, QUEUE).await, ["once"]);
            },
        );
    }
}
