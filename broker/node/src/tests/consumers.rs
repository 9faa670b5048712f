//! Sessions, credit and leases.

use millrace_types::ErrorCode;

use super::*;
use crate::Resume;

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_never_sent_more_than_its_credit() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    let (consumer, mut events) = running
        .open(
            "queue/test/orders",
            Credit {
                messages: 3,
                bytes: 1 << 20,
            },
        )
        .await;
    running
        .publish("queue/test/orders", &["0", "1", "2", "3", "4"])
        .await;
    let mut got = Vec::new();
    while got.len() < 3 {
        got.extend(deliveries(&mut events).await);
    }
    assert_eq!(texts(&got), ["0", "1", "2"]);

    // A settlement's answer comes although deliveries wait for credit, and before any of them.
    consumer.settle(
        7,
        got.iter()
            .map(|one| settle_tag(one, Settle::Accept))
            .collect(),
    );
    let Some(ConsumerEvent::Settled(results)) = in_time(events.next()).await else {
        panic!("the answer to a settlement expected");
    };
    assert_eq!(
        (results.sequence, results.settled, results.refused.len()),
        (7, 3, 0)
    );

    consumer.credit(Credit {
        messages: 1,
        bytes: 0,
    });
    assert_eq!(texts(&deliveries(&mut events).await), ["3"]);
    consumer.credit(Credit {
        messages: 5,
        bytes: 0,
    });
    assert_eq!(texts(&deliveries(&mut events).await), ["4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_resumed_with_what_its_client_holds() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    running
        .publish("queue/test/orders", &["held", "lost on the way"])
        .await;
    let (consumer, mut events) = running.open("queue/test/orders", plenty()).await;
    let mut got = Vec::new();
    while got.len() < 2 {
        got.extend(deliveries(&mut events).await);
    }
    let session = consumer.session();
    drop((consumer, events));

    let running = running.killed().await;
    let held = vec![got[0].tag.clone()];
    let mut again = open("queue/test/orders", plenty());
    again.resume = Some(Resume { session, held });
    let (consumer, mut events) = in_time(running.broker.open_consumer(again)).await.unwrap();
    let resent = deliveries(&mut events).await;
    assert_eq!(texts(&resent), ["lost on the way"]);
    assert_eq!(resent[0].tag, got[1].tag, "the same lease has the same tag");
    consumer.settle(
        1,
        got.iter()
            .map(|one| settle_tag(one, Settle::Accept))
            .collect(),
    );
    let Some(ConsumerEvent::Settled(results)) = in_time(events.next()).await else {
        panic!("the answer to a settlement expected");
    };
    assert_eq!(results.settled, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_gone_or_anothers_cannot_be_resumed() {
    let running = running();
    running
        .declare(vec![queue("queue/test/a"), queue("queue/test/b")])
        .await;
    let (consumer, events) = running.open("queue/test/a", plenty()).await;
    let session = consumer.session();
    let resume = |queue: &str| {
        let mut open = open(queue, plenty());
        open.resume = Some(Resume {
            session,
            held: Vec::new(),
        });
        running.broker.open_consumer(open)
    };
    let refusal = in_time(resume("queue/test/b")).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::SessionExpired);
    in_time(consumer.close()).await.unwrap();
    let refusal = in_time(resume("queue/test/a")).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::SessionExpired);
    drop(events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_session_gives_its_messages_back_without_a_failure() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    running.publish("queue/test/orders", &["one"]).await;
    let (consumer, mut events) = running.open("queue/test/orders", plenty()).await;
    deliveries(&mut events).await;
    in_time(consumer.close()).await.unwrap();
    assert!(matches!(
        in_time(events.next()).await,
        Some(ConsumerEvent::Closed(_))
    ));
    assert!(in_time(events.next()).await.is_none());
    let again = running.receive("queue/test/orders", 1).await;
    assert_eq!((again[0].attempts, again[0].acquired), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_takes_the_session_over() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    let (first, mut told) = running.open("queue/test/orders", plenty()).await;
    let mut again = open("queue/test/orders", plenty());
    again.resume = Some(Resume {
        session: first.session(),
        held: Vec::new(),
    });
    let (_second, mut events) = in_time(running.broker.open_consumer(again)).await.unwrap();
    assert!(matches!(
        in_time(told.next()).await,
        Some(ConsumerEvent::Closed(_))
    ));
    // The old connection's end does not detach the new one.
    drop((first, told));
    running.publish("queue/test/orders", &["one"]).await;
    assert_eq!(texts(&deliveries(&mut events).await), ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_loses_its_session_and_its_messages_go_to_others() {
    let running = running_with(|options| options.session_ttl = Duration::from_millis(300));
    running.declare(vec![queue("queue/test/orders")]).await;
    running.publish("queue/test/orders", &["one"]).await;
    let (_consumer, mut events) = running.open("queue/test/orders", plenty()).await;
    deliveries(&mut events).await;
    assert!(matches!(
        in_time(events.next()).await,
        Some(ConsumerEvent::Closed(_))
    ));
    assert_eq!(
        texts(&running.receive("queue/test/orders", 1).await),
        ["one"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_takes_nothing_gives_back_what_waits_for_it() {
    let running = running_with(|options| options.consumer_stall = Duration::from_millis(100));
    running.declare(vec![queue("queue/test/orders")]).await;
    let (consumer, mut events) = running.open("queue/test/orders", Credit::default()).await;
    running.publish("queue/test/orders", &["one", "two"]).await;
    let taken = running.receive("queue/test/orders", 1).await;
    assert_eq!(
        (texts(&taken), taken[0].attempts),
        (vec!["one".to_owned()], 0)
    );
    running.accept(&taken).await;
    until("both came back", || async {
        let stats = running.broker.stats(1_000).await;
        stats.queues[&address("queue/test/orders")].ready == 1
    })
    .await;

    consumer.credit(plenty());
    assert_eq!(texts(&deliveries(&mut events).await), ["two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_call_is_given_the_message_that_comes() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    let waiting = tokio::spawn({
        let broker = running.broker.clone();
        async move {
            broker
                .receive(receive("queue/test/orders", 5, PATIENCE))
                .await
        }
    });
    until("the call waits", || async {
        running.broker.stats(1_000).await.waiting_receives == 1
    })
    .await;
    running.publish("queue/test/orders", &["one"]).await;
    assert_eq!(texts(&in_time(waiting).await.unwrap().unwrap()), ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_in_vain_ends_with_nothing() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    let wait = Duration::from_millis(20);
    let got = in_time(
        running
            .broker
            .receive(receive("queue/test/orders", 1, wait)),
    )
    .await;
    assert_eq!(got.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_leased_for_a_call_that_was_given_up_go_back() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
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
    waiting.abort();
    assert!(waiting.await.is_err());
    running.publish("queue/test/orders", &["one"]).await;
    let got = running.receive("queue/test/orders", 1).await;
    assert_eq!((texts(&got), got[0].attempts), (vec!["one".to_owned()], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_lease_is_told_to_its_holder() {
    let running = running();
    running
        .declare(vec![queue_with("queue/test/orders", |queue| {
            queue.lease_ms = 1_000
        })])
        .await;
    running.publish("queue/test/orders", &["one"]).await;
    let credit = Credit {
        messages: 1,
        bytes: 1 << 20,
    };
    let (_consumer, mut events) = running.open("queue/test/orders", credit).await;
    let got = deliveries(&mut events).await;
    let Some(ConsumerEvent::LeasesLost(tags)) = in_time(events.next()).await else {
        panic!("the end of a lease expected");
    };
    assert_eq!(tags, [got[0].tag.clone()]);
    let stale = running
        .settle(&got, Settle::Accept)
        .await
        .remove(0)
        .unwrap_err();
    assert_eq!(stale.code, ErrorCode::StaleDelivery);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_of_several_queues_are_settled_in_one_call() {
    let running = running();
    let names = ["queue/test/a", "queue/test/b", "queue/test/c"];
    running.declare(names.map(queue).into()).await;
    let mut tags = Vec::new();
    for name in names {
        running.publish(name, &["x"]).await;
        let got = running.receive(name, 1).await;
        tags.push(settle_tag(&got[0], Settle::Accept));
    }
    tags.insert(
        1,
        SettleTag {
            tag: Bytes::from_static(b"forged"),
            settle: Settle::Accept,
        },
    );
    let results = in_time(running.broker.settle(None, tags.clone())).await;
    let codes: Vec<_> = results
        .iter()
        .map(|r| r.as_ref().err().map(|e| e.code))
        .collect();
    assert_eq!(codes, [None, Some(ErrorCode::InvalidTag), None, None]);
    let named = address("queue/test/a");
    let results = in_time(running.broker.settle(Some(&named), tags)).await;
    let codes: Vec<_> = results
        .iter()
        .filter_map(|r| r.as_ref().err())
        .map(|e| e.code)
        .collect();
    let invalid = ErrorCode::InvalidTag;
    assert_eq!(codes, [ErrorCode::StaleDelivery, invalid, invalid, invalid]);
}
