//! Declared queues and topics as the operator sends them, checked field by field. An error names
//! the object's address and the field as the protocol spells it. Defaults are the sender's to fill
//! in: what is missing here is an error. What only the catalogue can know (do the partitions
//! shrink, is it another resource) is left to it.

use std::time::Duration;

use bytes::Bytes;
use millrace_engine::catalogue::{
    Declared, DeclaredBinding, DeclaredDeadLetter, DeclaredLimits, DeclaredQueue, DeclaredSpec,
    DeclaredTopic, DeletionPolicy, REPLICATION_MAX, Removed, ShardClass,
};
use millrace_engine::routing::Matcher;
use millrace_engine::spec::{Filter, HeaderCondition, PartitionSpec};
use millrace_proto::v1;
use millrace_types::{
    Address, BINDINGS_MAX, CONDITION_VALUE_BYTES_MAX, CONDITIONS_MAX, DEDUP_MS_DEFAULT,
    DEDUP_MS_MAX, DEDUP_MS_MIN, DELAY_MS_MAX, HEADER_NAME_BYTES_MAX, IN_FLIGHT_MAX, LEASE_MS_MIN,
    MESSAGE_BYTES_MAX, PARTITIONS_MAX, Refusal, TEXT_BYTES_MAX,
};
use prost::Message as _;

use super::millis;
use crate::validate::{invalid, length};
use millrace_node::TopologyDelta;

/// Failed deliveries a queue may allow: more is a loop, not a retry.
const DELIVERIES_MAX: u32 = 1_000;
/// A backoff factor in thousandths: one that does not shrink, and ten at most.
const FACTOR_MILLI: std::ops::RangeInclusive<u64> = 1_000..=10_000;
/// Longest retention by age: ten years, to tell a long time from a mistake.
const AGE_MAX: Duration = Duration::from_secs(87_600 * 3_600);

/// A delta as it came.
///
/// # Errors
/// `INVALID_ARGUMENT` with `address` and `field`.
pub(crate) fn delta(request: v1::ApplyTopologyRequest) -> Result<TopologyDelta, Refusal> {
    let upserts = request.upserts.iter().map(declared);
    let removals = request.removals.into_iter().map(removed);
    Ok(TopologyDelta {
        cluster_id: Some(request.cluster_id).filter(|id| !id.is_empty()),
        base_revision: request.base_revision,
        upserts: upserts.collect::<Result<_, _>>()?,
        removals: removals.collect::<Result<_, _>>()?,
    })
}

fn removed(removal: v1::Removal) -> Result<Removed, Refusal> {
    let address = declarable(&removal.address)?;
    uid(&removal.uid).map_err(|refusal| of(&removal.address, refusal))?;
    Ok(Removed {
        address,
        uid: removal.uid,
    })
}

/// One object.
///
/// # Errors
/// `INVALID_ARGUMENT` with `address` and `field`.
pub(crate) fn declared(object: &v1::TopologyObject) -> Result<Declared, Refusal> {
    let address = declarable(&object.address)?;
    checked(&address, object).map_err(|refusal| of(&object.address, refusal))
}

fn checked(address: &Address, object: &v1::TopologyObject) -> Result<Declared, Refusal> {
    use v1::topology_object::Spec;
    uid(&object.uid)?;
    if object.generation < 1 {
        return Err(invalid(
            "generation",
            format!("is {}; want at least 1", object.generation),
        ));
    }
    let spec = match (&object.spec, address) {
        (Some(Spec::Queue(spec)), Address::Queue { .. }) => {
            DeclaredSpec::Queue(queue(address, spec)?)
        }
        (Some(Spec::Topic(spec)), Address::Topic { .. }) => DeclaredSpec::Topic(topic(spec)?),
        (Some(_), _) => return Err(invalid("spec", "is of another kind than the address")),
        (None, _) => return Err(invalid("spec", "is missing")),
    };
    Ok(Declared {
        address: address.clone(),
        uid: object.uid.clone(),
        generation: object.generation,
        wire: Bytes::from(object.encode_to_vec()),
        spec,
    })
}

/// An address that resources can have: implicit dead-letter queues come with their queue.
fn declarable(text: &str) -> Result<Address, Refusal> {
    match crate::validate::address(text)? {
        Address::DeadLetter { .. } => {
            let text = "is implicit: it comes and goes with its queue";
            Err(invalid("address", text))
        }
        address => Ok(address),
    }
}

fn queue(address: &Address, spec: &v1::QueueSpec) -> Result<DeclaredQueue, Refusal> {
    let delivery = required("queue.delivery", spec.delivery.as_ref())?;
    let backoff = required("queue.delivery.backoff", delivery.backoff.as_ref())?;
    let delay_max = Duration::from_millis(DELAY_MS_MAX);
    let span = |field: &str, span: Option<&prost_types::Duration>| {
        millis(field, required(field, span)?, delay_max)
    };
    let lease_ms = span(
        "queue.delivery.ack_deadline",
        delivery.ack_deadline.as_ref(),
    )?;
    within(
        "queue.delivery.ack_deadline (ms)",
        lease_ms,
        LEASE_MS_MIN..=DELAY_MS_MAX,
    )?;
    let in_flight = u64::from(delivery.max_in_flight);
    within(
        "queue.delivery.max_in_flight",
        in_flight,
        1..=IN_FLIGHT_MAX.into(),
    )?;
    let deliveries = u64::from(delivery.max_deliveries);
    within(
        "queue.delivery.max_deliveries",
        deliveries,
        1..=DELIVERIES_MAX.into(),
    )?;
    let initial_ms = span("queue.delivery.backoff.initial", backoff.initial.as_ref())?;
    let max_ms = span("queue.delivery.backoff.max", backoff.max.as_ref())?;
    within(
        "queue.delivery.backoff.max (ms)",
        max_ms,
        initial_ms..=DELAY_MS_MAX,
    )?;
    let factor = u64::from(backoff.factor_milli);
    within("queue.delivery.backoff.factor_milli", factor, FACTOR_MILLI)?;
    Ok(DeclaredQueue {
        bindings: bindings(&spec.bindings)?,
        lease_ms,
        in_flight_max: delivery.max_in_flight,
        deliveries_max: delivery.max_deliveries,
        backoff_initial_ms: initial_ms,
        backoff_max_ms: max_ms,
        backoff_factor_milli: backoff.factor_milli,
        limits: limits(
            "queue.limits",
            required("queue.limits", spec.limits.as_ref())?,
        )?,
        dedup_ms: dedup_ms("queue.dedup_window", spec.dedup_window.as_ref())?,
        dead_letter: dead_letter(address, spec.dead_letter.as_ref())?,
        class: class("queue.replication", spec.replication)?,
        deletion: deletion("queue.deletion_policy", spec.deletion_policy)?,
    })
}

fn bindings(bindings: &[v1::Binding]) -> Result<Vec<DeclaredBinding>, Refusal> {
    if bindings.len() > BINDINGS_MAX {
        let text = format!("are {}; want at most {BINDINGS_MAX}", bindings.len());
        return Err(invalid("queue.bindings", text));
    }
    let numbered = bindings.iter().enumerate();
    numbered
        .map(|(n, one)| binding(&format!("queue.bindings[{n}]"), one))
        .collect()
}

fn binding(field: &str, binding: &v1::Binding) -> Result<DeclaredBinding, Refusal> {
    let part = |name: &str| format!("{field}.{name}");
    let topic: Address = binding
        .topic
        .parse()
        .map_err(|error: millrace_types::AddressError| invalid(part("topic"), error.to_string()))?;
    if topic.is_queue() {
        return Err(invalid(part("topic"), format!("{topic} is no topic")));
    }
    if binding.headers.len() > CONDITIONS_MAX {
        let text = format!(
            "are {}; want at most {CONDITIONS_MAX}",
            binding.headers.len()
        );
        return Err(invalid(part("headers"), text));
    }
    let mut headers = Vec::with_capacity(binding.headers.len());
    for (n, condition) in binding.headers.iter().enumerate() {
        headers.push(header(&part(&format!("headers[{n}]")), condition)?);
    }
    let any = match v1::binding::Match::try_from(binding.r#match) {
        // Unspecified: nothing depends on it without conditions.
        Ok(v1::binding::Match::All) => false,
        Ok(v1::binding::Match::Unspecified) if headers.is_empty() => false,
        Ok(v1::binding::Match::Any) => true,
        _ => return Err(invalid(part("match"), "is neither ALL nor ANY")),
    };
    let filter = Filter {
        pattern: binding.pattern.clone(),
        headers,
        any,
    };
    Matcher::new(&filter).map_err(|error| invalid(part("pattern"), error.to_string()))?;
    Ok(DeclaredBinding { topic, filter })
}

fn header(field: &str, condition: &v1::HeaderMatch) -> Result<HeaderCondition, Refusal> {
    let name = format!("{field}.name");
    if condition.name.is_empty() {
        return Err(invalid(&name, "is missing"));
    }
    length(name, &condition.name, HEADER_NAME_BYTES_MAX)?;
    if let Some(value) = &condition.value {
        length(format!("{field}.value"), value, CONDITION_VALUE_BYTES_MAX)?;
    }
    Ok(HeaderCondition {
        name: condition.name.clone(),
        value: condition.value.clone(),
    })
}

fn dead_letter(
    address: &Address,
    spec: Option<&v1::queue_spec::DeadLetter>,
) -> Result<DeclaredDeadLetter, Refusal> {
    let field = "queue.dead_letter.queue";
    let target = spec
        .map(|spec| spec.queue.as_str())
        .filter(|text| !text.is_empty());
    let queue = match target.map(str::parse::<Address>).transpose() {
        Ok(queue) => queue,
        Err(error) => return Err(invalid(field, error.to_string())),
    };
    match &queue {
        Some(Address::Queue { .. }) if queue.as_ref() != Some(address) => {}
        None => {}
        Some(other) => {
            return Err(invalid(
                field,
                format!("{other} is not another declared queue"),
            ));
        }
    }
    let unlimited = v1::QueueLimits::default();
    let given = spec
        .and_then(|spec| spec.limits.as_ref())
        .unwrap_or(&unlimited);
    Ok(DeclaredDeadLetter {
        queue,
        limits: DeclaredLimits {
            // Whatever its queue took, it takes: a dead letter has nowhere else to go.
            message_bytes_max: MESSAGE_BYTES_MAX,
            ..limits("queue.dead_letter.limits", &large_messages(given))?
        },
    })
}

fn large_messages(given: &v1::QueueLimits) -> v1::QueueLimits {
    v1::QueueLimits {
        max_message_bytes: MESSAGE_BYTES_MAX.into(),
        ..*given
    }
}

fn limits(field: &str, limits: &v1::QueueLimits) -> Result<DeclaredLimits, Refusal> {
    Ok(DeclaredLimits {
        messages_max: bound(limits.max_messages),
        bytes_max: bound(limits.max_bytes),
        message_bytes_max: message_bytes(
            &format!("{field}.max_message_bytes"),
            limits.max_message_bytes,
        )?,
    })
}

fn topic(spec: &v1::TopicSpec) -> Result<DeclaredTopic, Refusal> {
    let partitions = u64::from(spec.partitions);
    within("topic.partitions", partitions, 1..=PARTITIONS_MAX.into())?;
    let kept = spec.retention.unwrap_or_default();
    let age = kept.age.as_ref();
    let age_ms = age
        .map(|age| millis("topic.retention.age", age, AGE_MAX))
        .transpose()?;
    let bytes = message_bytes("topic.max_message_bytes", spec.max_message_bytes)?;
    Ok(DeclaredTopic {
        partitions: spec.partitions,
        partition: PartitionSpec {
            age_ms_max: age_ms.and_then(bound),
            bytes_max: bound(kept.bytes),
            messages_max: bound(kept.messages),
            message_bytes_max: bytes,
            dedup_ms: dedup_ms("topic.dedup_window", spec.dedup_window.as_ref())?,
        },
        class: class("topic.replication", spec.replication)?,
        deletion: deletion("topic.deletion_policy", spec.deletion_policy)?,
    })
}

fn class(field: &str, replication: Option<u32>) -> Result<ShardClass, Refusal> {
    if let Some(replication) = replication {
        within(field, replication.into(), 1..=REPLICATION_MAX.into())?;
    }
    Ok(ShardClass { replication })
}

/// An operator of an earlier version says nothing of it.
fn dedup_ms(field: &str, window: Option<&prost_types::Duration>) -> Result<u64, Refusal> {
    let Some(window) = window else {
        return Ok(DEDUP_MS_DEFAULT);
    };
    let window_ms = millis(field, window, Duration::from_millis(DEDUP_MS_MAX))?;
    let in_millis = format!("{field} (ms)");
    within(&in_millis, window_ms, DEDUP_MS_MIN..=DEDUP_MS_MAX)?;
    Ok(window_ms)
}

fn deletion(field: &str, policy: i32) -> Result<DeletionPolicy, Refusal> {
    match v1::DeletionPolicy::try_from(policy) {
        Ok(v1::DeletionPolicy::Orphan) => Ok(DeletionPolicy::Orphan),
        Ok(v1::DeletionPolicy::Delete) => Ok(DeletionPolicy::Delete),
        Ok(v1::DeletionPolicy::Unspecified) | Err(_) => {
            Err(invalid(field, "is neither ORPHAN nor DELETE"))
        }
    }
}

fn uid(uid: &str) -> Result<(), Refusal> {
    if uid.is_empty() {
        return Err(invalid("uid", "is missing"));
    }
    length("uid", uid, TEXT_BYTES_MAX)
}

fn message_bytes(field: &str, bytes: u64) -> Result<u32, Refusal> {
    within(field, bytes, 1..=MESSAGE_BYTES_MAX.into())?;
    Ok(u32::try_from(bytes).unwrap_or(MESSAGE_BYTES_MAX))
}

/// 0 stands for no bound.
const fn bound(value: u64) -> Option<u64> {
    match value {
        0 => None,
        value => Some(value),
    }
}

fn within(field: &str, value: u64, range: std::ops::RangeInclusive<u64>) -> Result<(), Refusal> {
    if range.contains(&value) {
        return Ok(());
    }
    let (min, max) = range.into_inner();
    Err(invalid(field, format!("is {value}; want {min} to {max}"))
        .with("limit", max.to_string())
        .with("actual", value.to_string()))
}

fn required<'a, T>(field: &str, value: Option<&'a T>) -> Result<&'a T, Refusal> {
    value.ok_or_else(|| invalid(field, "is missing"))
}

/// Puts the object's address in front.
fn of(address: &str, mut refusal: Refusal) -> Refusal {
    refusal.message = format!("{address}: {}", refusal.message);
    refusal.with("address", address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn queue_object() -> v1::TopologyObject {
        let spec = v1::QueueSpec {
            bindings: vec![v1::Binding {
                topic: "topic/a/events".into(),
                pattern: "orders.#".into(),
                headers: vec![v1::HeaderMatch {
                    name: "region".into(),
                    value: Some("eu".into()),
                }],
                r#match: v1::binding::Match::Any.into(),
            }],
            delivery: Some(v1::queue_spec::Delivery {
                ack_deadline: seconds(30),
                max_in_flight: 1000,
                max_deliveries: 20,
                backoff: Some(v1::queue_spec::Backoff {
                    initial: seconds(1),
                    max: seconds(300),
                    factor_milli: 2000,
                }),
            }),
            limits: Some(v1::QueueLimits {
                max_messages: 0,
                max_bytes: 10,
                max_message_bytes: 1 << 20,
            }),
            dead_letter: None,
            deletion_policy: v1::DeletionPolicy::Orphan.into(),
            dedup_window: None,
            replication: None,
        };
        v1::TopologyObject {
            address: "queue/a/orders".into(),
            uid: "uid-1".into(),
            generation: 3,
            spec: Some(v1::topology_object::Spec::Queue(spec)),
        }
    }

    fn queue_of(object: &mut v1::TopologyObject) -> &mut v1::QueueSpec {
        match &mut object.spec {
            Some(v1::topology_object::Spec::Queue(spec)) => spec,
            _ => panic!("no queue"),
        }
    }

    #[test]
    fn a_whole_queue_is_understood() {
        let declared = declared(&queue_object()).unwrap();
        let DeclaredSpec::Queue(queue) = declared.spec else {
            panic!("no queue");
        };
        assert_eq!(queue.lease_ms, 30_000);
        assert_eq!(queue.limits.messages_max, None);
        assert_eq!(queue.limits.bytes_max, Some(10));
        assert_eq!(
            queue.dead_letter.limits.message_bytes_max,
            MESSAGE_BYTES_MAX
        );
        assert!(queue.bindings[0].filter.any);
        assert!(queue.class.is_ordinary());
        assert_eq!(declared.wire, queue_object().encode_to_vec());
    }

    #[test]
    fn each_wrong_field_is_named_with_its_object() {
        type Change = fn(&mut v1::TopologyObject);
        let table: Vec<(&str, Change)> = vec![
            ("uid", |o| o.uid.clear()),
            ("generation", |o| o.generation = 0),
            ("spec", |o| o.spec = None),
            ("spec", |o| o.address = "topic/a/orders".into()),
            ("queue.delivery", |o| queue_of(o).delivery = None),
            ("queue.replication", |o| queue_of(o).replication = Some(0)),
            ("queue.limits", |o| queue_of(o).limits = None),
            ("queue.deletion_policy", |o| queue_of(o).deletion_policy = 0),
            ("queue.delivery.ack_deadline", |o| {
                queue_of(o).delivery.as_mut().unwrap().ack_deadline = None;
            }),
            ("queue.delivery.ack_deadline (ms)", |o| {
                queue_of(o).delivery.as_mut().unwrap().ack_deadline = seconds(0);
            }),
            ("queue.delivery.max_in_flight", |o| {
                queue_of(o).delivery.as_mut().unwrap().max_in_flight = 0;
            }),
            ("queue.bindings[0].pattern", |o| {
                queue_of(o).bindings[0].pattern = "a..b".into();
            }),
            ("queue.bindings[0].topic", |o| {
                queue_of(o).bindings[0].topic = "queue/a/b".into();
            }),
            ("queue.bindings[0].match", |o| {
                queue_of(o).bindings[0].r#match = 9
            }),
            ("queue.dead_letter.queue", |o| {
                queue_of(o).dead_letter = Some(v1::queue_spec::DeadLetter {
                    queue: "queue/a/orders".into(),
                    limits: None,
                });
            }),
        ];
        for (field, change) in table {
            let mut object = queue_object();
            change(&mut object);
            let refusal = declared(&object).unwrap_err();
            assert_eq!(refusal.metadata["field"], field);
            assert!(
                refusal.message.starts_with(&object.address),
                "{}",
                refusal.message
            );
        }
    }

    #[test]
    fn an_implicit_queue_cannot_be_declared() {
        let mut object = queue_object();
        object.address = "queue/a/orders/dead".into();
        assert_eq!(declared(&object).unwrap_err().metadata["field"], "address");
    }
}
