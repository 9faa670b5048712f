//! `Receive`, `Settle` and `Peek`: queues without a stream.

use bytes::Bytes;
use millrace_proto::v1;
use millrace_proto::v1::settlement::Outcome;
use tonic::Code;

use crate::support::{
    Node, assert_refused, message, payload, payloads, queue, receive_request, seconds, settlement,
    topic, within,
};

const QUEUE: &str = "queue/test/q";

#[tokio::test]
async fn receive_waits_for_the_first_message() {
    let node = Node::declaring(vec![queue("q")]).await;
    let mut consumer = node.consumer().await;
    let waiting = tokio::spawn(async move { consumer.receive(receive_request(QUEUE, 5)).await });
    node.publish(QUEUE, vec![message("a")]).await;
    let received = within(waiting)
        .await
        .unwrap()
        .unwrap()
        .into_inner()
        .deliveries;
    assert_eq!(payloads(&received), ["a"]);
    assert_eq!(received[0].lease.unwrap(), seconds(30));
    assert!(received[0].enqueued_at.is_some());
}

#[tokio::test]
async fn receive_without_messages_is_empty_and_no_error() {
    let node = Node::declaring(vec![queue("q")]).await;
    assert!(node.receive_none(QUEUE).await);
}

#[tokio::test]
async fn leases_end_by_settle_and_wrong_tags_stand_beside_right_ones() {
    let node = Node::declaring(vec![queue("q"), queue("other")]).await;
    node.publish(QUEUE, vec![message("a"), message("b")]).await;
    let received = node.receive(QUEUE, 2).await;
    let mut consumer = node.consumer().await;
    let mut settle = settlement(Outcome::Accept, &received);
    settle.tags.push(Bytes::from_static(b"forged"));
    let request = |address: &str, settle: &v1::Settlement| v1::SettleRequest {
        address: address.to_owned(),
        settlements: vec![settle.clone()],
    };

    let elsewhere = consumer
        .settle(request("queue/test/other", &settle))
        .await
        .unwrap();
    assert_eq!(elsewhere.get_ref().settled, 0);
    assert_eq!(elsewhere.get_ref().refused.len(), 3);

    let response = consumer
        .settle(request(QUEUE, &settle))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(response.settled, 2);
    assert_eq!(response.refused.len(), 1);
    assert_eq!(
        response.refused[0].error.as_ref().unwrap().reason,
        "INVALID_TAG"
    );

    let again = consumer
        .settle(request("", &settle))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.settled, 0);
    let stale = again
        .refused
        .iter()
        .filter(|refused| refused.error.as_ref().unwrap().reason == "STALE_DELIVERY");
    assert_eq!(stale.count(), 2);
}

#[tokio::test]
async fn numbers_outside_their_bounds_are_refused() {
    let node = Node::declaring(vec![queue("q"), topic("t", 1)]).await;
    let mut consumer = node.consumer().await;
    let good = receive_request(QUEUE, 1);
    let table = [
        (
            "messages_max",
            v1::ReceiveRequest {
                messages_max: 1001,
                ..good.clone()
            },
        ),
        (
            "bytes_max",
            v1::ReceiveRequest {
                bytes_max: (4 << 20) + 1,
                ..good.clone()
            },
        ),
        (
            "wait",
            v1::ReceiveRequest {
                wait: Some(seconds(61)),
                ..good.clone()
            },
        ),
        (
            "wait",
            v1::ReceiveRequest {
                wait: Some(seconds(-1)),
                ..good.clone()
            },
        ),
        (
            "lease",
            v1::ReceiveRequest {
                lease: Some(seconds(0)),
                ..good.clone()
            },
        ),
        (
            "lease",
            v1::ReceiveRequest {
                lease: Some(seconds(50_000)),
                ..good.clone()
            },
        ),
    ];
    for (field, request) in table {
        let result = consumer.receive(request).await;
        let error = assert_refused(result, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(error.metadata["field"], field);
    }
    let wrong_kind = consumer.receive(receive_request("topic/test/t", 1)).await;
    assert_refused(wrong_kind, Code::InvalidArgument, "WRONG_KIND");
    let unknown = consumer
        .receive(receive_request("queue/test/none", 1))
        .await;
    assert_refused(unknown, Code::NotFound, "NO_SUCH_QUEUE");
}

#[tokio::test]
async fn peek_shows_messages_and_their_states_without_taking_them() {
    let node = Node::declaring(vec![queue("q")]).await;
    node.publish(QUEUE, (0..3).map(|n| message(&n.to_string())).collect())
        .await;
    node.receive(QUEUE, 1).await;
    let mut consumer = node.consumer().await;
    let peek = |from, messages_max| v1::PeekRequest {
        address: QUEUE.to_owned(),
        from,
        messages_max,
    };

    let first = consumer.peek(peek(0, 2)).await.unwrap().into_inner();
    let states: Vec<_> = first
        .messages
        .iter()
        .map(v1::PeekedMessage::state)
        .collect();
    assert_eq!(
        states,
        [
            v1::peeked_message::State::InFlight,
            v1::peeked_message::State::Ready
        ]
    );
    let rest = consumer
        .peek(peek(first.next.unwrap(), 0))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(payload(&rest.messages[0].message), "2");
    assert_eq!(rest.next, None);
    assert_eq!(payloads(&node.receive(QUEUE, 5).await), ["1", "2"]);
}
