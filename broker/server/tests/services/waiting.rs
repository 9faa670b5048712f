//! A node that is one of several and belongs to no cluster yet: what it answers, and to whom.

use std::fs;
use std::net::SocketAddr;

use millrace_proto::membership::v1::identify_response::State;
use millrace_proto::membership::v1::membership_client::MembershipClient;
use millrace_proto::membership::v1::{
    BootstrapRequest, Founder, Founding, IdentifyRequest, RegisterRequest,
};
use millrace_proto::v1;
use millrace_proto::v1::cluster_client::ClusterClient;
use millrace_proto::v1::publisher_client::PublisherClient;
use millrace_server::config::{Meeting, Peering};
use millrace_server::{Config, PeeringError, Server, StartError, exit};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::lifecycle::http_get;
use crate::support::{assert_refused, channel, eventually, message, publish_request, within};

/// Loopback has addresses enough that no two runs share one.
fn host() -> [u8; 4] {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    [127, 128 | (high & 63), low, 1]
}

fn waiting(dir: &tempfile::TempDir) -> Config {
    let at = |port| SocketAddr::from((host(), port));
    let token = dir.path().join("token");
    fs::write(&token, "s3cret").unwrap();
    Config {
        listen: at(7070),
        control_listen: at(7071),
        metrics_listen: at(7072),
        control_token_file: Some(token),
        shards: 2,
        peering: Some(Peering {
            listen: at(7073),
            advertise: None,
            client_advertise: None,
            meeting: Meeting::Join(Vec::new()),
            zone: String::new(),
            replication: 3,
        }),
        ..Config::local(dir.path().join("data"))
    }
}

fn with_token<T>(body: T) -> Request<T> {
    let mut request = Request::new(body);
    let token = "Bearer s3cret".parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    request
}

/// Everybody but other nodes is told to come back.
async fn turns_clients_away(clients: SocketAddr, control: SocketAddr) {
    let mut health = HealthClient::new(channel(clients.to_string()).await);
    let asked = health.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(asked.into_inner().status(), ServingStatus::NotServing);
    let mut publisher = PublisherClient::new(channel(clients.to_string()).await);
    let request = publish_request("queue/test/q", vec![message("early")]);
    let unavailable = |result| assert_refused(result, Code::Unavailable, "SHARD_UNAVAILABLE");
    let refusal = unavailable(publisher.publish(request).await.map(drop));
    assert!(refusal.retry_after.is_some());
    let mut cluster = ClusterClient::new(channel(control.to_string()).await);
    let metadata = cluster.metadata(with_token(v1::MetadataRequest {})).await;
    unavailable(metadata.map(drop));
}

async fn is_open_to_those_with_the_token(ports: [SocketAddr; 2]) {
    for port in ports {
        let mut membership = MembershipClient::new(channel(port.to_string()).await);
        let stranger = membership.identify(IdentifyRequest {}).await.unwrap_err();
        assert_eq!(stranger.code(), Code::Unauthenticated);
        let bootstrap = membership.bootstrap(BootstrapRequest::default()).await;
        assert_eq!(bootstrap.unwrap_err().code(), Code::Unauthenticated);
        let asked = membership.identify(with_token(IdentifyRequest {})).await;
        assert_eq!(asked.unwrap().into_inner().state(), State::Joining);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_cluster_says_what_it_waits_for_and_takes_a_record_from_who_may_send_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = waiting(&dir);
    let (clients, control) = (config.listen, config.control_listen);
    let (metrics, peers) = (
        config.metrics_listen,
        config.peering.as_ref().unwrap().listen,
    );
    let starting = tokio::spawn(Server::start(config));
    eventually("the node waits", || async {
        let connected = tokio::net::TcpStream::connect(metrics).await;
        connected.is_ok()
            && http_get(metrics, "/readyz")
                .await
                .contains("no cluster to join yet")
    })
    .await;
    let ready = http_get(metrics, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    let alive = http_get(metrics, "/livez").await;
    assert!(alive.starts_with("HTTP/1.1 200"), "{alive}");

    turns_clients_away(clients, control).await;
    is_open_to_those_with_the_token([peers, control]).await;
    let mut membership = MembershipClient::new(channel(control.to_string()).await);
    let nothing = with_token(BootstrapRequest::default());
    let nothing = membership.bootstrap(nothing).await.unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument);
    let other = with_token(RegisterRequest {
        node_id: 1,
        ..Default::default()
    });
    let early = membership.register(other).await.map(drop);
    assert_refused(early, Code::Unavailable, "SHARD_UNAVAILABLE");
    let asked = membership.identify(with_token(IdentifyRequest {})).await;
    let founder = Founder {
        node_id: asked.unwrap().into_inner().node_id,
        peer_address: peers.to_string(),
    };
    let founding = Some(Founding {
        cluster_id: "ours".into(),
        shards: 3,
        replication: 1,
        founders: vec![founder],
    });
    let sent = with_token(BootstrapRequest { founding });
    membership.bootstrap(sent).await.unwrap();

    let running = within(starting).await.unwrap().unwrap();
    let asked = http_get(metrics, "/readyz").await;
    assert!(asked.starts_with("HTTP/1.1 200"), "{asked}");
    let mut cluster = ClusterClient::new(channel(control.to_string()).await);
    let metadata = cluster.metadata(with_token(v1::MetadataRequest {})).await;
    let metadata = metadata.unwrap().into_inner();
    assert_eq!((&*metadata.cluster_id, metadata.shards), ("ours", 3));
    within(running.stop()).await;
}

#[tokio::test]
async fn a_peer_port_for_everybody_needs_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::local(dir.path().join("data"));
    config.peering = Some(Peering {
        listen: SocketAddr::from(([0, 0, 0, 0], 0)),
        advertise: Some("here:1".into()),
        client_advertise: None,
        meeting: Meeting::Found(vec!["here:1".into()]),
        zone: String::new(),
        replication: 3,
    });
    let refused = Server::start(config).await.unwrap_err();
    assert!(matches!(
        refused,
        StartError::Peering(PeeringError::Open { .. })
    ));
    assert_eq!(refused.exit_code(), exit::USAGE);
    assert!(!dir.path().join("data").exists());
}
