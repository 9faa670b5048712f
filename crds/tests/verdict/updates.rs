//! Changes that the API server refuses, since they could not be carried out or would lose
//! something. `check` sees one document at a time and does not know them.

use kube::Client;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::api_server::client;
use crate::columns::api;

#[tokio::test]
async fn what_cannot_be_changed_is_refused_by_name() {
    let Some(client) = client().await else { return };
    let name = |name: &str| json!({ "clusterRef": { "name": name } });
    let none = || json!({ "clusterRef": null });
    let empty = || json!({});
    let partitions = |n: u32| json!({ "partitions": n });
    let storage = |size: &str| json!({ "storage": { "size": size } });
    let class = |class: Value| json!({ "storage": { "storageClassName": class } });
    let shards = |n: u32| json!({ "config": { "shards": n } });
    for (kind, before, change, field) in [
        ("Queue", name("a"), name("b"), Some("spec")),
        ("Queue", name("a"), none(), Some("spec")),
        ("Queue", empty(), name("a"), Some("spec")),
        (
            "Queue",
            name("a"),
            json!({ "limits": { "maxMessages": 5 } }),
            None,
        ),
        ("Topic", name("a"), name("b"), Some("spec")),
        ("Topic", empty(), name("a"), Some("spec")),
        (
            "Topic",
            partitions(4),
            partitions(3),
            Some("spec.partitions"),
        ),
        ("Topic", partitions(4), partitions(8), None),
        (
            "BrokerCluster",
            storage("10Gi"),
            storage("5Gi"),
            Some("spec.storage.size"),
        ),
        (
            "BrokerCluster",
            storage("10Gi"),
            storage("20Gi"),
            Some("spec.storage.size"),
        ),
        ("BrokerCluster", storage("1Gi"), storage("1024Mi"), None),
        (
            "BrokerCluster",
            class("a".into()),
            class("b".into()),
            Some("spec.storage"),
        ),
        (
            "BrokerCluster",
            class("a".into()),
            class(Value::Null),
            Some("spec.storage"),
        ),
        (
            "BrokerCluster",
            empty(),
            class("a".into()),
            Some("spec.storage"),
        ),
        (
            "BrokerCluster",
            empty(),
            shards(8),
            Some("spec.config.shards"),
        ),
        (
            "BrokerCluster",
            empty(),
            json!({ "replicas": 3 }),
            Some("spec.replicas"),
        ),
    ] {
        let refused = refused(&client, kind, &before, &change).await;
        assert_eq!(
            refused.as_deref(),
            field,
            "{kind} {before} changed by {change}"
        );
    }
}

#[tokio::test]
async fn more_than_one_replica_is_refused_through_scale_too() {
    let Some(client) = client().await else { return };
    let api = api(&client, "BrokerCluster", "brokerclusters");
    let name = create(&client, "BrokerCluster", &json!({})).await;
    let scale = json!({ "spec": { "replicas": 3 } });
    let scaled = api
        .patch_scale(&name, &PatchParams::default(), &Patch::Merge(&scale))
        .await;
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    let error = scaled.unwrap_err().to_string();
    assert!(
        error.contains("replication between brokers is not there yet"),
        "{error}"
    );
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
