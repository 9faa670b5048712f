//! Kubernetes' Quantity, as CEL's `quantity()` reads it: more spellings than our fields take, so
//! that a rule says the same here and there about a text that another rule refuses. The only place
//! that reads one: two texts of one amount are equal, as the API server stores `1024Mi` as `1Gi`.

/// Billionths, exactly: `n` is the smallest unit there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

/// More digits than any quantity of sense, few enough not to overflow.
const DIGITS_MAX: usize = 22;
/// In each whole one.
const ONE: i128 = 1_000_000_000;

impl Quantity {
    /// Reads a signed decimal number with a suffix or an exponent; `None` when it is none, or has
    /// more digits than anybody needs.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (sign, rest) = match text.as_bytes().first()? {
            b'-' => (-1, &text[1..]),
            b'+' => (1, &text[1..]),
            _ => (1, text),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || digits.len() > DIGITS_MAX || fraction.contains('.') {
            return None;
        }
        let digits: i128 = digits.parse().ok()?;
        let unit = unit_billionths(suffix)?;
        let fraction_unit = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
        let scaled = digits.checked_mul(unit)?;
        // Parts of a billionth count as a whole one, as in Kubernetes.
        let amount = scaled / fraction_unit + i128::from(scaled % fraction_unit != 0);
        Some(Self(sign * amount))
    }

    /// The amount in whole ones; a part counts as one, as in Kubernetes. `None` when it is negative
    /// or does not fit 63 bits, as Kubernetes' integers do.
    #[must_use]
    pub fn whole(self) -> Option<u64> {
        let whole = self.0 / ONE + i128::from(self.0 % ONE > 0);
        let whole = i64::try_from(whole).ok()?;
        u64::try_from(whole).ok()
    }
}

fn unit_billionths(suffix: &str) -> Option<i128> {
    Some(match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => ONE,
        "k" => ONE * 1_000,
        "M" => ONE * 1_000_000,
        "G" => ONE * 1_000_000_000,
        "T" => ONE * 1_000_000_000_000,
        "P" => ONE * 1_000_000_000_000_000,
        "E" => ONE * 1_000_000_000_000_000_000,
        "Ki" => ONE << 10,
        "Mi" => ONE << 20,
        "Gi" => ONE << 30,
        "Ti" => ONE << 40,
        "Pi" => ONE << 50,
        "Ei" => ONE << 60,
        _ => return exponent_billionths(suffix.strip_prefix(['e', 'E'])?),
    })
}

fn exponent_billionths(exponent: &str) -> Option<i128> {
    let exponent: i32 = exponent.parse().ok()?;
    let power = u32::try_from(exponent.checked_add(9)?).ok()?;
    10_i128.checked_pow(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_amount_is_the_same() {
        for (a, b) in [
            ("1Ki", "1024"),
            ("1.5k", "1500"),
            ("500m", "0.5"),
            ("1e3", "1000"),
            ("1E", "1000P"),
            ("+2", "2"),
            ("-1e-3", "-1m"),
        ] {
            assert!(Quantity::parse(a).is_some(), "{a}");
            assert_eq!(Quantity::parse(a), Quantity::parse(b), "{a} and {b}");
        }
    }

    #[test]
    fn parts_count_as_a_whole_one_and_only_what_fits_counts() {
        for (text, whole) in [
            ("1.001", Some(2)),
            ("1Gi", Some(1 << 30)),
            ("0", Some(0)),
            ("-1", None),
            ("8191Pi", Some(8191 << 50)),
            ("8192Pi", None),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().whole(), whole, "{text}");
        }
    }

    #[test]
    fn different_amounts_are_not_equal() {
        for (a, b) in [("1Gi", "1G"), ("1", "2"), ("500m", "5")] {
            assert_ne!(Quantity::parse(a), Quantity::parse(b), "{a} and {b}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "",
            "-",
            "Ki",
            "1KiB",
            "1 k",
            "1.2.3",
            "1e",
            "abc",
            "1e99999999999",
        ] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }
}
