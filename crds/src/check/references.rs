//! What resources of one text say about each other. Nothing here refuses anything: in Kubernetes
//! the other resource may come later.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::report::Problem;
use super::violation::Violation;
use crate::documents::Document;
use crate::path::Path;

/// Longest circle of dead-letter queues that is looked for: bounds the work for each queue.
const CIRCLE_MAX: usize = 32;

/// Kind, namespace and name.
type Name = (String, String, String);

/// Queues bound to topics, or sending dead letters to queues, that the text does not have;
/// dead letters that go round in a circle; resources that stand in the text twice.
pub(super) fn warnings(accepted: &[(Document, Value)]) -> Vec<Problem> {
    let names: BTreeSet<Name> = accepted.iter().map(|(_, object)| name(object)).collect();
    let targets = targets(accepted);
    let mut seen = BTreeSet::new();
    let mut warnings = Vec::new();
    for (document, object) in accepted {
        let mut warn = |violation| warnings.push(Problem::new(document, violation));
        if !seen.insert(name(object)) {
            let at = Path::root().field("metadata").field("name");
            let message = "stands in the text already; the last one counts";
            warn(Violation::invalid(at, message));
        }
        missing(object, &names).into_iter().for_each(&mut warn);
        circle(object, &targets).into_iter().for_each(&mut warn);
    }
    warnings
}

/// The resources, the last of each name, in their order.
pub(super) fn last_of_each(accepted: Vec<(Document, Value)>) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    let mut objects: Vec<Value> = accepted
        .into_iter()
        .rev()
        .map(|(_, object)| object)
        .filter(|object| seen.insert(name(object)))
        .collect();
    objects.reverse();
    objects
}

fn name(object: &Value) -> Name {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    (
        text(&object["kind"]),
        text(&metadata["namespace"]),
        text(&metadata["name"]),
    )
}

fn missing(object: &Value, names: &BTreeSet<Name>) -> Vec<Violation> {
    let (_, namespace, _) = name(object);
    let spec = Path::root().field("spec");
    let absent = |kind: &str, reference: &Value| {
        let wanted = reference["name"].as_str()?;
        let name = (kind.to_owned(), namespace.clone(), wanted.to_owned());
        let message = format!("there is no {kind} {wanted} in the text");
        (!names.contains(&name)).then_some(message)
    };
    let mut found = Vec::new();
    let bindings = object["spec"]["bindings"].as_array();
    for (i, binding) in bindings.into_iter().flatten().enumerate() {
        let at = spec.field("bindings").item(i).field("topic").field("name");
        found.extend(absent("Topic", &binding["topic"]).map(|m| Violation::invalid(at, m)));
    }
    let queue = &object["spec"]["deadLetter"]["queueRef"];
    let at = spec.field("deadLetter").field("queueRef").field("name");
    found.extend(absent("Queue", queue).map(|m| Violation::invalid(at, m)));
    found
}

/// Where each queue's dead letters go, if not to its own dead-letter queue.
fn targets(accepted: &[(Document, Value)]) -> BTreeMap<Name, Name> {
    let target = |object: &Value| {
        let (kind, namespace, _) = name(object);
        let target = object["spec"]["deadLetter"]["queueRef"]["name"].as_str()?;
        Some((name(object), (kind, namespace, target.to_owned())))
    };
    accepted
        .iter()
        .filter_map(|(_, object)| target(object))
        .collect()
}

fn circle(object: &Value, targets: &BTreeMap<Name, Name>) -> Option<Violation> {
    // Another resource of this name, in the same text, may have a target.
    object["spec"]["deadLetter"]["queueRef"]["name"].as_str()?;
    let start = name(object);
    let mut way = vec![start.2.clone()];
    let mut at = &start;
    for _ in 0..CIRCLE_MAX {
        at = targets.get(at)?;
        way.push(at.2.clone());
        if *at == start {
            let field = Path::root()
                .field("spec")
                .field("deadLetter")
                .field("queueRef")
                .field("name");
            let message = format!("dead letters go round: {}", way.join(" -> "));
            return Some(Violation::invalid(field, message));
        }
    }
    None
}
