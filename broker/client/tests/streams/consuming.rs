//! A session across streams.

use bytes::Bytes;
use millrace_client::{Applied, ConsumerOptions, Delivery};
use millrace_proto::v1::consume_frame::Frame;
use millrace_proto::v1::consume_reply::Reply;
use millrace_proto::v1::{
    self, ConsumeFrame, ConsumeOpen, ConsumeOpened, ConsumeReply, Deliveries, SettleBatch,
    SettleRefusal, SettleResults,
};
use tonic::{Code, Status};

use crate::fake::{Call, Server};

const QUEUE: &str = "queue/a/b";

type Stream = Call<ConsumeFrame, ConsumeReply>;

async fn say(stream: &Stream, reply: Reply) {
    stream.say(ConsumeReply { reply: Some(reply) }).await;
}

async fn opened(stream: &mut Stream, session: &'static [u8]) -> ConsumeOpen {
    let Some(Frame::Open(open)) = stream.frame().await.frame else {
        panic!("the first frame opens");
    };
    let opened = ConsumeOpened {
        session: Bytes::from_static(session),
        ..ConsumeOpened::default()
    };
    say(stream, Reply::Opened(opened)).await;
    open
}

async fn deliver(stream: &Stream, tags: &[&'static str]) {
    let deliveries = tags.iter().map(|tag| v1::Delivery {
        message: Some(v1::Message {
            payload: Bytes::from_static(tag.as_bytes()),
            ..v1::Message::default()
        }),
        tag: Bytes::from_static(tag.as_bytes()),
        acquired: 1,
        ..v1::Delivery::default()
    });
    let deliveries = Deliveries {
        deliveries: deliveries.collect(),
    };
    say(stream, Reply::Deliveries(deliveries)).await;
}

async fn settlement(stream: &mut Stream) -> SettleBatch {
    let Some(Frame::Settle(batch)) = stream.frame().await.frame else {
        panic!("a settlement is due");
    };
    batch
}

async fn answer(stream: &Stream, batch: &SettleBatch, refused: &[(&'static str, &str)]) {
    let refused = refused.iter().map(|(tag, reason)| SettleRefusal {
        tag: Bytes::from_static(tag.as_bytes()),
        error: Some(v1::Error {
            reason: (*reason).to_owned(),
            applied: v1::Applied::NotApplied.into(),
            ..v1::Error::default()
        }),
    });
    let results = SettleResults {
        sequence: batch.sequence,
        refused: refused.collect(),
        settled: 0,
    };
    say(stream, Reply::Results(results)).await;
}

async fn next(consumer: &mut millrace_client::Consumer) -> Delivery {
    consumer
        .next()
        .await
        .expect("a delivery")
        .expect("no error")
}

#[tokio::test]
async fn a_delivery_is_settled_when_the_server_says_so() {
    let mut server = Server::start().await;
    let mut consumer = server.client().consumer(QUEUE, ConsumerOptions::default());
    let mut stream = server.consume().await;
    assert_eq!(opened(&mut stream, b"s").await.address, QUEUE);
    deliver(&stream, &["a", "b"]).await;
    let (a, b) = (next(&mut consumer).await, next(&mut consumer).await);
    let (a, b) = (a.accept(), b.accept());

    let mut batch = settlement(&mut stream).await;
    if batch.settlements[0].tags.len() == 1 {
        answer(&stream, &batch, &[]).await;
        batch = settlement(&mut stream).await;
        answer(&stream, &batch, &[("b", "STALE_DELIVERY")]).await;
    } else {
        answer(&stream, &batch, &[("b", "STALE_DELIVERY")]).await;
    }

    a.await.unwrap();
    let error = b.await.unwrap_err();
    assert_eq!(
        (error.reason.as_str(), error.applied),
        ("STALE_DELIVERY", Applied::No)
    );
}

#[tokio::test]
async fn after_a_lost_stream_the_session_goes_on_with_what_is_held() {
    let mut server = Server::start().await;
    let mut consumer = server.client().consumer(QUEUE, ConsumerOptions::default());
    let mut stream = server.consume().await;
    let open = opened(&mut stream, b"s").await;
    assert!(open.session.is_empty() && open.held.is_empty());
    deliver(&stream, &["held"]).await;
    let held = next(&mut consumer).await;
    drop(stream);

    let mut stream = server.consume().await;
    let open = opened(&mut stream, b"s").await;

    assert_eq!(open.session, "s");
    assert_eq!(open.held, ["held"]);
    // Sent again by mistake, and a new one: only that is handed out.
    deliver(&stream, &["held", "new"]).await;
    assert_eq!(next(&mut consumer).await.message.payload, "new");
    let settled = held.accept();
    let batch = settlement(&mut stream).await;
    answer(&stream, &batch, &[]).await;
    settled.await.unwrap();
}

#[tokio::test]
async fn a_settlement_whose_answer_was_lost_is_sent_again() {
    let mut server = Server::start().await;
    let mut consumer = server.client().consumer(QUEUE, ConsumerOptions::default());
    let mut stream = server.consume().await;
    opened(&mut stream, b"s").await;
    deliver(&stream, &["a"]).await;
    let settled = next(&mut consumer).await.accept();
    settlement(&mut stream).await;
    drop(stream);

    let mut stream = server.consume().await;
    opened(&mut stream, b"s").await;
    let batch = settlement(&mut stream).await;
    answer(&stream, &batch, &[("a", "STALE_DELIVERY")]).await;

    // The first attempt may have ended the lease.
    assert_eq!(settled.await.unwrap_err().applied, Applied::Unknown);
}

#[tokio::test]
async fn a_settlement_that_is_refused_for_now_is_sent_again() {
    let mut server = Server::start().await;
    let mut consumer = server.client().consumer(QUEUE, ConsumerOptions::default());
    let mut stream = server.consume().await;
    opened(&mut stream, b"s").await;
    deliver(&stream, &["a", "b"]).await;
    let (a, b) = (next(&mut consumer).await, next(&mut consumer).await);
    let a = a.accept();
    let batch = settlement(&mut stream).await;
    // Somebody else leads: given up, the lease would run out, and that is a failure.
    answer(&stream, &batch, &[("a", "NOT_LEADER")]).await;

    let again = settlement(&mut stream).await;
    assert_eq!(again.settlements[0].tags, ["a"]);
    answer(&stream, &again, &[]).await;
    a.await.unwrap();

    // It outlives the stream, too.
    let b = b.accept();
    let batch = settlement(&mut stream).await;
    answer(&stream, &batch, &[("b", "NOT_LEADER")]).await;
    drop(stream);
    let mut stream = server.consume().await;
    assert_eq!(opened(&mut stream, b"s").await.held, ["b"]);
    let again = settlement(&mut stream).await;
    answer(&stream, &again, &[]).await;
    b.await.unwrap();
}

#[tokio::test]
async fn a_session_that_has_expired_is_replaced_and_its_leases_are_lost() {
    let mut server = Server::start().await;
    let mut consumer = server.client().consumer(QUEUE, ConsumerOptions::default());
    let mut stream = server.consume().await;
    opened(&mut stream, b"old").await;
    deliver(&stream, &["a"]).await;
    let held = next(&mut consumer).await;
    let settled = held.accept();
    settlement(&mut stream).await;
    drop(stream);
    let stream = server.consume().await;
    stream.fail(expired()).await;

    let mut stream = server.consume().await;
    let open = opened(&mut stream, b"new").await;

    assert!(open.session.is_empty() && open.held.is_empty());
    let error = settled.await.unwrap_err();
    assert_eq!(
        (error.reason.as_str(), error.applied),
        ("SESSION_EXPIRED", Applied::Unknown)
    );
    deliver(&stream, &["a2"]).await;
    assert_eq!(next(&mut consumer).await.message.payload, "a2");
}

#[tokio::test]
async fn a_session_that_another_stream_has_taken_over_is_taken_back() {
    let mut server = Server::start().await;
    let mut consumer = server.client().consumer(QUEUE, ConsumerOptions::default());
    let mut stream = server.consume().await;
    opened(&mut stream, b"s").await;
    deliver(&stream, &["a", "b"]).await;
    let a = next(&mut consumer).await.accept();
    settlement(&mut stream).await;
    stream.fail(expired()).await;

    let mut stream = server.consume().await;
    let open = opened(&mut stream, b"s").await;

    assert_eq!((&open.session[..], open.held.len()), (&b"s"[..], 2));
    let batch = settlement(&mut stream).await;
    answer(&stream, &batch, &[]).await;
    a.await.unwrap();
    assert_eq!(next(&mut consumer).await.message.payload, "b");
}

fn expired() -> Status {
    use prost::Message as _;
    let error = v1::Error {
        reason: "SESSION_EXPIRED".to_owned(),
        applied: v1::Applied::NotApplied.into(),
        ..v1::Error::default()
    };
    let details = tonic_types::pb::Status {
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/millrace.v1.Error".to_owned(),
            value: error.encode_to_vec(),
        }],
        ..Default::default()
    };
    Status::with_details(Code::FailedPrecondition, "", details.encode_to_vec().into())
}

#[tokio::test]
async fn credit_is_returned_when_half_of_it_is_used() {
    let mut server = Server::start().await;
    let options = ConsumerOptions {
        prefetch_messages: 4,
        ..ConsumerOptions::default()
    };
    let mut consumer = server.client().consumer(QUEUE, options);
    let mut stream = server.consume().await;
    let open = opened(&mut stream, b"s").await;
    assert_eq!(open.credit.unwrap().messages, 4);
    deliver(&stream, &["a", "b", "c"]).await;
    next(&mut consumer).await;
    next(&mut consumer).await;

    let Some(Frame::Credit(credit)) = stream.frame().await.frame else {
        panic!("credit is due");
    };

    assert!(credit.messages >= 2, "{credit:?}");
}

#[tokio::test]
async fn no_more_messages_are_asked_for_than_are_wanted() {
    let mut server = Server::start().await;
    let options = ConsumerOptions {
        messages_max: Some(3),
        prefetch_messages: 2,
        ..ConsumerOptions::default()
    };
    let mut consumer = server.client().consumer(QUEUE, options);
    let mut stream = server.consume().await;
    assert_eq!(opened(&mut stream, b"s").await.credit.unwrap().messages, 2);
    deliver(&stream, &["a", "b"]).await;
    next(&mut consumer).await;

    let Some(Frame::Credit(credit)) = stream.frame().await.frame else {
        panic!("credit is due");
    };

    assert_eq!(credit.messages, 1);
}

#[tokio::test]
async fn a_lease_that_is_lost_is_not_handed_out_any_more() {
    let mut server = Server::start().await;
    let mut consumer = server.client().consumer(QUEUE, ConsumerOptions::default());
    let mut stream = server.consume().await;
    opened(&mut stream, b"s").await;
    deliver(&stream, &["a", "b", "c"]).await;
    let lost = v1::LeasesLost {
        tags: vec![Bytes::from_static(b"c")],
    };
    say(&stream, Reply::Lost(lost)).await;
    // Answered in order: when the pong is here, the loss has been heard.
    say(&stream, Reply::Ping(v1::Ping {})).await;
    let Some(Frame::Pong(_)) = stream.frame().await.frame else {
        panic!("a pong is due");
    };
    deliver(&stream, &["d"]).await;

    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(next(&mut consumer).await.message.payload.clone());
    }
    assert_eq!(taken, ["a", "b", "d"]);
}

#[tokio::test]
async fn closing_settles_what_waits_and_says_goodbye() {
    let mut server = Server::start().await;
    let mut consumer = server.client().consumer(QUEUE, ConsumerOptions::default());
    let mut stream = server.consume().await;
    opened(&mut stream, b"s").await;
    deliver(&stream, &["a"]).await;
    let settled = next(&mut consumer).await.accept();
    let closed = tokio::spawn(consumer.close());

    let batch = settlement(&mut stream).await;
    answer(&stream, &batch, &[]).await;

    assert!(matches!(stream.frame().await.frame, Some(Frame::Close(_))));
    assert!(stream.is_ended().await);
    drop(stream);
    settled.await.unwrap();
    closed.await.unwrap();
}

#[tokio::test]
async fn a_queue_that_does_not_exist_ends_the_consumer_with_that_word() {
    let mut server = Server::start().await;
    let mut consumer = server.client().consumer(QUEUE, ConsumerOptions::default());
    let stream = server.consume().await;
    stream.fail(Status::not_found("no queue/a/b")).await;

    let error = consumer.next().await.expect("a word").unwrap_err();

    assert_eq!(error.code, Code::NotFound);
    assert!(consumer.next().await.is_none());
}
