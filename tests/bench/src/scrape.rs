//! A broker's own metrics, read over HTTP, and what the scenarios want of them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Longest wait for an answer: a broker with 100 000 queues takes its time.
const LIMIT: Duration = Duration::from_secs(60);

/// One scrape: samples by series, as in `name{label="x"}`.
#[derive(Clone, Debug, Default)]
pub struct Scrape(BTreeMap<String, f64>);

/// The body of a GET that was answered with 200.
///
/// # Errors
/// Nobody answers, or with another status.
pub fn get(at: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("GET {path}: {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

impl Scrape {
    /// Asks a broker.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn of(at: SocketAddr) -> Result<Self> {
        let text = tokio::task::spawn_blocking(move || get(at, "/metrics")).await??;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// The sum of all series of this name; 0 when there is none.
    #[must_use]
    pub fn sum(&self, name: &str) -> f64 {
        self.series(name).map(|(_, value)| value).sum()
    }

    /// The same, of something counted.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters are whole and not negative"
    )]
    pub fn total(&self, name: &str) -> u64 {
        self.sum(name) as u64
    }

    /// Labels and value of all series of this name.
    pub fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.iter().filter_map(move |(series, value)| {
            let labels = series.strip_prefix(name)?;
            let whole = labels.is_empty() || labels.starts_with('{');
            whole.then_some((labels, *value))
        })
    }

    /// The smallest bound of a histogram below which this part of its values lies.
    #[must_use]
    pub fn quantile(&self, name: &str, part: f64) -> f64 {
        let bucket = format!("{name}_bucket");
        let mut buckets: Vec<(f64, f64)> = self
            .series(&bucket)
            .filter_map(|(labels, count)| {
                let bound = labels.split_once("le=\"")?.1.split_once('"')?.0;
                Some((bound.parse().unwrap_or(f64::INFINITY), count))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let wanted = self.sum(&format!("{name}_count")) * part;
        let found = buckets.iter().find(|(_, count)| *count >= wanted);
        found.map_or(0.0, |(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE a counter\na_total{x=\"1\"} 2.0\na_total{x=\"2\"} 3\n\
        a_total_more 9\nh_count 10\nh_bucket{le=\"0.1\"} 5\nh_bucket{le=\"2.5\"} 9\n\
        h_bucket{le=\"+Inf\"} 10\n# EOF\n";

    #[test]
    fn series_of_a_name_are_added_up_and_longer_names_are_others() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.total("a_total"), 5);
        assert_eq!(scrape.total("nothing"), 0);
    }

    #[test]
    fn a_quantile_is_a_bound_of_the_histogram() {
        let scrape = Scrape::parse(TEXT);
        assert!((scrape.quantile("h", 0.5) - 0.1).abs() < f64::EPSILON);
        assert!((scrape.quantile("h", 0.9) - 2.5).abs() < f64::EPSILON);
        assert!(scrape.quantile("h", 1.0).is_infinite());
    }
}
