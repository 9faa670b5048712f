//! A reader across streams.

use millrace_client::{Event, PartitionStart, Position, SubscribeOptions};
use millrace_proto::v1::position::At;
use millrace_proto::v1::subscribe_frame::Frame;
use millrace_proto::v1::subscribe_reply::Reply;
use millrace_proto::v1::{
    self, PartitionOpened, StreamMessage, StreamMessages, SubscribeFrame, SubscribeOpen,
    SubscribeOpened, SubscribeReply,
};

use crate::fake::{Call, Server};

type Stream = Call<SubscribeFrame, SubscribeReply>;

async fn say(stream: &Stream, reply: Reply) {
    stream.say(SubscribeReply { reply: Some(reply) }).await;
}

async fn open(stream: &mut Stream) -> SubscribeOpen {
    let Some(Frame::Open(open)) = stream.frame().await.frame else {
        panic!("the first frame opens");
    };
    open
}

fn starts(open: &SubscribeOpen) -> Vec<(u32, Option<At>)> {
    let starts = open.partitions.iter();
    starts
        .map(|start| (start.partition, start.from.and_then(|from| from.at)))
        .collect()
}

#[tokio::test]
async fn after_a_lost_stream_each_partition_goes_on_where_it_was() {
    let mut server = Server::start().await;
    let options = SubscribeOptions {
        partitions: vec![PartitionStart {
            partition: 1,
            from: Position::Offset(10),
        }],
        from: Position::Earliest,
        ..SubscribeOptions::default()
    };
    let mut subscription = server.client().reader("topic/a/b").subscribe(options);
    let first = async {
        let mut stream = server.subscribe().await;
        let opening = open(&mut stream).await;
        assert_eq!(starts(&opening), [(1, Some(At::Offset(10)))]);
        let partitions =
            [(0, 5), (1, 10)].map(|(partition, start)| PartitionOpened { partition, start });
        let partitions = partitions.to_vec();
        say(&stream, Reply::Opened(SubscribeOpened { partitions })).await;
        let message = StreamMessage {
            partition: 1,
            offset: 10,
            ..StreamMessage::default()
        };
        let messages = vec![message];
        say(&stream, Reply::Messages(StreamMessages { messages })).await;
        stream
    };
    let (event, stream) = tokio::join!(subscription.next(), first);
    assert!(matches!(event, Some(Ok(Event::Message(m))) if m.offset == 10));
    drop(stream);

    let second = async {
        let mut stream = server.subscribe().await;
        let opening = open(&mut stream).await;
        let missing = v1::OffsetRange { first: 5, end: 8 };
        let gap = v1::Gap {
            partition: 0,
            missing: Some(missing),
        };
        say(&stream, Reply::Gap(gap)).await;
        (opening, stream)
    };
    let (event, (opening, stream)) = tokio::join!(subscription.next(), second);

    let expected = [(1, Some(At::Offset(11))), (0, Some(At::Offset(5)))];
    assert_eq!(starts(&opening), expected);
    let missing = v1::OffsetRange { first: 5, end: 8 };
    let gap = Event::Gap {
        partition: 0,
        missing,
    };
    assert_eq!(event, Some(Ok(gap)));
    drop(stream);
}

#[tokio::test]
async fn a_topic_that_does_not_exist_ends_the_subscription_with_that_word() {
    let mut server = Server::start().await;
    let reader = server.client().reader("topic/a/b");
    let mut subscription = reader.subscribe(SubscribeOptions::default());
    let refuse = async {
        let stream = server.subscribe().await;
        stream.fail(tonic::Status::not_found("no topic/a/b")).await;
    };

    let (event, ()) = tokio::join!(subscription.next(), refuse);

    assert_eq!(event.unwrap().unwrap_err().code, tonic::Code::NotFound);
    assert!(subscription.next().await.is_none());
}
