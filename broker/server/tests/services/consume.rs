//! `Consume`: sessions, credit, settlements, and how a stream ends.

use bytes::Bytes;
use millrace_proto::v1;
use millrace_proto::v1::consume_frame::Frame;
use millrace_proto::v1::consume_reply::Reply;
use millrace_proto::v1::settlement::Outcome;
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

use crate::support::{
    Node, detail, ending, eventually, frames, message, next, payloads, queue, settlement, topic,
    within,
};

const QUEUE: &str = "queue/test/q";

/// A client's side of one stream.
struct Session {
    sender: mpsc::Sender<v1::ConsumeFrame>,
    replies: Streaming<v1::ConsumeReply>,
}

impl Session {
    async fn open(node: &Node, open: v1::ConsumeOpen) -> Self {
        let mut session = Self::connect(node).await;
        session.send(Frame::Open(open)).await;
        session
    }

    async fn connect(node: &Node) -> Self {
        let (sender, outbound) = frames();
        let replies = node
            .consumer()
            .await
            .consume(outbound)
            .await
            .unwrap()
            .into_inner();
        Self { sender, replies }
    }

    async fn send(&mut self, frame: Frame) {
        let frame = v1::ConsumeFrame { frame: Some(frame) };
        within(self.sender.send(frame)).await.unwrap();
    }

    async fn opened(&mut self) -> v1::ConsumeOpened {
        match next(&mut self.replies).await.reply.unwrap() {
            Reply::Opened(opened) => opened,
            other => panic!("the first reply is {other:?}"),
        }
    }

    /// As many deliveries as `count`, over several frames.
    async fn deliveries(&mut self, count: usize) -> Vec<v1::Delivery> {
        let mut all = Vec::new();
        while all.len() < count {
            match next(&mut self.replies).await.reply.unwrap() {
                Reply::Deliveries(more) => all.extend(more.deliveries),
                Reply::Ping(_) => {}
                other => panic!("no deliveries but {other:?}"),
            }
        }
        assert_eq!(all.len(), count);
        all
    }

    async fn results(&mut self) -> v1::SettleResults {
        loop {
            match next(&mut self.replies).await.reply.unwrap() {
                Reply::Results(results) => return results,
                Reply::Ping(_) => {}
                other => panic!("no results but {other:?}"),
            }
        }
    }

    async fn settle(&mut self, sequence: u64, settlements: Vec<v1::Settlement>) {
        let batch = v1::SettleBatch {
            sequence,
            settlements,
        };
        self.send(Frame::Settle(batch)).await;
    }
}

fn open(messages: u32) -> v1::ConsumeOpen {
    v1::ConsumeOpen {
        address: QUEUE.to_owned(),
        consumer: "tester".to_owned(),
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

async fn ready(node: &Node, address: &str, ready: u64) {
    eventually("the messages are ready", || async {
        let request = v1::DescribeRequest {
            address: address.to_owned(),
        };
        let described = node
            .admin()
            .await
            .describe(request)
            .await
            .unwrap()
            .into_inner();
        let summary = described.summary.unwrap();
        matches!(summary.stats, Some(v1::summary::Stats::Queue(stats)) if stats.ready == ready)
    })
    .await;
}

#[tokio::test]
async fn messages_come_within_the_credit_and_are_settled() {
    let node = Node::declaring(vec![queue("q")]).await;
    node.publish(QUEUE, (0..5).map(|n| message(&n.to_string())).collect())
        .await;
    let mut session = Session::open(&node, open(2)).await;
    let opened = session.opened().await;
    assert!(!opened.session.is_empty());
    assert_eq!(opened.in_flight_max, 1000);
    assert_eq!(opened.session_ttl.unwrap().seconds, 30);

    let first = session.deliveries(2).await;
    assert_eq!(payloads(&first), ["0", "1"]);
    assert!(
        first
            .iter()
            .all(|d| d.attempts == 0 && d.acquired == 1 && d.tag.len() <= 64)
    );
    session.send(Frame::Credit(credit(3))).await;
    let rest = session.deliveries(3).await;
    assert_eq!(payloads(&rest), ["2", "3", "4"]);

    let settlements = vec![
        settlement(Outcome::Accept, &first),
        settlement(Outcome::Accept, &rest),
    ];
    session.settle(7, settlements).await;
    let results = session.results().await;
    assert_eq!((results.sequence, results.settled), (7, 5));
    assert_eq!(results.refused, []);
    ready(&node, QUEUE, 0).await;
}

#[tokio::test]
async fn stale_and_forged_tags_are_refused_and_the_stream_goes_on() {
    let node = Node::declaring(vec![queue("q")]).await;
    node.publish(QUEUE, vec![message("a"), message("b")]).await;
    let mut session = Session::open(&node, open(10)).await;
    session.opened().await;
    let deliveries = session.deliveries(2).await;
    session
        .settle(1, vec![settlement(Outcome::Accept, &deliveries[..1])])
        .await;
    assert_eq!(session.results().await.settled, 1);

    let mut altered = deliveries[1].tag.to_vec();
    altered[5] ^= 1;
    let tags = vec![
        deliveries[0].tag.clone(),
        Bytes::from(altered),
        Bytes::from_static(b"nonsense"),
        Bytes::from(vec![7; 500]),
        deliveries[1].tag.clone(),
    ];
    let forged = v1::Settlement {
        tags: tags.clone(),
        outcome: Outcome::Accept.into(),
        ..Default::default()
    };
    session.settle(2, vec![forged]).await;
    let results = session.results().await;
    assert_eq!(results.settled, 1);
    let reason = |tag: &Bytes| {
        let refused = results.refused.iter().find(|refused| refused.tag == *tag);
        refused
            .and_then(|refused| refused.error.as_ref())
            .map(|error| error.reason.as_str())
    };
    assert_eq!(reason(&tags[0]), Some("STALE_DELIVERY"));
    assert_eq!(reason(&tags[1]), Some("INVALID_TAG"));
    assert_eq!(reason(&tags[2]), Some("INVALID_TAG"));
    assert_eq!(reason(&tags[3]), Some("INVALID_TAG"));

    node.publish(QUEUE, vec![message("c")]).await;
    assert_eq!(payloads(&session.deliveries(1).await), ["c"]);
}

#[tokio::test]
async fn a_wrong_settlement_refuses_its_tags_and_no_others() {
    let node = Node::declaring(vec![queue("q")]).await;
    node.publish(QUEUE, vec![message("a"), message("b")]).await;
    let mut session = Session::open(&node, open(10)).await;
    session.opened().await;
    let deliveries = session.deliveries(2).await;
    let settlements = vec![
        settlement(Outcome::Unspecified, &deliveries[..1]),
        settlement(Outcome::Accept, &deliveries[1..]),
    ];
    session.settle(1, settlements).await;
    let results = session.results().await;
    assert_eq!(results.settled, 1);
    assert_eq!(results.refused.len(), 1);
    let error = results.refused[0].error.as_ref().unwrap();
    assert_eq!(error.metadata["field"], "settlements[0].outcome");
}

#[tokio::test]
async fn a_rejected_message_goes_to_the_dead_letter_queue_with_its_reason() {
    let node = Node::declaring(vec![queue("q")]).await;
    node.publish(QUEUE, vec![message("bad")]).await;
    let mut session = Session::open(&node, open(1)).await;
    session.opened().await;
    let deliveries = session.deliveries(1).await;
    let rejected = v1::Settlement {
        note: "cannot be read".to_owned(),
        ..settlement(Outcome::Reject, &deliveries)
    };
    session.settle(1, vec![rejected]).await;
    assert_eq!(session.results().await.settled, 1);

    let dead = node.receive("queue/test/q/dead", 1).await;
    assert_eq!(payloads(&dead), ["bad"]);
    let death = dead[0].message.as_ref().unwrap().death.as_ref().unwrap();
    assert_eq!(death.queue, QUEUE);
    assert_eq!(death.reason(), v1::death::Reason::Rejected);
    assert_eq!(death.note, "cannot be read");
    assert_eq!(death.count, 1);
}

#[tokio::test]
async fn retries_count_until_the_message_is_dead() {
    let node = Node::declaring(vec![queue("q")]).await;
    node.publish(QUEUE, vec![message("poison")]).await;
    let mut session = Session::open(&node, open(10)).await;
    session.opened().await;
    for attempt in 0..3 {
        let deliveries = session.deliveries(1).await;
        assert_eq!(
            (deliveries[0].attempts, deliveries[0].acquired),
            (attempt, attempt + 1)
        );
        session
            .settle(1, vec![settlement(Outcome::Retry, &deliveries)])
            .await;
        assert_eq!(session.results().await.settled, 1);
    }
    let dead = node.receive("queue/test/q/dead", 1).await;
    let death = dead[0].message.as_ref().unwrap().death.as_ref().unwrap();
    assert_eq!(death.reason(), v1::death::Reason::MaxDeliveries);
    assert_eq!(death.attempts, 3);
}

#[tokio::test]
async fn closing_the_session_releases_what_it_holds() {
    let node = Node::declaring(vec![queue("q")]).await;
    node.publish(QUEUE, vec![message("a")]).await;
    let mut session = Session::open(&node, open(1)).await;
    session.opened().await;
    session.deliveries(1).await;
    session.send(Frame::Close(v1::ConsumeClose {})).await;
    assert!(within(session.replies.message()).await.unwrap().is_none());

    let again = node.receive(QUEUE, 1).await;
    assert_eq!((again[0].attempts, again[0].acquired), (0, 2));
}

#[tokio::test]
async fn a_lost_connection_resumes_its_session_and_keeps_its_tags() {
    let node = Node::declaring(vec![queue("q")]).await;
    node.publish(QUEUE, vec![message("a"), message("b")]).await;
    let mut lost = Session::open(&node, open(10)).await;
    let session = lost.opened().await.session;
    let before = lost.deliveries(2).await;
    drop(lost);

    let resume = v1::ConsumeOpen {
        session: session.clone(),
        held: vec![before[0].tag.clone()],
        ..open(10)
    };
    let mut resumed = Session::open(&node, resume).await;
    assert_eq!(resumed.opened().await.session, session);
    let again = resumed.deliveries(1).await;
    assert_eq!(payloads(&again), ["b"]);
    assert_eq!(again[0].tag, before[1].tag);
    resumed
        .settle(1, vec![settlement(Outcome::Accept, &before)])
        .await;
    assert_eq!(resumed.results().await.settled, 2);
}

#[tokio::test]
async fn a_client_that_ends_its_frames_gets_its_results_first() {
    let node = Node::declaring(vec![queue("q")]).await;
    node.publish(QUEUE, vec![message("a")]).await;
    let mut session = Session::open(&node, open(1)).await;
    session.opened().await;
    let deliveries = session.deliveries(1).await;
    session
        .settle(1, vec![settlement(Outcome::Accept, &deliveries)])
        .await;
    let Session {
        sender,
        mut replies,
    } = session;
    drop(sender);
    let reply = next(&mut replies).await.reply.unwrap();
    assert!(matches!(reply, Reply::Results(results) if results.settled == 1));
    assert!(within(replies.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_wrong_first_frame_ends_the_stream_with_its_reason() {
    let node = Node::declaring(vec![queue("q"), topic("t", 1)]).await;
    let with = |address: &str| v1::ConsumeOpen {
        address: address.to_owned(),
        ..open(1)
    };
    let unknown_session = v1::ConsumeOpen {
        session: Bytes::from_static(&[9; 8]),
        ..open(1)
    };
    for (first, code, reason) in [
        (with("queue/test/none"), Code::NotFound, "NO_SUCH_QUEUE"),
        (with("topic/test/t"), Code::InvalidArgument, "WRONG_KIND"),
        (with("nonsense"), Code::InvalidArgument, "INVALID_ARGUMENT"),
        (unknown_session, Code::FailedPrecondition, "SESSION_EXPIRED"),
    ] {
        let mut session = Session::open(&node, first).await;
        let status = ending(&mut session.replies).await;
        assert_eq!(status.code(), code, "{status:?}");
        let error = detail(&status);
        assert_eq!(error.reason, reason);
        assert_eq!(error.applied(), v1::Applied::NotApplied);
    }
    let mut session = Session::connect(&node).await;
    session.send(Frame::Credit(credit(1))).await;
    let status = ending(&mut session.replies).await;
    assert_eq!(detail(&status).metadata["field"], "open");
}

#[tokio::test]
async fn a_drain_is_told_and_settling_goes_on() {
    let mut node = Node::declaring(vec![queue("q")]).await;
    node.publish(QUEUE, vec![message("a")]).await;
    let mut session = Session::open(&node, open(1)).await;
    session.opened().await;
    let deliveries = session.deliveries(1).await;

    let stopping = tokio::spawn(node.take().stop());
    while !matches!(
        next(&mut session.replies).await.reply,
        Some(Reply::Drain(_))
    ) {}
    session
        .settle(1, vec![settlement(Outcome::Accept, &deliveries)])
        .await;
    assert_eq!(session.results().await.settled, 1);
    session.send(Frame::Close(v1::ConsumeClose {})).await;
    within(stopping).await.unwrap();

    node.restart().await;
    assert!(node.receive_none(QUEUE).await);
}
