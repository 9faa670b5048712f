//! What is refused, and that it stops being refused.

use millrace_types::ErrorCode;

use super::*;
use crate::Peek;

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_message_is_refused_with_its_limit() {
    let running = running();
    let small = queue_with("queue/test/small", |queue| {
        queue.limits.message_bytes_max = 100
    });
    running.declare(vec![small]).await;
    let refusal = running
        .try_publish("queue/test/small", &[&"x".repeat(200)])
        .await
        .unwrap_err();
    assert_eq!(refusal.code, ErrorCode::MessageTooLarge);
    assert_eq!(refusal.metadata["limit"], "100");
    assert_eq!(refusal.metadata["address"], "queue/test/small");
    assert!(refusal.metadata.contains_key("actual"));
    running.publish("queue/test/small", &["fits"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_not_what_it_says_is_refused() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    let to = address("queue/test/orders");
    let good = batch(&[message("x", "")]);
    let cases = [
        Batch {
            count: 0,
            ..good.clone()
        },
        Batch {
            count: 2,
            ..good.clone()
        },
        Batch {
            records: Bytes::from_static(&[9, 1]),
            ..good.clone()
        },
        Batch {
            records: Bytes::from_static(&[0xff; 8]),
            ..good
        },
    ];
    for bad in cases {
        let refusal = in_time(running.broker.publish(&to, vec![bad]))
            .await
            .remove(0)
            .unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_address_and_a_wrong_kind_are_refused() {
    let running = running();
    running
        .declare(vec![queue("queue/test/a"), topic("topic/test/b", 1)])
        .await;
    let refusal = running
        .try_publish("queue/test/none", &["x"])
        .await
        .unwrap_err();
    assert_eq!(refusal.code, ErrorCode::NoSuchQueue);
    let refusal = running
        .try_publish("topic/test/none", &["x"])
        .await
        .unwrap_err();
    assert_eq!(refusal.code, ErrorCode::NoSuchTopic);
    let taken = running
        .broker
        .receive(receive("topic/test/b", 1, Duration::ZERO));
    assert_eq!(in_time(taken).await.unwrap_err().code, ErrorCode::WrongKind);
    assert_eq!(
        running.broker.stats(1_000).await.refusals["NO_SUCH_QUEUE"],
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_takes_again_after_a_settlement() {
    let running = running();
    let small = queue_with("queue/test/small", |queue| {
        queue.limits.messages_max = Some(1)
    });
    running.declare(vec![small]).await;
    running.publish("queue/test/small", &["1"]).await;
    let refusal = running
        .try_publish("queue/test/small", &["2"])
        .await
        .unwrap_err();
    assert_eq!(refusal.code, ErrorCode::QueueFull);
    let got = running.receive("queue/test/small", 1).await;
    running.accept(&got).await;
    running.publish("queue/test/small", &["2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_below_its_reserve_refuses_publishes_and_lets_settlements_through() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    running.publish("queue/test/orders", &["1"]).await;
    let Running {
        broker,
        options,
        dir,
    } = running;
    broker.abort().await;

    // A reserve that no disk has.
    let full = NodeOptions {
        disk_reserve_bytes: u64::MAX - 1,
        ..options.clone()
    };
    let broker = Broker::start(full).unwrap();
    let running = Running {
        broker,
        options,
        dir,
    };
    let refusal = running
        .try_publish("queue/test/orders", &["2"])
        .await
        .unwrap_err();
    assert_eq!(refusal.code, ErrorCode::DiskFull);
    assert_eq!(refusal.metadata["limit"], (u64::MAX - 1).to_string());
    let got = running.receive("queue/test/orders", 1).await;
    running.accept(&got).await;

    let running = running.killed().await;
    running.publish("queue/test/orders", &["2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_its_limit_refuses_publishes_until_a_checkpoint_has_made_room() {
    let running = running_with(|options| options.memory_bytes_max = 64 << 10);
    running.declare(vec![queue("queue/test/orders")]).await;
    let text = "x".repeat(8 << 10);
    // Four times what memory holds.
    let (mut sent, mut refused) = (0, 0);
    while sent < 32 {
        match running.try_publish("queue/test/orders", &[&text]).await {
            Ok(_) => sent += 1,
            Err(refusal) => {
                assert_eq!(refusal.code, ErrorCode::Overloaded);
                assert!(refusal.retry_after_ms.is_some());
                refused += 1;
                assert!(refused < 100_000, "no checkpoint makes room");
            }
        }
    }
    until("bodies are on disk", || async {
        running
            .broker
            .stats(1_000)
            .await
            .shards
            .values()
            .all(|shard| shard.resident_bytes < 16 << 10)
    })
    .await;
    running.publish("queue/test/orders", &["fits again"]).await;
    let mut got = 0;
    while got < sent + 1 {
        let some = running.receive("queue/test/orders", 1000).await;
        running.accept(&some).await;
        got += some.len();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_cluster_or_in_use_is_refused() {
    let running = running_with(|options| options.cluster_id = Some("one".into()));
    let options = running.options.clone();
    let in_use = Broker::start(options.clone()).unwrap_err();
    assert!(in_use.to_string().contains("in use"), "{in_use}");
    running.broker.drain().await;
    drop(running.broker);
    let other = NodeOptions {
        cluster_id: Some("two".into()),
        ..options
    };
    let refused = Broker::start(other).unwrap_err();
    assert!(
        refused.to_string().contains("belongs to cluster one"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_number_of_shards_that_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = Broker::start(NodeOptions {
        shards: 1,
        ..options(&dir)
    })
    .unwrap_err();
    assert!(refused.to_string().contains("not 1"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_given_no_more_bytes_than_it_asked_for_and_the_rest_goes_back_unharmed() {
    let running = running();
    running.declare(vec![queue("queue/test/mixed")]).await;
    // In one batch: it weighs what its messages have on average.
    let large = "x".repeat(512 << 10);
    let texts_of: Vec<&str> = std::iter::repeat_n("s", 50)
        .chain([large.as_str(), large.as_str(), large.as_str()])
        .collect();
    running.publish("queue/test/mixed", &texts_of).await;
    let mut call = receive("queue/test/mixed", 100, Duration::ZERO);
    call.bytes_max = 600 << 10;
    let bytes = |got: &[Delivered]| got.iter().map(|one| one.message.len()).sum::<usize>();
    let mut seen = 0;
    while seen < texts_of.len() {
        let got = in_time(running.broker.receive(call.clone())).await.unwrap();
        assert!(
            !got.is_empty() && bytes(&got) <= 600 << 10,
            "{}",
            bytes(&got)
        );
        assert!(got.iter().all(|one| one.attempts == 0));
        seen += got.len();
        running.accept(&got).await;
    }
    let peek = Peek {
        address: address("queue/test/mixed"),
        from: millrace_types::Offset::new(0),
        messages_max: 100,
    };
    for _ in 0..20 {
        running.publish("queue/test/mixed", &[&large]).await;
    }
    let shown = running.broker.peek(peek).await.unwrap();
    assert!(shown.messages.len() < 20 && shown.next.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_are_slowed_down_where_they_would_be_refused() {
    let running = running_with(|options| options.memory_bytes_max = 64 << 10);
    running.declare(vec![queue("queue/test/orders")]).await;
    let (to, text) = (address("queue/test/orders"), "x".repeat(8 << 10));
    // Eight times what memory holds, one after the other: a paced publish waits for room.
    for _ in 0..64 {
        let batches = vec![batch(&[message(&text, "")])];
        let paced = running
            .broker
            .publish_paced(&to, batches, patient(PATIENCE));
        in_time(in_time(paced).await).await.remove(0).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_finds_no_room_in_time_is_refused_and_told_when_to_come_back() {
    let running = running_with(|options| options.memory_bytes_max = 0);
    running.declare(vec![queue("queue/test/orders")]).await;
    let to = address("queue/test/orders");
    let patience = Duration::from_millis(30);
    let batches = vec![batch(&[message("x", "")]), batch(&[message("y", "")])];
    let paced = running
        .broker
        .publish_paced(&to, batches, patient(patience));
    for result in in_time(in_time(paced).await).await {
        let refusal = result.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Overloaded);
        assert!(refusal.retry_after_ms.is_some());
    }
}
