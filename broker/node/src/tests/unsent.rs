//! Leases that no client has seen: they harm nothing, and nothing waits for them.

use super::*;

/// One message and any number of bytes.
const ONE: Credit = Credit {
    messages: 1,
    bytes: 1 << 20,
};

/// A consumer that was sent one message, has settled it, and has been leased another that waits for
/// credit.
async fn with_one_unsent(running: &Running) -> (Consumer, ConsumerEvents) {
    running
        .publish("queue/test/orders", &["sent", "waits"])
        .await;
    let (consumer, mut events) = running.open("queue/test/orders", ONE).await;
    let got = deliveries(&mut events).await;
    assert_eq!(texts(&got), ["sent"]);
    running.accept(&got).await;
    (consumer, events)
}

async fn ready(running: &Running) -> u64 {
    let stats = running.broker.stats(1_000).await;
    stats.queues[&address("queue/test/orders")].ready
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ran_out_before_it_was_sent_is_no_failure() {
    let running = running();
    let orders = queue_with("queue/test/orders", |queue| {
        queue.lease_ms = 1_000;
        queue.deliveries_max = 1;
    });
    running.declare(vec![orders]).await;
    let (consumer, mut events) = with_one_unsent(&running).await;
    until("it is back", || async { ready(&running).await == 1 }).await;
    let again = running.receive("queue/test/orders", 1).await;
    assert_eq!(
        (texts(&again), again[0].attempts),
        (vec!["waits".into()], 0)
    );
    assert!(again[0].acquired > 1);
    running.accept(&again).await;
    // What was sent and not settled is one.
    running.publish("queue/test/orders", &["fails"]).await;
    consumer.credit(ONE);
    assert_eq!(texts(&deliveries(&mut events).await), ["fails"]);
    let dead = running.receive("queue/test/orders/dead", 1).await;
    assert_eq!(texts(&dead), ["fails"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_gives_back_at_once_what_it_was_not_sent() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    drop(with_one_unsent(&running).await);
    let again = running.receive("queue/test/orders", 1).await;
    assert_eq!(
        (texts(&again), again[0].attempts),
        (vec!["waits".into()], 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_credit_goes_to_others() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    let (consumer, mut events) = with_one_unsent(&running).await;
    let again = running.receive("queue/test/orders", 1).await;
    assert_eq!(
        (texts(&again), again[0].attempts),
        (vec!["waits".into()], 0)
    );
    running.publish("queue/test/orders", &["later"]).await;
    consumer.credit(ONE);
    assert_eq!(texts(&deliveries(&mut events).await), ["later"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_leased_no_more_than_it_can_be_sent() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    let three = Credit { messages: 3, ..ONE };
    let (_consumer, mut events) = running.open("queue/test/orders", three).await;
    let texts_of: Vec<String> = (0..10).map(|n: u32| n.to_string()).collect();
    let texts_of: Vec<&str> = texts_of.iter().map(String::as_str).collect();
    running.publish("queue/test/orders", &texts_of).await;
    let others = running.receive("queue/test/orders", 10).await;
    assert_eq!(texts(&others), ["3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(texts(&deliveries(&mut events).await), ["0", "1", "2"]);
}
