//! A length of time as people write it: `30s`, `1h30m`, as Go does. Decides the accepted form; the
//! bounds are each field's own.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest text: `2562047h47m16s854ms` is the longest that means something to Go.
const TEXT_BYTES_MAX: usize = 20;
/// What the schema accepts. At most nine digits a part keep CEL's `duration()` from overflowing.
const PATTERN: &str = r"^([0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h))+$";

/// A Go-style duration: numbers with a unit (`ms`, `s`, `m`, `h`), added up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(String);

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a duration like 30s, 5m or 1h30m")]
pub struct ParseSpanError(String);

impl Span {
    /// Wraps a text without looking at it; [`Span::duration`] does.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The length; parts of a millisecond are cut off.
    ///
    /// # Errors
    /// When the text is no duration, or does not fit 64 bits of milliseconds.
    pub fn duration(&self) -> Result<Duration, ParseSpanError> {
        let error = || ParseSpanError(self.0.clone());
        if self.0.is_empty() || self.0.len() > TEXT_BYTES_MAX {
            return Err(error());
        }
        let mut rest = self.0.as_str();
        let mut micros: u64 = 0;
        while !rest.is_empty() {
            let (part, tail) = part(rest).ok_or_else(error)?;
            micros = micros.checked_add(part).ok_or_else(error)?;
            rest = tail;
        }
        Ok(Duration::from_millis(micros / 1000))
    }
}

/// Takes one number with its unit off the front; returns microseconds and what follows.
fn part(text: &str) -> Option<(u64, &str)> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, rest) = text.split_at(unit_at);
    let unit_end = rest
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let unit_micros: u64 = match unit {
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str, len_max| {
        let ok = (1..=len_max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        ok.then(|| text.parse::<u64>().ok()).flatten()
    };
    let thousandths = digits(fraction, 3)? * [100, 10, 1][fraction.len() - 1];
    let whole = digits(whole, 9)?.checked_mul(unit_micros)?;
    Some((whole.checked_add(thousandths * (unit_micros / 1000))?, rest))
}

impl FromStr for Span {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, ParseSpanError> {
        let span = Self::new(text);
        span.duration().map(|_| span)
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": TEXT_BYTES_MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("0.25s", 250),
            ("250ms", 250),
            ("0s", 0),
            ("168h", 604_800_000),
            ("1m1m", 120_000),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(
                span.duration().unwrap(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1d",
            "1 s",
            "1.s",
            ".5s",
            "1.2345s",
            "99999999999h",
            "1us",
            "999999999h9999999999m",
            "1é",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text:?} was taken");
        }
    }
}
