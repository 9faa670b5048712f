//! Who may not speak to whom, and how both find out.

use std::ops::RangeInclusive;

use millrace_peers::{Lane, Link, LinkError, Reason, Refusal, Side};
use millrace_types::NodeId;

use crate::support::{Node, Secret, ack, options, until};

/// Why a lane is refused, once it is.
async fn refusal(node: &Node, peer: u64, lane: Lane) -> (Side, Refusal) {
    let mut found = None;
    until("the lane is refused", || {
        let failure = node.lane(peer, lane).failure;
        if let Some(LinkError::Refused { side, refusal }) = failure.map(|failure| failure.error) {
            found = Some((side, refusal));
        }
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_and_both_sides_see_why() {
    let mut other = options(2);
    other.identity.cluster_id = "c2".to_owned();
    let (one, two) = (
        Node::start(1).await,
        Node::with(other, Secret::new("s3cret")).await,
    );
    one.knows(2, &two);

    let (side, refusal) = refusal(&one, 2, Lane::Votes).await;

    assert_eq!((side, refusal.reason), (Side::Them, Reason::Cluster));
    for word in ["node 1", "\"c1\"", "node 2", "\"c2\""] {
        assert!(refusal.text.contains(word), "{refusal}");
    }
    let seen = two.lane(1, Lane::Votes).incoming.refusal.unwrap();
    assert_eq!(seen.reason, Reason::Cluster);
    until("the owner is told", || {
        one.inbox.unreachable(2, Lane::Votes) > 0
    })
    .await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn an_address_of_another_node_or_of_our_own_is_refused() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(3, &two);
    one.peers
        .set_address(NodeId::new(4), one.address.to_string())
        .unwrap();
    assert_eq!(refusal(&one, 3, Lane::Appends).await.1.reason, Reason::Node);
    assert_eq!(
        refusal(&one, 4, Lane::Appends).await.1.reason,
        Reason::Itself
    );
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_missing_or_wrong_token_is_refused_until_it_is_right() {
    let ours = Secret::new("ours");
    let theirs = Secret::new("theirs");
    let one = Node::with(options(1), ours.clone()).await;
    let two = Node::with(options(2), theirs).await;
    one.knows(2, &two);
    let (side, first) = refusal(&one, 2, Lane::Votes).await;
    assert_eq!((side, first.reason), (Side::Them, Reason::Token));
    assert!(first.text.contains("node 2"), "{first}");
    assert!(!first.text.contains("ours"), "{first}");

    *ours.0.lock().unwrap() = None;
    let told = one.inbox.unreachable(2, Lane::Votes);
    // The attempt that was under way may have had the token; the one after it has not.
    until("it is tried without a token", || {
        one.inbox.unreachable(2, Lane::Votes) >= told + 2
    })
    .await;
    assert_eq!(refusal(&one, 2, Lane::Votes).await.1.reason, Reason::Token);
    ours.change("theirs");

    one.connected(2).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_rotated_token_counts_for_the_next_connection_and_keeps_the_old_ones() {
    let (ours, theirs) = (Secret::new("first"), Secret::new("first"));
    let one = Node::with(options(1), ours.clone()).await;
    let two = Node::with(options(2), theirs.clone()).await;
    one.knows(2, &two);
    one.connected(2).await;

    ours.change("second");
    theirs.change("second");

    one.send(2, Lane::Votes, vec![ack(1, 1)]);
    until("the stream goes on", || two.inbox.count(Lane::Votes) == 1).await;
    one.peers.forget(NodeId::new(2));
    one.knows(2, &two);
    one.connected(2).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn nodes_of_neighbouring_versions_agree_and_distant_ones_refuse_each_other() {
    let speaking = |node, versions: RangeInclusive<u32>| {
        let mut options = options(node);
        options.identity.versions = versions;
        options.identity.feature_level = 40 + u32::try_from(node).unwrap();
        Node::with(options, Secret::new("s3cret"))
    };
    let (old, new, newest) = (
        speaking(1, 1..=1).await,
        speaking(2, 1..=2).await,
        speaking(3, 2..=3).await,
    );
    old.knows(2, &new);
    new.knows(3, &newest);
    newest.knows(1, &old);
    old.connected(2).await;
    new.connected(3).await;

    let agreed = |node: &Node, peer| match node.lane(peer, Lane::Votes).link {
        Link::Up { agreed, .. } => (agreed.version, agreed.feature_level),
        other => panic!("{other:?}"),
    };
    assert_eq!(agreed(&old, 2), (1, 42));
    assert_eq!(agreed(&new, 3), (2, 43));
    let open = new.lane(1, Lane::Votes).incoming.open.unwrap();
    assert_eq!((open.agreed.version, open.agreed.feature_level), (1, 41));
    let (_, refusal) = refusal(&newest, 1, Lane::Votes).await;
    assert_eq!(refusal.reason, Reason::Version);
    for word in ["node 1", "1..=1", "node 3", "2..=3"] {
        assert!(refusal.text.contains(word), "{refusal}");
    }
    old.stop().await;
    new.stop().await;
    newest.stop().await;
}

#[tokio::test]
async fn of_two_nodes_with_one_id_the_later_is_heard_and_the_earlier_is_told() {
    let two = Node::start(2).await;
    let mut patient = options(1);
    // Both would take the place from each other for ever; one of them waits in this test.
    patient.timing.refused_retry = std::time::Duration::from_secs(600);
    let first = Node::with(patient, Secret::new("s3cret")).await;
    first.knows(2, &two);
    first.connected(2).await;

    let second = Node::start(1).await;
    second.knows(2, &two);
    second.connected(2).await;

    let (side, refusal) = refusal(&first, 2, Lane::Votes).await;
    assert_eq!((side, refusal.reason), (Side::Them, Reason::Superseded));
    assert!(refusal.text.contains("node 1"), "{refusal}");
    second.send(2, Lane::Votes, vec![ack(1, 1)]);
    until("the later is heard", || two.inbox.count(Lane::Votes) == 1).await;
    let incoming = two.lane(1, Lane::Votes).incoming;
    assert_eq!(incoming.superseded, 1);
    assert_eq!(incoming.refusal.unwrap().reason, Reason::Superseded);
    assert!(incoming.open.is_some());
    first.stop().await;
    second.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_cluster_without_a_secret_asks_for_none() {
    let open = || std::sync::Arc::new(Secret(std::sync::Mutex::new(None)));
    let one = Node::with(options(1), open()).await;
    let two = Node::with(options(2), open()).await;
    one.knows(2, &two);
    one.connected(2).await;
    one.stop().await;
    two.stop().await;
}
