//! Whether a delta can be applied as a whole. Everything that could refuse it is here, so that
//! applying it cannot fail halfway.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};

use millrace_types::{
    Address, BINDINGS_MAX, DELAY_MS_MAX, ErrorCode, IN_FLIGHT_MAX, LEASE_MS_MIN, MESSAGE_BYTES_MAX,
    PARTITIONS_MAX, Refusal, SHARDS_MAX, TEXT_BYTES_MAX,
};

use super::room;
use super::{
    Catalogue, DELTA_BYTES_MAX, DELTA_OBJECTS_MAX, Declared, DeclaredLimits, DeclaredQueue,
    DeclaredSpec, DeletionPolicy, REPLICATION_MAX, Removed, ShardClass,
};
use crate::refusal;
use crate::routing::Matcher;

/// A backoff that shrinks would be none.
const FACTOR_MILLI_MIN: u32 = 1000;
/// More than this reaches any longest delay at the second failure.
const FACTOR_MILLI_MAX: u32 = 1_000_000;

pub(super) fn delta(
    catalogue: &Catalogue,
    upserts: &[Declared],
    removals: &[Removed],
) -> Result<(), Refusal> {
    size(upserts, removals)?;
    let mut gone = BTreeSet::new();
    for removed in removals {
        removal(catalogue, removed)?;
        gone.insert(&removed.address);
    }
    let mut seen = BTreeSet::new();
    for one in upserts {
        if !seen.insert(&one.address) {
            return Err(wrong(&one.address, "address", "is declared twice"));
        }
        declared(one)?;
        partitions_grow(catalogue, one, &gone)?;
    }
    classes(catalogue, upserts)?;
    room::check(catalogue, upserts, &gone)
}

/// Whether there are, or can be, shards of each class that is asked for.
fn classes(catalogue: &Catalogue, upserts: &[Declared]) -> Result<(), Refusal> {
    let asked = upserts.iter().map(|one| one.spec.class());
    let mut missing: BTreeSet<ShardClass> = asked.filter(|class| !class.is_ordinary()).collect();
    missing.retain(|class| catalogue.shards_of(*class).next().is_none());
    if missing.is_empty() {
        return Ok(());
    }
    if !catalogue.roster.is_founded() {
        return Err(refusal::being_founded());
    }
    let there = catalogue.topology.data_shards as usize;
    if there + missing.len() > SHARDS_MAX as usize {
        let message = format!(
            "there are {there} data shards, at most {SHARDS_MAX} are possible, and {} more are \
             needed for what is declared with a replication of its own",
            missing.len()
        );
        let refusal = Refusal::new(ErrorCode::LimitReached, message);
        return Err(refusal.with("limit", SHARDS_MAX.to_string()));
    }
    Ok(())
}

/// Whether a delta is of a size that one command may have. Asked before it is proposed, too: a
/// larger one does not fit the journal.
///
/// # Errors
/// `INVALID_ARGUMENT` with `limit` and `actual`.
pub fn size(upserts: &[Declared], removals: &[Removed]) -> Result<(), Refusal> {
    let too_large = |what, limit: usize, actual: usize| {
        let message = format!("a delta has at most {limit} {what}, not {actual}");
        let refusal = refusal::invalid(message).with("limit", limit.to_string());
        Err(refusal.with("actual", actual.to_string()))
    };
    let objects = upserts.len().saturating_add(removals.len());
    if objects > DELTA_OBJECTS_MAX {
        return too_large("objects", DELTA_OBJECTS_MAX, objects);
    }
    let bytes: usize = upserts.iter().map(|declared| declared.wire.len()).sum();
    if bytes > DELTA_BYTES_MAX {
        return too_large("bytes", DELTA_BYTES_MAX, bytes);
    }
    Ok(())
}

fn removal(catalogue: &Catalogue, removed: &Removed) -> Result<(), Refusal> {
    if matches!(removed.address, Address::DeadLetter { .. }) {
        let message = "is implicit and goes with its queue";
        return Err(wrong(&removed.address, "address", message));
    }
    match catalogue.topology.objects.get(&removed.address) {
        Some(placed) if placed.uid != removed.uid => Err(wrong(
            &removed.address,
            "uid",
            format!("is {:?}, the removal names {:?}", placed.uid, removed.uid),
        )),
        _ => Ok(()),
    }
}

fn partitions_grow(
    catalogue: &Catalogue,
    declared: &Declared,
    gone: &BTreeSet<&Address>,
) -> Result<(), Refusal> {
    let (DeclaredSpec::Topic(topic), Some(placed)) = (
        &declared.spec,
        catalogue.topology.objects.get(&declared.address),
    ) else {
        return Ok(());
    };
    let is_new =
        gone.contains(&declared.address) && placed.spec.deletion() == DeletionPolicy::Delete;
    let (old, new) = (placed.partitions().len(), topic.partitions);
    if !is_new && (new as usize) < old {
        let message = format!("of {new} would be fewer than the {old} there are; they only grow");
        return Err(wrong(&declared.address, "partitions", message));
    }
    Ok(())
}

fn declared(declared: &Declared) -> Result<(), Refusal> {
    let address = &declared.address;
    if declared.uid.is_empty() || declared.uid.len() > TEXT_BYTES_MAX {
        let message = format!("is not of 1 to {TEXT_BYTES_MAX} bytes");
        return Err(wrong(address, "uid", message));
    }
    if let Some(replication) = declared.spec.class().replication {
        let max = REPLICATION_MAX.into();
        within(address, "replication", replication.into(), 1, max)?;
    }
    match (&declared.spec, address) {
        (DeclaredSpec::Queue(spec), Address::Queue { .. }) => queue(address, spec),
        (DeclaredSpec::Topic(spec), Address::Topic { .. }) => {
            let partitions = u64::from(spec.partitions);
            within(address, "partitions", partitions, 1, PARTITIONS_MAX.into())?;
            message_bytes(address, spec.partition.message_bytes_max)
        }
        (DeclaredSpec::Queue(_), _) => Err(wrong(address, "spec", "is that of a queue")),
        (DeclaredSpec::Topic(_), _) => Err(wrong(address, "spec", "is that of a topic")),
    }
}

fn queue(address: &Address, queue: &DeclaredQueue) -> Result<(), Refusal> {
    let in_flight = u64::from(queue.in_flight_max);
    let deliveries = u64::from(queue.deliveries_max);
    let factor = u64::from(queue.backoff_factor_milli);
    let (factor_min, factor_max) = (FACTOR_MILLI_MIN.into(), FACTOR_MILLI_MAX.into());
    for (field, value, min, max) in [
        ("lease", queue.lease_ms, LEASE_MS_MIN, DELAY_MS_MAX),
        ("in flight", in_flight, 1, IN_FLIGHT_MAX.into()),
        ("deliveries", deliveries, 1, u32::MAX.into()),
        ("backoff initial", queue.backoff_initial_ms, 0, DELAY_MS_MAX),
        ("backoff max", queue.backoff_max_ms, 0, DELAY_MS_MAX),
        ("backoff factor", factor, factor_min, factor_max),
    ] {
        within(address, field, value, min, max)?;
    }
    limits(address, &queue.limits)?;
    limits(address, &queue.dead_letter.limits)?;
    if let Some(target) = &queue.dead_letter.queue
        && !target.is_queue()
    {
        let message = format!("goes to {target}, which is no queue");
        return Err(wrong(address, "dead letter", message));
    }
    if queue.bindings.len() > BINDINGS_MAX {
        let message = format!("are {}, more than {BINDINGS_MAX}", queue.bindings.len());
        return Err(wrong(address, "bindings", message));
    }
    for (at, binding) in queue.bindings.iter().enumerate() {
        if binding.topic.is_queue() {
            let message = format!("[{at}] is of {}, which is no topic", binding.topic);
            return Err(wrong(address, "bindings", message));
        }
        if let Err(error) = Matcher::new(&binding.filter) {
            return Err(wrong(address, "bindings", format!("[{at}]: {error}")));
        }
    }
    Ok(())
}

fn limits(address: &Address, limits: &DeclaredLimits) -> Result<(), Refusal> {
    message_bytes(address, limits.message_bytes_max)
}

fn message_bytes(address: &Address, bytes: u32) -> Result<(), Refusal> {
    let (bytes, max) = (u64::from(bytes), u64::from(MESSAGE_BYTES_MAX));
    within(address, "message bytes", bytes, 1, max)
}

fn within(address: &Address, field: &str, value: u64, min: u64, max: u64) -> Result<(), Refusal> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let message = format!("of {value} is not within {min} to {max}");
    Err(wrong(address, field, message))
}

fn wrong(address: &Address, field: &str, message: impl Into<String>) -> Refusal {
    let message = format!("{address}: {field} {}", message.into());
    Refusal::new(ErrorCode::InvalidArgument, message)
        .with("address", address.to_string())
        .with("field", field)
}
