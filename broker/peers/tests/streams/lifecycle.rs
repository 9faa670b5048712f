//! Peers that come, go, move and end.

use millrace_peers::{AddressRefused, Lane, Link, PEERS_MAX};
use millrace_types::NodeId;
use tokio::runtime::Handle;

use crate::support::{Node, Secret, ack, options, until};

#[tokio::test]
async fn a_peer_that_restarts_is_found_again() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(2, &two);
    one.connected(2).await;

    let address = two.stop().await;
    until("every lane is told", || {
        Lane::ALL
            .into_iter()
            .all(|lane| one.inbox.unreachable(2, lane) > 0)
    })
    .await;
    until("what is sent meanwhile is dropped", || {
        one.send(2, Lane::Votes, vec![ack(1, 1)]) == 1
    })
    .await;
    let two = Node::at(address, options(2), Secret::new("s3cret")).await;

    one.connected(2).await;
    until("messages arrive", || {
        one.send(2, Lane::Appends, vec![ack(1, 2)]);
        two.inbox.count(Lane::Appends) > 0
    })
    .await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_peer_with_a_new_address_is_dialled_there_at_once() {
    let one = Node::start(1).await;
    let (before, after) = (Node::start(2).await, Node::start(2).await);
    one.knows(2, &before);
    one.connected(2).await;

    one.knows(2, &after);

    until("messages arrive there", || {
        one.send(2, Lane::Votes, vec![ack(1, 1)]);
        after.inbox.count(Lane::Votes) > 0
    })
    .await;
    until("the old streams are gone", || {
        let open = |lane| before.lane(1, lane).incoming.open.is_some();
        !Lane::ALL.into_iter().any(open)
    })
    .await;
    assert_eq!(
        one.peers.status()[0].address,
        Some(after.address.to_string())
    );
    one.stop().await;
    before.stop().await;
    after.stop().await;
}

#[tokio::test]
async fn an_address_may_be_a_name() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let address = format!("localhost:{}", two.address.port());
    one.peers.set_address(NodeId::new(2), address).unwrap();
    one.connected(2).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_is_sent_while_a_connection_is_made_goes_when_it_is_there() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    assert_eq!(one.send(2, Lane::Votes, vec![ack(1, 1)]), 1);
    one.knows(2, &two);
    until("it is being made", || {
        !matches!(one.lane(2, Lane::Votes).link, Link::Down)
    })
    .await;
    assert_eq!(one.send(2, Lane::Votes, vec![ack(1, 2)]), 0);
    until("it arrived", || two.inbox.count(Lane::Votes) == 1).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_forgotten_peer_has_no_streams_any_more() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(2, &two);
    one.connected(2).await;

    one.peers.forget(NodeId::new(2));

    until("its streams are gone", || {
        let open = |lane| two.lane(1, lane).incoming.open.is_some();
        !Lane::ALL.into_iter().any(open)
    })
    .await;
    assert!(one.peers.status().is_empty());
    assert_eq!(one.send(2, Lane::Votes, vec![ack(1, 1)]), 1);
    one.knows(2, &two);
    one.connected(2).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_node_is_no_peer_of_itself_and_has_not_too_many() {
    let one = Node::start(1).await;
    let itself = one.peers.set_address(NodeId::new(1), "127.0.0.1:1");
    let node = NodeId::new(1);
    assert_eq!(itself, Err(AddressRefused::Itself { node }));
    for node in 0..PEERS_MAX as u64 {
        let set = one
            .peers
            .set_address(NodeId::new(100 + node), "127.0.0.1:1");
        set.unwrap();
    }
    let more = one.peers.set_address(NodeId::new(2), "127.0.0.1:1");
    let peers_max = PEERS_MAX;
    assert_eq!(more, Err(AddressRefused::TooMany { peers_max }));
    one.stop().await;
}

#[tokio::test]
async fn shutdown_ends_every_task() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(2, &two);
    two.knows(1, &one);
    one.connected(2).await;
    two.connected(1).await;
    one.peers
        .set_address(NodeId::new(9), "127.0.0.1:1")
        .unwrap();
    assert!(tasks() > before + 6);

    one.stop().await;
    two.stop().await;

    until("all tasks have ended", || tasks() == before).await;
}
