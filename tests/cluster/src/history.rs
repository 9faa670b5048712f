//! Who called what on one log, when, and what came back; and what an existing checker (Porcupine)
//! says of it: whether there is an order in which each call took effect at one moment between its
//! start and its end.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use millrace_client::{Applied, Client, Message, Position, PublisherOptions, ReadOptions};
use serde::Serialize;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::chance::Chance;

/// Each waits this long between two calls: some thousand of them in a minute, which the checker
/// takes in its stride.
const PAUSE: Duration = Duration::from_millis(25);
/// Who appends and who reads.
const APPENDERS: usize = 4;
const READERS: usize = 3;
/// Reads look at one of the last so many.
const RECENT: u64 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Append,
    Read,
    End,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Call {
    client: usize,
    kind: Kind,
    value: u64,
    offset: u64,
    unknown: bool,
    called: u64,
    returned: u64,
}

/// The calls so far. Clones share them.
#[derive(Clone, Debug)]
pub struct History {
    start: Instant,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            calls: Arc::default(),
        }
    }
}

impl History {
    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn add(&self, client: usize, kind: Kind, (value, offset): (u64, u64), called: u64) {
        let returned = self.now();
        self.calls().push(Call {
            client,
            kind,
            value,
            offset,
            unknown: false,
            called,
            returned,
        });
    }

    fn add_unknown(&self, client: usize, value: u64, called: u64) {
        self.calls().push(Call {
            client,
            kind: Kind::Append,
            value,
            offset: 0,
            unknown: true,
            called,
            returned: called,
        });
    }

    /// How many calls came to an end.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls().is_empty()
    }

    /// Asks the checker. Returns what it says.
    ///
    /// # Errors
    /// The history fits no order, or the checker cannot be built or does not come to an end.
    pub fn check(&self) -> Result<String> {
        let (_directory, checker) = build()?;
        let mut child = Command::new(checker)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = Vec::new();
        for call in self.calls().iter() {
            serde_json::to_writer(&mut lines, call)?;
            lines.push(b'\n');
        }
        child
            .stdin
            .take()
            .context("stdin is piped")?
            .write_all(&lines)?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            let kept = std::env::temp_dir().join("millrace-history.json");
            std::fs::write(&kept, &lines)?;
            bail!("{said}; the history is in {}", kept.display());
        }
        Ok(said)
    }
}

/// The checker is a Go program of a few lines around the library.
fn build() -> Result<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("linearizability");
    let status = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/linearizability"))
        .status()
        .context("the checker is built by Go, which is not here")?;
    if !status.success() {
        bail!("the checker cannot be built: {status}");
    }
    Ok((directory, program))
}

/// Appends to a topic of one partition and reads from it until told to stop; each through the
/// client it is given, round and round.
///
/// # Errors
/// The topic is not there.
pub async fn record(
    clients: &[Client],
    topic: &str,
    history: &History,
    stop: &watch::Receiver<bool>,
) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..APPENDERS + READERS {
        let client = clients[number % clients.len()].clone();
        let (topic, history, stop) = (topic.to_owned(), history.clone(), stop.clone());
        tasks.spawn(async move {
            if number < APPENDERS {
                append(number, &client, &topic, &history, stop).await
            } else {
                read(number, &client, &topic, &history, stop).await
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn append(
    number: usize,
    client: &Client,
    topic: &str,
    history: &History,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let options = PublisherOptions {
        give_up_after: Some(Duration::from_secs(20)),
        ..PublisherOptions::default()
    };
    let publisher = client.publisher(topic, options);
    let mut value = (number as u64) << 32;
    while !*stop.borrow() {
        value += 1;
        let message = Message {
            payload: value.to_string().into_bytes().into(),
            ..Message::default()
        };
        let called = history.now();
        match publisher.publish(message).await {
            Ok(ack) => {
                let offset = ack.offset.context("an acknowledgement names the offset")?;
                history.add(number, Kind::Append, (value, offset), called);
            }
            Err(error) if error.applied == Applied::No => {}
            Err(_) => history.add_unknown(number, value, called),
        }
        tokio::time::sleep(PAUSE).await; // polls: at this pace
    }
    Ok(())
}

async fn read(
    number: usize,
    client: &Client,
    topic: &str,
    history: &History,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let reader = client.reader(topic);
    let mut chance = Chance::new(number as u64);
    let mut end = 0_u64;
    while !*stop.borrow() {
        // Only who asks for the latest place is told where the log ends now; a read of what was
        // stored before may be answered by whoever has it.
        let (kind, from) = if chance.once_in(2) {
            (Kind::End, Position::Latest)
        } else {
            let from = end.saturating_sub(chance.below(RECENT));
            (Kind::Read, Position::Offset(from))
        };
        let options = ReadOptions {
            partition: 0,
            from,
            messages_max: 1,
            bytes_max: 0,
        };
        let called = history.now();
        // What fails tells nothing.
        if let Ok(answer) = reader.read(options).await {
            end = end.max(answer.available.end);
            match (kind, answer.messages.first()) {
                (Kind::End, _) => history.add(number, kind, (0, answer.next), called),
                (_, Some(message)) => {
                    let text = std::str::from_utf8(&message.message.payload)?;
                    history.add(number, kind, (text.parse()?, message.offset), called);
                }
                (_, None) => {}
            }
        }
        tokio::time::sleep(PAUSE).await; // polls: at this pace
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(calls: &[(Kind, u64, u64)]) -> History {
        let history = History::default();
        for (kind, value, offset) in calls {
            let called = history.now();
            history.add(0, *kind, (*value, *offset), called);
        }
        history
    }

    #[test]
    fn a_read_that_misses_what_was_appended_before_it_is_found() {
        let good = [(Kind::Append, 7, 0), (Kind::End, 0, 1), (Kind::Read, 7, 0)];
        assert!(history(&good).check().is_ok());
        let stale = [(Kind::Append, 7, 0), (Kind::End, 0, 0)];
        let error = history(&stale).check().unwrap_err().to_string();
        assert!(error.contains("Illegal"), "{error}");
    }

    #[test]
    fn what_nobody_knows_may_have_happened_or_not() {
        for end in [0, 1] {
            let history = History::default();
            history.add_unknown(0, 5, 1);
            let called = history.now();
            history.add(1, Kind::End, (0, end), called);
            assert!(history.check().is_ok());
        }
    }
}
