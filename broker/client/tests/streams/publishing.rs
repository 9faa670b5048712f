//! What becomes of messages when streams end and servers refuse.

use millrace_client::{Applied, Durability, Error, Message, PublisherOptions};
use millrace_proto::v1::publish_reply::Reply;
use millrace_proto::v1::publish_result::Outcome;
use millrace_proto::v1::{
    self, Acknowledgement, OffsetRange, PublishCredit, PublishDecision, PublishFrame, PublishReply,
    PublishResult,
};
use tonic::Status;

use crate::fake::{Call, Server};

const QUEUE: &str = "queue/a/b";

type Stream = Call<PublishFrame, PublishReply>;

fn message(payload: &str) -> Message {
    Message {
        payload: payload.to_owned().into(),
        ..Message::default()
    }
}

fn options(retry_unknown: bool) -> PublisherOptions {
    PublisherOptions {
        retry_unknown,
        ..PublisherOptions::default()
    }
}

async fn grant(stream: &Stream, messages: u32) {
    let credit = PublishCredit {
        messages,
        bytes: 1 << 20,
    };
    say(stream, Reply::Credit(credit)).await;
}

async fn say(stream: &Stream, reply: Reply) {
    stream.say(PublishReply { reply: Some(reply) }).await;
}

async fn decide(stream: &Stream, frame: &PublishFrame, outcomes: Vec<Outcome>) {
    let results = outcomes.into_iter().map(|outcome| PublishResult {
        outcome: Some(outcome),
    });
    let decision = PublishDecision {
        sequence: frame.sequence,
        results: results.collect(),
    };
    say(stream, Reply::Decision(decision)).await;
}

fn acknowledged(first: u64, count: u64) -> Outcome {
    let offsets = OffsetRange {
        first,
        end: first + count,
    };
    Outcome::Acknowledged(Acknowledgement {
        partition: 0,
        offsets: Some(offsets),
        durability: v1::Durability::MajoritySynced.into(),
        ..Acknowledgement::default()
    })
}

fn refused(reason: &str) -> Outcome {
    Outcome::Refused(v1::Error {
        reason: reason.to_owned(),
        message: "no".to_owned(),
        applied: v1::Applied::NotApplied.into(),
        ..v1::Error::default()
    })
}

#[tokio::test]
async fn messages_are_acknowledged_at_their_offsets() {
    let mut server = Server::start().await;
    let publisher = server.client().publisher(QUEUE, options(false));
    let one = publisher.send(&message("one")).await.unwrap();
    let two = publisher.send(&message("two")).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;

    let frame = stream.frame().await;
    assert_eq!(frame.address, QUEUE);
    assert_eq!(frame.batches[0].count, 2);
    decide(&stream, &frame, vec![acknowledged(7, 2)]).await;

    assert_eq!(one.await.unwrap().offset, Some(7));
    assert_eq!(two.await.unwrap().offset, Some(8));
    publisher.flush().await;
}

#[tokio::test]
async fn an_outcome_lost_with_the_stream_is_reported_as_unknown() {
    let mut server = Server::start().await;
    let publisher = server.client().publisher(QUEUE, options(false));
    let pending = publisher.send(&message("one")).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    stream.frame().await;
    drop(stream);

    let error = pending.await.unwrap_err();

    assert_eq!(error.applied, Applied::Unknown);
    assert_eq!(error.reason, Error::CONNECTION_LOST);
}

#[tokio::test]
async fn an_outcome_lost_with_the_stream_is_sought_again_when_that_is_asked_for() {
    let mut server = Server::start().await;
    let publisher = server.client().publisher(QUEUE, options(true));
    let pending = publisher.send(&message("one")).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let first = stream.frame().await;
    drop(stream);

    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let second = stream.frame().await;

    // The server knows it again: who it is of, and which.
    assert_eq!(second.batches[0].records, first.batches[0].records);
    assert!(first.batches[0].producer.is_some());
    assert_eq!(second.batches[0].producer, first.batches[0].producer);
    let Outcome::Acknowledged(ack) = acknowledged(0, 1) else {
        unreachable!("it is acknowledged")
    };
    let duplicate = Outcome::Acknowledged(Acknowledgement {
        duplicate: true,
        ..ack
    });
    decide(&stream, &second, vec![duplicate]).await;
    let ack = pending.await.unwrap();
    assert_eq!((ack.offset, ack.duplicate), (Some(0), true));
}

#[tokio::test]
async fn what_may_have_been_stored_is_sent_again_as_the_batch_it_was_and_before_what_follows() {
    let mut server = Server::start().await;
    let publisher = server
        .client()
        .publisher(QUEUE, PublisherOptions::default());
    let one = publisher.send(&message("one")).await.unwrap();
    let two = publisher.send(&message("two")).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 2).await;
    let first = stream.frame().await;
    let three = publisher.send(&message("three")).await.unwrap();
    let unknown = |reason: &str| {
        let Outcome::Refused(error) = refused(reason) else {
            unreachable!("it is refused")
        };
        let applied = v1::Applied::Unknown.into();
        Outcome::Refused(v1::Error { applied, ..error })
    };
    decide(&stream, &first, vec![unknown("NOT_LEADER")]).await;

    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let second = stream.frame().await;
    assert_eq!(second.batches[0].count, 2);
    assert_eq!(second.batches[0].producer, first.batches[0].producer);
    decide(&stream, &second, vec![acknowledged(5, 2)]).await;
    let third = stream.frame().await;
    let known = third.batches[0].producer.clone().unwrap();
    let before = first.batches[0].producer.clone().unwrap();
    assert!(known.sequence > before.sequence && known.id == before.id);
    decide(&stream, &third, vec![acknowledged(7, 1)]).await;

    assert_eq!(one.await.unwrap().offset, Some(5));
    assert_eq!(two.await.unwrap().offset, Some(6));
    assert_eq!(three.await.unwrap().offset, Some(7));
}

#[tokio::test]
async fn a_message_with_an_id_of_its_own_goes_without_the_publishers_number() {
    let mut server = Server::start().await;
    let publisher = server
        .client()
        .publisher(QUEUE, PublisherOptions::default());
    let named = Message {
        dedup_id: "order-1".to_owned(),
        ..message("one")
    };
    let pending = publisher.send(&named).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let frame = stream.frame().await;
    assert_eq!(frame.batches[0].producer, None);
    drop(stream);
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let frame = stream.frame().await;
    decide(&stream, &frame, vec![acknowledged(3, 1)]).await;
    assert_eq!(pending.await.unwrap().offset, Some(3));
}

#[tokio::test]
async fn who_asks_for_a_receipt_is_told_that_it_is_one() {
    let mut server = Server::start().await;
    let options = PublisherOptions {
        acknowledge: Durability::Received,
        ..PublisherOptions::default()
    };
    let publisher = server.client().publisher(QUEUE, options);
    let pending = publisher.send(&message("one")).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let frame = stream.frame().await;
    assert_eq!(frame.acknowledge(), v1::Acknowledge::OnReceipt);
    let receipt = Outcome::Acknowledged(Acknowledgement {
        durability: v1::Durability::Received.into(),
        replicas: 3,
        ..Acknowledgement::default()
    });
    decide(&stream, &frame, vec![receipt]).await;
    let ack = pending.await.unwrap();
    assert_eq!((ack.offset, ack.durability), (None, Durability::Received));
    assert_eq!(ack.replicas, 3);
}

#[tokio::test]
async fn a_refusal_after_an_unknown_outcome_is_still_unknown() {
    let mut server = Server::start().await;
    let publisher = server.client().publisher(QUEUE, options(true));
    let pending = publisher.send(&message("one")).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    stream.frame().await;
    drop(stream);
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let frame = stream.frame().await;
    decide(&stream, &frame, vec![refused("QUEUE_FULL")]).await;

    let error = pending.await.unwrap_err();

    assert_eq!(
        (error.reason.as_str(), error.applied),
        ("QUEUE_FULL", Applied::Unknown)
    );
}

#[tokio::test]
async fn what_was_not_sent_yet_is_sent_after_a_reconnect() {
    let mut server = Server::start().await;
    let publisher = server.client().publisher(QUEUE, options(false));
    let sent = publisher.send(&message("sent")).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 1).await;
    stream.frame().await;
    let waiting = publisher.send(&message("waiting")).await.unwrap();
    drop(stream);
    assert_eq!(sent.await.unwrap_err().applied, Applied::Unknown);

    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let frame = stream.frame().await;
    decide(&stream, &frame, vec![acknowledged(3, 1)]).await;

    assert_eq!(waiting.await.unwrap().offset, Some(3));
}

#[tokio::test]
async fn of_a_batch_refused_for_one_message_the_others_are_sent_again_alone() {
    let mut server = Server::start().await;
    let publisher = server.client().publisher(QUEUE, options(false));
    let good = publisher.send(&message("good")).await.unwrap();
    let bad = publisher.send(&message("bad")).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let frame = stream.frame().await;
    decide(&stream, &frame, vec![refused("MESSAGE_TOO_LARGE")]).await;

    let frame = stream.frame().await;
    assert_eq!(
        frame.batches.iter().map(|b| b.count).collect::<Vec<_>>(),
        [1, 1]
    );
    decide(
        &stream,
        &frame,
        vec![acknowledged(0, 1), refused("MESSAGE_TOO_LARGE")],
    )
    .await;

    assert_eq!(good.await.unwrap().offset, Some(0));
    assert_eq!(bad.await.unwrap_err().reason, "MESSAGE_TOO_LARGE");
}

#[tokio::test]
async fn a_server_that_drains_gets_no_more_and_the_next_one_gets_the_rest() {
    let mut server = Server::start().await;
    let publisher = server.client().publisher(QUEUE, options(false));
    let one = publisher.send(&message("one")).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let frame = stream.frame().await;
    say(&stream, Reply::Drain(v1::Drain::default())).await;
    decide(&stream, &frame, vec![refused("DRAINING")]).await;

    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let frame = stream.frame().await;
    decide(&stream, &frame, vec![acknowledged(0, 1)]).await;

    assert_eq!(one.await.unwrap().offset, Some(0));
}

fn refused_for_now(reason: &str) -> Outcome {
    let Outcome::Refused(error) = refused(reason) else {
        unreachable!("it is refused")
    };
    let retry_after = Some(prost_types::Duration {
        seconds: 0,
        nanos: 1_000_000,
    });
    Outcome::Refused(v1::Error {
        retry_after,
        ..error
    })
}

#[tokio::test]
async fn what_an_overloaded_server_refused_is_sent_again_in_order() {
    let mut server = Server::start().await;
    let publisher = server.client().publisher(QUEUE, options(false));
    let one = publisher.send(&message("one")).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 1).await;
    let frame = stream.frame().await;
    let two = publisher.send(&message("two")).await.unwrap();
    decide(&stream, &frame, vec![refused_for_now("OVERLOADED")]).await;

    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    for offset in 0..2 {
        let frame = stream.frame().await;
        assert_eq!(frame.batches[0].count, 1);
        decide(&stream, &frame, vec![acknowledged(offset, 1)]).await;
    }

    assert_eq!(one.await.unwrap().offset, Some(0));
    assert_eq!(two.await.unwrap().offset, Some(1));
}

#[tokio::test]
async fn what_is_refused_for_now_for_too_long_is_reported() {
    let mut server = Server::start().await;
    let options = PublisherOptions {
        give_up_after: Some(std::time::Duration::ZERO),
        ..PublisherOptions::default()
    };
    let publisher = server.client().publisher(QUEUE, options);
    let pending = publisher.send(&message("one")).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let frame = stream.frame().await;
    decide(&stream, &frame, vec![refused_for_now("OVERLOADED")]).await;

    let error = pending.await.unwrap_err();

    assert_eq!(
        (error.reason.as_str(), error.applied),
        ("OVERLOADED", Applied::No)
    );
}

#[tokio::test]
async fn a_damaged_shard_is_reported_at_once_and_one_that_comes_back_is_waited_for() {
    let mut server = Server::start().await;
    let publisher = server.client().publisher(QUEUE, options(false));
    let pending = publisher.send(&message("one")).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let frame = stream.frame().await;
    decide(&stream, &frame, vec![refused("SHARD_UNAVAILABLE")]).await;
    let error = pending.await.unwrap_err();
    assert_eq!(error.reason, "SHARD_UNAVAILABLE");

    let pending = publisher.send(&message("two")).await.unwrap();
    let frame = stream.frame().await;
    let later = refused_for_now("SHARD_UNAVAILABLE");
    decide(&stream, &frame, vec![later]).await;
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let frame = stream.frame().await;
    decide(&stream, &frame, vec![acknowledged(0, 1)]).await;
    assert_eq!(pending.await.unwrap().offset, Some(0));
}

#[tokio::test]
async fn a_call_the_server_does_not_want_fails_at_once() {
    let mut server = Server::start().await;
    let publisher = server.client().publisher(QUEUE, options(true));
    let pending = publisher.send(&message("one")).await.unwrap();
    let stream = server.publish_stream().await;
    stream.fail(Status::permission_denied("not you")).await;

    let error = pending.await.unwrap_err();

    assert_eq!(
        (error.reason.as_str(), error.applied),
        ("PERMISSION_DENIED", Applied::No)
    );
}

#[tokio::test]
async fn a_message_without_a_server_is_given_up_in_time() {
    let client = millrace_client::Client::connect("http://127.0.0.1:1").unwrap();
    let options = PublisherOptions {
        give_up_after: Some(std::time::Duration::from_millis(100)),
        ..PublisherOptions::default()
    };

    let error = client
        .publisher(QUEUE, options)
        .publish(message("one"))
        .await
        .unwrap_err();

    assert_eq!(
        (error.reason.as_str(), error.applied),
        (Error::UNREACHABLE, Applied::No)
    );
}

#[tokio::test]
async fn a_decision_that_makes_no_sense_is_an_error_and_no_panic() {
    let mut server = Server::start().await;
    let publisher = server.client().publisher(QUEUE, options(false));
    let pending = publisher.send(&message("one")).await.unwrap();
    let mut stream = server.publish_stream().await;
    grant(&stream, 100).await;
    let frame = stream.frame().await;
    decide(
        &stream,
        &frame,
        vec![acknowledged(9, 1), acknowledged(3, 4)],
    )
    .await;

    let error = pending.await.unwrap_err();

    assert_eq!(
        (error.reason.as_str(), error.applied),
        (Error::PROTOCOL, Applied::Unknown)
    );
}
