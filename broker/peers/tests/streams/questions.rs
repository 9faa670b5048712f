//! Questions and their answers, and who knows what when there is none.

use bytes::Bytes;
use millrace_peers::{CallError, Lane};
use millrace_types::NodeId;

use crate::support::{Node, Secret, options};

async fn ask(node: &Node, other: u64, question: &'static str) -> Result<Bytes, CallError> {
    let question = Bytes::from_static(question.as_bytes());
    node.peers.call(NodeId::new(other), question).await
}

fn not_sent(asked: Result<Bytes, CallError>) -> String {
    match asked {
        Err(CallError::NotSent { text }) => text,
        other => panic!("it was not sent, but {other:?}"),
    }
}

#[tokio::test]
async fn a_question_is_answered_also_when_its_connection_is_gone_and_the_node_is_back() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(2, &two);
    assert_eq!(ask(&one, 2, "a").await.unwrap(), "1 asks a");
    assert_eq!(ask(&one, 2, "b").await.unwrap(), "1 asks b");

    let address = two.stop().await;
    assert!(ask(&one, 2, "c").await.is_err());
    not_sent(ask(&one, 2, "d").await);
    let two = Node::at(address, options(2), Secret::new("s3cret")).await;
    assert_eq!(ask(&one, 2, "e").await.unwrap(), "1 asks e");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_question_that_is_refused_has_done_nothing() {
    let mut stranger = options(1);
    stranger.identity.cluster_id = "c2".to_owned();
    let stranger = Node::with(stranger, Secret::new("s3cret")).await;
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let thief = Node::with(options(1), Secret::new("guessed")).await;
    stranger.knows(2, &two);
    thief.knows(2, &two);
    one.knows(3, &two);

    assert!(not_sent(ask(&stranger, 2, "x").await).contains("\"c2\""));
    assert!(not_sent(ask(&thief, 2, "x").await).contains("token"));
    assert!(not_sent(ask(&one, 3, "x").await).contains("node 2"));
    assert!(not_sent(ask(&one, 4, "x").await).contains("node 4"));
    for node in [stranger, thief, one, two] {
        node.stop().await;
    }
}

#[tokio::test]
async fn who_gets_no_answer_in_time_does_not_know() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.knows(2, &two);
    two.inbox.shut(Lane::Votes);
    let asked = ask(&one, 2, "x").await;
    assert!(
        matches!(asked, Err(CallError::NoAnswer { .. })),
        "{asked:?}"
    );
    two.inbox.open();
    assert_eq!(ask(&one, 2, "y").await.unwrap(), "1 asks y");
    one.stop().await;
    two.stop().await;
}
