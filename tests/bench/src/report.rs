//! What a scenario found: named numbers with units, as a table for people and as one line of JSON.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Count,
    Bytes,
    Seconds,
    Rate,
    ByteRate,
    Ratio,
}

/// One number.
#[derive(Clone, Debug)]
pub struct Figure {
    name: String,
    value: f64,
    unit: Unit,
    /// The largest value that is good.
    aim: Option<f64>,
}

impl Figure {
    fn new(name: impl Into<String>, value: f64, unit: Unit) -> Self {
        let name = name.into();
        let aim = None;
        Self {
            name,
            value,
            unit,
            aim,
        }
    }

    /// A number of things.
    pub fn count(name: impl Into<String>, value: u64) -> Self {
        Self::new(name, value as f64, Unit::Count)
    }

    /// A size.
    pub fn bytes(name: impl Into<String>, value: u64) -> Self {
        Self::new(name, value as f64, Unit::Bytes)
    }

    /// A duration.
    pub fn time(name: impl Into<String>, value: Duration) -> Self {
        Self::new(name, value.as_secs_f64(), Unit::Seconds)
    }

    /// Things in a second.
    pub fn rate(name: impl Into<String>, value: f64) -> Self {
        Self::new(name, value, Unit::Rate)
    }

    /// Bytes in a second.
    pub fn byte_rate(name: impl Into<String>, value: f64) -> Self {
        Self::new(name, value, Unit::ByteRate)
    }

    /// One thing for each of another.
    pub fn ratio(name: impl Into<String>, value: f64) -> Self {
        Self::new(name, value, Unit::Ratio)
    }

    /// The same, which should not be above this many of its unit.
    #[must_use]
    pub const fn at_most(mut self, aim: f64) -> Self {
        self.aim = Some(aim);
        self
    }

    fn key(&self) -> String {
        let unit = match self.unit {
            Unit::Bytes => "_bytes",
            Unit::Seconds => "_seconds",
            Unit::Rate => "_per_second",
            Unit::ByteRate => "_bytes_per_second",
            Unit::Count | Unit::Ratio => "",
        };
        format!("{}{unit}", self.name)
    }

    fn text(&self) -> String {
        show(self.value, self.unit)
    }

    fn verdict(&self) -> String {
        match self.aim {
            None => String::new(),
            Some(aim) if self.value <= aim => format!("ok: at most {}", show(aim, self.unit)),
            Some(aim) => format!("MISSED: at most {}", show(aim, self.unit)),
        }
    }
}

fn show(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Count => format!("{value:.0}"),
        Unit::Bytes => size(value),
        Unit::Seconds if value < 1.0 => format!("{:.3} ms", value * 1e3),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::Rate => format!("{value:.0}/s"),
        Unit::ByteRate => format!("{:.1} MB/s", value / 1e6),
        Unit::Ratio => format!("{value:.3}"),
    }
}

fn size(bytes: f64) -> String {
    const STEPS: [(&str, f64); 3] = [
        ("GiB", (1_u64 << 30) as f64),
        ("MiB", (1_u64 << 20) as f64),
        ("KiB", 1024.0),
    ];
    let step = STEPS.iter().find(|(_, step)| bytes >= *step);
    step.map_or_else(
        || format!("{bytes:.1} B"),
        |(name, step)| format!("{:.2} {name}", bytes / step),
    )
}

/// The value below which this part of a sorted list lies; zero for an empty one.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a list's length is one of its places"
)]
pub fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let place = (last as f64 * part).round() as usize;
    sorted.get(place).copied().unwrap_or_default()
}

/// Everything a scenario found.
#[derive(Clone, Debug)]
pub struct Report {
    scenario: &'static str,
    settings: Map<String, Value>,
    figures: Vec<Figure>,
}

impl Report {
    /// An empty one.
    #[must_use]
    pub fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            settings: Map::new(),
            figures: Vec::new(),
        }
    }

    /// What the scenario was run with.
    pub fn setting(&mut self, name: &str, value: impl Into<Value>) {
        self.settings.insert(name.to_owned(), value.into());
    }

    /// Something it found.
    pub fn push(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// More of it.
    pub fn extend(&mut self, figures: impl IntoIterator<Item = Figure>) {
        self.figures.extend(figures);
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let settings = self
            .settings
            .iter()
            .map(|(name, value)| format!("{name} {value}"));
        let settings: Vec<String> = settings.collect();
        let mut table = format!("{}: {}\n", self.scenario, settings.join(", "));
        let width = |text: fn(&Figure) -> usize| self.figures.iter().map(text).max().unwrap_or(0);
        let (names, values) = (width(|f| f.name.len()), width(|f| f.text().len()));
        for figure in &self.figures {
            let (name, value) = (&figure.name, figure.text());
            let line = format!("  {name:names$}  {value:>values$}  {}", figure.verdict());
            table.push_str(line.trim_end());
            table.push('\n');
        }
        table
    }

    /// For programs: one line.
    #[must_use]
    pub fn json(&self) -> String {
        let figures = self.figures.iter();
        let figures: Map<String, Value> = figures.map(|f| (f.key(), json!(f.value))).collect();
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        json!({
            "scenario": self.scenario,
            "at_unix_seconds": at.map_or(0, |at| at.as_secs()),
            "settings": self.settings,
            "figures": figures,
        })
        .to_string()
    }

    /// Prints both, and appends the JSON to a file if there is one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn publish(&self, out: Option<&Path>) -> Result<()> {
        let json = self.json();
        println!("{}{json}", self.table());
        if let Some(path) = out {
            let file = OpenOptions::new().append(true).create(true).open(path);
            let mut file = file.with_context(|| format!("cannot open {}", path.display()))?;
            writeln!(file, "{json}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_table_and_a_line_with_units_in_its_keys() {
        let mut report = Report::new("restart");
        report.setting("messages", 10);
        report.push(Figure::time("serving", Duration::from_millis(10_500)).at_most(10.0));
        report.push(Figure::bytes("on_disk", 3 << 29));
        let table = report.table();
        assert!(table.starts_with("restart: messages 10\n"), "{table}");
        assert!(table.contains("MISSED: at most 10.00 s"), "{table}");
        assert!(table.contains("1.50 GiB"), "{table}");
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["figures"]["serving_seconds"], 10.5);
        assert_eq!(json["settings"]["messages"], 10);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&sorted, 1.0), Duration::from_millis(100));
        assert_eq!(quantile(&sorted, 0.5), Duration::from_millis(51));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
