//! Whether what a client sent may enter: messages, batches, addresses, numbers within their bounds.
//! Says which field is wrong and which limit it breaks; changes nothing and asks nobody.

use std::fmt::Display;

use bytes::{Buf as _, Bytes};
use millrace_proto::v1;
use millrace_types::{
    Address, BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, ErrorCode, HEADER_NAME_BYTES_MAX, HEADERS_MAX,
    KEY_BYTES_MAX, Refusal, SUBJECT_BYTES_MAX, TEXT_BYTES_MAX,
};
use prost::Message as _;
use prost::encoding::decode_varint;

/// One word of a subject, in bytes: what DNS allows a label, so that names of things fit.
pub(crate) const SUBJECT_WORD_BYTES_MAX: usize = 63;

/// An address as a client wrote it.
///
/// # Errors
/// `INVALID_ARGUMENT`, naming what is wrong with it.
pub(crate) fn address(text: &str) -> Result<Address, Refusal> {
    text.parse().map_err(|error: millrace_types::AddressError| {
        invalid("address", error.to_string()).with("address", shortened(text))
    })
}

/// A number with bounds, where 0 stands for a default.
pub(crate) struct Bounded {
    /// The field's name on the wire.
    pub(crate) field: &'static str,
    /// What 0 means.
    pub(crate) default: u32,
    /// The most.
    pub(crate) max: u32,
}

impl Bounded {
    /// # Errors
    /// `INVALID_ARGUMENT` above the bound.
    pub(crate) fn check(&self, value: u32) -> Result<u32, Refusal> {
        match value {
            0 => Ok(self.default),
            value if value > self.max => Err(over(self.field, self.max, value)),
            value => Ok(value),
        }
    }
}

/// A message a client publishes, as the one called `field` of its request. `message_bytes_max` is
/// the target's.
///
/// # Errors
/// `INVALID_ARGUMENT`, or `MESSAGE_TOO_LARGE` with the limit and the size.
pub(crate) fn message(
    field: &str,
    message: &v1::Message,
    message_bytes_max: u32,
) -> Result<(), Refusal> {
    size(&field, message.encoded_len(), message_bytes_max)?;
    content(&field, message)
}

/// What a batch turned out to be.
#[derive(Debug)]
pub(crate) struct CheckedBatch {
    /// Keys that decide the partition: those that are not empty, without repetition in a row.
    pub(crate) keys: Vec<String>,
    /// The dedup id of the only message.
    pub(crate) dedup_id: Option<String>,
}

/// A batch a client made: checksum, count, framing, and each of its messages.
///
/// # Errors
/// `INVALID_ARGUMENT`, or `MESSAGE_TOO_LARGE`; the record is named.
pub(crate) fn batch(
    field: &str,
    batch: &v1::RecordBatch,
    message_bytes_max: u32,
) -> Result<CheckedBatch, Refusal> {
    if batch.codec != v1::record_batch::Codec::None as i32 {
        let text = format!("codec {} is not known; only NONE is", batch.codec);
        return Err(invalid(format!("{field}.codec"), text));
    }
    let records = &batch.records;
    if records.len() > BATCH_BYTES_MAX as usize {
        return Err(over(
            format!("{field}.records"),
            BATCH_BYTES_MAX,
            records.len(),
        ));
    }
    if batch.count == 0 || batch.count > BATCH_MESSAGES_MAX {
        return Err(over(
            format!("{field}.count"),
            BATCH_MESSAGES_MAX,
            batch.count,
        ));
    }
    let crc32c = crc32c::crc32c(records);
    if crc32c != batch.crc32c {
        let text = format!(
            "the records' checksum is {crc32c:#010x}, the batch says {:#010x}",
            batch.crc32c
        );
        return Err(invalid(format!("{field}.crc32c"), text));
    }
    each_record(field, batch, message_bytes_max)
}

fn each_record(
    field: &str,
    batch: &v1::RecordBatch,
    message_bytes_max: u32,
) -> Result<CheckedBatch, Refusal> {
    let mut rest = batch.records.clone();
    let mut keys: Vec<String> = Vec::new();
    let mut dedup_id: Option<String> = None;
    let mut count = 0_u32;
    while rest.has_remaining() {
        // Spelled out only for an error: this runs for every message.
        let name = format_args!("{field}.records[{count}]");
        let record = next_record(&name, &mut rest)?;
        size(&name, record.len(), message_bytes_max)?;
        let parsed = v1::Message::decode(record)
            .map_err(|error| invalid(name, format!("is not a message: {error}")))?;
        content(&name, &parsed)?;
        if !parsed.dedup_id.is_empty() {
            if batch.count > 1 {
                let text = "a message with a dedup id is alone in its batch";
                return Err(invalid(
                    format_args!("{field}.records[{count}].dedup_id"),
                    text,
                ));
            }
            dedup_id = Some(parsed.dedup_id);
        }
        if !parsed.key.is_empty() && keys.last() != Some(&parsed.key) {
            keys.push(parsed.key);
        }
        count += 1;
        if count > batch.count {
            break;
        }
    }
    if count != batch.count {
        let text = format!(
            "the batch says {}, its records are {count} or more",
            batch.count
        );
        return Err(invalid(format!("{field}.count"), text));
    }
    Ok(CheckedBatch { keys, dedup_id })
}

fn next_record(name: &dyn Display, rest: &mut Bytes) -> Result<Bytes, Refusal> {
    let length = decode_varint(rest)
        .map_err(|error| invalid(name, format!("its length cannot be read: {error}")))?;
    match usize::try_from(length) {
        Ok(length) if length <= rest.len() => Ok(rest.split_to(length)),
        _ => {
            let left = rest.len();
            let text = format!("says it has {length} bytes, but {left} are left");
            Err(invalid(name, text))
        }
    }
}

fn size(field: &dyn Display, bytes: usize, bytes_max: u32) -> Result<(), Refusal> {
    if bytes <= bytes_max as usize {
        return Ok(());
    }
    let text = format!("{field} has {bytes} bytes; its target takes at most {bytes_max}");
    Err(Refusal::new(ErrorCode::MessageTooLarge, text)
        .with("field", field.to_string())
        .with("limit", bytes_max.to_string())
        .with("actual", bytes.to_string()))
}

fn content(field: &dyn Display, message: &v1::Message) -> Result<(), Refusal> {
    length(format_args!("{field}.key"), &message.key, KEY_BYTES_MAX)?;
    length(format_args!("{field}.id"), &message.id, TEXT_BYTES_MAX)?;
    length(
        format_args!("{field}.dedup_id"),
        &message.dedup_id,
        TEXT_BYTES_MAX,
    )?;
    length(
        format_args!("{field}.content_type"),
        &message.content_type,
        TEXT_BYTES_MAX,
    )?;
    length(
        format_args!("{field}.correlation_id"),
        &message.correlation_id,
        TEXT_BYTES_MAX,
    )?;
    length(
        format_args!("{field}.reply_to"),
        &message.reply_to,
        TEXT_BYTES_MAX,
    )?;
    length(
        format_args!("{field}.traceparent"),
        &message.traceparent,
        TEXT_BYTES_MAX,
    )?;
    subject(format_args!("{field}.subject"), &message.subject)?;
    if message.headers.len() > HEADERS_MAX {
        return Err(over(
            format_args!("{field}.headers"),
            HEADERS_MAX,
            message.headers.len(),
        ));
    }
    for (n, header) in message.headers.iter().enumerate() {
        let name = format_args!("{field}.headers[{n}]");
        if header.name.is_empty() {
            return Err(invalid(name, "has no name"));
        }
        length(
            format_args!("{name}.name"),
            &header.name,
            HEADER_NAME_BYTES_MAX,
        )?;
        if header.value.is_none() {
            return Err(invalid(name, "has no value"));
        }
    }
    if message.death.is_some() {
        return Err(invalid(
            format_args!("{field}.death"),
            "is set by the broker alone",
        ));
    }
    Ok(())
}

fn subject(field: impl Display, subject: &str) -> Result<(), Refusal> {
    if subject.is_empty() {
        return Ok(());
    }
    length(&field, subject, SUBJECT_BYTES_MAX)?;
    let word = |word: &str| {
        (1..=SUBJECT_WORD_BYTES_MAX).contains(&word.len())
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if subject.split('.').all(word) {
        return Ok(());
    }
    let text = format!(
        "{subject:?} is no subject: want words of 1..={SUBJECT_WORD_BYTES_MAX} characters \
         [A-Za-z0-9_-] joined by dots"
    );
    Err(invalid(field, text))
}

/// A text within its length.
///
/// # Errors
/// `INVALID_ARGUMENT` above it.
pub(crate) fn length(field: impl Display, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    if text.len() <= bytes_max {
        Ok(())
    } else {
        Err(over(field, bytes_max, text.len()))
    }
}

/// The request itself is wrong in this field.
pub(crate) fn invalid(field: impl Display, text: impl AsRef<str>) -> Refusal {
    let text = format!("{field}: {}", text.as_ref());
    Refusal::new(ErrorCode::InvalidArgument, text).with("field", field.to_string())
}

fn over(field: impl Display, limit: impl ToString, actual: impl ToString) -> Refusal {
    let (limit, actual) = (limit.to_string(), actual.to_string());
    invalid(field, format!("is {actual}; want 1 to {limit}"))
        .with("limit", limit)
        .with("actual", actual)
}

/// What a client wrote, cut so that an error cannot be made long by it.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    text.chars().take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u32 = 1 << 20;

    fn records(messages: &[v1::Message]) -> Bytes {
        let mut buffer = Vec::new();
        for message in messages {
            message.encode_length_delimited(&mut buffer).unwrap();
        }
        buffer.into()
    }

    fn batch_of(messages: &[v1::Message]) -> v1::RecordBatch {
        let records = records(messages);
        v1::RecordBatch {
            count: u32::try_from(messages.len()).unwrap(),
            crc32c: crc32c::crc32c(&records),
            records,
            ..Default::default()
        }
    }

    fn keyed(key: &str) -> v1::Message {
        v1::Message {
            key: key.to_owned(),
            ..Default::default()
        }
    }

    fn header(name: &str) -> v1::Header {
        v1::Header {
            name: name.to_owned(),
            value: Some(v1::header::Value::Text(String::new())),
        }
    }

    fn field_of(refusal: &Refusal) -> &str {
        &refusal.metadata["field"]
    }

    #[test]
    fn each_wrong_field_of_a_message_is_named() {
        type Change = fn(&mut v1::Message);
        let table: [(&str, Change); 13] = [
            ("m.key", |m| m.key = "x".repeat(257)),
            ("m.id", |m| m.id = "x".repeat(129)),
            ("m.dedup_id", |m| m.dedup_id = "x".repeat(129)),
            ("m.reply_to", |m| m.reply_to = "x".repeat(129)),
            ("m.subject", |m| m.subject = "a..b".into()),
            ("m.subject", |m| m.subject = "a.*".into()),
            ("m.subject", |m| m.subject = "x".repeat(64)),
            ("m.subject", |m| m.subject = "a.".repeat(200)),
            ("m.headers", |m| m.headers = vec![header("a"); 65]),
            ("m.headers[0]", |m| m.headers = vec![header("")]),
            ("m.headers[1]", |m| {
                m.headers = vec![header("a"), header("b")];
                m.headers[1].value = None;
            }),
            ("m.headers[0].name", |m| {
                m.headers = vec![header(&"x".repeat(129))]
            }),
            ("m.death", |m| m.death = Some(v1::Death::default())),
        ];
        for (field, change) in table {
            let mut wrong = v1::Message::default();
            change(&mut wrong);
            let refusal = message("m", &wrong, ROOM).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::InvalidArgument);
            assert_eq!(field_of(&refusal), field);
        }
    }

    #[test]
    fn a_message_at_every_limit_is_taken() {
        let full = v1::Message {
            key: "k".repeat(256),
            id: "i".repeat(128),
            subject: format!("{}.a_b-C9", "w".repeat(63)),
            headers: vec![
                v1::Header {
                    name: "n".repeat(128),
                    value: Some(v1::header::Value::Boolean(true)),
                };
                64
            ],
            ..Default::default()
        };
        message("m", &full, ROOM).unwrap();
    }

    #[test]
    fn a_message_larger_than_its_target_takes_is_refused_with_the_limit() {
        let large = v1::Message {
            payload: vec![0; 100].into(),
            ..Default::default()
        };
        let refusal = message("m", &large, 100).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::MessageTooLarge);
        assert_eq!(refusal.metadata["limit"], "100");
        assert_eq!(refusal.metadata["actual"], "102");
    }

    #[test]
    fn a_good_batch_gives_its_keys() {
        let batch_of = batch_of(&[keyed("a"), keyed("a"), keyed(""), keyed("b")]);
        let checked = batch("b", &batch_of, ROOM).unwrap();
        assert_eq!(checked.keys, ["a", "b"]);
    }

    #[test]
    fn a_batch_that_does_not_match_its_records_is_refused() {
        let good = batch_of(&[keyed("a"), keyed("b")]);
        let with = |change: &dyn Fn(&mut v1::RecordBatch)| {
            let mut bad = good.clone();
            change(&mut bad);
            batch("b", &bad, ROOM).unwrap_err()
        };
        assert_eq!(field_of(&with(&|b| b.crc32c ^= 1)), "b.crc32c");
        assert_eq!(field_of(&with(&|b| b.count = 0)), "b.count");
        assert_eq!(field_of(&with(&|b| b.count = 1)), "b.count");
        assert_eq!(field_of(&with(&|b| b.count = 3)), "b.count");
        assert_eq!(field_of(&with(&|b| b.count = 10_001)), "b.count");
        assert_eq!(field_of(&with(&|b| b.codec = 7)), "b.codec");
        let truncated = with(&|b| {
            b.records.truncate(b.records.len() - 1);
            b.crc32c = crc32c::crc32c(&b.records);
        });
        assert_eq!(field_of(&truncated), "b.records[1]");
        let garbage = with(&|b| {
            b.records = Bytes::from_static(&[0xff; 12]);
            b.crc32c = crc32c::crc32c(&b.records);
        });
        assert_eq!(field_of(&garbage), "b.records[0]");
    }

    #[test]
    fn an_unreadable_address_is_refused_and_cut() {
        let refusal = address(&"x".repeat(10_000)).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidArgument);
        assert_eq!(refusal.metadata["address"].len(), 200);
    }
}
