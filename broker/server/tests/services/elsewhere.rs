//! Three nodes of one cluster: any of them takes any call, whoever leads, and goes on when the
//! leader
//! is gone.

use std::net::TcpListener;

use futures::future::join_all;
use millrace_proto::v1;
use millrace_proto::v1::routing_client::RoutingClient;
use millrace_proto::v1::settlement::Outcome;
use millrace_server::config::{Meeting, Peering};

use crate::support::*;

const QUEUE: &str = "queue/test/orders";
const TOPIC: &str = "topic/test/events";

/// Nodes that have founded a cluster, with a queue and a topic.
async fn three() -> Vec<Node> {
    let free: Vec<_> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let peers: Vec<_> = free.iter().map(|it| it.local_addr().unwrap()).collect();
    drop(free);
    let names: Vec<String> = peers.iter().map(ToString::to_string).collect();
    let starting = peers.iter().map(|listen| {
        let meeting = Meeting::Found(names.clone());
        Node::with(move |config| {
            config.peering = Some(Peering {
                listen: *listen,
                advertise: None,
                client_advertise: None,
                meeting,
                zone: String::new(),
                replication: 3,
            });
        })
    });
    let nodes = join_all(starting).await;
    let objects = vec![queue("orders"), topic("events", 2)];
    eventually("it is declared", || async {
        let mut cluster = nodes[0].cluster().await;
        let request = v1::ApplyTopologyRequest {
            base_revision: topology(&mut cluster).await.revision,
            upserts: objects.clone(),
            ..Default::default()
        };
        cluster.apply_topology(request).await.is_ok()
    })
    .await;
    for node in &nodes {
        eventually("every node knows it", || async {
            let state = topology(&mut node.cluster().await).await;
            let known = routing(node).await;
            state.applied_revision > 0 && known.leaders.len() == 3 && known.nodes.len() == 3
        })
        .await;
    }
    nodes
}

async fn routing(node: &Node) -> v1::RoutingState {
    let mut routing = RoutingClient::new(node.clients().await);
    let state = routing.metadata(v1::RoutingRequest {}).await;
    state.unwrap().into_inner()
}

/// The node that leads what an address lives in.
async fn leader(nodes: &[Node], address: &str) -> usize {
    let mut client = RoutingClient::new(nodes[0].clients().await);
    let addresses = vec![address.to_owned()];
    let located = client.locate(v1::LocateRequest { addresses }).await;
    let shard = located.unwrap().into_inner().located[0].shards[0];
    let state = routing(&nodes[0]).await;
    let leader = state.leaders.iter().find(|leader| leader.shard == shard);
    let leader = leader.unwrap().node_id.clone();
    for (at, node) in nodes.iter().enumerate() {
        if routing(node).await.node_id == leader {
            return at;
        }
    }
    panic!("{leader} is none of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_takes_any_call() {
    let mut nodes = three().await;
    for (at, node) in nodes.iter().enumerate() {
        node.publish(QUEUE, vec![message(&format!("one {at}"))])
            .await;
        let (frames, sent) = frames();
        let mut publisher = node.publisher().await;
        let opened = within(publisher.publish_stream(sent)).await.unwrap();
        let mut replies = opened.into_inner();
        let frame = v1::PublishFrame {
            sequence: 1,
            address: TOPIC.to_owned(),
            messages: vec![keyed("a", "x"), keyed("b", "y"), keyed("c", "z")],
            ..Default::default()
        };
        frames.send(frame).await.unwrap();
        let decision = loop {
            let reply: v1::PublishReply = next(&mut replies).await;
            if let Some(v1::publish_reply::Reply::Decision(decision)) = reply.reply {
                break decision;
            }
        };
        for result in &decision.results {
            acknowledged(result);
        }
    }
    for at in 0..3 {
        let taken = nodes[at].receive(QUEUE, 1).await;
        assert_eq!(payloads(&taken), [format!("one {at}")]);
        let settle = v1::SettleRequest {
            address: QUEUE.to_owned(),
            settlements: vec![settlement(Outcome::Accept, &taken)],
        };
        let other = &nodes[(at + 1) % 3];
        let settled = other
            .consumer()
            .await
            .settle(settle)
            .await
            .unwrap()
            .into_inner();
        assert_eq!((settled.settled, settled.refused.len()), (1, 0));
        let mut read = 0;
        for partition in 0..2 {
            let request = v1::ReadRequest {
                address: TOPIC.to_owned(),
                partition,
                ..Default::default()
            };
            let answer = nodes[at].reader().await.read(request).await.unwrap();
            read += answer.into_inner().messages.len();
        }
        assert_eq!(read, 9, "what was acknowledged is read through any node");
        let request = v1::DescribeRequest {
            address: QUEUE.to_owned(),
        };
        nodes[at].admin().await.describe(request).await.unwrap();
    }
    join_all(nodes.iter_mut().map(Node::stop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_one_node_goes_on_when_the_leader_is_gone() {
    let mut nodes = three().await;
    let gone = leader(&nodes, QUEUE).await;
    let own = (gone + 1) % 3;
    nodes[own].publish(QUEUE, vec![message("before")]).await;
    let (frames, sent) = frames();
    let open = v1::ConsumeOpen {
        address: QUEUE.to_owned(),
        credit: Some(v1::ConsumeCredit {
            messages: 10,
            bytes: 1 << 20,
        }),
        ..Default::default()
    };
    let frame = |frame| v1::ConsumeFrame { frame: Some(frame) };
    frames
        .send(frame(v1::consume_frame::Frame::Open(open)))
        .await
        .unwrap();
    let mut consumer = nodes[own].consumer().await;
    let mut replies = within(consumer.consume(sent)).await.unwrap().into_inner();
    let delivered = loop {
        let reply: v1::ConsumeReply = next(&mut replies).await;
        if let Some(v1::consume_reply::Reply::Deliveries(delivered)) = reply.reply {
            break delivered.deliveries;
        }
    };
    assert_eq!(payloads(&delivered), ["before"]);

    nodes[gone].stop().await;

    // The stream ends with a word that says: come again.
    let ended = ending(&mut replies).await;
    assert_eq!(ended.code(), tonic::Code::Unavailable, "{ended:?}");
    let settle = v1::SettleRequest {
        address: QUEUE.to_owned(),
        settlements: vec![settlement(Outcome::Accept, &delivered)],
    };
    eventually("the lease from before is settled", || async {
        let answer = nodes[own].consumer().await.settle(settle.clone()).await;
        answer.is_ok_and(|answer| answer.into_inner().settled == 1)
    })
    .await;
    eventually("it publishes again", || async {
        let request = publish_request(QUEUE, vec![message("after")]);
        let answer = nodes[own].publisher().await.publish(request).await;
        let results = answer.map(|answer| answer.into_inner().results);
        let stored = |result: &v1::PublishResult| {
            matches!(
                &result.outcome,
                Some(v1::publish_result::Outcome::Acknowledged(_))
            )
        };
        results.is_ok_and(|results| results.iter().all(stored))
    })
    .await;
    assert_eq!(payloads(&nodes[own].receive(QUEUE, 10).await), ["after"]);
    join_all(nodes.iter_mut().map(Node::stop)).await;
}
