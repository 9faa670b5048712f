//! `Publish`: entry by entry.

use millrace_proto::v1;
use tonic::Code;

use crate::support::{
    Node, acknowledged, assert_refused, batch, keyed, message, payloads, publish_request, queue,
    queue_with, refused, topic,
};

const QUEUE: &str = "queue/test/q";
const TOPIC: &str = "topic/test/t";

#[tokio::test]
async fn messages_are_acknowledged_at_consecutive_offsets_and_received_in_order() {
    let node = Node::declaring(vec![queue("q")]).await;
    let mut publisher = node.publisher().await;
    let request = publish_request(QUEUE, vec![message("a"), message("b"), message("c")]);
    let results = publisher
        .publish(request)
        .await
        .unwrap()
        .into_inner()
        .results;

    let ranges: Vec<_> = results
        .iter()
        .map(|result| {
            let acknowledgement = acknowledged(result);
            assert_eq!(acknowledgement.durability(), v1::Durability::MajoritySynced);
            let offsets = acknowledgement.offsets.unwrap();
            (offsets.first, offsets.end)
        })
        .collect();
    assert_eq!(ranges, [(0, 1), (1, 2), (2, 3)]);
    assert_eq!(payloads(&node.receive(QUEUE, 10).await), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_wrong_message_refuses_only_itself() {
    let node = Node::declaring(vec![queue_with("q", |spec| {
        spec.limits.as_mut().unwrap().max_message_bytes = 300;
    })])
    .await;
    let dead = v1::Message {
        death: Some(v1::Death::default()),
        ..message("dead")
    };
    let messages = vec![
        message("good"),
        keyed(&"k".repeat(257), "bad"),
        message(&"x".repeat(301)),
        dead,
        message("good too"),
    ];
    let mut publisher = node.publisher().await;
    let response = publisher
        .publish(publish_request(QUEUE, messages))
        .await
        .unwrap();
    let results = response.into_inner().results;

    assert_eq!(acknowledged(&results[0]).offsets.unwrap().first, 0);
    assert_eq!(refused(&results[1]).reason, "INVALID_ARGUMENT");
    assert_eq!(refused(&results[1]).metadata["field"], "messages[1].key");
    assert_eq!(refused(&results[2]).reason, "MESSAGE_TOO_LARGE");
    assert_eq!(refused(&results[2]).metadata["limit"], "300");
    assert_eq!(refused(&results[3]).metadata["field"], "messages[3].death");
    assert_eq!(acknowledged(&results[4]).offsets.unwrap().first, 1);
    assert_eq!(
        payloads(&node.receive(QUEUE, 10).await),
        ["good", "good too"]
    );
}

#[tokio::test]
async fn equal_keys_land_in_one_partition_of_a_topic() {
    let node = Node::declaring(vec![topic("t", 8)]).await;
    let messages = (0..40)
        .map(|n| keyed(&format!("key-{}", n % 4), "x"))
        .collect();
    let mut publisher = node.publisher().await;
    let response = publisher
        .publish(publish_request(TOPIC, messages))
        .await
        .unwrap();
    let results = response.into_inner().results;
    for key in 0..4 {
        let of_key = results.iter().skip(key).step_by(4);
        let partitions: std::collections::BTreeSet<u32> = of_key
            .map(|result| acknowledged(result).partition)
            .collect();
        assert_eq!(partitions.len(), 1, "key-{key} is in {partitions:?}");
    }
}

#[tokio::test]
async fn a_batch_is_stored_as_one() {
    let node = Node::declaring(vec![queue("q"), topic("t", 4)]).await;
    let mut publisher = node.publisher().await;
    let request = |address: &str, batches| v1::PublishRequest {
        address: address.to_owned(),
        messages: Vec::new(),
        batches,
        ..v1::PublishRequest::default()
    };

    let good = batch(&[message("a"), message("b")]);
    let mut wrong = good.clone();
    wrong.crc32c ^= 1;
    let response = publisher
        .publish(request(QUEUE, vec![good.clone(), wrong, good]))
        .await;
    let results = response.unwrap().into_inner().results;
    let offsets = acknowledged(&results[0]).offsets.unwrap();
    assert_eq!((offsets.first, offsets.end), (0, 2));
    assert_eq!(refused(&results[1]).metadata["field"], "batches[1].crc32c");
    assert_eq!(acknowledged(&results[2]).offsets.unwrap().end, 4);

    let one_key = batch(&[keyed("a", "1"), keyed("a", "2")]);
    let many = batch(
        &(0..20)
            .map(|n| keyed(&format!("k{n}"), "x"))
            .collect::<Vec<_>>(),
    );
    let response = publisher.publish(request(TOPIC, vec![one_key, many])).await;
    let results = response.unwrap().into_inner().results;
    acknowledged(&results[0]);
    assert_eq!(refused(&results[1]).metadata["field"], "batches[1].records");
}

#[tokio::test]
async fn a_wrong_request_is_refused_as_a_whole() {
    let node = Node::declaring(vec![queue("q")]).await;
    let mut publisher = node.publisher().await;
    let both = v1::PublishRequest {
        address: QUEUE.to_owned(),
        messages: vec![message("a")],
        batches: vec![batch(&[message("b")])],
        ..v1::PublishRequest::default()
    };
    assert_refused(
        publisher.publish(both).await,
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
    );
    let none = publish_request(QUEUE, Vec::new());
    assert_refused(
        publisher.publish(none).await,
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
    );
    let bad = publish_request("queue/NOT/good", vec![message("a")]);
    let error = assert_refused(
        publisher.publish(bad).await,
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
    );
    assert_eq!(error.metadata["field"], "address");
}

#[tokio::test]
async fn an_unknown_target_refuses_each_entry() {
    let node = Node::declaring(vec![queue("q")]).await;
    let mut publisher = node.publisher().await;
    for (address, reason) in [
        ("queue/test/none", "NO_SUCH_QUEUE"),
        ("topic/test/none", "NO_SUCH_TOPIC"),
        ("queue/test/q/dead", "WRONG_KIND"),
    ] {
        let request = publish_request(address, vec![message("a"), message("b")]);
        let results = publisher
            .publish(request)
            .await
            .unwrap()
            .into_inner()
            .results;
        assert_eq!(results.len(), 2);
        for result in &results {
            assert_eq!(refused(result).reason, reason);
            assert_eq!(refused(result).metadata["address"], address);
            assert_eq!(refused(result).applied(), v1::Applied::NotApplied);
        }
    }
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_when_to_come_back() {
    let node = Node::declaring(vec![queue_with("q", |spec| {
        spec.limits.as_mut().unwrap().max_messages = 2;
    })])
    .await;
    node.publish(QUEUE, vec![message("a"), message("b")]).await;
    let mut publisher = node.publisher().await;
    let response = publisher
        .publish(publish_request(QUEUE, vec![message("c")]))
        .await;
    let results = response.unwrap().into_inner().results;
    assert_eq!(refused(&results[0]).reason, "QUEUE_FULL");
    assert!(refused(&results[0]).retry_after.is_some());
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused_clearly() {
    let node = Node::declaring(vec![queue("q")]).await;
    let mut publisher = node.publisher().await;
    let half = "x".repeat(9 << 20);
    let request = publish_request(QUEUE, vec![message(&half), message(&half)]);
    let error = assert_refused(
        publisher.publish(request).await,
        Code::InvalidArgument,
        "MESSAGE_TOO_LARGE",
    );
    assert!(error.metadata.contains_key("limit"));

    let huge = publish_request(QUEUE, vec![message(&"x".repeat(40 << 20))]);
    let status = publisher.publish(huge).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert!(status.message().contains("too large"), "{status:?}");
    node.publish(QUEUE, vec![message("still served")]).await;
}
