//! Every metric of a node, with its help text, and how a scrape is answered: the broker is asked
//! for its figures once, and they are written as OpenMetrics text. Nothing is counted here.
//!
//! Series by queue and by topic are bounded: beyond [`OBJECTS_MAX`] of each the rest is left out,
//! in order of addresses, and `millrace_omitted_objects` says how many.

mod peers;
mod tables;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millrace_peers::PeerStatus;
use millrace_types::Address;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::mesh::Mesh;
use crate::state::{State, StateCell};
use millrace_node::{Area, Broker, Stats, TimesSeen};

use tables::{Kind, Metric, NODE, QUEUE, SHARD, TIMES, TOPIC, count};

/// Queues, and topics, with series of their own: what a Prometheus of ordinary size takes from one
/// target without complaint, at under ten series each.
const OBJECTS_MAX: usize = 1_000;
/// In front of every name.
const PREFIX: &str = "millrace";

/// A node's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    state: StateCell,
    mesh: Mesh,
    broker: Arc<OnceLock<Broker>>,
}

impl Metrics {
    pub(crate) fn new(state: StateCell, mesh: Mesh) -> Self {
        Self {
            state,
            mesh,
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
            Some(broker) => Some(broker.stats(OBJECTS_MAX).await),
            None => None,
        };
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Scrape {
            state: self.state.now(),
            peers: self.mesh.status(),
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
    peers: Vec<PeerStatus>,
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
        peers::figures(&mut encoder, &self.peers)?;
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
    let queues = stats.queues.iter();
    let queues: Vec<_> = queues.map(|(address, q)| (labels(address), q)).collect();
    family(encoder, &QUEUE, &queues)?;
    let topics = stats.topics.iter();
    let topics: Vec<_> = topics.map(|(address, t)| (labels(address), t)).collect();
    family(encoder, &TOPIC, &topics)?;
    refusals(encoder, stats)?;
    traffic(encoder, stats)?;
    for times in &TIMES {
        let histogram = MetricType::Histogram;
        let described = encoder.encode_descriptor(times.name, times.help, None, histogram)?;
        durations(described, (times.value)(stats))?;
    }
    let help = "Queues and topics left out of this scrape because there are too many";
    let omitted = count(stats.omitted_objects).unwrap_or(0.0);
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

/// What the disk was made to do, labelled `area`.
fn traffic(encoder: &mut DescriptorEncoder<'_>, stats: &Stats) -> fmt::Result {
    let area = |area: Area| vec![("area", area.name().to_owned())];
    let help = "Bytes written to the data directory, by what for";
    let mut written = describe(encoder, "disk_written_bytes", help, Kind::Counter)?;
    for (of, bytes, _) in &stats.traffic {
        let bytes = count(*bytes).unwrap_or(0.0);
        value(&mut written, &area(*of), Kind::Counter, bytes)?;
    }
    let help = "How long syncs of files and directories took, by what for";
    let histogram = MetricType::Histogram;
    let mut syncs = encoder.encode_descriptor("disk_sync_seconds", help, None, histogram)?;
    for (of, _, seen) in &stats.traffic {
        durations(syncs.encode_family(&area(*of))?, seen)?;
    }
    Ok(())
}

fn durations(mut metric: MetricEncoder<'_>, seen: &TimesSeen) -> fmt::Result {
    let bound = |bound: Option<Duration>| bound.map_or(f64::INFINITY, |b| b.as_secs_f64());
    let buckets = seen.buckets.iter();
    let buckets: Vec<_> = buckets.map(|(at, n)| (bound(*at), *n)).collect();
    let total = seen.total.as_secs_f64();
    metric.encode_histogram::<NoLabelSet>(total, seen.count(), &buckets, None)
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
    use millrace_engine::outcome::QueueStats;
    use millrace_node::Times;

    use super::*;
    use crate::token::Guard;

    fn scrape(stats: Stats) -> String {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Scrape {
            state: State::Serving,
            peers: Vec::new(),
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
    fn durations_and_traffic_are_histograms_and_counters_by_area() {
        let times = Times::default();
        times.add(Duration::from_micros(700));
        let stats = Stats {
            worker_turns: times.seen(),
            traffic: vec![(Area::Segments, 12, times.seen())],
            ..Stats::default()
        };
        let text = scrape(stats);
        for line in [
            "# TYPE millrace_worker_turn_seconds histogram",
            r#"millrace_worker_turn_seconds_bucket{le="0.0005"} 0"#,
            r#"millrace_worker_turn_seconds_bucket{le="0.001"} 1"#,
            r#"millrace_worker_turn_seconds_bucket{le="+Inf"} 1"#,
            "millrace_worker_turn_seconds_count 1",
            "millrace_worker_longest_turn_seconds 0.0007",
            r#"millrace_disk_written_bytes_total{area="segments"} 12.0"#,
            r#"millrace_disk_sync_seconds_bucket{le="0.001",area="segments"} 1"#,
        ] {
            assert!(text.contains(line), "no {line} in:\n{text}");
        }
    }

    #[test]
    fn queues_that_were_left_out_are_counted() {
        let text = scrape(Stats {
            omitted_objects: 5,
            ..Stats::default()
        });
        assert!(text.contains("millrace_omitted_objects 5.0"));
    }

    #[tokio::test]
    async fn a_node_that_starts_can_be_scraped() {
        let metrics = Metrics::new(StateCell::new(), Mesh::new(Arc::new(Guard::Open)));
        let text = metrics.text().await.unwrap();
        assert!(text.contains("millrace_node_serving 0.0"));
        assert!(text.ends_with("# EOF\n"));
    }
}
