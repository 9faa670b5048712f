//! Shards that share no node: what moves between them is asked for.

use super::elsewhere::sorted;
use super::*;
use crate::facts::{List, SummaryKind};

const TOPIC: &str = "topic/test/events";
const QUEUE: &str = "queue/test/orders";
/// Published to each partition.
const MESSAGES: usize = 20;
/// What a partition keeps.
const KEPT: u64 = 5;

impl Cluster {
    /// Leaves one replica of each data shard, each on another node.
    async fn part(&self) {
        let since = self.host.elapsed();
        while self.broker(0).set_replication(1).await.is_err() {
            self.wait(since, "it is taken").await;
        }
        let (one, two) = (ShardId::new(1), ShardId::new(2));
        loop {
            self.settles(&[0, 1, 2]).await;
            let (first, second) = (self.voters(0, one), self.voters(0, two));
            if (first.len(), second.len()) == (1, 1) {
                if first != second {
                    return;
                }
                let mut free = (0..3).map(|node| self.id(node));
                let to = free.find(|node| !first.contains(node)).unwrap();
                // Perhaps it is on its way there already.
                let _moved = self.broker(0).move_replica(one, first[0], to).await;
            }
            self.wait_long(since, "they are apart").await;
        }
    }
}

impl Cluster {
    /// Messages of a topic, as any node lists them.
    async fn kept(&self, topic: &str) -> Option<u64> {
        let list = List {
            queues: false,
            topics: true,
            namespace: None,
            after: None,
            objects_max: 10,
        };
        let listed = self.broker(0).list(list).await.ok()?;
        let mut items = listed.items.into_iter();
        match items.find(|item| item.address.to_string() == topic)?.kind? {
            SummaryKind::Topic(facts) => Some(facts.messages),
            SummaryKind::Queue(_) => None,
        }
    }
}

#[test]
fn messages_move_between_shards_that_share_no_node_and_retention_waits_for_them() {
    live(
        141,
        |_| {},
        |cluster| async move {
            let events = topic_with(TOPIC, 2, |it| it.messages_max = Some(KEPT));
            let orders = bound(QUEUE, TOPIC, "#");
            cluster.declare(vec![events, orders]).await;
            cluster.settles(&[0, 1, 2]).await;
            cluster.part().await;
            let mut expected = Vec::new();
            for number in 0..MESSAGES {
                for partition in 0..2 {
                    let text = format!("{partition} {number:02}");
                    cluster.publish_to(partition, &text).await;
                    expected.push(text);
                }
            }
            expected.sort_unstable();

            let delivered = cluster.collect(QUEUE, expected.len()).await;

            assert_eq!(sorted(&delivered), expected);
            let since = cluster.host.elapsed();
            while cluster.kept(TOPIC).await != Some(2 * KEPT) {
                cluster.wait_long(since, "retention has gone on").await;
            }
        },
    );
}
