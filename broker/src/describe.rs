//! `millrace describe`: everything about one queue or topic.

use std::fmt::Write as _;

use millrace_proto::v1::summary::Stats;
use millrace_proto::v1::topology_object::Spec;
use millrace_proto::v1::{
    Binding, DeletionPolicy, DescribeResponse, QueueLimits, QueueSpec, TopicSpec, binding,
};
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::exit::Failure;
use crate::list::{Output, state, summary};
use crate::output;
use crate::table::{age, bytes, span, table};
use crate::target::Target;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Describes.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let address = args.target.address()?;
    let client = args.connection.client()?;
    let described = client.admin().describe(&address.to_string()).await;
    let described = described.map_err(|error| Failure::call(&address, client.url(), &error))?;
    match args.output {
        Output::Json => output::text(&format!("{:#}", value(&described))),
        Output::Table => output::text(&text(&described)),
    }
}

/// Named values, one a line, aligned.
struct Facts(String);

impl Facts {
    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        writeln!(self.0, "{:<24}{value}", format!("{name}:")).ok();
    }

    fn section(&mut self, name: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        writeln!(self.0, "{name}:").ok();
        for line in text.lines() {
            writeln!(self.0, "  {line}").ok();
        }
    }
}

fn text(described: &DescribeResponse) -> String {
    let mut facts = Facts(String::new());
    if let Some(summary) = &described.summary {
        facts.add("Address", &summary.address);
        facts.add("State", state(summary));
        stats(&mut facts, summary.stats.as_ref());
    }
    match described.declared.as_ref() {
        Some(declared) => {
            facts.add("Generation", declared.generation);
            facts.add("UID", &declared.uid);
            match &declared.spec {
                Some(Spec::Queue(spec)) => queue(&mut facts, spec),
                Some(Spec::Topic(spec)) => topic(&mut facts, spec),
                None => {}
            }
        }
        None => facts.add("Declared", "<no resource of its own>"),
    }
    parts(&mut facts, described);
    facts.0
}

fn stats(facts: &mut Facts, stats: Option<&Stats>) {
    match stats {
        Some(Stats::Queue(stats)) => {
            facts.add("Ready", stats.ready);
            facts.add("In flight", stats.in_flight);
            facts.add("Delayed", stats.delayed);
            facts.add("Dying", stats.dying);
            facts.add("Dead-lettered", stats.dead_lettered);
            facts.add("Bytes", bytes(stats.bytes));
            facts.add("Oldest", age(stats.oldest));
            facts.add("Consumers", stats.consumers);
        }
        Some(Stats::Topic(stats)) => {
            facts.add("Partitions", stats.partitions);
            facts.add("Messages", stats.messages);
            facts.add("Bytes", bytes(stats.bytes));
        }
        None => {}
    }
}

fn queue(facts: &mut Facts, spec: &QueueSpec) {
    if let Some(delivery) = &spec.delivery {
        facts.add("Ack deadline", wire_span(delivery.ack_deadline.as_ref()));
        facts.add("Max in flight", delivery.max_in_flight);
        facts.add("Max deliveries", delivery.max_deliveries);
        if let Some(backoff) = &delivery.backoff {
            let (initial, max) = (backoff.initial.as_ref(), backoff.max.as_ref());
            let (whole, milli) = (backoff.factor_milli / 1000, backoff.factor_milli % 1000);
            let factor = format!("{whole}.{milli:03}");
            let factor = factor.trim_end_matches('0').trim_end_matches('.');
            let (initial, max) = (wire_span(initial), wire_span(max));
            facts.add(
                "Backoff",
                format_args!("{initial}, times {factor} up to {max}"),
            );
        }
    }
    if let Some(limits) = &spec.limits {
        facts.add("Limits", limit_text(limits));
    }
    if let Some(dead_letter) = &spec.dead_letter {
        let target = match dead_letter.queue.as_str() {
            "" => "its own",
            queue => queue,
        };
        facts.add("Dead-letter queue", target);
        if let Some(limits) = dead_letter
            .limits
            .as_ref()
            .filter(|_| dead_letter.queue.is_empty())
        {
            facts.add("Dead-letter limits", limit_text(limits));
        }
    }
    facts.add("Deletion policy", policy(spec.deletion_policy()));
    let rows: Vec<_> = spec.bindings.iter().map(binding_row).collect();
    if !rows.is_empty() {
        facts.section("Bindings", &table(&["TOPIC", "PATTERN", "HEADERS"], &rows));
    }
}

fn topic(facts: &mut Facts, spec: &TopicSpec) {
    let mut parts = Vec::new();
    if let Some(retention) = &spec.retention {
        if retention.age.is_some() {
            parts.push(wire_span(retention.age.as_ref()));
        }
        if retention.bytes > 0 {
            parts.push(bytes(retention.bytes));
        }
        if retention.messages > 0 {
            parts.push(format!("{} messages", retention.messages));
        }
    }
    let kept = if parts.is_empty() {
        "everything".to_owned()
    } else {
        parts.join(", ")
    };
    facts.add("Kept per partition", kept);
    facts.add("Max message bytes", bytes(spec.max_message_bytes));
    facts.add("Deletion policy", policy(spec.deletion_policy()));
}

fn parts(facts: &mut Facts, described: &DescribeResponse) {
    let rows = described.partitions.iter().map(|partition| {
        let offsets = partition.offsets.unwrap_or_default();
        vec![
            partition.partition.to_string(),
            partition.shard.to_string(),
            format!("{}..{}", offsets.first, offsets.end),
            bytes(partition.bytes),
            age(partition.oldest),
        ]
    });
    let rows = rows.collect::<Vec<_>>();
    if !rows.is_empty() {
        let head = ["PARTITION", "SHARD", "OFFSETS", "BYTES", "OLDEST"];
        facts.section("Partitions", &table(&head, &rows));
    }
    let rows = described.bindings.iter().map(|binding| {
        vec![
            binding.topic.clone(),
            binding.partition.to_string(),
            binding.cursor.to_string(),
            binding.lag.to_string(),
            or_none(&binding.stalled),
        ]
    });
    let rows = rows.collect::<Vec<_>>();
    if !rows.is_empty() {
        let head = ["TOPIC", "PARTITION", "CURSOR", "LAG", "STALLED"];
        facts.section("Progress", &table(&head, &rows));
    }
    let rows = described.consumers.iter().map(|consumer| {
        let connected = if consumer.connected { "yes" } else { "no" };
        vec![
            or_none(&consumer.name),
            consumer.in_flight.to_string(),
            connected.to_owned(),
        ]
    });
    let rows = rows.collect::<Vec<_>>();
    if !rows.is_empty() {
        facts.section(
            "Consumers",
            &table(&["NAME", "IN-FLIGHT", "CONNECTED"], &rows),
        );
    }
}

fn binding_row(binding: &Binding) -> Vec<String> {
    let conditions = binding.headers.iter().map(|header| match &header.value {
        Some(value) => format!("{}={value}", header.name),
        None => header.name.clone(),
    });
    let joint = match binding.r#match() {
        binding::Match::Any => " or ",
        binding::Match::All | binding::Match::Unspecified => " and ",
    };
    let conditions = conditions.collect::<Vec<_>>().join(joint);
    vec![
        binding.topic.clone(),
        binding.pattern.clone(),
        or_none(&conditions),
    ]
}

fn limit_text(limits: &QueueLimits) -> String {
    let mut parts = Vec::new();
    if limits.max_messages > 0 {
        parts.push(format!("{} messages", limits.max_messages));
    }
    if limits.max_bytes > 0 {
        parts.push(bytes(limits.max_bytes));
    }
    if limits.max_message_bytes > 0 {
        parts.push(format!("{} a message", bytes(limits.max_message_bytes)));
    }
    if parts.is_empty() {
        "<none>".to_owned()
    } else {
        parts.join(", ")
    }
}

fn policy(policy: DeletionPolicy) -> &'static str {
    match policy {
        DeletionPolicy::Unspecified => "<none>",
        DeletionPolicy::Orphan => "Orphan",
        DeletionPolicy::Delete => "Delete",
    }
}

fn wire_span(wire: Option<&prost_types::Duration>) -> String {
    match wire.map(|wire| std::time::Duration::try_from(*wire)) {
        Some(Ok(duration)) => span(duration),
        Some(Err(_)) | None => "<none>".to_owned(),
    }
}

fn or_none(text: &str) -> String {
    if text.is_empty() {
        "<none>".to_owned()
    } else {
        text.to_owned()
    }
}

/// For programs.
fn value(described: &DescribeResponse) -> Value {
    let mut value = described
        .summary
        .as_ref()
        .map_or_else(|| json!({}), summary);
    if let Some(declared) = &described.declared {
        value["uid"] = declared.uid.as_str().into();
        value["generation"] = declared.generation.into();
    }
    let partitions = described.partitions.iter().map(|partition| {
        let offsets = partition.offsets.unwrap_or_default();
        json!({
            "partition": partition.partition,
            "shard": partition.shard,
            "first": offsets.first,
            "end": offsets.end,
            "bytes": partition.bytes,
        })
    });
    value["partitions"] = partitions.collect();
    let bindings = described.bindings.iter().map(|binding| {
        json!({
            "topic": binding.topic,
            "partition": binding.partition,
            "cursor": binding.cursor,
            "lag": binding.lag,
            "stalled": binding.stalled,
        })
    });
    value["bindings"] = bindings.collect();
    let consumers = described.consumers.iter().map(|consumer| {
        json!({
            "name": consumer.name,
            "in_flight": consumer.in_flight,
            "connected": consumer.connected,
        })
    });
    value["consumers"] = consumers.collect();
    value
}
