//! The control port: the topology, and who may change it.

use std::fs;
use std::net::SocketAddr;

use millrace_proto::v1;
use millrace_proto::v1::cluster_client::ClusterClient;
use millrace_server::{Config, Server, StartError};
use tonic::{Code, Request};

use crate::support::{
    Node, assert_refused, message, publish_request, queue, refused, topic, topology,
};

fn apply(base_revision: u64, upserts: Vec<v1::TopologyObject>) -> v1::ApplyTopologyRequest {
    v1::ApplyTopologyRequest {
        base_revision,
        upserts,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_topology_is_applied_changed_and_removed() {
    let node = Node::declaring(vec![queue("q"), topic("t", 1)]).await;
    let mut cluster = node.cluster().await;
    let metadata = cluster
        .metadata(v1::MetadataRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(!metadata.cluster_id.is_empty() && !metadata.node_id.is_empty());
    assert_eq!(metadata.shards, 2);
    let state = metadata.topology.unwrap();
    assert_eq!(state.revision, state.applied_revision);
    assert_eq!(state.digest.len(), 32);
    let addresses: Vec<_> = state
        .objects
        .iter()
        .map(|object| object.address.as_str())
        .collect();
    assert_eq!(addresses, ["queue/test/q", "topic/test/t"]);
    assert!(
        state
            .objects
            .iter()
            .all(|object| object.applied && !object.orphaned)
    );

    let removal = v1::ApplyTopologyRequest {
        removals: vec![v1::Removal {
            address: "queue/test/q".to_owned(),
            uid: "uid-queue/test/q".to_owned(),
        }],
        ..apply(state.revision, Vec::new())
    };
    cluster.apply_topology(removal).await.unwrap();
    let after = topology(&mut cluster).await;
    assert!(
        after
            .objects
            .iter()
            .any(|o| o.address == "queue/test/q" && o.orphaned)
    );
    assert_ne!(after.digest, state.digest);

    let mut publisher = node.publisher().await;
    let request = publish_request("queue/test/q", vec![message("a")]);
    crate::support::eventually("the queue is frozen", || {
        let (mut publisher, request) = (publisher.clone(), request.clone());
        async move {
            let results = publisher
                .publish(request)
                .await
                .unwrap()
                .into_inner()
                .results;
            matches!(
                &results[0].outcome,
                Some(v1::publish_result::Outcome::Refused(_))
            )
        }
    })
    .await;
    let results = publisher
        .publish(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    assert_eq!(refused(&results[0]).reason, "ORPHANED");
}

#[tokio::test]
async fn a_wrong_delta_changes_nothing() {
    let node = Node::declaring(vec![queue("q")]).await;
    let mut cluster = node.cluster().await;
    let before = topology(&mut cluster).await;

    let stale = cluster
        .apply_topology(apply(before.revision + 1, vec![queue("x")]))
        .await;
    assert_refused(stale, Code::Aborted, "REVISION_CONFLICT");
    let elsewhere = v1::ApplyTopologyRequest {
        cluster_id: "another".to_owned(),
        ..apply(before.revision, vec![queue("x")])
    };
    let result = cluster.apply_topology(elsewhere).await;
    assert_refused(result, Code::FailedPrecondition, "WRONG_CLUSTER");
    let mut wrong = queue("y");
    if let Some(v1::topology_object::Spec::Queue(spec)) = &mut wrong.spec {
        spec.bindings.push(v1::Binding {
            topic: "topic/test/t".to_owned(),
            pattern: "a..b".to_owned(),
            ..Default::default()
        });
    }
    let result = cluster
        .apply_topology(apply(before.revision, vec![queue("x"), wrong]))
        .await;
    let error = assert_refused(result, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_eq!(error.metadata["address"], "queue/test/y");
    assert_eq!(error.metadata["field"], "queue.bindings[0].pattern");

    assert_eq!(topology(&mut cluster).await, before);
}

#[tokio::test]
async fn only_the_token_opens_the_control_port_and_it_may_change() {
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(token.path(), "first").unwrap();
    let path = token.path().to_owned();
    let node = Node::with(|config| config.control_token_file = Some(path)).await;
    let mut cluster = node.cluster().await;
    let ask = async |cluster: &mut ClusterClient<_>, token: Option<&str>| {
        let mut request = Request::new(v1::MetadataRequest {});
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        cluster.metadata(request).await
    };

    assert_refused(
        ask(&mut cluster, None).await,
        Code::Unauthenticated,
        "UNAUTHENTICATED",
    );
    let wrong = ask(&mut cluster, Some("wrong")).await;
    assert_refused(wrong, Code::Unauthenticated, "UNAUTHENTICATED");
    ask(&mut cluster, Some("first")).await.unwrap();

    // As Kubernetes updates a mounted Secret: another file under the same name.
    let next = token.path().with_extension("next");
    fs::write(&next, "second\n").unwrap();
    fs::rename(&next, token.path()).unwrap();
    ask(&mut cluster, Some("second")).await.unwrap();
    let old = ask(&mut cluster, Some("first")).await;
    assert_refused(old, Code::Unauthenticated, "UNAUTHENTICATED");
}

#[tokio::test]
async fn the_client_port_does_not_steer() {
    let node = Node::start().await;
    let mut cluster = ClusterClient::new(node.clients().await);
    let status = cluster.metadata(v1::MetadataRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_control_port_for_everybody_needs_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::local(dir.path().join("data"));
    config.control_listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let error = Server::start(config).await.unwrap_err();
    assert!(matches!(error, StartError::ControlOpen { .. }), "{error}");
    assert!(error.to_string().contains("--control-token-file"));
    assert!(!dir.path().join("data").exists(), "nothing was touched");
}
