//! Every metric of a node, with its help text, and how a scrape is answered: the broker is asked
//! for its figures once, and they are written as OpenMetrics text. Nothing is counted here.
//!
//! Series by queue and by topic are bounded: beyond [`OBJECTS_MAX`] of each the rest is left out,
//! in order of addresses, and `millrace_omitted_objects` says how many.

use std::fmt;
use std::sync::{Arc, OnceLock};

use millrace_engine::outcome::QueueStats;
use millrace_types::Address;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::state::{State, StateCell};
use millrace_node::{Broker, ShardFacts, Stats, TopicFacts};

/// Queues, and topics, with series of their own: what a Prometheus of ordinary size takes from one
/// target without complaint, at under ten series each.
const OBJECTS_MAX: usize = 1_000;
/// In front of every name.
const PREFIX: &str = "millrace";

/// One metric: its name without prefix, its help text, and where its value comes from. `None`
/// leaves the series out.
struct Metric<T> {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    value: fn(&T) -> Option<f64>,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

const fn counter<T>(
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> Option<f64>,
) -> Metric<T> {
    Metric {
        name,
        help,
        kind: Kind::Counter,
        value,
    }
}

const fn gauge<T>(
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> Option<f64>,
) -> Metric<T> {
    Metric {
        name,
        help,
        kind: Kind::Gauge,
        value,
    }
}

/// Of the node as a whole; a counter's name gets `_total`.
const NODE: [Metric<Stats>; 15] = [
    counter(
        "published_messages",
        "Messages in acknowledged batches",
        |s| count(s.published_messages),
    ),
    counter("published_bytes", "Their bytes", |s| {
        count(s.published_bytes)
    }),
    counter("delivered_messages", "Messages handed to consumers", |s| {
        count(s.delivered_messages)
    }),
    counter("settled_messages", "Leases ended by a settlement", |s| {
        count(s.settled_messages)
    }),
    counter(
        "transferred_messages",
        "Messages bindings moved from topics to queues",
        |s| count(s.transferred_messages),
    ),
    counter(
        "dead_lettered_messages",
        "Messages that reached a dead-letter queue",
        |s| count(s.dead_lettered_messages),
    ),
    counter(
        "missed_messages",
        "Messages trimmed before a binding looked at them",
        |s| count(s.missed_messages),
    ),
    gauge(
        "waiting_receives",
        "Receive calls that wait for a message",
        |s| count(s.waiting_receives),
    ),
    counter("journal_fsyncs", "Synced batches of the journal", |s| {
        count(s.journal.fsyncs)
    }),
    counter("journal_records", "Records in them", |s| {
        count(s.journal.records)
    }),
    counter("journal_bytes", "Bytes in them", |s| count(s.journal.bytes)),
    gauge(
        "journal_live_bytes",
        "Journal bytes no checkpoint covers yet",
        |s| count(s.journal.live_bytes),
    ),
    gauge(
        "journal_last_sync_seconds",
        "How long the last sync took",
        |s| Some(s.journal.last_sync.as_secs_f64()),
    ),
    gauge(
        "disk_free_bytes",
        "Free space of the data directory's file system",
        |s| count(s.disk_free_bytes),
    ),
    gauge(
        "disk_reserve_bytes",
        "Publishes are refused when less is free",
        |s| count(s.disk_reserve_bytes),
    ),
];

/// Of each shard, labelled `shard`.
const SHARD: [Metric<ShardFacts>; 8] = [
    gauge(
        "shard_serving",
        "1 while the shard serves, 0 otherwise",
        |s| Some(if s.unavailable.is_none() { 1.0 } else { 0.0 }),
    ),
    gauge("shard_applied_index", "Last entry applied", |s| {
        count(s.applied.get())
    }),
    gauge(
        "shard_checkpoint_index",
        "Last entry a checkpoint covers",
        |s| count(s.checkpoint.get()),
    ),
    gauge(
        "shard_in_flight_entries",
        "Entries on their way to the disk",
        |s| count(s.in_flight_entries),
    ),
    gauge("shard_in_flight_bytes", "Their bytes", |s| {
        count(s.in_flight_bytes)
    }),
    gauge("shard_resident_bytes", "Message bodies in memory", |s| {
        count(s.resident_bytes)
    }),
    gauge(
        "shard_segment_bytes",
        "Message bodies in segments on disk",
        |s| count(s.segment_bytes),
    ),
    gauge("shard_sessions", "Attached consumers", |s| {
        count(s.sessions)
    }),
];

/// Of each queue, labelled `namespace`, `name` and `part` (`queue`, or `dead` for its implicit
/// dead-letter queue).
const QUEUE: [Metric<QueueStats>; 7] = [
    gauge(
        "queue_ready_messages",
        "Messages that may be delivered now",
        |q| count(q.ready),
    ),
    gauge(
        "queue_in_flight_messages",
        "Messages leased to consumers",
        |q| count(q.in_flight),
    ),
    gauge(
        "queue_delayed_messages",
        "Messages that wait for their backoff",
        |q| count(q.delayed),
    ),
    gauge(
        "queue_dying_messages",
        "Messages on their way to a dead-letter queue",
        |q| count(q.dying),
    ),
    gauge("queue_bytes", "Bytes of all messages not settled", |q| {
        count(q.bytes)
    }),
    gauge(
        "queue_oldest_timestamp_seconds",
        "When the oldest unsettled message came",
        |q| {
            q.oldest
                .and_then(|wall| count(wall.as_millis()))
                .map(|millis| millis / 1e3)
        },
    ),
    gauge("queue_consumers", "Open sessions", |q| {
        count(q.consumers.into())
    }),
];

/// Of each topic, labelled `namespace` and `name`.
const TOPIC: [Metric<TopicFacts>; 3] = [
    gauge("topic_partitions", "Partitions", |t| {
        count(t.partitions.into())
    }),
    gauge("topic_messages", "Messages kept", |t| count(t.messages)),
    gauge("topic_bytes", "Their bytes", |t| count(t.bytes)),
];

/// A number as metrics have it: exact up to 2^53, which nothing here reaches.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the shape that tables of values want"
)]
#[expect(clippy::cast_precision_loss, reason = "see above")]
const fn count(number: u64) -> Option<f64> {
    Some(number as f64)
}

/// A node's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    state: StateCell,
    broker: Arc<OnceLock<Broker>>,
}

impl Metrics {
    pub(crate) fn new(state: StateCell) -> Self {
        Self {
            state,
            broker: Arc::default(),
        }
    }

    /// From now on, the broker's figures are part of a scrape.
    pub(crate) fn watch(&self, broker: &Broker) {
        self.broker.get_or_init(|| broker.clone());
    }

    /// The answer to one scrape.
    ///
    /// # Errors
    /// When the text cannot be written, which is a defect.
    pub(crate) async fn text(&self) -> Result<String, fmt::Error> {
        let stats = match self.broker.get() {
            Some(broker) => Some(broker.stats().await),
            None => None,
        };
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Scrape {
            state: self.state.now(),
            stats,
        }));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// The node at one moment.
#[derive(Debug)]
struct Scrape {
    state: State,
    /// `None` before the broker has started.
    stats: Option<Stats>,
}

type Labels = Vec<(&'static str, String)>;

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let serving = f64::from(u8::from(self.state == State::Serving));
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        single(
            &mut encoder,
            "build_info",
            "Always 1; labels say what runs",
            &version,
            1.0,
        )?;
        let help = "1 while the node takes calls, 0 otherwise";
        single(&mut encoder, "node_serving", help, &Labels::new(), serving)?;
        match &self.stats {
            Some(stats) => figures(&mut encoder, stats),
            None => Ok(()),
        }
    }
}

fn figures(encoder: &mut DescriptorEncoder<'_>, stats: &Stats) -> fmt::Result {
    family(encoder, &NODE, &[(Labels::new(), stats)])?;
    let shards = stats.shards.iter();
    let shards: Vec<_> = shards
        .map(|(id, facts)| (vec![("shard", id.to_string())], facts))
        .collect();
    family(encoder, &SHARD, &shards)?;
    let queues = stats.queues.iter().take(OBJECTS_MAX);
    let queues: Vec<_> = queues.map(|(address, q)| (labels(address), q)).collect();
    family(encoder, &QUEUE, &queues)?;
    let topics = stats.topics.iter().take(OBJECTS_MAX);
    let topics: Vec<_> = topics.map(|(address, t)| (labels(address), t)).collect();
    family(encoder, &TOPIC, &topics)?;
    refusals(encoder, stats)?;
    let omitted = stats.queues.len().saturating_sub(OBJECTS_MAX)
        + stats.topics.len().saturating_sub(OBJECTS_MAX);
    let help = "Queues and topics left out of this scrape because there are too many";
    let omitted = count(omitted as u64).unwrap_or(0.0);
    single(encoder, "omitted_objects", help, &Labels::new(), omitted)
}

fn labels(address: &Address) -> Labels {
    let mut labels = vec![
        ("namespace", address.namespace().to_owned()),
        ("name", address.name().to_owned()),
    ];
    match address {
        Address::Queue { .. } => labels.push(("part", "queue".to_owned())),
        Address::DeadLetter { .. } => labels.push(("part", "dead".to_owned())),
        Address::Topic { .. } => {}
    }
    labels
}

fn refusals(encoder: &mut DescriptorEncoder<'_>, stats: &Stats) -> fmt::Result {
    let help = "Refused entries and calls by reason";
    let mut metric = describe(encoder, "refusals", help, Kind::Counter)?;
    for (reason, refused) in &stats.refusals {
        let labels = vec![("reason", (*reason).to_owned())];
        value(
            &mut metric,
            &labels,
            Kind::Counter,
            count(*refused).unwrap_or(0.0),
        )?;
    }
    Ok(())
}

/// Writes each metric of a table for each of its objects.
fn family<T>(
    encoder: &mut DescriptorEncoder<'_>,
    metrics: &[Metric<T>],
    objects: &[(Labels, &T)],
) -> fmt::Result {
    for metric in metrics {
        let mut described = describe(encoder, metric.name, metric.help, metric.kind)?;
        for (labels, object) in objects {
            if let Some(number) = (metric.value)(object) {
                value(&mut described, labels, metric.kind, number)?;
            }
        }
    }
    Ok(())
}

fn single(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    labels: &Labels,
    number: f64,
) -> fmt::Result {
    let mut described = describe(encoder, name, help, Kind::Gauge)?;
    value(&mut described, labels, Kind::Gauge, number)
}

fn describe<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &str,
    kind: Kind,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    let kind = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
    };
    encoder.encode_descriptor(name, help, None, kind)
}

fn value(
    described: &mut MetricEncoder<'_>,
    labels: &Labels,
    kind: Kind,
    number: f64,
) -> fmt::Result {
    let mut metric = if labels.is_empty() {
        return plain(described, kind, number);
    } else {
        described.encode_family(labels)?
    };
    plain(&mut metric, kind, number)
}

fn plain(metric: &mut MetricEncoder<'_>, kind: Kind, number: f64) -> fmt::Result {
    match kind {
        Kind::Counter => metric.encode_counter::<NoLabelSet, f64, f64>(&number, None),
        Kind::Gauge => metric.encode_gauge(&number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(stats: Stats) -> String {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Scrape {
            state: State::Serving,
            stats: Some(stats),
        }));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn a_queue_and_its_dead_letters_have_series_of_their_own() {
        let mut stats = Stats::default();
        let ready = |ready| QueueStats {
            ready,
            ..QueueStats::default()
        };
        stats.queues.insert("queue/a/b".parse().unwrap(), ready(3));
        stats
            .queues
            .insert("queue/a/b/dead".parse().unwrap(), ready(1));
        let text = scrape(stats);
        for line in [
            r#"millrace_queue_ready_messages{namespace="a",name="b",part="queue"} 3.0"#,
            r#"millrace_queue_ready_messages{namespace="a",name="b",part="dead"} 1.0"#,
            "millrace_published_messages_total 0.0",
            "millrace_node_serving 1.0",
        ] {
            assert!(text.contains(line), "no {line} in:\n{text}");
        }
    }

    #[test]
    fn too_many_queues_are_left_out_and_counted() {
        let mut stats = Stats::default();
        for n in 0..OBJECTS_MAX + 5 {
            let address = format!("queue/a/q{n}").parse().unwrap();
            stats.queues.insert(address, QueueStats::default());
        }
        let text = scrape(stats);
        let series = text.matches("millrace_queue_consumers{").count();
        assert_eq!(series, OBJECTS_MAX);
        assert!(text.contains("millrace_omitted_objects 5.0"));
    }

    #[tokio::test]
    async fn a_node_that_starts_can_be_scraped() {
        let metrics = Metrics::new(StateCell::new());
        let text = metrics.text().await.unwrap();
        assert!(text.contains("millrace_node_serving 0.0"));
        assert!(text.ends_with("# EOF\n"));
    }
}
