//! Real lines to stream: the API server's audit log, or the cluster's events where there is none.
//! Each is JSON, differs from all others, and has a subject in it.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::{fs, thread};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::forward::Forward;
use crate::world::World;

/// More would take longer than they prove.
const LINES_MAX: usize = 6000;
/// A young cluster's audit log is shorter; then the API server is asked for what it writes down.
const AUDIT_LINES_WANTED: usize = 3000;
/// What it is asked for.
const ASKED: [&str; 4] = ["configmaps", "endpoints", "pods", "services"];
/// Fewer would not be under way when the broker is killed.
const LINES_MIN: usize = 100;

/// Lines, and where in them key and subject are.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// For people.
    pub(crate) name: &'static str,
    /// JSON objects, in the order they happened.
    pub(crate) lines: Vec<String>,
    /// `--json-key`.
    pub(crate) key: &'static str,
    /// `--json-subject`.
    pub(crate) subject: &'static str,
    /// The subjects of the first queue; the second one has all others.
    pub(crate) first: &'static [&'static str],
    /// The subjects of the second queue.
    pub(crate) second: &'static [&'static str],
}

impl Source {
    /// The best that this cluster has.
    ///
    /// # Errors
    /// When there is too little.
    pub(crate) fn of(world: &World) -> Result<Self> {
        let source = match world.driver.audit_log() {
            Some(path) => {
                let young = Self::audit(&read(&path)?).lines.len();
                ask_for_lines(world, AUDIT_LINES_WANTED.saturating_sub(young))?;
                Self::audit(&read(&path)?)
            }
            None => Self::events(world)?,
        };
        if source.lines.len() < LINES_MIN {
            bail!("only {} lines in the {}", source.lines.len(), source.name);
        }
        Ok(source)
    }

    /// Whether a line belongs to the first queue.
    ///
    /// # Errors
    /// When it is not JSON, or its subject is in neither list.
    pub(crate) fn is_first(&self, line: &str) -> Result<bool> {
        let value: Value = serde_json::from_str(line)?;
        let subject = value[self.subject].as_str().unwrap_or_default();
        if self.first.contains(&subject) {
            return Ok(true);
        }
        if self.second.contains(&subject) {
            return Ok(false);
        }
        bail!("subject {subject:?} is in neither queue")
    }

    fn audit(text: &str) -> Self {
        let mut source = Self {
            name: "API server's audit log",
            lines: Vec::new(),
            key: "auditID",
            subject: "verb",
            first: &["create", "update", "patch", "delete", "deletecollection"],
            second: &["get", "list", "watch"],
        };
        // The last line may be half written.
        let whole = &text[..text.rfind('\n').unwrap_or(0)];
        source.lines = source.usable(whole.lines().map(str::to_owned));
        source
    }

    fn events(world: &World) -> Result<Self> {
        let mut source = Self {
            name: "cluster's events",
            lines: Vec::new(),
            key: "reason",
            subject: "type",
            first: &["Warning"],
            second: &["Normal"],
        };
        let events = world.shell.json(&["get", "events", "-A"])?;
        let items = events["items"].as_array().cloned().unwrap_or_default();
        source.lines = source.usable(items.iter().map(Value::to_string));
        Ok(source)
    }

    /// Lines that have a subject, each once, the newest [`LINES_MAX`].
    fn usable(&self, lines: impl Iterator<Item = String>) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let fit = |line: &String| self.is_first(line).is_ok() && seen.insert(line.clone());
        let all: Vec<String> = lines.filter(fit).collect();
        all[all.len().saturating_sub(LINES_MAX)..].to_vec()
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Makes the API server write this many lines: requests on one connection, one behind the other.
fn ask_for_lines(world: &World, count: usize) -> Result<()> {
    let Some(last) = count.checked_sub(1) else {
        return Ok(());
    };
    let api = Forward::api(&world.shell)?;
    let mut requests = TcpStream::connect(("127.0.0.1", api.port()))?;
    let mut answers = requests.try_clone()?;
    let read = thread::spawn(move || io::copy(&mut answers, &mut io::sink()));
    for (asked, number) in ASKED.iter().cycle().zip(0..count) {
        let ending = if number == last {
            "Connection: close\r\n"
        } else {
            ""
        };
        let path = format!("/api/v1/namespaces/default/{asked}?limit=1");
        write!(
            requests,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{ending}\r\n"
        )?;
    }
    let read = read.join().ok().context("reading answers panicked")?;
    read.map(drop).context("the API server's answers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_written_foreign_and_repeated_lines_are_left_out() {
        let text = "{\"verb\":\"get\",\"n\":1}\n{\"verb\":\"get\",\"n\":1}\nnoise\n\
                    {\"verb\":\"approve\"}\n{\"verb\":\"create\"}\n{\"verb\":\"li";
        let source = Source::audit(text);
        assert_eq!(
            source.lines,
            ["{\"verb\":\"get\",\"n\":1}", "{\"verb\":\"create\"}"]
        );
        assert!(source.is_first(&source.lines[1]).unwrap());
        assert!(!source.is_first(&source.lines[0]).unwrap());
    }
}
