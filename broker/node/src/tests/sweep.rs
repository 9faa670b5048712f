//! Every effect is lost, and everything moves on: what is outstanding is found again.

use std::sync::atomic::Ordering;

use super::*;

/// A broker that carries out no effect.
async fn without_effects(objects: Vec<Declared>) -> Running {
    let running = running();
    let effects_lost = &running.broker.node.effects_lost;
    effects_lost.store(true, Ordering::Release);
    running.declare(objects).await;
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_receive_gets_its_message_though_its_effect_was_lost() {
    let running = without_effects(vec![queue("queue/test/orders")]).await;
    let (got, _) = tokio::join!(
        running.receive("queue/test/orders", 1),
        running.publish("queue/test/orders", &["1"]),
    );
    assert_eq!(texts(&got), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_consumer_gets_each_message_once_though_its_effect_was_lost() {
    let running = without_effects(vec![queue("queue/test/orders")]).await;
    let (consumer, mut events) = running.open("queue/test/orders", plenty()).await;
    let mut got = Vec::new();
    for round in 0..2 {
        let text = round.to_string();
        running.publish("queue/test/orders", &[&text, "x"]).await;
        while got.len() < 2 * (round + 1) {
            got.extend(deliveries(&mut events).await);
        }
    }
    assert_eq!(texts(&got), ["0", "x", "1", "x"]);
    assert!(got.iter().all(|one| (one.acquired, one.attempts) == (1, 0)));
    let tags = got.iter().map(|one| settle_tag(one, Settle::Accept));
    consumer.settle(1, tags.collect());
    let settled = in_time(events.next()).await;
    assert!(matches!(settled, Some(ConsumerEvent::Settled(all)) if all.settled == 4));
    assert!(running.look("queue/test/orders").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_move_between_logs_though_every_effect_was_lost() {
    let running = without_effects(vec![
        topic("topic/test/events", 2),
        bound("queue/test/orders", "topic/test/events", "#"),
    ])
    .await;
    running.publish("topic/test/events", &["1"]).await;
    let got = running.receive("queue/test/orders", 1).await;
    assert_eq!(texts(&got), ["1"]);
    let note = String::new();
    let settled = running.settle(&got, Settle::Reject { note }).await;
    assert_eq!(settled, [Ok(())]);
    let dead = running.receive("queue/test/orders/dead", 1).await;
    assert_eq!(texts(&dead), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_waited_for_room_moves_on_though_its_effect_was_lost() {
    let small = queue_with("queue/test/small", |queue| {
        queue.bindings.push(binding("topic/test/events", "#"));
        queue.limits.messages_max = Some(1);
    });
    let running = without_effects(vec![topic("topic/test/events", 1), small]).await;
    running.publish("topic/test/events", &["1", "2", "3"]).await;
    let mut got = Vec::new();
    while got.len() < 3 {
        let some = running.receive("queue/test/small", 1).await;
        got.extend(texts(&some));
        running.accept(&some).await;
    }
    assert_eq!(got, ["1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_log_that_a_late_leader_makes_again_is_removed_again() {
    let running = running();
    let (kept, gone) = ("queue/test/kept", "queue/test/gone");
    running.declare(vec![queue(kept)]).await;
    let view = running.broker.catalogue().borrow().clone();
    let (shard, log) = view.require_queue(&address(kept)).unwrap();
    running.publish(kept, &["1"]).await;
    // As if it had been on its way since before the removal, which this shard was told of without
    // the revision that ends the round.
    let late = running.broker.node.ask(shard, move |shard| {
        let revision = shard.configured_revision() + 1;
        let spec = shard.queue(log).unwrap().spec();
        (revision, millrace_engine::spec::QueueSpec::clone(spec))
    });
    let (revision, spec) = late.await.unwrap();
    let ghost = millrace_types::LogId::new(1 << 40);
    let late = millrace_engine::command::Command::ConfigureQueue {
        log: ghost,
        address: address(gone),
        revision,
        spec,
        dead_letters: millrace_engine::spec::DeadLetters::Waiting,
    };
    let made = running.broker.node.start(shard, late, Bytes::new());
    in_time(made.answer()).await.unwrap();
    running.declare(vec![queue("queue/test/other")]).await;

    until("it is gone again", || async {
        let node = &running.broker.node;
        let there = node.ask(shard, move |shard| shard.queue(ghost).is_some());
        !there.await.unwrap()
    })
    .await;
    assert_eq!(texts(&running.receive(kept, 1).await), ["1"]);
}
