//! Tables and amounts as `kubectl` prints them.

use std::time::{Duration, SystemTime};

/// Between two columns.
const GAP: usize = 3;

/// A head and rows of equal length, columns aligned to the left.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + GAP - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `512`, `1.5Ki`, `20Mi`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let mut unit = 0;
    // In tenths, so that small numbers of a unit keep a digit.
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    let (whole, tenth) = (tenths / 10, tenths % 10);
    if tenth == 0 || whole >= 10 {
        format!("{whole}{}", UNITS[unit])
    } else {
        format!("{whole}.{tenth}{}", UNITS[unit])
    }
}

/// `45s`, `3m`, `2h`, `5d`.
pub(crate) fn span(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{}ms", span.as_millis()),
        seconds @ 1..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// How long ago something was; `<none>` when it never was.
pub(crate) fn age(time: Option<prost_types::Timestamp>) -> String {
    match time {
        Some(_) => {
            let ago = SystemTime::now().duration_since(millrace_client::timestamp(time));
            span(Duration::from_secs(
                ago.unwrap_or_default().as_secs().max(1),
            ))
        }
        None => "<none>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["queue/a/b".to_owned(), "1".to_owned()]];
        assert_eq!(
            table(&["NAME", "READY"], &rows),
            "NAME        READY\nqueue/a/b   1\n"
        );
    }

    #[test]
    fn amounts_have_the_digits_that_matter() {
        let pairs = [
            (0, "0"),
            (1023, "1023"),
            (1536, "1.5Ki"),
            (20 << 20, "20Mi"),
        ];
        for (number, text) in pairs {
            assert_eq!(bytes(number), text);
        }
        for (seconds, text) in [
            (1, "1s"),
            (119, "119s"),
            (180, "3m"),
            (7200, "2h"),
            (172_800, "2d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
