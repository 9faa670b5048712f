//! What is sent arrives: in order, together, whole.

use millrace_peers::{Lane, MESSAGE_BYTES_MAX};
use millrace_replica::{Entry, EntryKind, Mark, Payload};
use millrace_types::{LogIndex, NodeId, Term};

use crate::support::{Node, ack, chunk, number, raft, until};

#[tokio::test]
async fn messages_of_a_lane_arrive_in_order_and_say_who_sent_them() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(2, &two);
    two.knows(1, &one);
    one.connected(2).await;
    two.connected(1).await;

    for hundred in 0..10 {
        for lane in Lane::ALL {
            let messages = (0..100).map(|number| ack(7, hundred * 100 + number));
            assert_eq!(one.send(2, lane, messages.collect()), 0);
        }
        two.send(1, Lane::Votes, vec![ack(8, hundred)]);
    }

    for lane in Lane::ALL {
        until("all arrived", || two.inbox.count(lane) == 1_000).await;
        let messages = two.inbox.messages(lane);
        assert!(messages.iter().all(|(from, _)| *from == NodeId::new(1)));
        let numbers: Vec<u64> = messages
            .iter()
            .map(|(_, message)| number(message))
            .collect();
        assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
    }
    until("the other way, too", || one.inbox.count(Lane::Votes) == 10).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn messages_of_many_shards_that_wait_become_few_frames() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(2, &two);
    one.connected(2).await;
    two.inbox.shut(Lane::Votes);
    one.send(2, Lane::Votes, vec![ack(0, 0)]);
    until("the first is there", || two.inbox.count(Lane::Votes) == 1).await;

    let large = 200 << 10;
    one.send(2, Lane::Appends, vec![chunk(1, large), chunk(2, large)]);
    for shard in 1..=1_000 {
        one.send(2, Lane::Votes, vec![ack(shard, 1)]);
    }
    two.inbox.open();

    until("all arrived", || two.inbox.count(Lane::Votes) == 1_001).await;
    until("the large ones, too", || {
        two.inbox.count(Lane::Appends) == 2
    })
    .await;
    let frames = two.inbox.frames();
    assert!(
        frames.len() < 500,
        "{} frames for 1003 messages",
        frames.len()
    );
    let sent = one.lane(2, Lane::Votes);
    let arrived = two.lane(1, Lane::Votes).incoming;
    assert_eq!(sent.sent_messages, 1_001);
    assert_eq!(arrived.received_messages, 1_001);
    assert!(arrived.received_bytes > 1_001 * 8, "{arrived:?}");
    assert!(sent.sent_bytes > 1_001 * 8, "{sent:?}");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_record_of_the_largest_size_fits_and_a_larger_message_is_dropped_and_counted() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(2, &two);
    one.connected(2).await;
    let append = |bytes: usize| {
        let entry = Entry {
            term: Term::new(u64::MAX),
            index: LogIndex::new(u64::MAX),
            kind: EntryKind::Command,
            header: vec![1; bytes / 2].into(),
            body: vec![2; bytes - bytes / 2].into(),
        };
        let payload = Payload::Append {
            prev: Mark::new(u64::MAX, u64::MAX),
            commit: LogIndex::new(u64::MAX),
            entries: vec![entry],
        };
        raft(1, payload)
    };
    let largest = append(32 << 20);

    let too_large = append(MESSAGE_BYTES_MAX);
    assert_eq!(one.send(2, Lane::Appends, vec![too_large]), 1);
    assert_eq!(one.send(2, Lane::Appends, vec![largest.clone()]), 0);

    until("it arrived", || two.inbox.count(Lane::Appends) == 1).await;
    let (_, arrived) = two.inbox.messages(Lane::Appends).remove(0);
    assert!(arrived == largest, "it is another one");
    assert_eq!(one.lane(2, Lane::Appends).dropped_messages, 1);
    assert!(one.is_up(2, Lane::Appends));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn the_round_trip_is_measured() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(2, &two);
    until("a pong came", || {
        let status = one.peers.status();
        status.iter().any(|peer| peer.round_trip.is_some())
    })
    .await;
    one.stop().await;
    two.stop().await;
}
