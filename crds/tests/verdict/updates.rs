//! Changes that the API server refuses, since they could not be carried out or would lose
//! something. `check` sees one document at a time and does not know them.

use kube::Client;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::api_server::client;
use crate::columns::api;

fn copies(replication: u32) -> Value {
    json!({ "replication": replication })
}

#[tokio::test]
async fn what_cannot_be_changed_in_a_queue_is_refused_by_name() {
    let Some(client) = client().await else { return };
    let on = |name: &str| json!({ "clusterRef": { "name": name } });
    for (before, change, field) in [
        (on("a"), on("b"), Some("spec.clusterRef")),
        (
            on("a"),
            json!({ "clusterRef": null }),
            Some("spec.clusterRef"),
        ),
        (json!({}), on("a"), Some("spec.clusterRef")),
        (json!({}), copies(3), Some("spec.replication")),
        (copies(3), copies(1), Some("spec.replication")),
        (on("a"), json!({ "limits": { "maxMessages": 5 } }), None),
    ] {
        let refused = refused(&client, "Queue", &before, &change).await;
        assert_eq!(refused.as_deref(), field, "{before} changed by {change}");
    }
}

#[tokio::test]
async fn what_cannot_be_changed_in_a_topic_is_refused_by_name() {
    let Some(client) = client().await else { return };
    let on = |name: &str| json!({ "clusterRef": { "name": name } });
    let partitions = |n: u32| json!({ "partitions": n });
    for (before, change, field) in [
        (on("a"), on("b"), Some("spec.clusterRef")),
        (json!({}), on("a"), Some("spec.clusterRef")),
        (
            copies(3),
            json!({ "replication": null }),
            Some("spec.replication"),
        ),
        (partitions(4), partitions(3), Some("spec.partitions")),
        (partitions(4), partitions(8), None),
    ] {
        let refused = refused(&client, "Topic", &before, &change).await;
        assert_eq!(refused.as_deref(), field, "{before} changed by {change}");
    }
}

#[tokio::test]
async fn what_cannot_be_changed_in_a_cluster_is_refused_by_name() {
    let Some(client) = client().await else { return };
    let size = |size: &str| json!({ "storage": { "size": size } });
    let class = |class: &str| json!({ "storage": { "storageClassName": class } });
    let no_class = json!({ "storage": { "storageClassName": null } });
    let fixed_size = Some("spec.storage.size");
    let fixed_class = Some("spec.storage.storageClassName");
    let shards = json!({ "config": { "shards": 8 } });
    let copies = json!({ "config": { "replication": 1 } });
    for (before, change, field) in [
        (size("10Gi"), size("5Gi"), fixed_size),
        (size("10Gi"), size("20Gi"), fixed_size),
        (json!({}), size("20Gi"), fixed_size),
        (size("1Gi"), size("1024Mi"), None),
        (class("a"), class("b"), fixed_class),
        (class("a"), no_class, fixed_class),
        (json!({}), class("a"), fixed_class),
        (json!({}), shards, Some("spec.config.shards")),
        (json!({}), copies, Some("spec.config.replication")),
        (json!({}), json!({ "replicas": 3 }), None),
        (json!({}), json!({ "replicas": 10 }), Some("spec.replicas")),
    ] {
        let refused = refused(&client, "BrokerCluster", &before, &change).await;
        assert_eq!(refused.as_deref(), field, "{before} changed by {change}");
    }
}

#[tokio::test]
async fn a_cluster_is_scaled_within_its_bounds() {
    let Some(client) = client().await else { return };
    let api = api(&client, "BrokerCluster", "brokerclusters");
    let name = create(&client, "BrokerCluster", &json!({})).await;
    let scale = |replicas: i32| Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    let parameters = PatchParams::default();
    let to_three = api.patch_scale(&name, &parameters, &scale(3)).await;
    let to_ten = api.patch_scale(&name, &parameters, &scale(10)).await;
    let is = api.get_scale(&name).await;
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    to_three.unwrap();
    let error = to_ten.unwrap_err().to_string();
    assert!(error.contains("spec.replicas"), "{error}");
    assert_eq!(is.unwrap().spec.unwrap().replicas, Some(3));
}

/// Creates a resource, changes it, removes it; the field that the change is refused for.
async fn refused(client: &Client, kind: &str, before: &Value, change: &Value) -> Option<String> {
    let api = api(client, kind, &plural(kind));
    let name = create(client, kind, before).await;
    let patch = json!({ "spec": change });
    let patched = api
        .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    api.delete(&name, &DeleteParams::default())
        .await
        .expect("is deleted");
    match patched {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => {
            let details = status.details.expect("details of a refusal");
            Some(details.causes[0].field.clone())
        }
        Err(error) => panic!("{error}"),
    }
}

async fn create(client: &Client, kind: &str, spec: &Value) -> String {
    let api = api(client, kind, &plural(kind));
    let object = json!({
        "apiVersion": "millrace.dev/v1alpha1",
        "kind": kind,
        "metadata": { "generateName": "updates-" },
        "spec": spec,
    });
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    let created = api.create(&PostParams::default(), &object).await;
    created.expect("is accepted").metadata.name.expect("a name")
}

fn plural(kind: &str) -> String {
    format!("{}s", kind.to_lowercase())
}
