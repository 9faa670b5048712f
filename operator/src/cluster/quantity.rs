//! Quantities that say the same in different words: the API server stores `1024Mi` as `1Gi`.

/// Whether both texts are quantities of equal value.
#[must_use]
pub(super) fn equal(left: &str, right: &str) -> bool {
    matches!((millis(left), millis(right)), (Some(left), Some(right)) if left == right)
}

/// The value in thousandths; `None` when the text is no quantity, or one with more digits than the
/// operator ever writes.
fn millis(text: &str) -> Option<i128> {
    let unit_at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty()
        || whole.len() > 15
        || fraction.len() > 3
        || !digits(whole)
        || !digits(fraction)
    {
        return None;
    }
    let thousandths: i128 = format!("{whole}{fraction:0<3}").parse().ok()?;
    match unit {
        "m" => Some(thousandths / 1000),
        "" => Some(thousandths),
        "k" => Some(thousandths * 1_000),
        "M" => Some(thousandths * 1_000_000),
        "G" => Some(thousandths * 1_000_000_000),
        "T" => Some(thousandths * 1_000_000_000_000),
        "P" => Some(thousandths * 1_000_000_000_000_000),
        "Ki" => Some(thousandths << 10),
        "Mi" => Some(thousandths << 20),
        "Gi" => Some(thousandths << 30),
        "Ti" => Some(thousandths << 40),
        "Pi" => Some(thousandths << 50),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_quantities_are_equal_however_they_are_written() {
        for (left, right) in [
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("500m", "0.5"),
            ("2000m", "2"),
            ("1000", "1k"),
        ] {
            assert!(equal(left, right), "{left} and {right}");
        }
    }

    #[test]
    fn other_texts_are_not_equal() {
        for (left, right) in [
            ("1Gi", "1G"),
            ("a", "b"),
            ("", ""),
            ("1e3", "1000"),
            ("1", "2"),
        ] {
            assert!(!equal(left, right), "{left} and {right}");
        }
    }
}
