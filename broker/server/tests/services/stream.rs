//! `Read` and `Subscribe`: topics replayed.

use millrace_proto::v1;
use millrace_proto::v1::position::At;
use millrace_proto::v1::subscribe_frame::Frame;
use millrace_proto::v1::subscribe_reply::Reply;
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

use crate::support::{
    Node, assert_refused, detail, ending, frames, message, next, payload, queue, topic, within,
};

const TOPIC: &str = "topic/test/t";

fn at(at: At) -> Option<v1::Position> {
    Some(v1::Position { at: Some(at) })
}

fn read(partition: u32, from: Option<v1::Position>) -> v1::ReadRequest {
    v1::ReadRequest {
        address: TOPIC.to_owned(),
        partition,
        from,
        ..Default::default()
    }
}

fn numbered(range: std::ops::Range<u32>) -> Vec<v1::Message> {
    range.map(|n| message(&n.to_string())).collect()
}

struct Subscription {
    sender: mpsc::Sender<v1::SubscribeFrame>,
    replies: Streaming<v1::SubscribeReply>,
}

impl Subscription {
    async fn open(node: &Node, open: v1::SubscribeOpen) -> Self {
        let (sender, outbound) = frames();
        let replies = node
            .reader()
            .await
            .subscribe(outbound)
            .await
            .unwrap()
            .into_inner();
        let mut subscription = Self { sender, replies };
        subscription.send(Frame::Open(open)).await;
        subscription
    }

    async fn send(&mut self, frame: Frame) {
        let frame = v1::SubscribeFrame { frame: Some(frame) };
        within(self.sender.send(frame)).await.unwrap();
    }

    async fn opened(&mut self) -> v1::SubscribeOpened {
        match next(&mut self.replies).await.reply.unwrap() {
            Reply::Opened(opened) => opened,
            other => panic!("the first reply is {other:?}"),
        }
    }

    async fn messages(&mut self, count: usize) -> Vec<v1::StreamMessage> {
        let mut all = Vec::new();
        while all.len() < count {
            match next(&mut self.replies).await.reply.unwrap() {
                Reply::Messages(more) => all.extend(more.messages),
                Reply::Ping(_) => {}
                other => panic!("no messages but {other:?}"),
            }
        }
        assert_eq!(all.len(), count);
        all
    }
}

fn open(messages: u32) -> v1::SubscribeOpen {
    v1::SubscribeOpen {
        address: TOPIC.to_owned(),
        credit: Some(credit(messages)),
        ..Default::default()
    }
}

const fn credit(messages: u32) -> v1::ConsumeCredit {
    v1::ConsumeCredit {
        messages,
        bytes: 1 << 20,
    }
}

#[tokio::test]
async fn a_partition_is_read_from_any_position() {
    let node = Node::declaring(vec![topic("t", 1)]).await;
    node.publish(TOPIC, numbered(0..10)).await;
    let mut reader = node.reader().await;
    let mut from = async |position| reader.read(read(0, position)).await.unwrap().into_inner();

    let all = from(None).await;
    assert_eq!(all.messages.len(), 10);
    assert_eq!(all.next, 10);
    assert_eq!(
        all.available.unwrap(),
        v1::OffsetRange { first: 0, end: 10 }
    );
    let stored_at = all.messages[0].stored_at.unwrap();

    let later = from(at(At::Offset(7))).await;
    assert_eq!(payload(&later.messages[0].message), "7");
    assert_eq!(
        from(at(At::Latest(v1::position::Latest {}))).await.messages,
        []
    );
    assert_eq!(from(at(At::Time(stored_at))).await.messages.len(), 10);
    let tomorrow = prost_types::Timestamp {
        seconds: stored_at.seconds + 86_400,
        nanos: 0,
    };
    assert_eq!(from(at(At::Time(tomorrow))).await.messages, []);
    assert_eq!(from(at(At::Offset(10))).await.next, 10);
}

#[tokio::test]
async fn wrong_reads_are_refused() {
    let node = Node::declaring(vec![topic("t", 1), queue("q")]).await;
    let mut reader = node.reader().await;
    let beyond = reader.read(read(0, at(At::Offset(1)))).await;
    assert_refused(beyond, Code::OutOfRange, "OFFSET_OUT_OF_RANGE");
    assert_refused(
        reader.read(read(1, None)).await,
        Code::NotFound,
        "NO_SUCH_PARTITION",
    );
    let to = |address: &str| v1::ReadRequest {
        address: address.to_owned(),
        ..read(0, None)
    };
    assert_refused(
        reader.read(to("topic/test/none")).await,
        Code::NotFound,
        "NO_SUCH_TOPIC",
    );
    assert_refused(
        reader.read(to("queue/test/q")).await,
        Code::InvalidArgument,
        "WRONG_KIND",
    );
    let many = v1::ReadRequest {
        messages_max: 10_001,
        ..read(0, None)
    };
    let error = assert_refused(
        reader.read(many).await,
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
    );
    assert_eq!(error.metadata["field"], "messages_max");
}

#[tokio::test]
async fn a_subscription_reads_all_partitions_and_goes_on_as_messages_come() {
    let node = Node::declaring(vec![topic("t", 3)]).await;
    let keyed = |range: std::ops::Range<u32>| -> Vec<v1::Message> {
        range
            .map(|n| crate::support::keyed(&n.to_string(), &n.to_string()))
            .collect()
    };
    node.publish(TOPIC, keyed(0..30)).await;
    let mut subscription = Subscription::open(&node, open(1000)).await;
    assert_eq!(subscription.opened().await.partitions.len(), 3);
    let mut seen = subscription.messages(30).await;
    node.publish(TOPIC, keyed(30..60)).await;
    seen.extend(subscription.messages(30).await);

    for partition in 0..3 {
        let offsets: Vec<u64> = seen
            .iter()
            .filter(|message| message.partition == partition)
            .map(|message| message.offset)
            .collect();
        let dense: Vec<u64> = (0..offsets.len() as u64).collect();
        assert_eq!(offsets, dense, "partition {partition}");
    }
    let mut numbers: Vec<u32> = seen
        .iter()
        .map(|message| payload(&message.message).parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_subscription_sends_no_more_than_its_credit() {
    let node = Node::declaring(vec![topic("t", 1)]).await;
    node.publish(TOPIC, numbered(0..10)).await;
    let mut subscription = Subscription::open(&node, open(3)).await;
    subscription.opened().await;
    assert_eq!(subscription.messages(3).await.last().unwrap().offset, 2);
    subscription.send(Frame::Credit(credit(4))).await;
    assert_eq!(subscription.messages(4).await.last().unwrap().offset, 6);

    // Ending the frames ends the stream once the credit is used up.
    let Subscription {
        sender,
        mut replies,
    } = subscription;
    drop(sender);
    assert!(within(replies.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_named_partition_starts_where_it_is_told() {
    let node = Node::declaring(vec![topic("t", 2)]).await;
    let start = v1::PartitionStart {
        partition: 1,
        from: at(At::Latest(v1::position::Latest {})),
    };
    let named = |start: v1::PartitionStart| v1::SubscribeOpen {
        partitions: vec![start],
        ..open(10)
    };
    let mut subscription = Subscription::open(&node, named(start)).await;
    let opened = subscription.opened().await;
    assert_eq!(
        opened.partitions,
        [v1::PartitionOpened {
            partition: 1,
            start: 0
        }]
    );

    let missing = v1::PartitionStart {
        partition: 2,
        from: None,
    };
    let mut wrong = Subscription::open(&node, named(missing)).await;
    let status = ending(&mut wrong.replies).await;
    assert_eq!(detail(&status).reason, "NO_SUCH_PARTITION");
}

#[tokio::test]
async fn a_subscription_takes_on_partitions_that_are_added() {
    let node = Node::declaring(vec![topic("t", 1)]).await;
    let mut subscription = Subscription::open(&node, open(100)).await;
    subscription.opened().await;
    let mut grown = topic("t", 4);
    grown.generation = 2;
    node.declare(vec![grown]).await;
    let messages = (0..40)
        .map(|n| crate::support::keyed(&n.to_string(), "x"))
        .collect();
    node.publish(TOPIC, messages).await;
    let seen = subscription.messages(40).await;
    let partitions: std::collections::BTreeSet<u32> =
        seen.iter().map(|message| message.partition).collect();
    assert_eq!(partitions.len(), 4);
}

#[tokio::test]
async fn trimmed_messages_are_reported_as_a_gap() {
    let node = Node::declaring(vec![{
        let mut topic = topic("t", 1);
        if let Some(v1::topology_object::Spec::Topic(spec)) = &mut topic.spec {
            spec.retention = Some(v1::topic_spec::Retention {
                messages: 5,
                ..Default::default()
            });
        }
        topic
    }])
    .await;
    node.publish(TOPIC, numbered(0..20)).await;
    let mut reader = node.reader().await;
    crate::support::eventually("retention has trimmed", || {
        let mut reader = reader.clone();
        async move {
            let answer = reader.read(read(0, None)).await.unwrap().into_inner();
            answer.available.unwrap().first > 0
        }
    })
    .await;
    let first = reader
        .read(read(0, None))
        .await
        .unwrap()
        .into_inner()
        .available
        .unwrap()
        .first;

    let open = v1::SubscribeOpen {
        from: at(At::Offset(0)),
        ..open(100)
    };
    let mut subscription = Subscription::open(&node, open).await;
    subscription.opened().await;
    let gap = match next(&mut subscription.replies).await.reply.unwrap() {
        Reply::Gap(gap) => gap,
        other => panic!("no gap but {other:?}"),
    };
    assert_eq!(gap.missing.unwrap().first, 0);
    assert!(gap.missing.unwrap().end >= first);
    let end = gap.missing.unwrap().end;
    let messages = subscription
        .messages(usize::try_from(20 - end).unwrap())
        .await;
    assert_eq!(messages[0].offset, end);
}

#[tokio::test]
async fn a_drain_ends_a_subscription_cleanly() {
    let mut node = Node::declaring(vec![topic("t", 1)]).await;
    let mut subscription = Subscription::open(&node, open(10)).await;
    subscription.opened().await;
    let stopping = tokio::spawn(node.take().stop());
    assert!(matches!(
        next(&mut subscription.replies).await.reply,
        Some(Reply::Drain(_))
    ));
    assert!(
        within(subscription.replies.message())
            .await
            .unwrap()
            .is_none()
    );
    within(stopping).await.unwrap();
}
