//! Between the wire and the broker's own values, both ways. Wire types are named here, in
//! `validate` and in the services that receive them, nowhere else. Pure.

pub(crate) mod facts;
pub(crate) mod membership;
pub(crate) mod nodes;
pub(crate) mod topology;

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use millrace_engine::command::{Dedup, DedupId, Settle};
use millrace_proto::v1;
use millrace_types::{
    Applied, DELAY_MS_MAX, ErrorCode, LEASE_MS_MIN, NOTE_BYTES_MAX, NodeId, Offset, Refusal, Wall,
};
use prost::Message as _;

use crate::validate::{invalid, length};
use millrace_node::{
    Acknowledge, Acknowledged, Credit, Delivered, Peeked, PeekedState, Position, Record, SettleTag,
    Taken,
};

/// Tags are at most this long; longer ones are not ours.
pub(crate) const TAG_BYTES_MAX: usize = 64;
/// Ids of producers are at most this long: random ones, or names of programs.
const PRODUCER_ID_BYTES_MAX: usize = 64;
const MILLIS_PER_SECOND: u64 = 1_000;
const NANOS_PER_MILLI: i32 = 1_000_000;

/// A refusal as it goes over the wire.
pub(crate) fn error(refusal: Refusal) -> v1::Error {
    let applied = match refusal.applied {
        Applied::No => v1::Applied::NotApplied,
        Applied::Yes => v1::Applied::Applied,
        Applied::Unknown => v1::Applied::Unknown,
    };
    v1::Error {
        reason: refusal.code.reason().to_owned(),
        message: refusal.message,
        applied: applied.into(),
        retry_after: refusal.retry_after_ms.map(duration_of_millis),
        metadata: refusal.metadata.into_iter().collect(),
    }
}

/// Milliseconds as a protobuf duration.
pub(crate) fn duration_of_millis(millis: u64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(millis / MILLIS_PER_SECOND).unwrap_or(i64::MAX),
        nanos: nanos_of(millis),
    }
}

/// A duration as protobuf's; below a millisecond is dropped.
pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    duration_of_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// A protobuf duration in whole milliseconds.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is negative, malformed or above `max`.
pub(crate) fn millis(
    field: &str,
    duration: &prost_types::Duration,
    max: Duration,
) -> Result<u64, Refusal> {
    let parsed =
        Duration::try_from(*duration).map_err(|_| invalid(field, "is negative or no duration"))?;
    if parsed > max {
        return Err(
            invalid(field, format!("is {parsed:?}; want at most {max:?}"))
                .with("limit", format!("{max:?}"))
                .with("actual", format!("{parsed:?}")),
        );
    }
    Ok(u64::try_from(parsed.as_millis()).unwrap_or(u64::MAX))
}

/// Wall time as a protobuf timestamp.
pub(crate) fn timestamp(wall: Wall) -> prost_types::Timestamp {
    let millis = wall.as_millis();
    prost_types::Timestamp {
        seconds: i64::try_from(millis / MILLIS_PER_SECOND).unwrap_or(i64::MAX),
        nanos: nanos_of(millis),
    }
}

fn nanos_of(millis: u64) -> i32 {
    i32::try_from(millis % MILLIS_PER_SECOND).unwrap_or(0) * NANOS_PER_MILLI
}

/// The acknowledgement of a whole batch.
pub(crate) fn acknowledged_batch(batch: &Acknowledged) -> v1::PublishResult {
    acknowledged(batch, batch.offsets().map(offsets))
}

/// The acknowledgement of one message of a batch, this far from its first.
pub(crate) fn acknowledged_message(batch: &Acknowledged, place: u32) -> v1::PublishResult {
    let first = batch.offsets().map(|all| all.start.plus(place.into()));
    acknowledged(batch, first.map(|first| offsets(&(first..first.plus(1)))))
}

fn acknowledged(batch: &Acknowledged, offsets: Option<v1::OffsetRange>) -> v1::PublishResult {
    let (durability, duplicate) = match batch.taken {
        Taken::Stored(_) => (v1::Durability::MajoritySynced, false),
        Taken::Repeated(_) => (v1::Durability::MajoritySynced, true),
        Taken::Received => (v1::Durability::Received, false),
    };
    let acknowledgement = v1::Acknowledgement {
        partition: batch.partition,
        offsets,
        durability: durability.into(),
        duplicate,
        replicas: batch.replicas,
    };
    v1::PublishResult {
        outcome: Some(v1::publish_result::Outcome::Acknowledged(acknowledgement)),
    }
}

/// What another node says of a batch.
pub(crate) fn publish_answer(result: v1::PublishResult) -> Result<Acknowledged, Refusal> {
    use v1::publish_result::Outcome;
    let acknowledged = match result.outcome {
        Some(Outcome::Acknowledged(acknowledged)) => acknowledged,
        Some(Outcome::Refused(error)) => return Err(crate::forward::refusal_of(error)),
        None => {
            let text = "another node's answer to a batch says nothing";
            return Err(Refusal::new(ErrorCode::Internal, text).unknown());
        }
    };
    let offsets = acknowledged.offsets;
    let offsets = offsets.map(|all| Offset::new(all.first)..Offset::new(all.end));
    Ok(Acknowledged {
        partition: acknowledged.partition,
        taken: match offsets {
            Some(offsets) if acknowledged.duplicate => Taken::Repeated(offsets),
            Some(offsets) => Taken::Stored(offsets),
            None => Taken::Received,
        },
        replicas: acknowledged.replicas,
    })
}

/// When a publish wants to be answered.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is not known: to take it for the default would promise too much.
pub(crate) fn acknowledge(wish: i32) -> Result<Acknowledge, Refusal> {
    match v1::Acknowledge::try_from(wish) {
        Ok(v1::Acknowledge::Unspecified) => Ok(Acknowledge::Synced),
        Ok(v1::Acknowledge::OnReceipt) => Ok(Acknowledge::OnReceipt),
        Err(_) => Err(invalid("acknowledge", format!("{wish} is not known"))),
    }
}

/// How a retry of a single message is told.
pub(crate) fn dedup_of_message(id: &str) -> Option<Dedup> {
    (!id.is_empty()).then(|| Dedup {
        id: DedupId::of_message(id),
        age_ms: 0,
    })
}

/// How a retry of a client's batch is told; `id` is that of its only message.
///
/// # Errors
/// `INVALID_ARGUMENT` when its producer contradicts itself, or the message has an id as well.
pub(crate) fn dedup(
    field: &str,
    batch: &v1::RecordBatch,
    id: Option<&str>,
) -> Result<Option<Dedup>, Refusal> {
    let age_ms = batch.age_ms;
    let Some(producer) = &batch.producer else {
        let id = id.map(DedupId::of_message);
        return Ok(id.map(|id| Dedup { id, age_ms }));
    };
    let part = |name: &str| format!("{field}.producer{name}");
    if id.is_some() {
        let text = "goes without a message that has a dedup id of its own";
        return Err(invalid(part(""), text));
    }
    let v1::Producer {
        id,
        sequence,
        floor,
    } = producer;
    if id.is_empty() || id.len() > PRODUCER_ID_BYTES_MAX {
        let text = format!("has {} bytes; want 1 to {PRODUCER_ID_BYTES_MAX}", id.len());
        return Err(invalid(part(".id"), text));
    }
    if floor > sequence {
        let text = format!("is {floor}, above the sequence {sequence}");
        return Err(invalid(part(".floor"), text));
    }
    let id = DedupId::of_batch(id, *sequence, *floor);
    Ok(Some(Dedup { id, age_ms }))
}

/// A refused entry of a publish.
pub(crate) fn refused(refusal: Refusal) -> v1::PublishResult {
    v1::PublishResult {
        outcome: Some(v1::publish_result::Outcome::Refused(error(refusal))),
    }
}

/// A stored message.
///
/// # Errors
/// `INTERNAL`: it was checked when it came in.
fn message(encoded: Bytes) -> Result<v1::Message, Refusal> {
    v1::Message::decode(encoded).map_err(|error| {
        let text = format!("a stored message cannot be read: {error}");
        Refusal::new(ErrorCode::Internal, text)
    })
}

/// One delivery.
///
/// # Errors
/// `INTERNAL` when the stored message cannot be read.
pub(crate) fn delivery(delivered: Delivered) -> Result<v1::Delivery, Refusal> {
    Ok(v1::Delivery {
        message: Some(message(delivered.message)?),
        tag: delivered.tag,
        offset: delivered.offset.get(),
        attempts: delivered.attempts,
        acquired: delivered.acquired,
        enqueued_at: Some(timestamp(delivered.stored_at)),
        lease: Some(duration(delivered.lease)),
    })
}

/// One message of a queue that was looked at.
///
/// # Errors
/// `INTERNAL` when the stored message cannot be read.
pub(crate) fn peeked(peeked: Peeked) -> Result<v1::PeekedMessage, Refusal> {
    use v1::peeked_message::State;
    let state = match peeked.state {
        PeekedState::Ready => State::Ready,
        PeekedState::InFlight => State::InFlight,
        PeekedState::Delayed => State::Delayed,
        PeekedState::Dying => State::Dying,
    };
    Ok(v1::PeekedMessage {
        message: Some(message(peeked.message)?),
        offset: peeked.offset.get(),
        state: state.into(),
        attempts: peeked.attempts,
        acquired: peeked.acquired,
        enqueued_at: Some(timestamp(peeked.stored_at)),
    })
}

/// One message of a partition.
///
/// # Errors
/// `INTERNAL` when the stored message cannot be read.
pub(crate) fn stream_message(partition: u32, record: Record) -> Result<v1::StreamMessage, Refusal> {
    Ok(v1::StreamMessage {
        message: Some(message(record.message)?),
        partition,
        offset: record.offset.get(),
        stored_at: Some(timestamp(record.stored_at)),
    })
}

/// A range of offsets.
pub(crate) fn offsets(range: &Range<Offset>) -> v1::OffsetRange {
    v1::OffsetRange {
        first: range.start.get(),
        end: range.end.get(),
    }
}

/// What a client lets us send.
pub(crate) fn credit(credit: v1::ConsumeCredit) -> Credit {
    Credit {
        messages: credit.messages.into(),
        bytes: credit.bytes,
    }
}

/// Where to read from; unset is the oldest.
///
/// # Errors
/// `INVALID_ARGUMENT` for a time before 1970.
pub(crate) fn position(field: &str, from: Option<v1::Position>) -> Result<Position, Refusal> {
    use v1::position::At;
    let Some(at) = from.and_then(|from| from.at) else {
        return Ok(Position::Earliest);
    };
    Ok(match at {
        At::Earliest(_) => Position::Earliest,
        At::Latest(_) => Position::Latest,
        At::Offset(offset) => Position::Offset(Offset::new(offset)),
        At::Time(time) => Position::Time(wall(field, time)?),
    })
}

/// A position as it goes to another node.
pub(crate) fn wire_position(position: Position) -> v1::Position {
    use v1::position::{At, Earliest, Latest};
    let at = match position {
        Position::Earliest => At::Earliest(Earliest {}),
        Position::Latest => At::Latest(Latest {}),
        Position::Offset(offset) => At::Offset(offset.get()),
        Position::Time(wall) => At::Time(timestamp(wall)),
    };
    v1::Position { at: Some(at) }
}

/// A node's id as clients see it.
pub(crate) fn node_id(node: NodeId) -> String {
    format!("{:016x}", node.get())
}

fn wall(field: &str, time: prost_types::Timestamp) -> Result<Wall, Refusal> {
    let bad = || invalid(field, "is before 1970 or no timestamp");
    let seconds = u64::try_from(time.seconds).map_err(|_| bad())?;
    let nanos = u64::try_from(time.nanos).map_err(|_| bad())?;
    // Up to the next millisecond: "stored at this time or later" must not include earlier ones.
    let millis = seconds
        .checked_mul(MILLIS_PER_SECOND)
        .and_then(|millis| millis.checked_add(nanos.div_ceil(1_000_000)))
        .ok_or_else(bad)?;
    Ok(Wall::from_millis(millis))
}

/// A tag to settle, or why it cannot be: a wrong settlement refuses only its own tags.
pub(crate) type SettleEntry = Result<SettleTag, (Bytes, Refusal)>;

/// The tags of a batch of settlements, in order.
pub(crate) fn settlements(settlements: Vec<v1::Settlement>) -> Vec<SettleEntry> {
    let mut entries = Vec::new();
    for (n, settlement) in settlements.into_iter().enumerate() {
        let settle = settle(n, &settlement);
        entries.extend(settlement.tags.into_iter().map(|tag| match &settle {
            Ok(_) if tag.len() > TAG_BYTES_MAX => {
                let text = "the delivery tag is not one of ours";
                Err((tag, Refusal::new(ErrorCode::InvalidTag, text)))
            }
            Ok(settle) => Ok(SettleTag {
                tag,
                settle: settle.clone(),
            }),
            Err(refusal) => Err((tag, refusal.clone())),
        }));
    }
    entries
}

fn settle(n: usize, settlement: &v1::Settlement) -> Result<Settle, Refusal> {
    use v1::settlement::Outcome;
    let part = |name: &str| format!("settlements[{n}].{name}");
    length(part("note"), &settlement.note, NOTE_BYTES_MAX)?;
    let max = Duration::from_millis(DELAY_MS_MAX);
    let delay_ms = settlement
        .delay
        .as_ref()
        .map(|delay| millis(&part("delay"), delay, max))
        .transpose()?;
    let note = settlement.note.clone();
    let outcome = Outcome::try_from(settlement.outcome).unwrap_or(Outcome::Unspecified);
    let unwanted = |settle| match delay_ms {
        None => Ok(settle),
        Some(_) => Err(invalid(part("delay"), "goes with RELEASE and RETRY only")),
    };
    match outcome {
        Outcome::Unspecified => Err(invalid(part("outcome"), "is missing or not known")),
        Outcome::Accept => unwanted(Settle::Accept),
        Outcome::Extend => unwanted(Settle::Extend),
        Outcome::Reject => unwanted(Settle::Reject { note }),
        Outcome::Retry => Ok(Settle::Retry { delay_ms, note }),
        Outcome::Release => Ok(Settle::Release {
            delay_ms: delay_ms.unwrap_or(0),
        }),
    }
}

/// Tags that were refused.
pub(crate) fn settle_refusal(tag: Bytes, refusal: Refusal) -> v1::SettleRefusal {
    v1::SettleRefusal {
        tag,
        error: Some(error(refusal)),
    }
}

/// Length of a lease as a client asks for it.
///
/// # Errors
/// `INVALID_ARGUMENT` outside its bounds.
pub(crate) fn lease(lease: &prost_types::Duration) -> Result<Duration, Refusal> {
    let max = Duration::from_millis(DELAY_MS_MAX);
    let lease_ms = millis("lease", lease, max)?;
    if lease_ms < LEASE_MS_MIN {
        let text = format!("is {lease_ms} ms; want at least {LEASE_MS_MIN} ms");
        return Err(invalid("lease", text).with("limit", LEASE_MS_MIN.to_string()));
    }
    Ok(Duration::from_millis(lease_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_settlement_refuses_only_its_own_tags() {
        let settlement = |outcome: v1::settlement::Outcome, tags: &[&'static str]| v1::Settlement {
            tags: tags
                .iter()
                .map(|tag| Bytes::from_static(tag.as_bytes()))
                .collect(),
            outcome: outcome.into(),
            ..Default::default()
        };
        let entries = settlements(vec![
            settlement(v1::settlement::Outcome::Accept, &["a", "b"]),
            settlement(v1::settlement::Outcome::Unspecified, &["c"]),
            settlement(v1::settlement::Outcome::Release, &["d"]),
        ]);
        let refused: Vec<_> = entries
            .iter()
            .filter_map(|entry| entry.as_ref().err())
            .collect();
        assert_eq!(entries.len(), 4);
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].0.as_ref(), b"c");
        assert_eq!(refused[0].1.code, ErrorCode::InvalidArgument);
    }

    #[test]
    fn a_time_between_two_milliseconds_starts_at_the_later_one() {
        let at = |nanos| v1::Position {
            at: Some(v1::position::At::Time(prost_types::Timestamp {
                seconds: 2,
                nanos,
            })),
        };
        let wall = |nanos| match position("from", Some(at(nanos))).unwrap() {
            Position::Time(wall) => wall.as_millis(),
            other => panic!("{other:?}"),
        };
        assert_eq!(wall(0), 2_000);
        assert_eq!(wall(1), 2_001);
        assert_eq!(wall(1_000_000), 2_001);
    }

    #[test]
    fn a_lease_outside_its_bounds_is_refused() {
        let seconds = |seconds| prost_types::Duration { seconds, nanos: 0 };
        for wrong in [-1, 0, 12 * 3600 + 1] {
            assert!(lease(&seconds(wrong)).is_err(), "{wrong} s was taken");
        }
        assert_eq!(lease(&seconds(1)).unwrap(), Duration::from_secs(1));
    }
}
