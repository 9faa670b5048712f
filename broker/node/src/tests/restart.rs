//! What is acknowledged survives.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_message_is_there_after_a_restart() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    let acknowledged = running.publish("queue/test/orders", &["one", "two"]).await;
    assert_eq!(
        (
            acknowledged.offsets().unwrap().start.get(),
            acknowledged.offsets().unwrap().end.get()
        ),
        (0, 2)
    );

    let running = running.restarted().await;
    let delivered = running.receive("queue/test/orders", 10).await;
    assert_eq!(texts(&delivered), ["one", "two"]);
    running.accept(&delivered).await;

    let running = running.restarted().await;
    assert!(running.look("queue/test/orders").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_nothing_acknowledged_and_unsettles_nothing() {
    let running = running();
    running
        .declare(vec![queue("queue/test/a"), queue("queue/test/b")])
        .await;
    for n in 0..50 {
        let text = n.to_string();
        running.publish("queue/test/a", &[&text]).await;
        running.publish("queue/test/b", &[&text]).await;
    }
    let taken = running.receive("queue/test/a", 20).await;
    running.accept(&taken[..15]).await;
    let retry = Settle::Retry {
        delay_ms: None,
        note: "not yet".into(),
    };
    for result in running.settle(&taken[15..], retry).await {
        result.unwrap();
    }

    let running = running.killed().await;
    let left = running.receive("queue/test/a", 1000).await;
    let expected: Vec<String> = (15..50).map(|n: u32| n.to_string()).collect();
    assert_eq!(texts(&left), expected);
    let attempts: Vec<u32> = left.iter().map(|one| one.attempts).collect();
    assert_eq!(attempts[..5], [1; 5]);
    assert_eq!(attempts[5..], [0; 30]);
    assert_eq!(running.look("queue/test/b").await.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_asked_for_covers_what_every_shard_has_applied() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    running.publish("queue/test/orders", &["x"]).await;
    let before = running.broker.stats(1_000).await;
    assert!(
        before
            .shards
            .values()
            .all(|shard| shard.checkpoint.get() == 0)
    );

    running.broker.checkpoint();
    until("every shard has one", || async {
        let now = running.broker.stats(1_000).await;
        let mut shards = now.shards.iter();
        shards.all(|(id, shard)| shard.checkpoint >= before.shards[id].applied)
    })
    .await;
    let running = running.killed().await;
    assert_eq!(
        texts(&running.receive("queue/test/orders", 10).await),
        ["x"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_outlives_a_kill_with_the_same_tag() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    running.publish("queue/test/orders", &["one"]).await;
    let delivered = running.receive("queue/test/orders", 1).await;

    let running = running.killed().await;
    assert!(running.look("queue/test/orders").await.is_empty());
    running.accept(&delivered).await;
    let again = running
        .settle(&delivered, Settle::Accept)
        .await
        .remove(0)
        .unwrap_err();
    assert_eq!(again.code, millrace_types::ErrorCode::StaleDelivery);
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_goes_on_after_a_checkpoint() {
    let running = running_with(|options| options.checkpoint_entries = 20);
    running
        .declare(vec![
            queue("queue/test/orders"),
            topic("topic/test/events", 1),
        ])
        .await;
    for n in 0..100 {
        running
            .publish("queue/test/orders", &[&n.to_string()])
            .await;
        running
            .publish("topic/test/events", &[&n.to_string()])
            .await;
    }
    until("a checkpoint is made", || async {
        let stats = running.broker.stats(1_000).await;
        stats
            .shards
            .values()
            .any(|shard| shard.checkpoint.get() > 20 && shard.segment_bytes > 0)
    })
    .await;
    let taken = running.receive("queue/test/orders", 30).await;
    running.accept(&taken).await;

    let running = running.killed().await;
    let left = running.receive("queue/test/orders", 1000).await;
    let expected: Vec<String> = (30..100).map(|n: u32| n.to_string()).collect();
    assert_eq!(texts(&left), expected);
    let facts = running
        .broker
        .describe(&address("topic/test/events"))
        .await
        .unwrap();
    assert_eq!(facts.partitions[0].offsets.end.get(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_refuses_new_work_and_lets_settlements_through() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    running.publish("queue/test/orders", &["one"]).await;
    let delivered = running.receive("queue/test/orders", 1).await;
    let (_consumer, mut events) = running.open("queue/test/orders", plenty()).await;
    let waiting = tokio::spawn({
        let broker = running.broker.clone();
        async move {
            broker
                .receive(receive("queue/test/orders", 1, PATIENCE))
                .await
        }
    });
    until("the call waits", || async {
        running.broker.stats(1_000).await.waiting_receives == 1
    })
    .await;

    running.broker.begin_drain();
    in_time(running.broker.draining()).await;
    assert!(matches!(
        in_time(events.next()).await,
        Some(ConsumerEvent::Drain)
    ));
    assert_eq!(in_time(waiting).await.unwrap().unwrap(), []);
    let refusal = running
        .try_publish("queue/test/orders", &["two"])
        .await
        .unwrap_err();
    assert_eq!(refusal.code, millrace_types::ErrorCode::Draining);
    running.accept(&delivered).await;

    in_time(running.broker.drain()).await;
    drop((_consumer, events));
    let running = running.restarted().await;
    let facts = running.broker.stats(1_000).await.queues[&address("queue/test/orders")];
    assert_eq!((facts.ready, facts.in_flight), (0, 0));
}
