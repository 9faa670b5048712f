//! `millrace list`: queues and topics of a namespace, or of all.

use clap::ValueEnum;
use millrace_client::{Client, Error};
use millrace_crds::DEFAULT_NAMESPACE;
use millrace_proto::v1::list_request::Kind;
use millrace_proto::v1::summary::Stats;
use millrace_proto::v1::{QueueStats, Summary, TopicStats};
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::exit::Failure;
use crate::json::time;
use crate::table::{age, bytes, table};
use crate::{output, tell};

/// What to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Queues and topics
    All,
    /// Queues
    Queues,
    /// Topics
    Topics,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to list
    #[arg(value_enum, default_value = "all")]
    what: What,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Of this namespace
    /// [default: default]
    #[arg(short, long, env = "MILLRACE_NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Of all namespaces, whatever --namespace says
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Args {
    /// Of all namespaces, as a table.
    pub(crate) fn everything() -> Self {
        Self {
            what: What::All,
            connection: Connection::default(),
            namespace: None,
            all_namespaces: true,
            output: Output::Table,
        }
    }
}

/// Queues and topics of all namespaces, as `--output json` prints them.
///
/// # Errors
/// As the server refuses it, or cannot be reached.
pub async fn as_json(client: &Client) -> Result<Value, Error> {
    let items = client.admin().list(Kind::Unspecified, "").await?;
    Ok(items.iter().map(summary).collect())
}

/// Lists.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let kind = match args.what {
        What::All => Kind::Unspecified,
        What::Queues => Kind::Queue,
        What::Topics => Kind::Topic,
    };
    let namespace = if args.all_namespaces {
        ""
    } else {
        args.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    };
    let items = client.admin().list(kind, namespace).await;
    let items = items.map_err(|error| Failure::call("cannot list", client.url(), &error))?;
    if args.output == Output::Json {
        let items: Vec<Value> = items.iter().map(summary).collect();
        return output::text(&format!("{:#}", Value::Array(items)));
    }
    if items.is_empty() {
        let place = match namespace {
            "" => "in any namespace".to_owned(),
            namespace => format!("in namespace {namespace}"),
        };
        tell::line(format_args!("nothing {place}"));
        return Ok(());
    }
    output::text(&tables(&items))
}

fn tables(items: &[Summary]) -> String {
    let (mut queues, mut topics) = (Vec::new(), Vec::new());
    for item in items {
        match &item.stats {
            Some(Stats::Queue(stats)) => queues.push(queue_row(item, stats)),
            Some(Stats::Topic(stats)) => topics.push(topic_row(item, stats)),
            None => {}
        }
    }
    const QUEUE: [&str; 9] = [
        "QUEUE",
        "STATE",
        "READY",
        "IN-FLIGHT",
        "DELAYED",
        "DEAD",
        "BYTES",
        "OLDEST",
        "CONSUMERS",
    ];
    const TOPIC: [&str; 5] = ["TOPIC", "STATE", "PARTITIONS", "MESSAGES", "BYTES"];
    let mut texts = Vec::new();
    if !queues.is_empty() {
        texts.push(table(&QUEUE, &queues));
    }
    if !topics.is_empty() {
        texts.push(table(&TOPIC, &topics));
    }
    texts.join("\n")
}

fn queue_row(item: &Summary, stats: &QueueStats) -> Vec<String> {
    vec![
        item.address.clone(),
        state(item).to_owned(),
        stats.ready.to_string(),
        stats.in_flight.to_string(),
        stats.delayed.to_string(),
        (stats.dead_lettered + stats.dying).to_string(),
        bytes(stats.bytes),
        age(stats.oldest),
        stats.consumers.to_string(),
    ]
}

fn topic_row(item: &Summary, stats: &TopicStats) -> Vec<String> {
    vec![
        item.address.clone(),
        state(item).to_owned(),
        stats.partitions.to_string(),
        stats.messages.to_string(),
        bytes(stats.bytes),
    ]
}

/// In one word.
pub(crate) fn state(item: &Summary) -> &'static str {
    if item.orphaned { "Orphaned" } else { "Active" }
}

/// For programs.
pub(crate) fn summary(item: &Summary) -> Value {
    let mut value = json!({"address": item.address, "orphaned": item.orphaned});
    match &item.stats {
        Some(Stats::Queue(stats)) => {
            let oldest = stats
                .oldest
                .map(|oldest| time(millrace_client::timestamp(Some(oldest))));
            value["queue"] = json!({
                "ready": stats.ready,
                "in_flight": stats.in_flight,
                "delayed": stats.delayed,
                "dying": stats.dying,
                "dead_lettered": stats.dead_lettered,
                "bytes": stats.bytes,
                "oldest": oldest,
                "consumers": stats.consumers,
            });
        }
        Some(Stats::Topic(stats)) => {
            value["topic"] = json!({
                "partitions": stats.partitions,
                "messages": stats.messages,
                "bytes": stats.bytes,
            });
        }
        None => {}
    }
    value
}
