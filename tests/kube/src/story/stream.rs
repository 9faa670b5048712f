//! Real lines through a topic into two queues, with the broker killed under way; the ledger is kept
//! here.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use millrace_client::Settle;
use serde_json::Value;

use crate::broker::Broker;
use crate::case::{Case, Need, Verdict};
use crate::lines::Source;
use crate::load::number_after;
use crate::pods;
use crate::wait;
use crate::world::{CLUSTER, SHOP, World};

/// Until the publisher's pod runs and lines are under way.
const UNDER_WAY_LIMIT: Duration = Duration::from_secs(60);
/// Lines of the first queue that its consumer rejects: one in this many.
const REJECT_EVERY: usize = 50;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a publisher outlives the broker that is killed under its lines",
        need: Need::All,
        run: publish_and_kill,
    },
    Case {
        name: "every acknowledged line arrives where it belongs",
        need: Need::None,
        run: consume_and_compare,
    },
    Case {
        name: "a topic keeps what its retention says",
        need: Need::None,
        run: retention,
    },
];

fn publish_and_kill(world: &mut World) -> Result<Verdict> {
    let source = Source::of(world)?;
    let lines = source.lines.clone();
    let total = lines.len();
    println!("streaming {total} lines of the {}", source.name);
    let pod = format!("pod/{CLUSTER}-0");
    let before = uid(&world.get(SHOP, &pod)?)?;
    let address = format!("topic/{SHOP}/audit");
    let server = format!("http://{CLUSTER}.{SHOP}:7070");
    let arguments = [
        "publish",
        &address,
        "--lines",
        "--server",
        &server,
        "--json-key",
        source.key,
        "--json-subject",
        source.subject,
        "--timeout",
        "120s",
    ];
    let fed = pods::Fed::start(world, "publisher", &arguments, lines)?;
    let broker = Broker::connect(&world.shell, SHOP)?;
    wait::until_true("lines under way", UNDER_WAY_LIMIT, || {
        Ok(stored(&broker)? > 0)
    })?;
    let stored = stored(&broker)?;
    drop(broker);
    world
        .shell
        .kubectl(&["delete", "-n", SHOP, &pod, "--grace-period=0", "--force"])?;
    println!("killed the broker with {stored} of {total} lines stored");
    ensure!(
        stored < total as u64,
        "the stream was over before the broker was killed"
    );
    let said = fed.finish()?;
    println!("publisher: {}", said.lines().last().unwrap_or_default());
    let acknowledged = number_after(&said, "acknowledged").context("no count in its summary")?;
    ensure!(
        acknowledged == total,
        "only {acknowledged} of {total} were acknowledged: {said}"
    );
    let after = uid(&world.get(SHOP, &pod)?)?;
    ensure!(before != after, "the pod was not replaced");
    expect(world, &source)?;
    Ok(Verdict::Holds)
}

/// Notes in the ledger where each line belongs: in its queue, or, when its consumer will reject it,
/// in that queue's dead letters.
fn expect(world: &mut World, source: &Source) -> Result<()> {
    let (first, second) = (
        format!("queue/{SHOP}/first"),
        format!("queue/{SHOP}/second"),
    );
    let mut of_first = 0;
    for line in &source.lines {
        if !source.is_first(line)? {
            world.ledger.acknowledge(line.clone(), second.clone());
            continue;
        }
        of_first += 1;
        let dead = rejected(line).then(|| format!("{first}/dead"));
        world
            .ledger
            .acknowledge(line.clone(), dead.unwrap_or_else(|| first.clone()));
    }
    ensure!(of_first > 0, "no line belongs to the first queue");
    Ok(())
}

fn consume_and_compare(world: &mut World) -> Result<Verdict> {
    let broker = Broker::connect(&world.shell, SHOP)?;
    let (first, second) = (
        format!("queue/{SHOP}/first"),
        format!("queue/{SHOP}/second"),
    );
    let dead = format!("{first}/dead");
    let ledger = &mut world.ledger;
    let accept = |_: &str, _: &_| Settle::Accept;
    let sort = |line: &str, _: &_| match rejected(line) {
        true => Settle::Reject {
            note: "for the dead letters".to_owned(),
        },
        false => Settle::Accept,
    };
    let taken = broker.take(&first, sort, |line, _| {
        if !rejected(&line) {
            ledger.arrive(line, first.clone());
        }
    })?;
    println!("first queue: {taken} settled");
    let taken = broker.take(&second, accept, |line, _| {
        ledger.arrive(line, second.clone())
    })?;
    println!("second queue: {taken} settled");
    let mut causes = Vec::new();
    let taken = broker.take(&dead, accept, |line, delivery| {
        causes.push(
            delivery
                .message
                .death
                .as_ref()
                .map(|death| death.queue.clone()),
        );
        ledger.arrive(line, dead.clone());
    })?;
    println!("dead letters: {taken} settled");
    let from_first = |cause: &Option<String>| cause.as_deref() == Some(first.as_str());
    ensure!(
        causes.iter().all(from_first),
        "dead letters do not say where they died: {causes:?}"
    );
    let balance = world.ledger.balance();
    ensure!(
        balance.lost == 0 && balance.misrouted == 0,
        "{}",
        world.ledger
    );
    ensure!(world.ledger.expected_at(&dead) > 0, "no line was rejected");
    Ok(Verdict::Holds)
}

fn retention(world: &mut World) -> Result<Verdict> {
    let broker = Broker::connect(&world.shell, SHOP)?;
    let address = format!("topic/{SHOP}/short");
    let payloads: Vec<String> = (0..30).map(|number| format!("number {number}")).collect();
    broker.publish(&address, &payloads)?;
    wait::until_true(
        "20 of 30 messages are trimmed",
        Duration::from_secs(60),
        || {
            let (first, end) = broker.available(&address, 0)?;
            ensure!(end == 30, "the topic ends at {end}");
            Ok(first == 20)
        },
    )?;
    Ok(Verdict::Holds)
}

/// Messages in the topic, over all partitions.
fn stored(broker: &Broker) -> Result<u64> {
    let mut sum = 0;
    for partition in 0..4 {
        sum += broker
            .available(&format!("topic/{SHOP}/audit"), partition)?
            .1;
    }
    Ok(sum)
}

/// Whether the consumer of the first queue rejects a line: decided by the line alone.
fn rejected(line: &str) -> bool {
    let sum: usize = line.bytes().map(usize::from).sum();
    sum.is_multiple_of(REJECT_EVERY)
}

fn uid(object: &Value) -> Result<String> {
    Ok(object["metadata"]["uid"]
        .as_str()
        .context("no UID")?
        .to_owned())
}
