//! The crash run: load on a broker that is killed at random points and started again; at the end
//! everything is drained and the books are closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use millrace_client::{Client, Position, ReadOptions};
use millrace_proto::v1::list_request::Kind;
use millrace_proto::v1::summary::Stats;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::broker::{Broker, Node};
use crate::chance::Chance;
use crate::ledger::{Copies, DeadLetters, Ledger, Place, Seen, Verdict};
use crate::load::{self, Books, Source, id_of};
use crate::wait::until;
use crate::work::Work;

/// What the run works on.
pub const TOPOLOGY: &str = include_str!("topology.yaml");
const TOPIC: &str = "topic/default/events";
const PARTITIONS: u32 = 2;
/// Queues whose messages are handled in all ways, with where their dead letters go and the failures
/// that kill.
const QUEUES: [(&str, &str, u32); 4] = [
    ("queue/default/created", "queue/default/created/dead", 2),
    ("queue/default/europe", "queue/default/europe/dead", 3),
    ("queue/default/work", "queue/default/graveyard", 3),
    ("queue/default/tasks", "queue/default/tasks/dead", 2),
];
/// Consumers of each of these: leases move from one to the other.
const CONSUMERS: usize = 2;
/// Messages that each publisher may send in a round.
pub(crate) const ROUND_MESSAGES: usize = 1000;
/// The broker lives at most about this long, under load.
const LIFE_MS_MAX: u64 = 900;
/// A start is interrupted after at most this long.
const START_MS_MAX: u64 = 250;
/// Small, so that files of the journal are used again and checkpoints are made several times in
/// each life of the broker, and kills hit those, too.
const JOURNAL_FILE: &str = "1Mi";
/// An eighth of it starts a checkpoint.
const MEMORY: &str = "16Mi";
/// All that is left is handled within this, on a machine that is busy with other things.
const DRAIN_LIMIT: Duration = Duration::from_secs(240);

/// How long, and with which randomness.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often the broker is killed and restarted.
    pub rounds: u32,
    /// Repeats the run's choices.
    pub seed: u64,
}

/// Runs, and closes the books.
///
/// # Errors
/// The broker does not start, or does not get everything done in time.
pub async fn run(options: Options) -> Result<Verdict> {
    let mut chance = Chance::new(options.seed);
    let mut node = Node::new(TOPOLOGY)?
        .with(["--journal-file-size", JOURNAL_FILE])
        .with(["--memory-limit", MEMORY]);
    let mut broker = node.start().await?;
    let client = broker.client()?;
    let books = Books::new(ledger());
    let budget = Arc::new(Semaphore::new(0));
    let mut work = Work::default();
    let (stop, stopped) = watch::channel(false);
    let mut publishers = publishers(std::slice::from_ref(&client), &books, &budget);
    let mut consumers = consumers(std::slice::from_ref(&client), &books, &stopped);

    for round in 1..=options.rounds {
        budget.add_permits(ROUND_MESSAGES * publishers.len());
        let life = Duration::from_millis(chance.below(LIFE_MS_MAX));
        let acknowledged = books.open().acknowledged();
        tokio::time::sleep(life).await; // polls: this is when the broker dies
        work.leases_at_deaths += books.open().leases_held();
        let end = if chance.once_in(5) {
            "stopped"
        } else {
            "killed"
        };
        if end == "stopped" {
            broker
                .stop()
                .await
                .with_context(|| format!("round {round}"))?;
        } else {
            broker.kill();
        }
        let news = books.open().acknowledged() - acknowledged;
        println!("round {round}: {end} after {life:?}, {news} more messages acknowledged");
        work.look(&node.data_dir())?;
        broker = restart(&mut node, &mut chance)
            .await
            .with_context(|| format!("round {round}"))?;
    }
    budget.close();
    finished(&mut publishers).await?;
    drained(&client).await?;
    stop.send(true)?;
    finished(&mut consumers).await?;
    replay(&client, &books).await?;
    broker.stop().await?;
    work.look(&node.data_dir())?;
    println!("{}", work.line());
    let verdict = books.open().verdict();
    Ok(verdict)
}

/// Sometimes the broker dies again before it serves.
async fn restart(node: &mut Node, chance: &mut Chance) -> Result<Broker> {
    while chance.once_in(4) {
        let launch = node.launch()?;
        let life = Duration::from_millis(chance.below(START_MS_MAX));
        tokio::time::sleep(life).await; // polls: this is when the broker dies
        launch.kill();
        println!("  killed {life:?} after its start");
    }
    node.start().await
}

/// Books that know where dead letters go.
pub(crate) fn ledger() -> Ledger {
    let rules = QUEUES.map(|(queue, dead, deliveries_max)| {
        let to = dead.to_owned();
        (queue.to_owned(), DeadLetters { to, deliveries_max })
    });
    Ledger::new(BTreeMap::from(rules))
}

/// Those who publish, each through one of the clients.
pub(crate) fn publishers(
    clients: &[Client],
    books: &Books,
    budget: &Arc<Semaphore>,
) -> JoinSet<Result<()>> {
    let sources = [
        (TOPIC, Copies::One),
        (TOPIC, Copies::OneOrMore),
        ("queue/default/work", Copies::One),
        ("queue/default/tasks", Copies::OneOrMore),
    ];
    let mut tasks = JoinSet::new();
    let clients = clients.iter().cycle();
    for (((address, copies), number), client) in sources.into_iter().zip(1..).zip(clients) {
        let source = Source {
            number,
            address: address.to_owned(),
            copies,
        };
        tasks.spawn(load::publish(
            client.clone(),
            source,
            books.clone(),
            budget.clone(),
        ));
    }
    tasks
}

/// Those who consume, each through one of the clients.
pub(crate) fn consumers(
    clients: &[Client],
    books: &Books,
    stopped: &watch::Receiver<bool>,
) -> JoinSet<Result<()>> {
    let mut tasks = JoinSet::new();
    let mut clients = clients.iter().cycle();
    let mut consume = |queue: &str| {
        let client = clients.next().expect("there is a client").clone();
        let (books, stopped) = (books.clone(), stopped.clone());
        tasks.spawn(load::consume(client, queue.to_owned(), books, stopped));
    };
    for (queue, dead, _) in QUEUES {
        (0..CONSUMERS).for_each(|_| consume(queue));
        consume(dead);
    }
    tasks
}

/// Waits for the end of all.
pub(crate) async fn finished(tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

/// Waits until nothing is left in any queue, nor on its way to one.
pub(crate) async fn drained(client: &Client) -> Result<()> {
    let admin = client.admin();
    let mut left = String::new();
    let waited = until("all queues to be empty", DRAIN_LIMIT, async || {
        left = left_in_queues(&admin).await?;
        Ok(left.is_empty().then_some(()))
    })
    .await;
    waited.with_context(|| format!("left: {left}"))
}

async fn left_in_queues(admin: &millrace_client::Admin) -> Result<String> {
    for summary in admin.list(Kind::Queue, "default").await? {
        let Some(Stats::Queue(stats)) = &summary.stats else {
            return Ok(format!("{}: nobody knows", summary.address));
        };
        let waiting = stats.ready + stats.in_flight + stats.delayed + stats.dying;
        if waiting + stats.dead_lettered > 0 {
            return Ok(format!("{}: {stats:?}", summary.address));
        }
        let described = match admin.describe(&summary.address).await {
            Ok(described) => described,
            Err(error) if error.is_retryable() => return Ok(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        if let Some(behind) = described.bindings.iter().find(|binding| binding.lag > 0) {
            return Ok(format!("{}: {behind:?}", summary.address));
        }
    }
    Ok(String::new())
}

/// Reads the whole topic into the books.
pub(crate) async fn replay(client: &Client, books: &Books) -> Result<()> {
    let place: Place = TOPIC.to_owned();
    for partition in 0..PARTITIONS {
        let mut from = Position::Earliest;
        loop {
            let options = ReadOptions {
                partition,
                from,
                messages_max: 1000,
                bytes_max: 0,
            };
            let answer = client.reader(TOPIC).read(options).await?;
            let mut ledger = books.open();
            for message in &answer.messages {
                ledger.seen(
                    &place,
                    Seen {
                        at: (partition, message.offset),
                        id: id_of(&message.message.payload),
                        attempts: 0,
                        acquired: 0,
                        death: None,
                    },
                );
            }
            if answer.messages.is_empty() && answer.next >= answer.available.end {
                break;
            }
            from = Position::Offset(answer.next);
        }
    }
    Ok(())
}
