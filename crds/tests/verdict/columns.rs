//! What `kubectl get` shows of a resource that no operator has seen.

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, Request};
use millrace_crds::{DEFAULT_NAMESPACE, crds};
use serde_json::{Value, json};

use crate::api_server::client;

#[tokio::test]
async fn no_column_is_empty_before_the_operator_has_come_by() {
    let Some(client) = client().await else { return };
    for crd in crds() {
        let kind = crd.spec.names.kind.clone();
        let plural = crd.spec.names.plural.clone();
        let api = api(&client, &kind, &plural);
        let name = format!("columns-{}", std::process::id());
        let object = json!({
            "apiVersion": "millrace.dev/v1alpha1",
            "kind": kind,
            "metadata": { "name": name },
            "spec": {},
        });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
        let table = table(&client, &plural, &name).await;
        api.delete(&name, &DeleteParams::default()).await.unwrap();

        let columns = table["columnDefinitions"].as_array().unwrap();
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        assert!(columns.len() >= 5, "{kind} has columns");
        for (column, cell) in columns.iter().zip(cells) {
            let empty = cell.is_null() || *cell == "" || *cell == "<none>";
            assert!(!empty, "{kind}: {} is empty", column["name"]);
        }
    }
}

/// Resources of one kind, as data.
pub(crate) fn api(client: &Client, kind: &str, plural: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "millrace.dev".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "millrace.dev/v1alpha1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    Api::namespaced_with(client.clone(), DEFAULT_NAMESPACE, &resource)
}

/// As `kubectl get` asks for it.
async fn table(client: &Client, plural: &str, name: &str) -> Value {
    let path = format!("/apis/millrace.dev/v1alpha1/namespaces/{DEFAULT_NAMESPACE}/{plural}");
    let mut request = Request::new(path)
        .get(name, &Default::default())
        .expect("a request");
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
        .parse()
        .expect("a header");
    request.headers_mut().insert("accept", accept);
    client.request(request).await.expect("a table")
}
