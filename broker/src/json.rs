//! Messages as JSON, for people and `jq`.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use millrace_client::{Header, Message, Peeked, Received, StoredMessage, Value as HeaderValue};
use serde_json::{Map, Value, json};

/// RFC 3339, in UTC, with milliseconds.
pub(crate) fn time(time: SystemTime) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    PRINTER.timestamp_to_string(&time)
}

/// A message taken from a queue.
pub(crate) fn received(received: &Received) -> Value {
    let mut object = Map::new();
    object.insert("offset".into(), received.offset.into());
    content(&mut object, &received.message);
    object.insert("attempts".into(), received.attempts.into());
    object.insert("acquired".into(), received.acquired.into());
    object.insert("enqueued_at".into(), time(received.enqueued_at).into());
    Value::Object(object)
}

/// A message looked at in a queue.
pub(crate) fn peeked(peeked: &Peeked) -> Value {
    let mut object = Map::new();
    object.insert("offset".into(), peeked.offset.into());
    object.insert("state".into(), peeked.state.as_str_name().into());
    content(&mut object, &peeked.message);
    object.insert("attempts".into(), peeked.attempts.into());
    object.insert("acquired".into(), peeked.acquired.into());
    object.insert("enqueued_at".into(), time(peeked.enqueued_at).into());
    Value::Object(object)
}

/// A message read from a topic.
pub(crate) fn stored(stored: &StoredMessage) -> Value {
    let mut object = Map::new();
    object.insert("partition".into(), stored.partition.into());
    object.insert("offset".into(), stored.offset.into());
    content(&mut object, &stored.message);
    object.insert("stored_at".into(), time(stored.stored_at).into());
    Value::Object(object)
}

/// What was published. A payload that is no text is in `payload_base64` instead of `payload`; what
/// is empty is left out.
fn content(object: &mut Map<String, Value>, message: &Message) {
    match std::str::from_utf8(&message.payload) {
        Ok(text) => object.insert("payload".into(), text.into()),
        Err(_) => object.insert("payload_base64".into(), base64(&message.payload).into()),
    };
    let texts = [
        ("key", &message.key),
        ("subject", &message.subject),
        ("id", &message.id),
        ("content_type", &message.content_type),
        ("correlation_id", &message.correlation_id),
        ("reply_to", &message.reply_to),
        ("traceparent", &message.traceparent),
    ];
    for (name, text) in texts {
        if !text.is_empty() {
            object.insert(name.into(), text.as_str().into());
        }
    }
    if !message.headers.is_empty() {
        object.insert("headers".into(), headers(&message.headers));
    }
    if let Some(death) = &message.death {
        let died_at = millrace_client::timestamp(death.died_at);
        let death = json!({
            "queue": death.queue,
            "offset": death.offset,
            "reason": death.reason().as_str_name(),
            "note": death.note,
            "attempts": death.attempts,
            "count": death.count,
            "died_at": time(died_at),
        });
        object.insert("death".into(), death);
    }
}

/// By name; a name that repeats has all its values, in order.
fn headers(headers: &[Header]) -> Value {
    let mut object = Map::new();
    for header in headers {
        let value = header.value.as_ref().map_or(Value::Null, header_value);
        match object.get_mut(&header.name) {
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
            None => {
                object.insert(header.name.clone(), value);
            }
        }
    }
    Value::Object(object)
}

fn header_value(value: &HeaderValue) -> Value {
    match value {
        HeaderValue::Text(text) => text.as_str().into(),
        HeaderValue::Binary(bytes) => base64(bytes).into(),
        HeaderValue::Integer(integer) => (*integer).into(),
        HeaderValue::Decimal(decimal) => (*decimal).into(),
        HeaderValue::Boolean(boolean) => (*boolean).into(),
        HeaderValue::Time(wire) => time(millrace_client::timestamp(Some(*wire))).into(),
    }
}

/// Standard alphabet, padded.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let sextet = (bits >> (18 - 6 * place)) & 63;
            let is_padding = place > chunk.len();
            text.push(if is_padding {
                '='
            } else {
                char::from(ALPHABET[sextet as usize])
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_client::text_header;

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xfe, 0x00]), "/+/+AA==");
    }

    #[test]
    fn a_message_is_one_line_with_what_it_has() {
        let message = Received {
            message: Message {
                payload: "a\nb".into(),
                key: "k".into(),
                headers: vec![
                    text_header("h", "1"),
                    text_header("h", "2"),
                    text_header("x", "y"),
                ],
                ..Message::default()
            },
            tag: Default::default(),
            offset: 7,
            attempts: 1,
            acquired: 2,
            enqueued_at: SystemTime::UNIX_EPOCH,
            lease: Default::default(),
        };
        assert_eq!(
            received(&message).to_string(),
            concat!(
                r#"{"offset":7,"payload":"a\nb","key":"k","headers":{"h":["1","2"],"x":"y"},"#,
                r#""attempts":1,"acquired":2,"enqueued_at":"1970-01-01T00:00:00.000Z"}"#
            )
        );
    }

    #[test]
    fn a_payload_that_is_no_text_is_base64() {
        let mut object = Map::new();
        let message = Message {
            payload: vec![0xff, 0xef, 0xfe].into(),
            ..Message::default()
        };
        content(&mut object, &message);
        assert_eq!(Value::Object(object), json!({"payload_base64": "/+/+"}));
    }
}
