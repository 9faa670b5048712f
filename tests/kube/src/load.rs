//! Messages in motion while something happens: a publisher and a consumer in the cluster, numbered
//! lines between them, and a ledger of both ends.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::broker::Broker;
use crate::pods;
use crate::wait;
use crate::world::{CLIENTS, CLUSTER, World};

/// Between two lines.
const PACE: Duration = Duration::from_millis(5);
/// How long both ends keep trying: longer than a node is away in these tests.
const PATIENCE: &str = "180s";
/// The consumer ends by itself when nothing has come for this long; it is ended before.
const QUIET: &str = "300s";
/// Until pods run and the first line has arrived.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Until everything is consumed that was published.
const END_LIMIT: Duration = Duration::from_secs(240);

/// A stream of lines through a queue.
pub(crate) struct Load {
    name: &'static str,
    namespace: String,
    address: String,
    publisher: Child,
    feeder: JoinHandle<io::Result<u64>>,
    stop: Sender<()>,
}

impl Load {
    /// Starts both ends and waits until lines arrive.
    ///
    /// # Errors
    /// When a pod does not start, or nothing arrives.
    pub(crate) fn start(world: &World, name: &'static str, namespace: &str) -> Result<Self> {
        let address = format!("queue/{namespace}/load");
        let server = format!("http://{CLUSTER}.{namespace}:7070");
        let both = [address.as_str(), "--server", &server, "--timeout", PATIENCE];
        let consume = ["--wait", QUIET, "--format", "raw"];
        let consume = [&["consume"][..], &both, &consume].concat();
        pods::start(world, &consumer(name), &consume)?;
        let publish = [&["publish"][..], &both, &["--lines"]].concat();
        let mut command = pods::attached(world, &publisher(name), &publish);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut publisher = command.spawn().context("cannot start kubectl")?;
        let pipe = publisher.stdin.take().context("stdin is piped")?;
        let (stop, stopped) = mpsc::channel();
        let feeder = thread::spawn(move || feed(pipe, name, &stopped));
        let load = Self {
            name,
            namespace: namespace.to_owned(),
            address,
            publisher,
            feeder,
            stop,
        };
        let runs = wait::until_true("the first line arrives", START_LIMIT, || {
            Ok(load.arrived(world)? > 0)
        });
        if let Err(error) = runs {
            end_consumer(world, name)?;
            return Err(error);
        }
        Ok(load)
    }

    /// The number of the line that arrived last.
    ///
    /// # Errors
    /// When the consumer's log cannot be read.
    pub(crate) fn arrived(&self, world: &World) -> Result<u64> {
        let pod = consumer(self.name);
        // What it says for people is in between.
        let last = ["logs", "-n", CLIENTS, &pod, "--tail=50"];
        let last = world.shell.kubectl(&last)?;
        let mut lines = last.lines().rev();
        let number = lines.find_map(|line| line.strip_prefix(&prefix(self.name)));
        Ok(number.and_then(|number| number.parse().ok()).unwrap_or(0))
    }

    /// Waits until some more lines have arrived.
    ///
    /// # Errors
    /// When they do not.
    pub(crate) fn goes_on(&self, world: &World, limit: Duration) -> Result<()> {
        /// More than pipes and prefetched deliveries hold.
        const LINES: u64 = 500;
        let before = self.arrived(world)?;
        wait::until_true("lines go on arriving", limit, || {
            Ok(self.arrived(world)? >= before + LINES)
        })
    }

    /// Ends the stream and enters all of it into the ledger: what was acknowledged, what arrived.
    ///
    /// # Errors
    /// When a line was not acknowledged, did not arrive, or was not settled.
    pub(crate) fn finish(self, world: &mut World) -> Result<()> {
        let name = self.name;
        let result = self.settle(world);
        end_consumer(world, name)?;
        result?;
        let balance = world.ledger.balance();
        let is_whole = balance.lost == 0 && balance.misrouted == 0;
        ensure!(is_whole, "{}", world.ledger);
        Ok(())
    }

    /// Ends the publisher, waits for the consumer, and enters what they say into the ledger.
    fn settle(self, world: &mut World) -> Result<()> {
        let Self {
            name,
            namespace,
            address,
            publisher,
            feeder,
            stop,
        } = self;
        drop(stop);
        let fed = match feeder.join() {
            Ok(Ok(fed)) => fed,
            Ok(Err(error)) => bail!("the publisher of {name} did not take all lines: {error}"),
            Err(_) => bail!("the feeder of {name} panicked"),
        };
        let output = publisher.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let summary = said.lines().last().unwrap_or_default();
        println!("{name}: publisher: {summary}");
        ensure!(output.status.success(), "the publisher failed: {said}");
        let acknowledged = number_after(summary, "acknowledged");
        let acknowledged = acknowledged.and_then(|count| u64::try_from(count).ok());
        ensure!(
            acknowledged == Some(fed),
            "not all of {fed} lines were acknowledged: {said}"
        );
        for number in 1..=fed {
            world.ledger.acknowledge(line(name, number), &address);
        }
        let empty = wait_empty(world, &namespace, &address);
        let log = ["logs", "-n", CLIENTS, &consumer(name)];
        let log = world.shell.kubectl(&log)?;
        let mut arrived = 0;
        let mut missing: BTreeSet<u64> = (1..=fed).collect();
        for text in log.lines() {
            let Some(number) = text.strip_prefix(&prefix(name)) else {
                continue;
            };
            world.ledger.arrive(text, &address);
            arrived += 1;
            if let Ok(number) = number.parse() {
                missing.remove(&number);
            }
        }
        if let Some((first, last)) = missing.first().zip(missing.last()) {
            let count = missing.len();
            println!("{name}: {count} lines are missing, from {first} to {last}");
        }
        println!("{name}: {fed} lines acknowledged, {arrived} deliveries");
        empty
    }
}

/// Takes the consumer away, so that it takes no line of the next load.
fn end_consumer(world: &World, name: &str) -> Result<()> {
    let pod = consumer(name);
    let delete = ["delete", "pod", "-n", CLIENTS, &pod, "--grace-period=1"];
    world.shell.kubectl(&delete).map(drop)
}

/// The number that follows a word.
pub(crate) fn number_after(text: &str, word: &str) -> Option<usize> {
    let rest = &text[text.find(word)? + word.len()..];
    let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Waits until nothing of a queue is left to be settled.
fn wait_empty(world: &World, namespace: &str, address: &str) -> Result<()> {
    let mut broker = None;
    wait::until_true("everything is settled", END_LIMIT, || {
        let way = match broker.take() {
            Some(way) => way,
            None => Broker::connect(&world.shell, namespace)?,
        };
        let left = way.left(address)?;
        broker = Some(way);
        ensure!(left == 0, "{left} messages of {address} are left");
        Ok(true)
    })
}

fn publisher(name: &str) -> String {
    format!("{name}-publisher")
}

fn consumer(name: &str) -> String {
    format!("{name}-consumer")
}

fn prefix(name: &str) -> String {
    format!("load {name} ")
}

fn line(name: &str, number: u64) -> String {
    format!("{}{number}", prefix(name))
}

/// Writes numbered lines as long as the other end of `stopped` is there, and says how many.
fn feed(mut pipe: impl Write, name: &str, stopped: &Receiver<()>) -> io::Result<u64> {
    let mut number = 0;
    while stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
        number += 1;
        writeln!(pipe, "{}", line(name, number))?;
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_a_summary() {
        assert_eq!(
            number_after("acknowledged 512 of 512", "acknowledged"),
            Some(512)
        );
        let again = "acknowledged 42 (7 stored before), refused 0, unknown 0";
        assert_eq!(number_after(again, "acknowledged"), Some(42));
        assert_eq!(number_after("nothing", "acknowledged"), None);
    }
}
