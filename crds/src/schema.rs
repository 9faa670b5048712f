//! The CustomResourceDefinitions as they are published: what the derive makes of the types, with
//! the few things it cannot say put in and what the API server would not understand taken out.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::common::{CLUSTER_PATTERN, LABEL_PATTERN};
use crate::{BrokerCluster, Queue, Topic};

/// Longest name of a BrokerCluster: pods, claims and Secrets add up to 11 characters to it, and
/// some of these names are labels of at most 63.
const CLUSTER_NAME_MAX: u32 = 52;
/// Longest name of a queue or topic: a DNS label.
const NAME_MAX: u32 = 63;
/// Formats the API server knows and we use; the derive also writes those of Rust's numbers.
const FORMATS: [&str; 3] = ["int32", "int64", "date-time"];

/// A definition that cannot be written down.
#[derive(Debug, Error)]
#[error("cannot write the definition as YAML")]
pub struct WriteError(#[from] serde_saphyr::ser::Error);

/// The definitions of BrokerCluster, Queue and Topic, in this order.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        published(BrokerCluster::crd(), CLUSTER_NAME_MAX, CLUSTER_PATTERN),
        published(Queue::crd(), NAME_MAX, LABEL_PATTERN),
        published(Topic::crd(), NAME_MAX, LABEL_PATTERN),
    ]
}

/// A definition as a YAML document.
///
/// # Errors
/// When it cannot be serialised.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, WriteError> {
    Ok(serde_saphyr::to_string(crd)?)
}

fn published(
    mut crd: CustomResourceDefinition,
    name_max: u32,
    name_pattern: &str,
) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        let mut value = serde_json::to_value(&*schema).expect("a schema is plain data");
        tidy(&mut value);
        root(&mut value, name_max, name_pattern);
        *schema = serde_json::from_value(value).expect("it was one before");
    }
    crd
}

/// What only the root of a schema has.
fn root(schema: &mut Value, name_max: u32, name_pattern: &str) {
    let properties = &mut schema["properties"];
    properties["metadata"] = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": name_max, "pattern": name_pattern }
        }
    });
    // So that the columns of `kubectl get` are filled before the operator comes by.
    properties["status"]["default"] = json!({});
}

/// Walks a schema: `null` means absent, and formats of Rust's numbers go.
fn tidy(schema: &mut Value) {
    let Value::Object(fields) = schema else {
        return;
    };
    fields.remove("nullable");
    if let Some(format) = fields.get("format").and_then(Value::as_str)
        && !FORMATS.contains(&format)
    {
        fields.remove("format");
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(key) {
            tidy(inner);
        }
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        each(properties);
    }
}

fn each(properties: &mut Map<String, Value>) {
    for (_, property) in properties.iter_mut() {
        tidy(property);
    }
}
