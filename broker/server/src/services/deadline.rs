//! How long the caller of a unary call waits, as gRPC tells it.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// Digits that gRPC allows.
const DIGITS_MAX: usize = 8;

/// What is left of the call's time; `None` when the caller waits for ever, or says nothing that can
/// be read.
pub(crate) fn of(metadata: &MetadataMap) -> Option<Duration> {
    parse(metadata.get("grpc-timeout")?.to_str().ok()?)
}

fn parse(text: &str) -> Option<Duration> {
    let digits = text.get(..text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match text.get(digits.len()..)? {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_a_number_and_a_unit() {
        for (text, seconds) in [("2H", 7_200), ("3M", 180), ("4S", 4), ("5000m", 5)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("6u"), Some(Duration::from_micros(6)));
        assert_eq!(parse("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for text in [
            "",
            "S",
            "1",
            "-1S",
            "1.5S",
            "123456789S",
            "1s",
            "1S ",
            "\u{e9}",
            "1\u{e9}",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
