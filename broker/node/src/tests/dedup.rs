//! What an acknowledgement means: a retry is stored once, whatever happened in between, and what
//! is said to be on disk is.

use millrace_engine::command::{Dedup, DedupId};
use millrace_types::{Applied, ErrorCode};

use super::host::TestHost;
use super::*;
use crate::{Acknowledge, Taken};

const QUEUE: &str = "queue/test/orders";
const TOPIC: &str = "topic/test/events";

fn first(id: DedupId) -> Dedup {
    Dedup { id, age_ms: 0 }
}

fn with(dedup: Dedup, text: &str) -> Batch {
    Batch {
        dedup: Some(dedup),
        ..batch(&[message(text, "")])
    }
}

fn number(sequence: u64) -> Dedup {
    first(DedupId::of_batch(b"producer", sequence, 0))
}

async fn publish(running: &Running, to: &str, batch: Batch) -> Acknowledged {
    let sent = running.broker.publish(&address(to), vec![batch]);
    in_time(sent).await.remove(0).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_stored_once_over_kills_restarts_and_checkpoints() {
    let mut running = running();
    running.declare(vec![queue(QUEUE), topic(TOPIC, 3)]).await;
    let message_id = first(DedupId::of_message("order-1"));
    let mut places = Vec::new();
    for to in [QUEUE, TOPIC] {
        for dedup in [message_id, number(0), number(1)] {
            let stored = publish(&running, to, with(dedup, "once")).await;
            assert!(matches!(stored.taken, Taken::Stored(_)), "{stored:?}");
            assert_eq!(stored.replicas, 1);
            places.push((to, dedup, stored));
        }
    }
    for round in 0..3 {
        // From the journal, then from a checkpoint, then from both.
        running = match round {
            1 => running.restarted().await,
            _ => running.killed().await,
        };
        for (to, dedup, stored) in &places {
            let again = publish(&running, to, with(*dedup, "once")).await;
            let Taken::Repeated(offsets) = &again.taken else {
                panic!("{again:?}");
            };
            assert_eq!(Some(offsets), stored.offsets());
            assert_eq!(again.partition, stored.partition);
        }
        publish(&running, QUEUE, with(number(10 + round), "new")).await;
    }
    assert_eq!(running.look(QUEUE).await.len(), 3 + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_a_producer_without_keys_are_spread_over_the_partitions() {
    let running = running();
    running.declare(vec![topic(TOPIC, 3)]).await;
    let mut partitions = Vec::new();
    for sequence in 0..6 {
        partitions.push(
            publish(&running, TOPIC, with(number(sequence), "x"))
                .await
                .partition,
        );
    }
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 0, 1, 1, 2, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_receipt_gets_one_and_the_message_is_stored_later() {
    let running = running();
    let small = queue_with(QUEUE, |queue| queue.limits.messages_max = Some(1));
    running.declare(vec![small]).await;
    let options = PublishOptions {
        acknowledge: Acknowledge::OnReceipt,
        ..patient(PATIENCE)
    };
    let to = address(QUEUE);
    let publish = async |text: &str| {
        let batches = vec![batch(&[message(text, "")])];
        let sent = running.broker.publish_paced(&to, batches, options).await;
        in_time(sent).await.remove(0)
    };
    let receipt = publish("one").await.unwrap();
    assert_eq!((receipt.taken, receipt.replicas), (Taken::Received, 1));
    assert_eq!(texts(&running.receive(QUEUE, 1).await), ["one"]);
    // What is known to be refused is.
    let refusal = publish("two").await.unwrap_err();
    assert_eq!(
        (refusal.code, refusal.applied),
        (ErrorCode::QueueFull, Applied::No)
    );
}

#[test]
fn a_publish_that_nobody_decides_ends_as_unknown() {
    let host = TestHost::new(3);
    let disk = Arc::new(millrace_storage::MemoryDisk::new());
    let runs = Arc::new(host.clone());
    let broker = Broker::start_on(disk, runs, Arc::new(Alone), options_at("data"));
    let broker = broker.unwrap();
    host.run(async move {
        let delta = TopologyDelta {
            cluster_id: None,
            base_revision: 0,
            upserts: vec![queue(QUEUE)],
            removals: Vec::new(),
        };
        let revision = broker.apply_topology(delta).await.unwrap();
        let mut view = broker.catalogue();
        let applied = view.wait_for(|view| view.applied_revision() >= revision);
        applied.await.unwrap();
        let options = PublishOptions {
            answer_within: Duration::ZERO,
            ..PublishOptions::default()
        };
        let batches = vec![batch(&[message("a", "")]), batch(&[message("b", "")])];
        let sent = broker
            .publish_paced(&address(QUEUE), batches, options)
            .await;
        for result in sent.await {
            let refusal = result.unwrap_err();
            assert_eq!(refusal.code, ErrorCode::ShardUnavailable);
            assert_eq!(refusal.applied, Applied::Unknown);
        }
    });
    host.kill();
}
