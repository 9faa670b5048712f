//! Small helpers for messages, and the framing of records in a batch: each encoded `Message` is
//! preceded by its length as a varint.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use millrace_proto::v1::{Header, Message, header::Value};
use prost::Message as _;

/// A header of any type.
#[must_use]
pub fn header(name: impl Into<String>, value: Value) -> Header {
    Header {
        name: name.into(),
        value: Some(value),
    }
}

/// A header that is a text; bindings match these by value.
#[must_use]
pub fn text_header(name: impl Into<String>, value: impl Into<String>) -> Header {
    header(name, Value::Text(value.into()))
}

/// The time of a wire timestamp; one that is out of range counts as the epoch.
#[must_use]
pub fn timestamp(wire: Option<prost_types::Timestamp>) -> SystemTime {
    wire.and_then(|time| SystemTime::try_from(time).ok())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The duration of a wire duration; none or a negative one is zero.
pub(crate) fn duration(wire: Option<prost_types::Duration>) -> Duration {
    wire.and_then(|duration| Duration::try_from(duration).ok())
        .unwrap_or_default()
}

/// A duration for the wire; one longer than the wire can say is cut to what it can.
pub(crate) fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

/// The record of a message.
pub(crate) fn record(message: &Message) -> Bytes {
    let bytes = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(bytes + prost::length_delimiter_len(bytes));
    message
        .encode_length_delimited(&mut buffer)
        .expect("the buffer grows as needed");
    buffer.freeze()
}
