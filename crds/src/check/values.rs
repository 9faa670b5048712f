//! Holds a value against the bounds in its schema: types, required fields, lengths, patterns,
//! ranges. Covers what our schemas use.

use std::collections::HashMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use regex::Regex;
use serde_json::{Map, Value};

use super::rules::property;
use super::violation::Violation;
use crate::path::Path;

/// Compiled patterns, by their text.
#[derive(Default)]
pub(crate) struct Values {
    patterns: HashMap<String, Option<Regex>>,
}

impl Values {
    /// Adds what `schema` says against `value`.
    pub(crate) fn check(
        &mut self,
        schema: &JSONSchemaProps,
        value: &Value,
        at: &Path,
        found: &mut Vec<Violation>,
    ) {
        let expected = expected(schema);
        let actual = type_of(value);
        if !expected.contains(&actual) {
            let expected = expected.join(" or ");
            let message = format!("must be of type {expected}, not {actual}");
            found.push(Violation::shape(at.clone(), message));
            return;
        }
        found.extend(not_listed(schema, value, at));
        match value {
            Value::String(text) => self.text(schema, text, at, found),
            Value::Number(number) => found.extend(out_of_range(schema, number.as_f64(), at)),
            Value::Array(items) => self.items(schema, items, at, found),
            Value::Object(fields) => self.fields(schema, fields, at, found),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn text(
        &mut self,
        schema: &JSONSchemaProps,
        text: &str,
        at: &Path,
        found: &mut Vec<Violation>,
    ) {
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(max) = schema.max_length.filter(|max| length > *max) {
            let message = format!("has {length} characters, more than {max}");
            found.push(Violation::shape(at.clone(), message));
        }
        if let Some(min) = schema.min_length.filter(|min| length < *min) {
            let message = format!("has {length} characters, less than {min}");
            found.push(Violation::invalid(at.clone(), message));
        }
        if let Some(pattern) = &schema.pattern
            && !self.matches(pattern, text)
        {
            let message = format!("{text:?} does not match {pattern}");
            found.push(Violation::invalid(at.clone(), message));
        }
    }

    /// A pattern that does not compile matches nothing: the tests would find it.
    fn matches(&mut self, pattern: &str, text: &str) -> bool {
        if !self.patterns.contains_key(pattern) {
            self.patterns
                .insert(pattern.to_owned(), Regex::new(pattern).ok());
        }
        self.patterns[pattern]
            .as_ref()
            .is_some_and(|p| p.is_match(text))
    }

    fn items(
        &mut self,
        schema: &JSONSchemaProps,
        items: &[Value],
        at: &Path,
        found: &mut Vec<Violation>,
    ) {
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        if let Some(max) = schema.max_items.filter(|max| count > *max) {
            let message = format!("has {count} items, more than {max}");
            found.push(Violation::shape(at.clone(), message));
        }
        if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
            for (i, item) in items.iter().enumerate() {
                self.check(schema, item, &at.item(i), found);
            }
        }
        found.extend(repeated(schema, items, at));
    }

    fn fields(
        &mut self,
        schema: &JSONSchemaProps,
        fields: &Map<String, Value>,
        at: &Path,
        found: &mut Vec<Violation>,
    ) {
        let count = i64::try_from(fields.len()).unwrap_or(i64::MAX);
        if let Some(max) = schema.max_properties.filter(|max| count > *max) {
            let message = format!("has {count} entries, more than {max}");
            found.push(Violation::shape(at.clone(), message));
        }
        for name in schema.required.iter().flatten() {
            if !fields.contains_key(name) {
                found.push(Violation::shape(at.field(name), "is required"));
            }
        }
        for (name, field) in fields {
            if let Some(schema) = property(schema, name) {
                self.check(schema, field, &at.field(name), found);
            }
        }
    }
}

fn expected(schema: &JSONSchemaProps) -> Vec<&str> {
    if schema.x_kubernetes_int_or_string == Some(true) {
        return vec!["integer", "string"];
    }
    schema.type_.as_deref().into_iter().collect()
}

/// As the API server calls it; an integer beyond 64 bits is only a number there.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn not_listed(schema: &JSONSchemaProps, value: &Value, at: &Path) -> Option<Violation> {
    let listed = schema.enum_.as_ref()?;
    if listed.iter().any(|item| item.0 == *value) {
        return None;
    }
    let listed: Vec<String> = listed.iter().map(|item| item.0.to_string()).collect();
    let message = format!("{value} is none of {}", listed.join(", "));
    Some(Violation::shape(at.clone(), message))
}

fn out_of_range(schema: &JSONSchemaProps, number: Option<f64>, at: &Path) -> Option<Violation> {
    let number = number?;
    if let Some(min) = schema.minimum.filter(|min| number < *min) {
        let message = format!("{number} is less than {min}");
        return Some(Violation::invalid(at.clone(), message));
    }
    let max = schema.maximum.filter(|max| number > *max)?;
    let message = format!("{number} is more than {max}");
    Some(Violation::invalid(at.clone(), message))
}

/// Items of a list that is a map by some of its fields, and have the same key as one before.
fn repeated(schema: &JSONSchemaProps, items: &[Value], at: &Path) -> Vec<Violation> {
    let Some(keys) = &schema.x_kubernetes_list_map_keys else {
        return Vec::new();
    };
    let key = |item: &Value| -> Vec<Value> {
        let fields = keys.iter().map(|key| item.get(key).cloned());
        fields.map(Option::unwrap_or_default).collect()
    };
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let key = key(item);
        if seen.contains(&key) {
            found.push(Violation::invalid(at.item(i), "is there already"));
        } else {
            seen.push(key);
        }
    }
    found
}
