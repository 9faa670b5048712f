//! Which messages a binding wants: subject pattern and header conditions. Used by whoever proposes
//! transfers and by the catalogue to refuse bad patterns; `apply` never evaluates one.

mod pattern;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use millrace_types::{CONDITION_VALUE_BYTES_MAX, CONDITIONS_MAX, HEADER_NAME_BYTES_MAX};
use thiserror::Error;

pub use pattern::{PATTERN_WORDS_MAX, Pattern, PatternError};

use crate::spec::{Filter, HeaderCondition};

/// Why a filter cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterError {
    /// Its pattern is wrong.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Too many header conditions.
    #[error("{0} header conditions are more than {CONDITIONS_MAX}")]
    Conditions(usize),
    /// A header name is empty or too long.
    #[error("header name {0:?} is not of 1 to {HEADER_NAME_BYTES_MAX} bytes")]
    HeaderName(String),
    /// The value wanted of a header is too long.
    #[error("the value of header {0:?} has more than {CONDITION_VALUE_BYTES_MAX} bytes")]
    HeaderValue(String),
}

/// A filter made ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    pattern: Pattern,
    conditions: Vec<HeaderCondition>,
    any: bool,
}

impl Matcher {
    /// Checks a filter.
    ///
    /// # Errors
    /// When its pattern or a header name is wrong.
    pub fn new(filter: &Filter) -> Result<Self, FilterError> {
        if filter.headers.len() > CONDITIONS_MAX {
            return Err(FilterError::Conditions(filter.headers.len()));
        }
        for condition in &filter.headers {
            if condition.name.is_empty() || condition.name.len() > HEADER_NAME_BYTES_MAX {
                return Err(FilterError::HeaderName(condition.name.to_string()));
            }
            let value_bytes = condition.value.as_ref().map_or(0, String::len);
            if value_bytes > CONDITION_VALUE_BYTES_MAX {
                return Err(FilterError::HeaderValue(condition.name.to_string()));
            }
        }
        Ok(Self {
            pattern: Pattern::parse(&filter.pattern)?,
            conditions: filter.headers.clone(),
            any: filter.any,
        })
    }

    /// Whether a message matches. `header_is(name, value)` says whether the message has such a
    /// header with that value as text, or with any value when it is `None`.
    ///
    /// Without header conditions the subject alone decides.
    pub fn matches(
        &self,
        subject: &str,
        mut header_is: impl FnMut(&str, Option<&str>) -> bool,
    ) -> bool {
        let mut holds = |c: &HeaderCondition| header_is(&c.name, c.value.as_deref());
        self.pattern.matches(subject)
            && (self.conditions.is_empty()
                || if self.any {
                    self.conditions.iter().any(&mut holds)
                } else {
                    self.conditions.iter().all(&mut holds)
                })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(any: bool, headers: &[(&str, Option<&str>)]) -> Filter {
        Filter {
            pattern: "orders.#".into(),
            headers: headers
                .iter()
                .map(|(name, value)| HeaderCondition {
                    name: (*name).into(),
                    value: value.map(Into::into),
                })
                .collect(),
            any,
        }
    }

    type Headers<'a> = &'a [(&'a str, &'a str)];

    fn takes(filter: &Filter, subject: &str, headers: Headers<'_>) -> bool {
        Matcher::new(filter)
            .unwrap()
            .matches(subject, |name, value| {
                headers
                    .iter()
                    .any(|(n, v)| *n == name && value.is_none_or(|value| value == *v))
            })
    }

    #[test]
    fn all_conditions_have_to_hold_unless_any_is_enough() {
        let conditions = [("region", Some("eu")), ("trace", None)];
        let (all, any) = (filter(false, &conditions), filter(true, &conditions));
        let cases: [(Headers<'_>, bool, bool); 5] = [
            (&[], false, false),
            (&[("region", "eu")], false, true),
            (&[("region", "us")], false, false),
            (&[("trace", "")], false, true),
            (&[("region", "eu"), ("trace", "1")], true, true),
        ];
        for (headers, by_all, by_any) in cases {
            assert_eq!(takes(&all, "orders.new", headers), by_all, "{headers:?}");
            assert_eq!(takes(&any, "orders.new", headers), by_any, "{headers:?}");
        }
    }

    #[test]
    fn without_conditions_the_subject_alone_decides() {
        for any in [false, true] {
            assert!(takes(&filter(any, &[]), "orders.new", &[]));
            assert!(!takes(&filter(any, &[]), "bills.new", &[("region", "eu")]));
        }
    }

    #[test]
    fn a_nameless_header_condition_is_refused() {
        let error = Matcher::new(&filter(false, &[("", None)])).unwrap_err();
        assert_eq!(error, FilterError::HeaderName("".into()));
    }

    #[test]
    fn conditions_are_so_many_and_so_long_at_most() {
        let longest = "x".repeat(CONDITION_VALUE_BYTES_MAX);
        let condition = ("region", Some(longest.as_str()));
        Matcher::new(&filter(true, &[condition; CONDITIONS_MAX])).unwrap();
        let many = Matcher::new(&filter(true, &[condition; CONDITIONS_MAX + 1]));
        let conditions = CONDITIONS_MAX + 1;
        assert_eq!(many, Err(FilterError::Conditions(conditions)));
        let longer = Matcher::new(&filter(true, &[("region", Some(&(longest + "x")))]));
        assert_eq!(longer, Err(FilterError::HeaderValue("region".into())));
    }
}
