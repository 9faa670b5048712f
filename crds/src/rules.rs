//! Rules that several fields share, in CEL: the API server and `check` evaluate the same text.

use kube::core::Rule;

/// An optional field of `self` that stays as it was created: not changed, not added, not removed.
/// Stands at the parent, since a rule at the field itself does not run when it comes or goes.
pub(crate) fn unchangeable(field: &str) -> Rule {
    Rule::new(format!(
        "has(self.{field}) == has(oldSelf.{field}) && \
         (!has(self.{field}) || self.{field} == oldSelf.{field})"
    ))
    .message(format!("{field} cannot be changed, added or removed").as_str())
    .field_path(format!(".{field}"))
}

/// A field that stays as it was created.
pub(crate) fn same(field: &str) -> Rule {
    Rule::new("self == oldSelf").message(format!("{field} cannot be changed").as_str())
}

/// A duration of `min` to `max`, both included.
pub(crate) fn between(min: &str, max: &str) -> Rule {
    Rule::new(format!(
        "duration(self) >= duration('{min}') && duration(self) <= duration('{max}')"
    ))
    .message(format!("must be {min} to {max}").as_str())
}

/// A quantity of bytes of at least `min`, and no larger than anybody's disk.
pub(crate) fn bytes_from(min: &str) -> Rule {
    /// Fits 63 bits, as integers do.
    const MAX: &str = "512Pi";
    Rule::new(format!(
        "quantity(string(self)).compareTo(quantity('{min}')) >= 0 && \
         quantity(string(self)).compareTo(quantity('{MAX}')) <= 0"
    ))
    .message(format!("must be {min} to {MAX}").as_str())
}

/// A quantity of at least `min`.
pub(crate) fn at_least(min: &str) -> Rule {
    Rule::new(format!(
        "quantity(string(self)).compareTo(quantity('{min}')) >= 0"
    ))
    .message(format!("must be at least {min}").as_str())
}

/// A quantity of at most `max`.
pub(crate) fn at_most(max: &str) -> Rule {
    Rule::new(format!(
        "quantity(string(self)).compareTo(quantity('{max}')) <= 0"
    ))
    .message(format!("must be at most {max}").as_str())
}
