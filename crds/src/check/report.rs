//! What a check found, for people: each problem with its line, resource and field.

use std::fmt;

use serde_json::Value;

use super::violation::Violation;
use crate::documents::Document;

/// What was found in a text.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The resources that are right, with defaults and namespace filled in, as the API server would
    /// store them. Of several with one name, the last.
    pub objects: Vec<Value>,
    /// Why the API server would refuse the text.
    pub errors: Vec<Problem>,
    /// What will not work as it stands, but may once other resources are there.
    pub warnings: Vec<Problem>,
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In the text, from 1.
    pub line: u64,
    /// Kind and name of the resource, as far as it has them.
    pub object: String,
    /// Path of the field, as the API server prints it; empty when it is not about one field.
    pub field: String,
    /// What is wrong, for people.
    pub message: String,
}

impl Report {
    /// Whether the API server would take every document.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.errors.is_empty()
    }

    /// A text that says nothing.
    pub(crate) fn unreadable(line: u64, message: String) -> Self {
        let problem = Problem {
            line,
            object: String::new(),
            field: String::new(),
            message,
        };
        Self {
            errors: vec![problem],
            ..Self::default()
        }
    }

    /// Adds what is wrong with a document; one problem a field and message is enough.
    pub(super) fn refuse(&mut self, document: &Document, violations: Vec<Violation>) {
        let problems = violations.into_iter().map(|v| Problem::new(document, v));
        for problem in problems {
            if !self.errors.contains(&problem) {
                self.errors.push(problem);
            }
        }
    }
}

impl Problem {
    pub(super) fn new(document: &Document, violation: Violation) -> Self {
        Self {
            line: document.line_of(&violation.at),
            object: name_of(&document.value),
            field: violation.at.to_string(),
            message: violation.message,
        }
    }
}

/// `Queue orders`, or as much of it as there is.
fn name_of(object: &Value) -> String {
    let kind = object["kind"].as_str();
    let name = object["metadata"]["name"].as_str();
    let words: Vec<&str> = kind.into_iter().chain(name).collect();
    words.join(" ")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        for part in [&self.object, &self.field, &self.message] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        Ok(())
    }
}

/// The errors, one a line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.errors.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
