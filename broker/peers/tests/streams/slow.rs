//! A peer that does not read, or lanes that are busy, cost their own queues and nothing else.

use millrace_peers::{Lane, QueueLimits};

use crate::support::{Node, Secret, ack, chunk, number, options, until};

#[tokio::test]
async fn votes_overtake_queued_appends() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(2, &two);
    one.connected(2).await;
    two.inbox.shut(Lane::Appends);
    // Far more than fits between the two: a part of it waits in the queue.
    let large = (0..40).map(|shard| chunk(shard, 1 << 20)).collect();
    assert_eq!(one.send(2, Lane::Appends, large), 0);
    until("appends wait", || {
        one.lane(2, Lane::Appends).queued_messages > 0
    })
    .await;

    one.send(2, Lane::Votes, vec![ack(1, 1)]);

    until("the vote is there", || two.inbox.count(Lane::Votes) == 1).await;
    assert!(two.inbox.count(Lane::Appends) < 40);
    assert!(one.lane(2, Lane::Appends).queued_messages > 0);
    two.inbox.open();
    until("appends follow", || two.inbox.count(Lane::Appends) == 40).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_peer_that_stops_reading_costs_its_queue_and_others_go_on() {
    let mut small = options(1);
    let limits = QueueLimits {
        messages_max: 1_000,
        bytes_max: 4 << 20,
    };
    small.queues = [limits; 3];
    let one = Node::with(small, Secret::new("s3cret")).await;
    let (stuck, well) = (Node::start(2).await, Node::start(3).await);
    one.knows(2, &stuck);
    one.knows(3, &well);
    one.connected(2).await;
    one.connected(3).await;
    stuck.inbox.shut(Lane::Appends);

    let mut told = 0;
    until("its queue is full", || {
        let dropped = one.send(2, Lane::Appends, vec![chunk(1, 1 << 20)]);
        told += dropped as u64;
        dropped > 0
    })
    .await;
    for sent in 0..100 {
        told += one.send(2, Lane::Appends, vec![chunk(1, 1 << 20)]) as u64;
        assert_eq!(one.send(3, Lane::Appends, vec![ack(1, sent)]), 0);
    }

    until("others go on", || well.inbox.count(Lane::Appends) == 100).await;
    until("the owner is told", || {
        one.inbox.unreachable(2, Lane::Appends) > 0
    })
    .await;
    let lane = one.lane(2, Lane::Appends);
    assert_eq!(lane.dropped_messages, told);
    assert!(lane.queued_bytes <= limits.bytes_max, "{lane:?}");
    // Beyond the queue: the window, and a chunk at each end that is just being written or read.
    let received = stuck.lane(1, Lane::Appends).incoming.received_bytes;
    let under_way = lane.sent_bytes - received;
    assert!(under_way <= 8 << 20, "{under_way} bytes under way");
    assert_eq!(one.inbox.unreachable(3, Lane::Appends), 0);
    // It is slow, not gone: what waited arrives.
    stuck.inbox.open();
    until("the queue is empty", || {
        one.lane(2, Lane::Appends).queued_messages == 0
    })
    .await;
    one.stop().await;
    stuck.stop().await;
    well.stop().await;
}

#[tokio::test]
async fn a_message_that_is_larger_than_its_queue_goes_when_nothing_waits() {
    let mut small = options(1);
    small.queues = [QueueLimits {
        messages_max: 1,
        bytes_max: 10,
    }; 3];
    let one = Node::with(small, Secret::new("s3cret")).await;
    let two = Node::start(2).await;
    one.knows(2, &two);
    one.connected(2).await;
    assert_eq!(
        one.send(2, Lane::Appends, vec![chunk(1, 1_000), ack(1, 5)]),
        1
    );
    until("the large one is there", || {
        two.inbox.count(Lane::Appends) == 1
    })
    .await;
    assert_eq!(one.send(2, Lane::Appends, vec![ack(1, 6)]), 0);
    until("and the next", || two.inbox.count(Lane::Appends) == 2).await;
    assert_eq!(number(&two.inbox.messages(Lane::Appends)[1].1), 6);
    one.stop().await;
    two.stop().await;
}
