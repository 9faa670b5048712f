//! Messages that can be told apart: each carries its number in its payload, and the rest follows
//! from that number, so that any byte that differs shows.

use bytes::Bytes;
use millrace_proto::v1::{Death, Header, Message, header};
use prost::Message as _;

use crate::random::{Random, mix};

/// Subjects that messages have; the patterns of bindings are made for them.
pub(crate) const SUBJECTS: [&str; 5] = ["", "a", "a.x", "a.y", "b.x"];
/// Patterns of bindings, and the subjects they match, by place in `SUBJECTS`.
pub(crate) const PATTERNS: [(&str, &[usize]); 5] = [
    ("#", &[0, 1, 2, 3, 4]),
    ("a.*", &[2, 3]),
    ("*.x", &[2, 4]),
    ("a.#", &[1, 2, 3]),
    ("b.x", &[4]),
];
/// A header that some messages have; some bindings want it.
pub(crate) const HEADER: (&str, &str) = ("kind", "odd");

/// A message to publish.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// Place in `SUBJECTS`.
    pub subject: usize,
    /// Whether it has `HEADER`.
    pub marked: bool,
    /// As published.
    pub bytes: Bytes,
}

/// What a stored message says.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Which message it claims to be.
    pub number: u64,
    /// Why it is in a dead-letter queue.
    pub death: Option<Death>,
    /// As it was published: without the death.
    pub bytes: Bytes,
}

/// The message of a number; `bytes_max` is about its payload.
#[must_use]
pub(crate) fn make(number: u64, bytes_max: u64) -> Published {
    let mut random = Random::new(mix(number));
    let subject = random.below(SUBJECTS.len());
    let marked = random.percent(40);
    let mut payload = number.to_le_bytes().to_vec();
    for _ in 0..random.within(0, bytes_max) {
        payload.push(random.bits().to_le_bytes()[0]);
    }
    let (name, value) = HEADER;
    let headers = marked.then(|| Header {
        name: name.into(),
        value: Some(header::Value::Text(value.into())),
    });
    let message = Message {
        payload: payload.into(),
        key: format!("k{}", random.below(4)),
        subject: SUBJECTS[subject].into(),
        headers: headers.into_iter().collect(),
        ..Message::default()
    };
    Published {
        subject,
        marked,
        bytes: message.encode_to_vec().into(),
    }
}

/// Reads a stored message.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(stored: &Bytes) -> Result<Found, String> {
    let mut message = Message::decode(stored.as_ref()).map_err(|error| error.to_string())?;
    let death = message.death.take();
    let number = message.payload.first_chunk().copied();
    let number = number.ok_or("its payload is cut")?;
    let bytes = match death {
        None => stored.clone(),
        Some(_) => message.encode_to_vec().into(),
    };
    Ok(Found {
        number: u64::from_le_bytes(number),
        death,
        bytes,
    })
}
