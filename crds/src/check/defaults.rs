//! Fills in what a document leaves out, as the API server does before it looks at a resource. A
//! `null` stands for the default, or for nothing where there is none.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use serde_json::Value;

use super::rules::property;

/// Fills in the defaults of `schema` and of everything below it.
pub(crate) fn fill(schema: &JSONSchemaProps, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, schema) in schema.properties.iter().flatten() {
                if fields.get(name).is_none_or(Value::is_null) {
                    match &schema.default {
                        Some(default) => fields.insert(name.clone(), default.0.clone()),
                        None => fields.remove(name),
                    };
                }
            }
            for (name, field) in fields {
                if let Some(schema) = property(schema, name) {
                    fill(schema, field);
                }
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                items.iter_mut().for_each(|item| fill(schema, item));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
