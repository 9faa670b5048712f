//! Whatever comes in costs its own stream and nothing else.

use std::time::Duration;

use bytes::Bytes;
use millrace_peers::{Lane, LinkError, Reason};
use millrace_proto::peer::v1 as proto;
use millrace_proto::peer::v1::peer_client::PeerClient;
use millrace_types::NodeId;
use proto::PeerFrame;
use proto::raft_message::Payload;
use proto::shard_message::Body;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

use crate::support::{CLUSTER, Node, Secret, options, until};

/// Somebody who has the token and says what a test wants.
struct Stranger {
    frames: mpsc::Sender<PeerFrame>,
    replies: Streaming<PeerFrame>,
}

impl Stranger {
    async fn call(node: &Node) -> Self {
        let url = format!("http://{}", node.address);
        let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        let mut client = PeerClient::new(channel).max_encoding_message_size(usize::MAX);
        let (frames, stream) = mpsc::channel(8);
        let mut request = Request::new(ReceiverStream::new(stream));
        let token = "Bearer s3cret".parse().unwrap();
        request.metadata_mut().insert("authorization", token);
        let replies = client.exchange(request).await.unwrap().into_inner();
        Self { frames, replies }
    }

    /// As node 9, in the lane of votes.
    async fn greet(node: &Node) -> Self {
        let mut stranger = Self::call(node).await;
        stranger.say(hello()).await;
        let reply = stranger.replies.message().await.unwrap().unwrap();
        assert_eq!(reply.hello.unwrap().node_id, 1);
        stranger
    }

    async fn say(&self, frame: PeerFrame) {
        self.frames.send(frame).await.unwrap();
    }

    async fn refused(mut self) -> proto::refused::Reason {
        loop {
            let reply = self.replies.message().await.unwrap().unwrap();
            if let Some(refused) = reply.refused {
                assert!(!refused.message.is_empty());
                return refused.reason();
            }
        }
    }
}

fn hello() -> PeerFrame {
    PeerFrame {
        hello: Some(proto::Hello {
            cluster_id: CLUSTER.to_owned(),
            node_id: 9,
            to_node_id: 1,
            lane: proto::Lane::Votes.into(),
            version_min: 1,
            version_max: 1,
            feature_level: 0,
            build: String::new(),
        }),
        ..PeerFrame::default()
    }
}

fn messages(bodies: Vec<Option<Body>>) -> PeerFrame {
    let message = |body| proto::ShardMessage {
        shard: 1,
        from: 2,
        to: 3,
        body,
    };
    PeerFrame {
        messages: bodies.into_iter().map(message).collect(),
        ..PeerFrame::default()
    }
}

fn append(crc32c: u32, kind: i32) -> Option<Body> {
    let entry = proto::Entry {
        kind,
        header: Bytes::from_static(b"head"),
        body: Bytes::from_static(b"body"),
        crc32c,
        ..proto::Entry::default()
    };
    let append = proto::Append {
        entries: vec![entry],
        ..proto::Append::default()
    };
    Some(Body::Raft(proto::RaftMessage {
        term: 1,
        payload: Some(Payload::Append(append)),
    }))
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_a_hello_is_refused() {
    let node = Node::start(1).await;
    let mut lane = hello();
    lane.hello.as_mut().unwrap().lane = 77;
    let mut large = hello();
    large.hello.as_mut().unwrap().build = "x".repeat(1 << 20);
    for first in [PeerFrame::default(), messages(vec![None]), lane, large] {
        let stranger = Stranger::call(&node).await;
        stranger.say(first).await;
        assert_eq!(stranger.refused().await, proto::refused::Reason::Protocol);
    }
    assert_eq!(node.inbox.frames().len(), 0);
    node.stop().await;
}

#[tokio::test]
async fn a_caller_that_says_nothing_is_refused_in_time() {
    let mut hasty = options(1);
    hasty.timing.hello_within = Duration::from_millis(1);
    let node = Node::with(hasty, Secret::new("s3cret")).await;
    let stranger = Stranger::call(&node).await;
    assert_eq!(stranger.refused().await, proto::refused::Reason::Protocol);
    node.stop().await;
}

#[tokio::test]
async fn what_only_a_newer_version_knows_is_skipped_and_counted() {
    let node = Node::start(1).await;
    let stranger = Stranger::greet(&node).await;
    let good = crc32c::crc32c(b"headbody");
    let nothing = Some(Body::Raft(proto::RaftMessage::default()));
    let known = append(good, proto::entry::Kind::Command.into());
    stranger
        .say(messages(vec![None, nothing, append(good, 99), known]))
        .await;
    until("the one that is known is there", || {
        node.inbox.count(Lane::Votes) == 1
    })
    .await;
    let incoming = node.lane(9, Lane::Votes).incoming;
    assert_eq!(
        (incoming.received_messages, incoming.skipped_messages),
        (4, 3)
    );
    assert!(incoming.open.is_some());
    node.stop().await;
}

#[tokio::test]
async fn what_is_damaged_or_malformed_ends_its_stream() {
    let node = Node::start(1).await;
    let chunk = |offset, total, last, crc32c| {
        Some(Body::Chunk(proto::SnapshotChunk {
            id: 1,
            offset,
            total,
            data: Bytes::from_static(b"body"),
            crc32c,
            last,
        }))
    };
    let good = crc32c::crc32c(b"body");
    for body in [
        append(1, proto::entry::Kind::Command.into()),
        chunk(0, 4, true, good + 1),
        chunk(0, 4, false, good),
        chunk(0, 5, true, good),
        chunk(0, 3, false, good),
        chunk(u64::MAX, u64::MAX, true, good),
    ] {
        let stranger = Stranger::greet(&node).await;
        stranger.say(messages(vec![body])).await;
        assert_eq!(stranger.refused().await, proto::refused::Reason::Protocol);
    }
    assert_eq!(node.inbox.frames().len(), 0);
    let refusal = node.lane(9, Lane::Votes).incoming.refusal.unwrap();
    assert_eq!(refusal.reason, Reason::Protocol);
    node.stop().await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_or_has_too_many_messages_ends_its_stream() {
    let node = Node::start(1).await;
    let stranger = Stranger::greet(&node).await;
    stranger.say(messages(vec![None; 5_000])).await;
    assert_eq!(stranger.refused().await, proto::refused::Reason::Protocol);

    let stranger = Stranger::greet(&node).await;
    let chunk = proto::SnapshotChunk {
        data: Bytes::from(vec![0; 40 << 20]),
        ..proto::SnapshotChunk::default()
    };
    stranger.say(messages(vec![Some(Body::Chunk(chunk))])).await;
    assert_eq!(stranger.refused().await, proto::refused::Reason::Protocol);
    node.stop().await;
}

#[tokio::test]
async fn garbage_on_the_port_costs_its_connection() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"PRI * HTTP/2.0",
    ] {
        let mut socket = TcpStream::connect(one.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _closed = socket.read_to_end(&mut answer).await;
    }
    two.knows(1, &one);
    two.connected(1).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_port_that_does_not_answer_is_given_up_and_tried_again() {
    let mut hasty = options(1);
    hasty.timing.dial_within = Duration::from_millis(20);
    let node = Node::with(hasty, Secret::new("s3cret")).await;
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = hole.local_addr().unwrap().to_string();
    node.peers.set_address(NodeId::new(2), address).unwrap();
    until("it is given up more than once", || {
        node.inbox.unreachable(2, Lane::Votes) > 1
    })
    .await;
    let failure = node.lane(2, Lane::Votes).failure.unwrap();
    assert!(
        matches!(failure.error, LinkError::Silent { .. }),
        "{failure:?}"
    );
    node.stop().await;
}

#[tokio::test]
async fn an_address_that_is_none_is_said_to_be_none() {
    let node = Node::start(1).await;
    node.peers
        .set_address(NodeId::new(2), "no address")
        .unwrap();
    until("it is said", || {
        node.failure(2, Lane::Votes).contains("HOST:PORT")
    })
    .await;
    node.stop().await;
}
