//! What is published: lines or all of stdin, and the parts of a JSON document that become key and
//! subject.

use std::io::{self, BufRead, Read as _};

use serde_json::Value;
use tokio::sync::mpsc;

/// Lines read ahead: enough to fill a batch while the last one is on its way.
const LINES_WAITING_MAX: usize = 4096;
/// No server takes a longer message.
const LINE_BYTES_MAX: usize = 16 << 20;
/// Longest word of a subject.
const WORD_BYTES_MAX: usize = 63;

/// Lines of stdin without their ends, as they come. Ends at the end of the input or an error.
pub(crate) fn lines() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, lines) = mpsc::channel(LINES_WAITING_MAX);
    // Reading stdin blocks and cannot be cancelled; the process ends without waiting for this.
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let line = line(&mut stdin);
            let is_last = !matches!(line, Ok(Some(_)));
            if let Some(line) = line.transpose()
                && sender.blocking_send(line).is_err()
            {
                return;
            }
            if is_last {
                return;
            }
        }
    });
    lines
}

fn line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    let read = input.take(limit).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > LINE_BYTES_MAX {
        let text = format!("a line is longer than {LINE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(Some(line))
}

/// All of stdin.
pub(crate) fn whole() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > LINE_BYTES_MAX {
        let text = format!("stdin has more than {LINE_BYTES_MAX} bytes; use --lines?");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

/// A place in a JSON document: `/a/b` (JSON pointer) or `a.b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path(Vec<String>);

impl Path {
    /// Reads either notation; for clap.
    #[expect(clippy::unnecessary_wraps, reason = "the shape that clap calls")]
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let unescape = |part: &str| part.replace("~1", "/").replace("~0", "~");
        Ok(Self(match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescape).collect(),
            None => text.split('.').map(str::to_owned).collect(),
        }))
    }

    /// The text, number or truth value there, as text.
    pub(crate) fn text(&self, document: &Value) -> Option<String> {
        let mut value = document;
        for part in &self.0 {
            value = match value {
                Value::Array(items) => items.get(part.parse::<usize>().ok()?)?,
                value => value.get(part)?,
            };
        }
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// A subject of the texts at these places: what a word cannot have becomes `_`, and so does what is
/// not there, so that the place of a word tells what it is.
pub(crate) fn subject(paths: &[Path], document: &Value) -> String {
    let texts = paths
        .iter()
        .map(|path| path.text(document).unwrap_or_default());
    let words = texts.flat_map(|text| text.split('.').map(word).collect::<Vec<_>>());
    words.collect::<Vec<_>>().join(".")
}

fn word(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let letters = text.chars().map(|c| if allowed(c) { c } else { '_' });
    let word: String = letters.take(WORD_BYTES_MAX).collect();
    if word.is_empty() {
        "_".to_owned()
    } else {
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    #[test]
    fn both_notations_find_the_same_place() {
        let document = json!({"a": {"b": [1, "two"]}, "x/y": true});
        assert_eq!(path("a.b.1").text(&document).as_deref(), Some("two"));
        assert_eq!(path("/a/b/0").text(&document).as_deref(), Some("1"));
        assert_eq!(path("/x~1y").text(&document).as_deref(), Some("true"));
        assert_eq!(path("a.b").text(&document), None);
        assert_eq!(path("a.c.d").text(&document), None);
    }

    #[test]
    fn a_subject_has_a_word_for_each_place() {
        let document = json!({"verb": "create", "user": "system:node:a", "type": "eu.orders"});
        let paths = ["verb", "user", "missing", "type"].map(path);
        assert_eq!(
            subject(&paths, &document),
            "create.system_node_a._.eu.orders"
        );
    }

    #[test]
    fn lines_lose_their_ends_and_nothing_else() {
        let mut input = &b"one\r\n\ntwo"[..];
        assert_eq!(line(&mut input).unwrap().unwrap(), b"one\r");
        assert_eq!(line(&mut input).unwrap().unwrap(), b"");
        assert_eq!(line(&mut input).unwrap().unwrap(), b"two");
        assert!(line(&mut input).unwrap().is_none());
    }

    #[test]
    fn a_line_without_an_end_in_sight_is_an_error() {
        let long = vec![b'x'; LINE_BYTES_MAX + 2];
        assert!(line(&mut long.as_slice()).is_err());
    }
}
