//! `Admin`: lists and descriptions.

use millrace_proto::v1;
use tonic::Code;

use crate::support::{Node, assert_refused, message, queue, queue_with, topic};

#[tokio::test]
async fn a_list_comes_in_pages_in_order_of_addresses() {
    let node = Node::declaring(vec![topic("t1", 2), queue("b"), queue("a"), topic("t0", 1)]).await;
    let mut admin = node.admin().await;
    let mut request = v1::ListRequest {
        page_size: 3,
        ..Default::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = admin.list(request.clone()).await.unwrap().into_inner();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|item| item.address));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let wanted = [
        "queue/test/a",
        "queue/test/b",
        "topic/test/t0",
        "topic/test/t1",
    ];
    assert_eq!(seen, wanted);

    let only = |kind: v1::list_request::Kind, namespace: &str| v1::ListRequest {
        kind: kind.into(),
        namespace: namespace.to_owned(),
        ..Default::default()
    };
    let topics = only(v1::list_request::Kind::Topic, "test");
    let topics = admin.list(topics).await.unwrap().into_inner().items;
    assert_eq!(topics.len(), 2);
    let elsewhere = only(v1::list_request::Kind::Unspecified, "other");
    assert_eq!(admin.list(elsewhere).await.unwrap().into_inner().items, []);
}

#[tokio::test]
async fn a_wrong_list_is_refused() {
    let node = Node::start().await;
    let mut admin = node.admin().await;
    let wrong = [
        (
            "page_size",
            v1::ListRequest {
                page_size: 1001,
                ..Default::default()
            },
        ),
        (
            "page_token",
            v1::ListRequest {
                page_token: "x".into(),
                ..Default::default()
            },
        ),
        (
            "kind",
            v1::ListRequest {
                kind: 9,
                ..Default::default()
            },
        ),
    ];
    for (field, request) in wrong {
        let result = admin.list(request).await;
        let error = assert_refused(result, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(error.metadata["field"], field);
    }
}

#[tokio::test]
async fn a_description_shows_what_is_declared_and_how_it_does() {
    let bound = queue_with("q", |spec| {
        spec.bindings.push(v1::Binding {
            topic: "topic/test/t".to_owned(),
            pattern: "#".to_owned(),
            headers: Vec::new(),
            r#match: v1::binding::Match::All.into(),
        });
    });
    let node = Node::declaring(vec![topic("t", 2), bound.clone()]).await;
    node.publish("queue/test/q", vec![message("a"), message("b")])
        .await;
    let mut admin = node.admin().await;
    let mut describe = async |address: &str| {
        let request = v1::DescribeRequest {
            address: address.to_owned(),
        };
        admin.describe(request).await
    };

    let queue = describe("queue/test/q").await.unwrap().into_inner();
    assert_eq!(queue.declared, Some(bound));
    assert_eq!(queue.bindings.len(), 2);
    let Some(v1::summary::Stats::Queue(stats)) = queue.summary.unwrap().stats else {
        panic!("no figures of a queue");
    };
    assert_eq!(stats.ready, 2);
    assert!(stats.bytes > 0 && stats.oldest.is_some());

    let topic = describe("topic/test/t").await.unwrap().into_inner();
    assert_eq!(topic.partitions.len(), 2);
    assert_refused(
        describe("queue/test/none").await,
        Code::NotFound,
        "NO_SUCH_QUEUE",
    );
    assert_refused(
        describe("none").await,
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
    );
}
