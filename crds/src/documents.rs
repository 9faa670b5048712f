//! YAML with several documents, read as `kubectl` and the API server read it: the scalars of YAML
//! 1.1, merge keys and anchors. Keeps the line of every field. A key that stands twice, or is
//! merged over another, is an error, as it is for a strict API server. (`kubectl` alone would send
//! the last one and say nothing.)
//!
//! Bounded in bytes, documents, depth and what aliases expand to. The only file that knows the YAML
//! library.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Options, Spanned};
use thiserror::Error;

use crate::path::Path;

/// Bytes of a text of documents: room for a hundred thousand small queues. What is larger is not a
/// file somebody wrote.
pub const BYTES_MAX: usize = 32 << 20;
/// As many resources as a cluster is made for.
const DOCUMENTS_MAX: usize = 100_000;
/// Nodes of all documents: about a hundred a document.
const NODES_MAX: usize = 10_000_000;
/// Our deepest field is 7 levels down; the rest is for the error to name a path in.
const DEPTH_MAX: usize = 32;
/// Anchors and aliases are a convenience; nobody needs more of them in one file.
const ANCHORS_MAX: usize = 10_000;
/// Nodes that aliases may expand to.
const REPLAYED_MAX: usize = 100_000;

/// One document.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// Line it begins at, from 1.
    pub(crate) line: u64,
    /// What it says, as JSON.
    pub(crate) value: Value,
    /// Line of each field.
    lines: BTreeMap<String, u64>,
}

/// A text that is no YAML we read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub(crate) struct DocumentError {
    /// From 1.
    pub(crate) line: u64,
    /// What is wrong.
    pub(crate) message: String,
}

impl Document {
    /// The line a field stands at; of the nearest field around it when it is not there.
    pub(crate) fn line_of(&self, path: &Path) -> u64 {
        std::iter::successors(Some(path.clone()), Path::parent)
            .find_map(|path| self.lines.get(&path.to_string()).copied())
            .unwrap_or(self.line)
    }
}

/// Reads the documents; empty ones are left out.
pub(crate) fn parse(yaml: &str) -> Result<Vec<Document>, DocumentError> {
    if yaml.len() > BYTES_MAX {
        let message = format!("{} bytes are more than {BYTES_MAX}", yaml.len());
        return Err(DocumentError { line: 1, message });
    }
    let nodes: Vec<Spanned<Node>> = serde_saphyr::from_multiple_with_options(yaml, options())
        .map_err(|error| {
            let line = error.location().map_or(1, |location| location.line());
            DocumentError {
                line,
                message: error.without_snippet().to_string(),
            }
        })?;
    nodes.into_iter().map(document).collect()
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_documents: DOCUMENTS_MAX,
            max_nodes: NODES_MAX,
            max_events: 2 * NODES_MAX,
            max_anchors: ANCHORS_MAX,
            max_aliases: ANCHORS_MAX,
            max_recorded_anchor_events: REPLAYED_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPLAYED_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        // The library lets a key win over a merged one; we may not.
        merge_keys: MergeKeyPolicy::AsOrdinary,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

/// A key, and what it stands for.
type Entry = (String, Spanned<Node>);

/// The key that brings in the entries of other mappings.
const MERGE: &str = "<<";

/// A YAML node before it is JSON.
enum Node {
    Null,
    Bool(bool),
    Int(Number),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Node>>),
    Map(Vec<Entry>),
}

fn document(node: Spanned<Node>) -> Result<Document, DocumentError> {
    let mut lines = BTreeMap::new();
    let line = node.referenced.line();
    let value = json(node, &Path::root(), &mut lines)?;
    Ok(Document { line, value, lines })
}

fn json(
    node: Spanned<Node>,
    at: &Path,
    lines: &mut BTreeMap<String, u64>,
) -> Result<Value, DocumentError> {
    let line = node.referenced.line();
    lines.insert(at.to_string(), line);
    Ok(match node.value {
        Node::Null => Value::Null,
        Node::Bool(value) => Value::Bool(value),
        Node::Int(value) => Value::Number(value),
        Node::Float(value) => float(value),
        Node::Text(value) => Value::String(value),
        Node::List(items) => {
            let items = items.into_iter().enumerate();
            let items = items.map(|(i, item)| json(item, &at.item(i), lines));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Node::Map(entries) => {
            let mut map = Map::new();
            for (key, value) in merged(entries, line)? {
                let line = value.referenced.line();
                let value = json(value, &at.field(&key), lines)?;
                if map.insert(key.clone(), value).is_some() {
                    let message = format!("duplicate key {key:?}, by a merge");
                    return Err(DocumentError { line, message });
                }
            }
            Value::Object(map)
        }
    })
}

/// The entries of a mapping with those that `<<` brings in; the depth of what is merged is bounded
/// by that of the text.
fn merged(entries: Vec<Entry>, line: u64) -> Result<Vec<Entry>, DocumentError> {
    let mut all = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        if key != MERGE {
            all.push((key, value));
            continue;
        }
        let sources = match value.value {
            Node::List(sources) => sources.into_iter().map(|source| source.value).collect(),
            source => vec![source],
        };
        for source in sources {
            let Node::Map(entries) = source else {
                let message = "a merge key wants a mapping, or a list of them".to_owned();
                return Err(DocumentError { line, message });
            };
            all.extend(merged(entries, line)?);
        }
    }
    Ok(all)
}

/// `1e3` and `5.0` are sent to the API server as `1000` and `5`: Go prints floats that way.
fn float(value: f64) -> Value {
    /// From here on, Go prints an exponent.
    const EXACT_MAX: f64 = 1e15;
    if value.fract() == 0.0 && value.abs() < EXACT_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(yaml: &str) -> Value {
        parse(yaml).unwrap().remove(0).value
    }

    #[test]
    fn scalars_are_those_of_yaml_1_1() {
        assert_eq!(
            value("a: yes\nb: off\nc: 010\nd: 0x10\ne: 1e3\nf: 5.0\ng: ~\nh:\ni: 1.5\nj: '1'"),
            json!({
                "a": true, "b": false, "c": 8, "d": 16, "e": 1000, "f": 5, "g": null, "h": null,
                "i": 1.5, "j": "1",
            })
        );
    }

    #[test]
    fn every_field_has_a_line() {
        let documents = parse("# first\na: 1\nb:\n  - c: 2\n  - d: 3\n---\ne: 4\n").unwrap();
        let path = Path::root().field("b").item(1).field("d");
        assert_eq!(documents[0].line_of(&path), 5);
        assert_eq!(documents[0].line_of(&path.field("absent")), 5);
        assert_eq!(documents[1].line, 7);
    }

    #[test]
    fn empty_documents_are_left_out() {
        assert_eq!(parse("---\n# nothing\n---\na: 1\n---\n").unwrap().len(), 1);
        assert_eq!(parse("").unwrap().len(), 0);
    }

    #[test]
    fn a_key_that_stands_twice_is_an_error_with_its_line() {
        let error = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(error.line, 3);
        assert!(error.message.contains("duplicate"), "{error}");
    }

    #[test]
    fn anchors_and_merge_keys_work() {
        assert_eq!(
            value("a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  e: *x\n")["d"],
            json!({ "b": 1, "c": 2, "e": { "b": 1, "c": 2 } })
        );
        assert_eq!(
            value("a: [&x {b: 1}, &y {c: 2}]\nd: { <<: [*x, *y] }\n")["d"],
            json!({ "b": 1, "c": 2 })
        );
    }

    #[test]
    fn a_merge_that_changes_a_key_is_an_error() {
        for yaml in [
            "a: &x {b: 1}\nd:\n  <<: *x\n  b: 2\n",
            "a: &x {b: 1}\nd:\n  b: 2\n  <<: *x\n",
            "a: [&x {b: 1}, &y {b: 2}]\nd: { <<: [*x, *y] }\n",
            "d:\n  <<: text\n",
        ] {
            assert!(parse(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        use std::fmt::Write as _;

        let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let alias = vec![format!("*a{}", i - 1); 10].join(", ");
            writeln!(yaml, "a{i}: &a{i} [{alias}]").unwrap();
        }
        assert!(parse(&yaml).is_err());
    }

    #[test]
    fn nesting_without_end_is_refused() {
        assert!(parse(&"[".repeat(100_000)).is_err());
        let deep: String = (0..1000)
            .map(|i| format!("{}a:\n", " ".repeat(i)))
            .collect();
        assert!(parse(&deep).is_err());
    }

    #[test]
    fn what_is_no_yaml_is_an_error_with_its_line() {
        assert_eq!(parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err().line, 3);
        assert!(parse("a: 1\n\tb: 2\n").is_err());
    }
}
