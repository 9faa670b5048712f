//! What is wrong with a field, before it has a line.

use crate::path::Path;

/// A field that is not as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Which.
    pub(crate) at: Path,
    /// In what way.
    pub(crate) kind: Kind,
    /// For people.
    pub(crate) message: String,
}

/// In what way a field is wrong, as far as it decides what else is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The resource is not of the shape its rules speak of: they are not evaluated.
    Shape,
    /// Only the value is wrong.
    Invalid,
}

impl Violation {
    pub(crate) fn new(at: Path, kind: Kind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { at, kind, message }
    }

    pub(crate) fn shape(at: Path, message: impl Into<String>) -> Self {
        Self::new(at, Kind::Shape, message)
    }

    pub(crate) fn invalid(at: Path, message: impl Into<String>) -> Self {
        Self::new(at, Kind::Invalid, message)
    }
}
