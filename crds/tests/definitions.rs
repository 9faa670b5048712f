//! The published definitions: committed as generated, and bounded throughout.

use std::path::Path;

use millrace_crds::{crds, to_yaml};
use serde_json::Value;

#[test]
fn the_committed_definitions_are_those_of_the_types() {
    for crd in crds() {
        let name = format!("{}.yaml", crd.spec.names.plural);
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("yaml")
            .join(&name);
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            committed,
            to_yaml(&crd).unwrap(),
            "{name} is out of date: cargo xtask generate"
        );
    }
}

#[test]
fn every_text_list_and_map_is_bounded() {
    for (kind, schema) in schemas() {
        each(&schema, &kind, &mut |at, node| {
            let has = |key: &str| node.get(key).is_some();
            let bounded = match node["type"].as_str() {
                Some("string") => has("maxLength") || has("enum") || has("format"),
                Some("array") => has("maxItems"),
                Some("object") if has("additionalProperties") => has("maxProperties"),
                Some("object" | "integer" | "boolean") => true,
                None => node["x-kubernetes-int-or-string"] == true && has("maxLength"),
                Some(other) => panic!("{at}: type {other} is not used elsewhere"),
            };
            assert!(bounded, "{at} has no bound");
        });
    }
}

#[test]
fn every_field_says_what_it_is() {
    for (kind, schema) in schemas() {
        each(&schema["properties"]["spec"], &kind, &mut |at, node| {
            let inner = at.ends_with("[]") || at.ends_with("{}");
            assert!(
                inner || node.get("description").is_some(),
                "{at} has no description"
            );
        });
    }
}

#[test]
fn null_is_never_a_value() {
    for crd in crds() {
        assert!(!to_yaml(&crd).unwrap().contains("nullable"));
    }
}

fn schemas() -> Vec<(String, Value)> {
    let schema = |crd: &Value| crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    crds()
        .into_iter()
        .map(|crd| {
            (
                crd.spec.names.kind.clone(),
                serde_json::to_value(crd).expect("plain data"),
            )
        })
        .map(|(kind, crd)| (kind, schema(&crd)))
        .collect()
}

fn each(node: &Value, at: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(at, node);
    if let Some(items) = node.get("items") {
        each(items, &format!("{at}[]"), visit);
    }
    if let Some(values) = node.get("additionalProperties") {
        each(values, &format!("{at}{{}}"), visit);
    }
    for (name, property) in node["properties"].as_object().into_iter().flatten() {
        each(property, &format!("{at}.{name}"), visit);
    }
}
