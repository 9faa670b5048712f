//! Work that crosses nodes: messages that move between shards with different leaders, leases that
//! outlive their leader, and questions that any node takes.

use millrace_engine::command::Settle;
use millrace_types::{ErrorCode, ReplicaId, SessionId};

use super::*;
use crate::Resume;

const TOPIC: &str = "topic/test/events";
const QUEUE: &str = "queue/test/orders";
const LETTERS: &str = "queue/test/letters";

impl Cluster {
    /// Has a node lead a shard.
    async fn lead(&self, node: usize, shard: ShardId) {
        let id = self.id(node);
        let members = self.founding.members(shard);
        let own = members.iter().find(|(_, on)| *on == id);
        let replica: ReplicaId = own.unwrap().0;
        let since = self.host.elapsed();
        while self.broker(node).node.leaders.get(shard) != Led::Here {
            let now = self.leader(shard, &self.alive()).await;
            let hand_over = Box::new(move |it: &mut millrace_replica::Replica| {
                it.transfer_to(replica).ok();
            });
            let broker = self.broker(now);
            let slot = broker.node.slot_at_all(shard);
            slot.inbox.send(Input::Drive(shard, hand_over));
            self.wait(since, "it leads").await;
        }
    }

    /// A topic, a queue that is bound to it, and another one for its dead letters; each shard is
    /// led by another node than the last one's.
    async fn spread(&self) {
        let orders = queue_with(QUEUE, |queue| {
            queue.bindings.push(binding(TOPIC, "#"));
            queue.dead_letter.queue = Some(address(LETTERS));
        });
        self.declare(vec![topic(TOPIC, 2), orders, queue(LETTERS)])
            .await;
        for (node, shard) in (0..3).zip(0..=SHARDS) {
            self.lead(node, ShardId::new(shard)).await;
        }
    }

    /// Publishes to a partition where it is led.
    pub(super) async fn publish_to(&self, partition: u32, text: &str) {
        let shard = self.broker(self.alive()[0]);
        let address_of = address(TOPIC);
        let shard = shard.partition_shard(&address_of, partition).await.unwrap();
        let sent = Batch {
            partition: Some(partition),
            ..batch(&[message(text, "")])
        };
        let leader = self.leader(shard, &self.alive()).await;
        let answers = self.broker(leader).publish(&address(TOPIC), vec![sent]);
        answers.await.remove(0).unwrap();
    }

    /// Takes so many messages of a queue, wherever it is led.
    pub(super) async fn collect(&self, from: &str, count: usize) -> Vec<Delivered> {
        let (shard, since) = (self.shard(from), self.host.elapsed());
        let mut all = Vec::new();
        while all.len() < count {
            let leader = self.leader(shard, &self.alive()).await;
            let wanted = receive(from, 100, Duration::from_secs(1));
            all.extend(
                self.broker(leader)
                    .receive(wanted)
                    .await
                    .unwrap_or_default(),
            );
            self.wait(since, "everything has come").await;
        }
        all
    }
}

fn tags(delivered: &[Delivered], settle: &Settle) -> Vec<SettleTag> {
    let tag = |one| settle_tag(one, settle.clone());
    delivered.iter().map(tag).collect()
}

pub(super) fn sorted(delivered: &[Delivered]) -> Vec<String> {
    let mut all = texts(delivered);
    all.sort_unstable();
    all
}

#[test]
fn messages_move_once_through_topics_queues_and_dead_letters_that_are_led_elsewhere() {
    for seed in [31, 32, 33] {
        live(
            seed,
            |_| {},
            |cluster| async move {
                cluster.spread().await;
                let mut expected = Vec::new();
                for number in 10..20 {
                    let text = format!("message {number}");
                    cluster.publish_to(number % 2, &text).await;
                    expected.push(text);
                }
                let delivered = cluster.collect(QUEUE, 10).await;
                assert_eq!(sorted(&delivered), expected);

                // Any node ends a lease.
                let shard = cluster.shard(QUEUE);
                let leader = cluster.leader(shard, &[0, 1, 2]).await;
                let other = cluster.broker((leader + 1) % 3);
                let reject = Settle::Reject { note: "no".into() };
                for result in other.settle(None, tags(&delivered, &reject)).await {
                    result.unwrap();
                }
                // Who carries them dies on the way.
                cluster.kill(leader);
                cluster.collect(LETTERS, 10).await;
                let again = cluster.take(
                    cluster
                        .leader(cluster.shard(LETTERS), &cluster.alive())
                        .await,
                    LETTERS,
                );
                assert!(again.await.is_empty(), "each of them came once");
            },
        );
    }
}

#[test]
fn any_node_takes_a_change_of_the_topology() {
    live(
        41,
        |_| {},
        |cluster| async move {
            let leader = cluster.leader(ShardId::METADATA, &[0, 1, 2]).await;
            let other = cluster.broker((leader + 1) % 3);
            let delta = |base_revision, at| TopologyDelta {
                cluster_id: None,
                base_revision,
                upserts: vec![queue(at)],
                removals: Vec::new(),
            };
            let since = cluster.host.elapsed();
            while other.node.leaders.get(ShardId::METADATA) == Led::Nobody {
                cluster.wait(since, "it knows who leads").await;
            }
            let revision = other.apply_topology(delta(0, QUEUE)).await.unwrap();
            let mut view = other.catalogue();
            let applied = view.wait_for(|view| view.applied_revision() >= revision);
            applied.await.unwrap();
            let refusal = other.apply_topology(delta(0, LETTERS)).await.unwrap_err();
            assert_eq!(refusal.code, ErrorCode::RevisionConflict);
        },
    );
}

#[test]
fn a_session_and_its_leases_outlive_their_leader_and_what_is_over_is_stale() {
    live(
        51,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![queue(QUEUE)]).await;
            let shard = cluster.shard(QUEUE);
            let first = cluster.leader(shard, &[0, 1, 2]).await;
            for text in ["one", "two", "three"] {
                cluster.publish(first, QUEUE, text).await.unwrap();
            }
            let credit = Credit {
                messages: 2,
                bytes: 1 << 20,
            };
            let opened = cluster
                .broker(first)
                .open_consumer(open(QUEUE, credit))
                .await;
            let (consumer, mut events) = opened.unwrap();
            let held = deliveries_now(&mut events, 2).await;
            let session = consumer.session();

            let second = (first + 1) % 3;
            cluster.lead(second, shard).await;

            match events.next().await {
                Some(ConsumerEvent::Closed(refusal)) => {
                    assert_eq!(refusal.code, ErrorCode::NotLeader);
                }
                other => panic!("the old connection ends, not {other:?}"),
            }
            drop((consumer, events));

            let (consumer, mut events) = resume(&cluster, second, session, &held).await;
            assert_eq!(consumer.session(), session);
            // A lease from before is settled through whoever is asked.
            let accept = tags(&held[..1], &Settle::Accept);
            let asked = cluster.broker((second + 1) % 3);
            assert_eq!(asked.settle(None, accept.clone()).await, [Ok(())]);
            let twice = asked.settle(None, accept).await.remove(0).unwrap_err();
            assert_eq!(twice.code, ErrorCode::StaleDelivery);

            let rest = deliveries_now(&mut events, 1).await;
            assert_eq!((texts(&rest), rest[0].attempts), (vec!["three".into()], 0));
            let both = [
                tags(&held[1..], &Settle::Accept),
                tags(&rest, &Settle::Accept),
            ]
            .concat();
            assert_eq!(asked.settle(None, both).await, [Ok(()), Ok(())]);
            consumer.close().await.unwrap();
            assert!(cluster.take(second, QUEUE).await.is_empty());
        },
    );
}

async fn resume(
    cluster: &Cluster,
    node: usize,
    session: SessionId,
    held: &[Delivered],
) -> (Consumer, ConsumerEvents) {
    let held = held.iter().map(|one| one.tag.clone()).collect();
    let back = OpenConsumer {
        resume: Some(Resume { session, held }),
        ..open(QUEUE, plenty())
    };
    cluster.broker(node).open_consumer(back).await.unwrap()
}

/// So many deliveries, on virtual time.
async fn deliveries_now(events: &mut ConsumerEvents, count: usize) -> Vec<Delivered> {
    let mut all = Vec::new();
    while all.len() < count {
        match events.next().await {
            Some(ConsumerEvent::Deliveries(more)) => all.extend(more),
            other => panic!("deliveries expected, not {other:?}"),
        }
    }
    all
}
