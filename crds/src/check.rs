//! The verdict of a strict API server on YAML, without an API server: the same documents are
//! accepted, the same fields are named, the same defaults are filled in.
//!
//! Everything is read from the published schema, so there is one set of rules. What no single
//! resource can be blamed for, such as a queue bound to a topic that is not there, is a warning: in
//! Kubernetes, too, it may come later.

mod defaults;
mod metadata;
mod references;
mod report;
mod rules;
mod unknown;
mod values;
mod violation;

use std::collections::HashMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::{Map, Value};

pub use report::{Problem, Report};

use crate::documents::{self, Document};
use crate::path::Path;
use crate::{GROUP, VERSION, crds};
use rules::Rules;
use values::Values;
use violation::{Kind, Violation};

/// Where resources are that do not say so.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Checks the resources in a text with any number of YAML documents. Those that name no namespace
/// are in `namespace`.
#[must_use]
pub fn check(yaml: &str, namespace: &str) -> Report {
    let documents = match documents::parse(yaml) {
        Ok(documents) => documents,
        Err(error) => return Report::unreadable(error.line, error.message),
    };
    let mut checker = Checker::new();
    let mut report = Report::default();
    let mut accepted = Vec::new();
    for document in documents {
        match checker.document(&document, namespace) {
            Ok(object) => accepted.push((document, object)),
            Err(violations) => report.refuse(&document, violations),
        }
    }
    report.warnings = references::warnings(&accepted);
    report.objects = references::last_of_each(accepted);
    report
}

/// The definitions, and what was compiled of them.
struct Checker {
    schemas: HashMap<String, JSONSchemaProps>,
    values: Values,
    rules: Rules,
}

impl Checker {
    fn new() -> Self {
        let schemas = crds().into_iter().filter_map(|mut crd| {
            let schema = crd.spec.versions.pop()?.schema?.open_api_v3_schema?;
            Some((crd.spec.names.kind, schema))
        });
        Self {
            schemas: schemas.collect(),
            values: Values::default(),
            rules: Rules::new(),
        }
    }

    /// The resource with its defaults, or what is wrong with it. Stops where the API server stops:
    /// what cannot be read has no fields, what has unknown fields is not looked at further, and
    /// rules are only for what has the right shape.
    fn document(&mut self, document: &Document, namespace: &str) -> Result<Value, Vec<Violation>> {
        let mut object = document.value.clone();
        let schema = self.schema(&object).map_err(|violation| vec![violation])?;
        if let Some(violation) = metadata::unreadable(&object["metadata"]) {
            return Err(vec![violation]);
        }
        let mut found = metadata::unknown(&object["metadata"]);
        unknown_fields(schema, &object, &mut found);
        stop_at(found)?;

        let fields = object.as_object_mut().ok_or_else(Vec::new)?;
        // Status is the operator's: the API server drops it from what is created.
        fields.remove("status");
        let metadata = fields
            .entry("metadata")
            .or_insert_with(|| Map::new().into());
        if metadata.is_null() {
            *metadata = Map::new().into();
        }
        if metadata["namespace"].as_str().is_none_or(str::is_empty) {
            metadata["namespace"] = namespace.into();
        }
        let mut found = metadata::check(metadata);
        let schema = &self.schemas[object["kind"].as_str().unwrap_or_default()];
        defaults::fill(schema, &mut object);
        self.values
            .check(schema, &object, &Path::root(), &mut found);
        if found
            .iter()
            .all(|violation| violation.kind == Kind::Invalid)
        {
            self.rules.check(schema, &object, &Path::root(), &mut found);
        }
        stop_at(found)?;
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        Ok(object)
    }

    fn schema(&self, object: &Value) -> Result<&JSONSchemaProps, Violation> {
        let root = Path::root();
        if !object.is_object() {
            return Err(Violation::shape(root, "a resource is a mapping"));
        }
        let expected = format!("{GROUP}/{VERSION}");
        if object["apiVersion"] != *expected {
            let message = format!("must be {expected}, not {}", object["apiVersion"]);
            return Err(Violation::shape(root.field("apiVersion"), message));
        }
        let kind = object["kind"].as_str().unwrap_or_default();
        self.schemas.get(kind).ok_or_else(|| {
            let message = format!("{kind:?} is none of BrokerCluster, Queue, Topic");
            Violation::shape(root.field("kind"), message)
        })
    }
}

/// Unknown fields outside `metadata`; the schema does not list those every resource has.
fn unknown_fields(schema: &JSONSchemaProps, object: &Value, found: &mut Vec<Violation>) {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        for name in ["apiVersion", "kind", "metadata"] {
            fields.remove(name);
        }
    }
    unknown::find(schema, &object, &Path::root(), found);
}

fn stop_at(found: Vec<Violation>) -> Result<(), Vec<Violation>> {
    if found.is_empty() { Ok(()) } else { Err(found) }
}
