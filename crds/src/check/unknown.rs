//! Fields that the schema does not have. A strict API server refuses them, since a misspelt field
//! would otherwise be dropped without a word.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use serde_json::Value;

use super::rules::property;
use super::violation::Violation;
use crate::path::Path;

/// Every field of `value` that `schema` does not have.
pub(crate) fn find(schema: &JSONSchemaProps, value: &Value, at: &Path, found: &mut Vec<Violation>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let at = at.field(name);
                match property(schema, name) {
                    Some(schema) => find(schema, field, &at, found),
                    None => found.push(field_unknown(at)),
                }
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (i, item) in items.iter().enumerate() {
                    find(schema, item, &at.item(i), found);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What is said of such a field.
pub(crate) fn field_unknown(at: Path) -> Violation {
    Violation::shape(at, "there is no such field")
}
