//! Amounts as Kubernetes writes them: bytes (`10Gi`) and processor time (`500m`). Decides which of
//! the many spellings of a Quantity are taken; the bounds are each field's own.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::quantity;

/// Longest text: 15 digits, a point, three more, and a suffix.
const TEXT_BYTES_MAX: usize = 21;
/// Of an integer, which no pattern bounds: more than any bound of ours has.
const INTEGER_DIGITS_MAX: usize = 19;
/// Plain numbers with a decimal or binary suffix; no exponents, no parts of a byte spelled `m`.
const SIZE_PATTERN: &str = r"^[0-9]{1,15}(\.[0-9]{1,3})?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$";
/// The suffixes of that pattern.
const SIZE_SUFFIXES: [&str; 11] = ["", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi"];
/// Whole processors or thousandths.
const CPU_PATTERN: &str = r"^[0-9]{1,6}(\.[0-9]{1,3}|m)?$";

/// A number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Size(String);

/// Processor time a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Cpu(String);

/// A text that is no number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a number of bytes like 512Mi or 10G")]
pub struct ParseSizeError(String);

impl Size {
    /// Wraps a text without looking at it; [`Size::bytes`] does.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of bytes; a part of a byte counts as one, as in Kubernetes.
    ///
    /// # Errors
    /// When the text is not of the accepted form, or does not fit 63 bits.
    pub fn bytes(&self) -> Result<u64, ParseSizeError> {
        parse(&self.0).ok_or_else(|| ParseSizeError(self.0.clone()))
    }

    /// For Kubernetes' own types.
    #[must_use]
    pub fn quantity(&self) -> Quantity {
        Quantity(self.0.clone())
    }
}

impl Cpu {
    /// Wraps a text without looking at it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For Kubernetes' own types.
    #[must_use]
    pub fn quantity(&self) -> Quantity {
        Quantity(self.0.clone())
    }
}

/// The few spellings that fields take, of all those that a quantity may have.
fn parse(text: &str) -> Option<u64> {
    let number_end = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str, len_max| {
        (1..=len_max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    let is_plain = digits(whole, INTEGER_DIGITS_MAX) && digits(fraction, 3);
    if !is_plain || !SIZE_SUFFIXES.contains(&suffix) {
        return None;
    }
    quantity::Quantity::parse(text)?.whole()
}

/// YAML's `10` is an integer; the API server takes it as it takes `"10"`.
fn text_or_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Visitor;

    impl serde::de::Visitor<'_> for Visitor {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a quantity, as text or as an integer")
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_i64<E>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_u64<E>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }

    deserializer.deserialize_any(Visitor)
}

fn schema(pattern: &str) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "pattern": pattern,
        "maxLength": TEXT_BYTES_MAX,
    })
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_integer(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Cpu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_integer(deserializer).map(Self)
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema(SIZE_PATTERN)
    }
}

impl JsonSchema for Cpu {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Cpu".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema(CPU_PATTERN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("10k", 10_000),
            ("10Ki", 10_240),
            ("1.5Gi", 1_610_612_736),
            ("1.001", 2),
            ("16Mi", 16 << 20),
            ("8191Pi", 8191 << 50),
            ("576460752303423488", 512 << 50),
        ] {
            assert_eq!(Size::new(text).bytes(), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "", "10 Gi", "10gi", "-1", "1e3", "100m", ".5Gi", "1.Gi", "8192Pi", "Gi",
        ] {
            assert!(Size::new(text).bytes().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn a_size_may_be_written_as_an_integer() {
        let size: Size = serde_json::from_str("4096").unwrap();
        assert_eq!(size.bytes(), Ok(4096));
    }
}
