//! The main job on this machine, without Kubernetes, told step by step: a topic routes real lines
//! into two queues, a message that fails twice is a dead letter, and a broker that is killed under
//! load has everything it acknowledged. Leaves no process and no file behind, unless it is told to
//! stay.

mod node;
mod packages;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use self::node::Node;
use self::packages::Package;
use crate::house::House;

/// The topology, in the clone.
const TOPOLOGY: &str = "crds/examples/dependencies.yaml";
const TOPIC: &str = "topic/packages";
const REGISTRY: &str = "queue/registry";
const WORKSPACE: &str = "queue/workspace";
const DEAD: &str = "queue/default/workspace/dead";

/// How the demonstration ends.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Keep the node serving at the end, until Ctrl-C.
    #[arg(long)]
    stay: bool,
}

/// Runs it.
///
/// # Errors
/// When something does not build, or does not happen as it must.
pub(crate) fn run(house: &House, options: &Options) -> Result<()> {
    house.build(&["millrace"])?;
    let packages = packages::read(house)?;
    let mut node = Node::start(house, &house.root().join(TOPOLOGY))?;
    tell(&format!(
        "A node serves at {}, on a disk of its own, with {TOPOLOGY}:",
        node.url()
    ));
    show(&node.millrace(&["list"])?);
    routing(&node, &packages)?;
    dead_letter(&node, &packages)?;
    killed_under_load(&mut node, &packages)?;
    if options.stay {
        let (url, place) = (node.url(), node.place().display());
        tell(&format!(
            "The node goes on serving at {url}, its files in {place}; Ctrl-C stops it."
        ));
        return node.wait();
    }
    node.stop()?;
    tell("The node was asked to stop, drained and exited; its files are removed. That was it.");
    Ok(())
}

/// Publishes every package once and shows where they went.
fn routing(node: &Node, packages: &[Package]) -> Result<()> {
    let lines: String = packages
        .iter()
        .map(|package| format!("{}\n", package.line))
        .collect();
    let count = packages.len();
    tell(&format!(
        "{count} packages of Cargo.lock, one JSON line each, go into {TOPIC}:"
    ));
    show(&node.millrace_with(&publish_arguments(), &lines)?);
    tell("The topic copied each into the queue whose pattern its subject matches:");
    show(&node.millrace_until(&["list"], |table| {
        let waiting = |queue: &str| ready(table, queue);
        waiting("registry") + waiting("workspace") == count
    })?);
    let registry = take(node, REGISTRY, count_of(packages, "registry"), "--ack")?;
    ensure!(
        registry
            .iter()
            .all(|line| line.contains(r#""origin":"registry""#)),
        "{REGISTRY} has lines that do not belong there"
    );
    tell(&format!(
        "{} lines were consumed from {REGISTRY}, each accepted.",
        registry.len()
    ));
    Ok(())
}

/// Fails one message as often as its queue allows.
fn dead_letter(node: &Node, packages: &[Package]) -> Result<()> {
    // All but one are handled: the one that is left fails, and fails again.
    drop(take(
        node,
        WORKSPACE,
        count_of(packages, "workspace") - 1,
        "--ack",
    )?);
    let failed = take(node, WORKSPACE, 1, "--retry")?;
    let line = failed.first().context("nothing to fail")?;
    tell(&format!(
        "A consumer of {WORKSPACE} fails with the last of its messages:"
    ));
    show(line);
    let again = take(node, WORKSPACE, 1, "--retry")?;
    ensure!(
        again.first() == Some(line),
        "another message came back: {again:?}"
    );
    tell("It came back, and failed again. This queue allows no more, so it is a dead letter now:");
    show(&node.millrace_until(&["peek", DEAD], |text| !text.trim().is_empty())?);
    Ok(())
}

/// Kills the broker while lines come in, starts it again, and compares what was acknowledged with
/// what arrives.
fn killed_under_load(node: &mut Node, packages: &[Package]) -> Result<()> {
    let lines: Vec<&str> = packages
        .iter()
        .map(|package| package.line.as_str())
        .collect();
    let mut publisher = node.command(&publish_arguments());
    let publisher = publisher
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut publisher = publisher.spawn().context("cannot start the publisher")?;
    let mut pipe = publisher.stdin.take().context("stdin is piped")?;
    let (before, after) = lines.split_at(lines.len() / 3);
    let (under_way, after) = after.split_at(after.len() / 2);
    write_all(&mut pipe, before)?;
    node.millrace_until(&["list"], |table| {
        ready(table, "registry") > before.len() / 2
    })?;
    write_all(&mut pipe, under_way)?;
    node.kill()?;
    write_all(&mut pipe, after)?;
    drop(pipe);
    tell("The same lines again. Under way, the node is killed (kill -9), then started anew:");
    node.start_again()?;
    let output = publisher.wait_with_output()?;
    ensure!(output.status.success(), "the publisher failed: {output:?}");
    show(&String::from_utf8_lossy(
        &[output.stdout, output.stderr].concat(),
    ));
    let registry = take(node, REGISTRY, usize::MAX, "--ack")?;
    let workspace = take(node, WORKSPACE, usize::MAX, "--ack")?;
    let ledger = Ledger::of(packages, &registry, &workspace);
    tell("Everything that was acknowledged is there, and where it belongs:");
    show(&ledger.line());
    ensure!(
        ledger.lost == 0 && ledger.misrouted == 0,
        "the ledger does not balance"
    );
    let dead = node.millrace(&["peek", DEAD, "--format", "raw"])?;
    ensure!(
        dead.lines().count() == 1,
        "the dead letter did not survive: {dead:?}"
    );
    tell("And the dead letter is still in its queue.");
    Ok(())
}

fn write_all(pipe: &mut impl Write, lines: &[&str]) -> Result<()> {
    for line in lines {
        writeln!(pipe, "{line}")?;
    }
    Ok(())
}

fn publish_arguments() -> [&'static str; 9] {
    let subject = "--json-subject";
    [
        "publish",
        TOPIC,
        "--lines",
        "--json-key",
        "name",
        subject,
        "origin",
        subject,
        "name",
    ]
}

/// Takes up to `count` messages, fewer when no more come.
fn take(node: &Node, queue: &str, count: usize, outcome: &str) -> Result<Vec<String>> {
    let limit = count.to_string();
    let mut arguments = vec!["consume", queue, outcome, "--format", "raw", "--wait", "2s"];
    if count < usize::MAX {
        arguments.extend(["--count", &limit]);
    }
    let taken = node.millrace(&arguments)?;
    Ok(taken.lines().map(str::to_owned).collect())
}

fn count_of(packages: &[Package], origin: &str) -> usize {
    packages
        .iter()
        .filter(|package| package.origin == origin)
        .count()
}

/// The first number in the row of a queue: what may be delivered now.
fn ready(table: &str, queue: &str) -> usize {
    let row = table
        .lines()
        .find(|line| line.contains(&format!("queue/default/{queue} ")));
    let mut words = row.unwrap_or_default().split_whitespace();
    words.find_map(|word| word.parse().ok()).unwrap_or(0)
}

/// Acknowledged lines against arrivals.
struct Ledger {
    acknowledged: usize,
    delivered: usize,
    lost: usize,
    duplicated: usize,
    misrouted: usize,
}

impl Ledger {
    fn of(packages: &[Package], registry: &[String], workspace: &[String]) -> Self {
        let mut ledger = Self {
            acknowledged: packages.len(),
            delivered: 0,
            lost: 0,
            duplicated: 0,
            misrouted: 0,
        };
        for (origin, arrived) in [("registry", registry), ("workspace", workspace)] {
            let of_origin = packages.iter().filter(|package| package.origin == origin);
            let expected: BTreeSet<&str> = of_origin.map(|package| package.line.as_str()).collect();
            let distinct: BTreeSet<&str> = arrived.iter().map(String::as_str).collect();
            let right = distinct.intersection(&expected).count();
            ledger.delivered += right;
            ledger.lost += expected.len() - right;
            let astray = arrived
                .iter()
                .filter(|line| !expected.contains(line.as_str()))
                .count();
            ledger.misrouted += astray;
            ledger.duplicated += arrived.len() - astray - right;
        }
        ledger
    }

    fn line(&self) -> String {
        let Self {
            acknowledged,
            delivered,
            lost,
            duplicated,
            misrouted,
        } = self;
        format!(
            "ledger: acknowledged {acknowledged}, delivered {delivered}, lost {lost}, \
             duplicated {duplicated}, misrouted {misrouted}"
        )
    }
}

/// A step, for people.
fn tell(text: &str) {
    println!("\n{text}");
}

/// What a program said, set apart.
fn show(text: &str) {
    for line in text.trim_end().lines() {
        println!("    {line}");
    }
}
