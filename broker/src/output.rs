//! Messages to stdout, one a line, each flushed: a pipe sees it when it is there. A pipe that was
//! closed ends the verb quietly, as `head` expects.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde_json::Value;

use crate::exit::Failure;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One object a line: payload, key, headers and where it was
    Json,
    /// The payload and a line end
    Raw,
}

/// Whether somebody still reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Yes.
    There,
    /// The pipe is closed.
    Gone,
}

/// Writes a line.
pub(crate) fn line(bytes: &[u8]) -> Result<Reader, Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(bytes)
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
    match written {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::local("cannot write to stdout", &error)),
    }
}

/// Writes a message; `value` is called when it is to be JSON.
pub(crate) fn message(
    format: Format,
    payload: &[u8],
    value: impl FnOnce() -> Value,
) -> Result<Reader, Failure> {
    match format {
        Format::Json => line(value().to_string().as_bytes()),
        Format::Raw => line(payload),
    }
}

/// Writes a value over several lines, or a text.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    line(text.trim_end().as_bytes()).map(drop)
}
