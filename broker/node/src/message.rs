//! The little that a node knows of an encoded `millrace.v1.Message`: what routing looks at, and
//! how a message becomes a dead letter. The payload is skipped, never copied or decoded.

use bytes::Bytes;
use millrace_engine::outcome::DeadLetter;
use millrace_engine::routing::Matcher;
use millrace_proto::v1::{Death, Header, death, header};
use millrace_types::Address;
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};

/// `millrace.v1.Message.death`.
const DEATH_FIELD: u32 = 20;

/// What routing looks at.
#[derive(Clone, PartialEq, prost::Message)]
struct Routed {
    #[prost(string, tag = "3")]
    subject: String,
    #[prost(message, repeated, tag = "4")]
    headers: Vec<Header>,
}

/// What remains of an earlier death.
#[derive(Clone, PartialEq, prost::Message)]
struct Died {
    #[prost(message, optional, tag = "20")]
    death: Option<Death>,
}

/// A stored message is not a `Message`: it was not checked when it was published, or we damaged it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored message cannot be decoded: {0}")]
pub(super) struct Unreadable(String);

/// Whether any of the filters wants this message.
///
/// A header's value is compared as text: text as it is, integers in decimal, booleans as `true` and
/// `false`. Other types match only a condition without a value.
pub(super) fn is_wanted(filters: &[Matcher], message: &[u8]) -> Result<bool, Unreadable> {
    let routed = Routed::decode(message).map_err(|error| Unreadable(error.to_string()))?;
    Ok(filters.iter().any(|filter| {
        filter.matches(&routed.subject, |name, value| {
            routed.headers.iter().any(|header| {
                header.name == name && value.is_none_or(|value| text_is(header, value))
            })
        })
    }))
}

fn text_is(header: &Header, wanted: &str) -> bool {
    match &header.value {
        Some(header::Value::Text(text)) => text == wanted,
        Some(header::Value::Integer(number)) => number.to_string() == wanted,
        Some(header::Value::Boolean(flag)) => flag.to_string() == wanted,
        Some(header::Value::Binary(_) | header::Value::Decimal(_) | header::Value::Time(_))
        | None => false,
    }
}

/// The message with why it died appended, in place of what was known of an earlier death, whose
/// count it carries on.
pub(super) fn bury(
    message: &Bytes,
    queue: &Address,
    dead: &DeadLetter,
) -> Result<Vec<u8>, Unreadable> {
    let unreadable = |error: prost::DecodeError| Unreadable(error.to_string());
    let earlier = Died::decode(message.as_ref()).map_err(unreadable)?.death;
    let count = earlier
        .as_ref()
        .map_or(0, |death| death.count)
        .saturating_add(1);
    // Fields of two `death`s would be merged one by one: an empty note would bring the old one
    // back.
    let mut buried = match earlier {
        None => message.to_vec(),
        Some(_) => without_death(message).map_err(unreadable)?,
    };
    let millis = dead.died_at.as_millis();
    let reason = if dead.rejected {
        death::Reason::Rejected
    } else {
        death::Reason::MaxDeliveries
    };
    let death = Death {
        queue: queue.to_string(),
        offset: dead.offset.get(),
        reason: reason.into(),
        note: dead.note.clone(),
        attempts: dead.attempts,
        died_at: Some(prost_types::Timestamp {
            seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
            nanos: i32::try_from(millis % 1000).unwrap_or(0) * 1_000_000,
        }),
        count,
    };
    prost::encoding::message::encode(DEATH_FIELD, &death, &mut buried);
    Ok(buried)
}

fn without_death(message: &Bytes) -> Result<Vec<u8>, prost::DecodeError> {
    let mut kept = Vec::with_capacity(message.len());
    let mut rest: &[u8] = message;
    while !rest.is_empty() {
        let field = rest;
        let (number, wire): (u32, WireType) = decode_key(&mut rest)?;
        skip_field(wire, number, &mut rest, DecodeContext::default())?;
        if number != DEATH_FIELD {
            kept.extend_from_slice(&field[..field.len() - rest.len()]);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use millrace_engine::spec::{Filter, HeaderCondition};
    use millrace_proto::v1::Message;
    use millrace_types::{Offset, Wall};

    use super::*;

    fn dead(note: &str, attempts: u32) -> DeadLetter {
        DeadLetter {
            number: 0,
            offset: Offset::new(7),
            attempts,
            rejected: note.is_empty(),
            note: note.into(),
            died_at: Wall::from_millis(1_500),
        }
    }

    fn queue() -> Address {
        "queue/test/orders".parse().unwrap()
    }

    #[test]
    fn a_dead_letter_is_the_message_and_why_it_died() {
        let message = Message {
            payload: "x".into(),
            subject: "a.b".into(),
            ..Message::default()
        };
        let bytes = Bytes::from(message.encode_to_vec());
        let buried = bury(&bytes, &queue(), &dead("gave up", 3)).unwrap();
        assert!(buried.starts_with(&bytes), "the original bytes come first");
        let buried = Message::decode(buried.as_slice()).unwrap();
        assert_eq!(buried.payload, message.payload);
        let death = buried.death.unwrap();
        assert_eq!((death.count, death.attempts, death.offset), (1, 3, 7));
        assert_eq!(
            (death.queue.as_str(), death.note.as_str()),
            ("queue/test/orders", "gave up")
        );
        assert_eq!(death.died_at.unwrap().nanos, 500_000_000);
    }

    #[test]
    fn a_second_death_counts_on_and_forgets_the_first_note() {
        let message = Message {
            payload: "x".into(),
            ..Message::default()
        };
        let first = bury(&message.encode_to_vec().into(), &queue(), &dead("old", 3)).unwrap();
        let second = bury(&first.into(), &queue(), &dead("", 0)).unwrap();
        let second = Message::decode(second.as_slice()).unwrap();
        assert_eq!(second.payload, message.payload);
        let death = second.death.unwrap();
        assert_eq!(
            (death.count, death.attempts, death.note.as_str()),
            (2, 0, "")
        );
    }

    #[test]
    fn routing_sees_the_subject_and_headers_as_text() {
        let header = |name: &str, value| Header {
            name: name.into(),
            value: Some(value),
        };
        let message = Message {
            payload: vec![0; 100].into(),
            subject: "orders.new".into(),
            headers: vec![
                header("region", header::Value::Text("eu".into())),
                header("size", header::Value::Integer(-3)),
                header("raw", header::Value::Binary(vec![1].into())),
            ],
            ..Message::default()
        }
        .encode_to_vec();
        let wanted = |pattern: &str, conditions: &[(&str, Option<&str>)]| {
            let filter = Filter {
                pattern: pattern.into(),
                headers: conditions
                    .iter()
                    .map(|(name, value)| HeaderCondition {
                        name: (*name).into(),
                        value: value.map(Into::into),
                    })
                    .collect(),
                any: false,
            };
            is_wanted(&[Matcher::new(&filter).unwrap()], &message).unwrap()
        };
        assert!(wanted(
            "orders.*",
            &[("region", Some("eu")), ("size", Some("-3"))]
        ));
        assert!(wanted("#", &[("raw", None)]));
        assert!(!wanted("#", &[("raw", Some("1"))]));
        assert!(!wanted("#", &[("region", Some("us"))]));
        assert!(!wanted("bills.*", &[]));
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error() {
        assert!(is_wanted(&[], &[0xff, 0xff]).is_err());
        assert!(bury(&Bytes::from_static(&[0x0a, 9]), &queue(), &dead("", 0)).is_err());
    }
}
