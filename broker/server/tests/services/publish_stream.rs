//! `PublishStream`: credit, order, pipelining, and how a stream ends.

use millrace_proto::v1;
use millrace_proto::v1::publish_reply::Reply;
use tonic::{Code, Streaming};

use crate::support::{
    Node, acknowledged, batch, detail, ending, frames, message, next, payloads, queue, refused,
    topic, within,
};

const QUEUE: &str = "queue/test/q";

fn frame(sequence: u64, address: &str, messages: Vec<v1::Message>) -> v1::PublishFrame {
    v1::PublishFrame {
        sequence,
        address: address.to_owned(),
        messages,
        batches: Vec::new(),
        ..v1::PublishFrame::default()
    }
}

/// The next decision; credit is added up.
async fn decision(
    replies: &mut Streaming<v1::PublishReply>,
    credit: &mut v1::PublishCredit,
) -> v1::PublishDecision {
    loop {
        match next(replies).await.reply.unwrap() {
            Reply::Decision(decision) => return decision,
            Reply::Credit(more) => {
                credit.messages += more.messages;
                credit.bytes += more.bytes;
            }
            Reply::Drain(_) => {}
        }
    }
}

async fn first_credit(replies: &mut Streaming<v1::PublishReply>) -> v1::PublishCredit {
    match next(replies).await.reply.unwrap() {
        Reply::Credit(credit) => credit,
        other => panic!("the first reply is {other:?}"),
    }
}

#[tokio::test]
async fn frames_are_decided_in_order_without_waiting_for_each_other() {
    let node = Node::declaring(vec![queue("q"), topic("t", 2)]).await;
    let (sender, outbound) = frames();
    let mut replies = node
        .publisher()
        .await
        .publish_stream(outbound)
        .await
        .unwrap()
        .into_inner();
    let mut credit = first_credit(&mut replies).await;
    assert!(credit.messages > 0 && credit.bytes > 0);
    for sequence in 1..=30 {
        let address = if sequence % 2 == 0 {
            QUEUE
        } else {
            "topic/test/t"
        };
        let frame = frame(sequence, address, vec![message(&sequence.to_string())]);
        within(sender.send(frame)).await.unwrap();
    }
    drop(sender);
    for sequence in 1..=30 {
        let decision = decision(&mut replies, &mut credit).await;
        assert_eq!(decision.sequence, sequence);
        acknowledged(&decision.results[0]);
    }
    while let Some(reply) = within(replies.message()).await.unwrap() {
        assert!(matches!(reply.reply, Some(Reply::Credit(_))), "{reply:?}");
    }
    let received = payloads(&node.receive(QUEUE, 100).await);
    let even: Vec<String> = (1..=15).map(|n| (2 * n).to_string()).collect();
    assert_eq!(received, even);
}

#[tokio::test]
async fn what_was_decided_may_be_sent_again() {
    let node = Node::declaring(vec![queue("q")]).await;
    let (sender, outbound) = frames();
    let mut replies = node
        .publisher()
        .await
        .publish_stream(outbound)
        .await
        .unwrap()
        .into_inner();
    let mut credit = first_credit(&mut replies).await;
    let whole = credit;
    let thousand = batch(&vec![message("x"); 1000]);
    let mut sequence = 0;
    let mut sent = 0;
    while sent < 3 * whole.messages {
        while credit.messages < 1000 {
            decision(&mut replies, &mut credit).await;
        }
        sequence += 1;
        sent += 1000;
        credit.messages -= 1000;
        let mut next = frame(sequence, QUEUE, Vec::new());
        next.batches.push(thousand.clone());
        within(sender.send(next)).await.unwrap();
    }
}

#[tokio::test]
async fn refused_entries_do_not_end_the_stream() {
    let node = Node::declaring(vec![queue("q")]).await;
    let (sender, outbound) = frames();
    let mut replies = node
        .publisher()
        .await
        .publish_stream(outbound)
        .await
        .unwrap()
        .into_inner();
    let mut credit = first_credit(&mut replies).await;
    let frames = [
        frame(1, "queue/test/none", vec![message("a")]),
        frame(2, "nonsense", vec![message("a")]),
        frame(3, QUEUE, vec![message("good")]),
    ];
    for frame in frames {
        sender.send(frame).await.unwrap();
    }
    let mut reasons = Vec::new();
    for _ in 0..2 {
        let decision = decision(&mut replies, &mut credit).await;
        reasons.push(refused(&decision.results[0]).reason.clone());
    }
    assert_eq!(reasons, ["NO_SUCH_QUEUE", "INVALID_ARGUMENT"]);
    acknowledged(&decision(&mut replies, &mut credit).await.results[0]);
}

#[tokio::test]
async fn overdrawing_the_credit_ends_the_stream_after_what_is_decided() {
    let node = Node::declaring(vec![queue("q")]).await;
    let (sender, outbound) = frames();
    let mut replies = node
        .publisher()
        .await
        .publish_stream(outbound)
        .await
        .unwrap()
        .into_inner();
    let mut credit = first_credit(&mut replies).await;
    let mut over = frame(2, QUEUE, Vec::new());
    for _ in 0..=credit.messages / 10_000 {
        over.batches.push(v1::RecordBatch {
            count: 10_000,
            ..batch(&[message("x")])
        });
    }
    sender
        .send(frame(1, QUEUE, vec![message("a")]))
        .await
        .unwrap();
    sender.send(over).await.unwrap();
    acknowledged(&decision(&mut replies, &mut credit).await.results[0]);
    let status = ending(&mut replies).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let error = detail(&status);
    assert_eq!(error.metadata["field"], "credit");
    assert_eq!(error.metadata["sequence"], "2");
    assert_eq!(error.applied(), v1::Applied::NotApplied);
}

#[tokio::test]
async fn a_sequence_out_of_order_ends_the_stream() {
    let node = Node::declaring(vec![queue("q")]).await;
    let (sender, outbound) = frames();
    let mut replies = node
        .publisher()
        .await
        .publish_stream(outbound)
        .await
        .unwrap()
        .into_inner();
    sender
        .send(frame(2, QUEUE, vec![message("a")]))
        .await
        .unwrap();
    let status = ending(&mut replies).await;
    assert_eq!(detail(&status).metadata["field"], "sequence");
    assert!(node.receive_none(QUEUE).await);
}

#[tokio::test]
async fn a_drain_is_told_and_pending_frames_are_decided() {
    let mut node = Node::declaring(vec![queue("q")]).await;
    let (sender, outbound) = frames();
    let mut replies = node
        .publisher()
        .await
        .publish_stream(outbound)
        .await
        .unwrap()
        .into_inner();
    first_credit(&mut replies).await;
    sender
        .send(frame(1, QUEUE, vec![message("a")]))
        .await
        .unwrap();
    let mut credit = v1::PublishCredit::default();
    acknowledged(&decision(&mut replies, &mut credit).await.results[0]);

    let running = node.take();
    let stopping = tokio::spawn(running.stop());
    let mut told = false;
    while !told {
        told = matches!(next(&mut replies).await.reply, Some(Reply::Drain(_)));
    }
    drop(sender);
    assert!(within(replies.message()).await.unwrap().is_none());
    within(stopping).await.unwrap();
}
