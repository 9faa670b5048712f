//! What Kubernetes itself asks of `metadata`: known fields of the right type, and labels and
//! annotations of the right form. Names have bounds in each kind's schema.

use serde_json::{Map, Value};

use super::unknown::field_unknown;
use super::violation::Violation;
use crate::path::Path;

/// Of a label's or annotation's key without its prefix, and of a label's value.
const NAME_BYTES_MAX: usize = 63;
/// Of the prefix of a key.
const PREFIX_BYTES_MAX: usize = 253;
/// Of all annotations of a resource together.
const ANNOTATION_BYTES_MAX: usize = 256 << 10;

/// Type of a field of `metadata`.
#[derive(Clone, Copy)]
enum Type {
    Text,
    Integer,
    Texts,
    List,
    Time,
}

/// Every field of `metav1.ObjectMeta`.
const FIELDS: [(&str, Type); 15] = [
    ("name", Type::Text),
    ("generateName", Type::Text),
    ("namespace", Type::Text),
    ("selfLink", Type::Text),
    ("uid", Type::Text),
    ("resourceVersion", Type::Text),
    ("generation", Type::Integer),
    ("creationTimestamp", Type::Time),
    ("deletionTimestamp", Type::Time),
    ("deletionGracePeriodSeconds", Type::Integer),
    ("labels", Type::Texts),
    ("annotations", Type::Texts),
    ("ownerReferences", Type::List),
    ("finalizers", Type::List),
    ("managedFields", Type::List),
];

/// The first field that is of the wrong type: with it, the API server cannot read the resource at
/// all and says nothing else.
pub(crate) fn unreadable(metadata: &Value) -> Option<Violation> {
    let at = Path::root().field("metadata");
    let fields = match metadata {
        Value::Null => return None,
        Value::Object(fields) => fields,
        _ => return Some(Violation::shape(at, "must be a mapping")),
    };
    FIELDS.iter().find_map(|(name, type_)| {
        let value = fields.get(*name).filter(|value| !value.is_null())?;
        let wrong = mismatch(*type_, value)?;
        Some(Violation::shape(at.field(name), wrong))
    })
}

/// Every field that is not one of `metadata`.
pub(crate) fn unknown(metadata: &Value) -> Vec<Violation> {
    let at = Path::root().field("metadata");
    let known = |name: &str| FIELDS.iter().any(|(field, _)| *field == name);
    let fields = metadata.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| !known(name))
        .map(|(name, _)| field_unknown(at.field(name)))
        .collect()
}

/// What is wrong with the values.
pub(crate) fn check(metadata: &Value) -> Vec<Violation> {
    let at = Path::root().field("metadata");
    let mut found = Vec::new();
    if metadata["name"].as_str().unwrap_or_default().is_empty() {
        found.push(Violation::shape(at.field("name"), "is required"));
    }
    if let Some(namespace) = metadata["namespace"].as_str()
        && !is_dns_label(namespace)
    {
        let message = format!("{namespace:?} is not a DNS label of at most 63 characters");
        found.push(Violation::invalid(at.field("namespace"), message));
    }
    found.extend(labels(&metadata["labels"], &at.field("labels")));
    found.extend(annotations(
        &metadata["annotations"],
        &at.field("annotations"),
    ));
    found
}

fn mismatch(type_: Type, value: &Value) -> Option<&'static str> {
    let is_text = |value: &Value| value.is_string() || value.is_null();
    match type_ {
        Type::Text if !value.is_string() => Some("must be a text"),
        Type::Integer if !value.is_i64() => Some("must be an integer"),
        Type::List if !value.is_array() => Some("must be a list"),
        Type::Texts => match value {
            Value::Object(fields) if fields.values().all(is_text) => None,
            Value::Object(_) => Some("must have texts as values: put numbers and `yes` in quotes"),
            _ => Some("must be a mapping"),
        },
        Type::Time => {
            let time = value.as_str().map(str::parse::<jiff::Timestamp>);
            (!matches!(time, Some(Ok(_)))).then_some("must be a time as 2006-01-02T15:04:05Z")
        }
        Type::Text | Type::Integer | Type::List => None,
    }
}

fn labels(labels: &Value, at: &Path) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, value) in labels.as_object().unwrap_or(&Map::new()) {
        if !is_qualified(key) {
            found.push(Violation::invalid(
                at.clone(),
                format!("{key:?} is no label key"),
            ));
        }
        let value = value.as_str().unwrap_or_default();
        if !value.is_empty() && !is_name(value) {
            found.push(Violation::invalid(
                at.clone(),
                format!("{value:?} is no label value"),
            ));
        }
    }
    found
}

fn annotations(annotations: &Value, at: &Path) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut bytes = 0;
    for (key, value) in annotations.as_object().unwrap_or(&Map::new()) {
        bytes += key.len() + value.as_str().unwrap_or_default().len();
        // Keys of annotations may be in capitals, prefix included.
        if !is_qualified(&key.to_lowercase()) {
            found.push(Violation::invalid(
                at.clone(),
                format!("{key:?} is no annotation key"),
            ));
        }
    }
    if bytes > ANNOTATION_BYTES_MAX {
        let message = format!("have {bytes} bytes, more than {ANNOTATION_BYTES_MAX}");
        found.push(Violation::shape(at.clone(), message));
    }
    found
}

/// `name` or `prefix/name`.
fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name(name),
        None => is_name(key),
    }
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= NAME_BYTES_MAX
        && bytes.iter().copied().all(inner)
        && edge(bytes.first())
        && edge(bytes.last())
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= PREFIX_BYTES_MAX && text.split('.').all(is_label)
}

fn is_dns_label(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && is_label(text)
}

fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.iter().all(|b| plain(*b) || *b == b'-')
        && bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
}
