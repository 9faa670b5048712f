//! From resources to what brokers work by: defaults are there already, references become
//! addresses, texts become numbers. Decides nothing about whether references resolve: that is the
//! brokers' to report, and becomes true when the other resource comes.

use millrace_proto::v1::{self, queue_spec, topic_spec, topology_object::Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use crate::{
    Backoff, Binding, DEFAULT_NAMESPACE, DeadLetter, Dedup, DeletionPolicy, Delivery, Match,
    ParseSizeError, ParseSpanError, Queue, QueueLimits, Report, Retention, Size, Span, Topic,
    check,
};

/// A resource that cannot be compiled. Does not happen to one that passed the API server or
/// [`check`](crate::check()).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    /// It has no name or no namespace.
    #[error("metadata.{0} is missing")]
    Metadata(&'static str),
    /// A text is no duration.
    #[error("{field} is no duration")]
    Span {
        /// Path of the field.
        field: &'static str,
        /// What is wrong with it.
        source: ParseSpanError,
    },
    /// A text is no size.
    #[error("{field} is no quantity")]
    Size {
        /// Path of the field.
        field: &'static str,
        /// What is wrong with it.
        source: ParseSizeError,
    },
    /// A number is negative.
    #[error("{field} is {value}, which is negative")]
    Negative {
        /// Path of the field.
        field: &'static str,
        /// As declared.
        value: i64,
    },
}

/// What brokers are told of a queue.
///
/// # Errors
/// When name or namespace is missing, or a field is not of its form.
pub fn compile_queue(queue: &Queue) -> Result<v1::TopologyObject, CompileError> {
    let place = Place::of(&queue.metadata)?;
    let spec = &queue.spec;
    let bindings = spec.bindings.iter().map(|b| binding(b, &place)).collect();
    let spec = v1::QueueSpec {
        bindings,
        delivery: Some(delivery(&spec.delivery)?),
        limits: Some(limits(&spec.limits)?),
        dead_letter: Some(dead_letter(&spec.dead_letter, &place)?),
        deletion_policy: deletion_policy(spec.deletion_policy).into(),
        dedup_window: dedup_window(&spec.dedup)?,
        replication: spec.replication,
    };
    Ok(place.object("queue", Spec::Queue(spec)))
}

/// What brokers are told of a topic.
///
/// # Errors
/// When name or namespace is missing, or a field is not of its form.
pub fn compile_topic(topic: &Topic) -> Result<v1::TopologyObject, CompileError> {
    let place = Place::of(&topic.metadata)?;
    let spec = &topic.spec;
    let spec = v1::TopicSpec {
        partitions: spec.partitions,
        retention: Some(retention(&spec.retention)?),
        max_message_bytes: bytes(
            "spec.limits.maxMessageBytes",
            Some(&spec.limits.max_message_bytes),
        )?,
        deletion_policy: deletion_policy(spec.deletion_policy).into(),
        dedup_window: dedup_window(&spec.dedup)?,
        replication: spec.replication,
    };
    Ok(place.object("topic", Spec::Topic(spec)))
}

/// The queues and topics declared in a text of YAML documents, for a broker without Kubernetes.
/// BrokerClusters are checked and left out. Resources that name no namespace are in
/// [`DEFAULT_NAMESPACE`].
///
/// # Errors
/// When an API server would refuse one of the documents; the report names every wrong field.
pub fn load(yaml: &str) -> Result<Vec<v1::TopologyObject>, Report> {
    let report = check(yaml, DEFAULT_NAMESPACE);
    if !report.is_accepted() {
        return Err(report);
    }
    let compiled = report.objects.iter().filter_map(compile);
    compiled.collect::<Result<_, String>>().map_err(|message| {
        // What passes the check compiles; the tests hold the two together.
        Report::unreadable(1, message)
    })
}

fn compile(object: &Value) -> Option<Result<v1::TopologyObject, String>> {
    fn typed<T: DeserializeOwned>(object: &Value) -> Result<T, String> {
        T::deserialize(object).map_err(|error| error.to_string())
    }
    let text = |error: CompileError| error.to_string();
    match object["kind"].as_str() {
        Some("Queue") => Some(typed(object).and_then(|q| compile_queue(&q).map_err(text))),
        Some("Topic") => Some(typed(object).and_then(|t| compile_topic(&t).map_err(text))),
        _ => None,
    }
}

/// Who a resource is.
struct Place<'a> {
    namespace: &'a str,
    name: &'a str,
    uid: Option<&'a str>,
    generation: i64,
}

impl<'a> Place<'a> {
    fn of(metadata: &'a kube::core::ObjectMeta) -> Result<Self, CompileError> {
        Ok(Self {
            namespace: (metadata.namespace.as_deref())
                .ok_or(CompileError::Metadata("namespace"))?,
            name: (metadata.name.as_deref()).ok_or(CompileError::Metadata("name"))?,
            uid: metadata.uid.as_deref(),
            generation: metadata.generation.unwrap_or(1),
        })
    }

    fn address(&self, kind: &str, name: &str) -> String {
        format!("{kind}/{}/{name}", self.namespace)
    }

    fn object(&self, kind: &str, spec: Spec) -> v1::TopologyObject {
        let address = self.address(kind, self.name);
        let uid = self
            .uid
            .map_or_else(|| standalone_uid(&address), str::to_owned);
        v1::TopologyObject {
            address,
            uid,
            generation: self.generation,
            spec: Some(spec),
        }
    }
}

/// UID of a resource that no API server has seen: the same for the same address, so that a restart
/// from the same file changes nothing; short, whatever the address (FNV-1a, 64 bits).
fn standalone_uid(address: &str) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    format!("standalone-{:016x}", address.bytes().fold(OFFSET, step))
}

fn binding(binding: &Binding, place: &Place<'_>) -> v1::Binding {
    let headers = binding.headers.iter().map(|header| v1::HeaderMatch {
        name: header.name.clone(),
        value: header.value.clone(),
    });
    let match_ = match binding.match_ {
        Match::All => v1::binding::Match::All,
        Match::Any => v1::binding::Match::Any,
    };
    v1::Binding {
        topic: place.address("topic", &binding.topic.name),
        pattern: binding.subject.clone(),
        headers: headers.collect(),
        r#match: match_.into(),
    }
}

fn delivery(delivery: &Delivery) -> Result<queue_spec::Delivery, CompileError> {
    Ok(queue_spec::Delivery {
        ack_deadline: duration("spec.delivery.ackDeadline", Some(&delivery.ack_deadline))?,
        max_in_flight: delivery.max_in_flight,
        max_deliveries: delivery.max_deliveries,
        backoff: Some(backoff(&delivery.backoff)?),
    })
}

fn backoff(backoff: &Backoff) -> Result<queue_spec::Backoff, CompileError> {
    Ok(queue_spec::Backoff {
        initial: duration("spec.delivery.backoff.initial", Some(&backoff.initial))?,
        max: duration("spec.delivery.backoff.max", Some(&backoff.max))?,
        factor_milli: backoff.factor_percent.saturating_mul(10),
    })
}

fn limits(limits: &QueueLimits) -> Result<v1::QueueLimits, CompileError> {
    Ok(v1::QueueLimits {
        max_messages: count("spec.limits.maxMessages", limits.max_messages)?,
        max_bytes: bytes("spec.limits.maxBytes", limits.max_bytes.as_ref())?,
        max_message_bytes: bytes(
            "spec.limits.maxMessageBytes",
            Some(&limits.max_message_bytes),
        )?,
    })
}

fn dead_letter(
    dead_letter: &DeadLetter,
    place: &Place<'_>,
) -> Result<queue_spec::DeadLetter, CompileError> {
    let queue = dead_letter.queue_ref.as_ref();
    let limits = dead_letter.limits.clone().unwrap_or_default();
    Ok(queue_spec::DeadLetter {
        queue: queue.map_or_else(String::new, |queue| place.address("queue", &queue.name)),
        limits: Some(v1::QueueLimits {
            max_messages: count("spec.deadLetter.limits.maxMessages", limits.max_messages)?,
            max_bytes: bytes("spec.deadLetter.limits.maxBytes", limits.max_bytes.as_ref())?,
            max_message_bytes: 0,
        }),
    })
}

fn retention(retention: &Retention) -> Result<topic_spec::Retention, CompileError> {
    Ok(topic_spec::Retention {
        age: duration("spec.retention.age", retention.age.as_ref())?,
        bytes: bytes("spec.retention.bytes", retention.bytes.as_ref())?,
        messages: count("spec.retention.messages", retention.messages)?,
    })
}

fn dedup_window(dedup: &Dedup) -> Result<Option<prost_types::Duration>, CompileError> {
    duration("spec.dedup.window", Some(&dedup.window))
}

fn deletion_policy(policy: DeletionPolicy) -> v1::DeletionPolicy {
    match policy {
        DeletionPolicy::Orphan => v1::DeletionPolicy::Orphan,
        DeletionPolicy::Delete => v1::DeletionPolicy::Delete,
    }
}

fn duration(
    field: &'static str,
    span: Option<&Span>,
) -> Result<Option<prost_types::Duration>, CompileError> {
    let Some(span) = span else { return Ok(None) };
    let duration = span
        .duration()
        .map_err(|source| CompileError::Span { field, source })?;
    Ok(Some(prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }))
}

/// 0 stands for no limit on the wire; no field that is there may be 0.
fn bytes(field: &'static str, size: Option<&Size>) -> Result<u64, CompileError> {
    size.map_or(Ok(0), |size| {
        size.bytes()
            .map_err(|source| CompileError::Size { field, source })
    })
}

fn count(field: &'static str, value: Option<i64>) -> Result<u64, CompileError> {
    let value = value.unwrap_or(0);
    u64::try_from(value).map_err(|_| CompileError::Negative { field, value })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn queue(spec: serde_json::Value) -> Queue {
        serde_json::from_value(json!({
            "apiVersion": "millrace.dev/v1alpha1",
            "kind": "Queue",
            "metadata": { "name": "orders", "namespace": "shop" },
            "spec": spec,
        }))
        .unwrap()
    }

    fn compiled(spec: serde_json::Value) -> v1::QueueSpec {
        match compile_queue(&queue(spec)).unwrap().spec {
            Some(Spec::Queue(spec)) => spec,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_empty_queue_has_every_default() {
        let spec = compiled(json!({}));
        let delivery = spec.delivery.unwrap();
        assert_eq!(delivery.ack_deadline.unwrap().seconds, 30);
        assert_eq!(
            (delivery.max_in_flight, delivery.max_deliveries),
            (1000, 20)
        );
        let backoff = delivery.backoff.unwrap();
        assert_eq!(backoff.factor_milli, 2000);
        assert_eq!(backoff.max.unwrap().seconds, 300);
        assert_eq!(spec.dedup_window.unwrap().seconds, 120);
        assert_eq!(spec.limits.unwrap().max_message_bytes, 1 << 20);
        assert_eq!(spec.dead_letter.unwrap().queue, "");
        assert_eq!(spec.deletion_policy, i32::from(v1::DeletionPolicy::Orphan));
        assert_eq!(spec.replication, None);
        assert_eq!(compiled(json!({ "replication": 3 })).replication, Some(3));
    }

    #[test]
    fn references_become_addresses_in_the_same_namespace() {
        let spec = compiled(json!({
            "bindings": [{ "topic": { "name": "events" }, "headers": [{ "name": "a" }] }],
            "deadLetter": { "queueRef": { "name": "dead" } },
        }));
        assert_eq!(spec.bindings[0].topic, "topic/shop/events");
        assert_eq!(spec.bindings[0].pattern, "#");
        assert_eq!(spec.bindings[0].headers[0].value, None);
        assert_eq!(spec.dead_letter.unwrap().queue, "queue/shop/dead");
    }

    #[test]
    fn identity_comes_from_the_api_server_or_from_the_address() {
        let mut queue = queue(json!({}));
        let alone = compile_queue(&queue).unwrap();
        assert_eq!(alone.uid, "standalone-7a9a813b98f2462b");
        assert_eq!(alone.generation, 1);

        queue.metadata.uid = Some("8f0c".to_owned());
        queue.metadata.generation = Some(7);
        let served = compile_queue(&queue).unwrap();
        assert_eq!((served.uid.as_str(), served.generation), ("8f0c", 7));
    }

    #[test]
    fn a_file_is_loaded_with_namespaces_and_without_clusters() {
        let yaml = "\
apiVersion: millrace.dev/v1alpha1
kind: BrokerCluster
metadata: { name: main }
spec: {}
---
apiVersion: millrace.dev/v1alpha1
kind: Topic
metadata: { name: events, namespace: shop }
spec: { partitions: 3 }
---
apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata: { name: orders }
spec: {}
";
        let objects = load(yaml).unwrap();
        let addresses: Vec<&str> = objects.iter().map(|o| o.address.as_str()).collect();
        assert_eq!(addresses, ["topic/shop/events", "queue/default/orders"]);
    }

    #[test]
    fn a_wrong_file_is_refused_with_line_and_field() {
        let yaml = "\
apiVersion: millrace.dev/v1alpha1
kind: Topic
metadata: { name: events }
spec:
  partitions: 0
";
        assert_eq!(
            load(yaml).unwrap_err().to_string(),
            "line 5: Topic events: spec.partitions: 0 is less than 1"
        );
    }

    #[test]
    fn a_field_of_the_wrong_form_is_named() {
        let error = compile_queue(&queue(json!({ "delivery": { "ackDeadline": "soon" } })));
        assert_eq!(
            error.unwrap_err().to_string(),
            "spec.delivery.ackDeadline is no duration"
        );
    }
}
