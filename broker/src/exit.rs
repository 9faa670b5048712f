//! How a verb ends when it did not succeed: a text for people, an exit code for scripts.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use millrace_client::Error;

use crate::tell;

/// Some messages were refused or not settled, or documents are invalid.
const REFUSED: u8 = 1;
/// Wrong usage; clap's code, too.
const USAGE: u8 = 2;
/// The server cannot be reached.
const UNREACHABLE: u8 = 3;
/// No such queue, topic or partition.
const NOT_FOUND: u8 = 4;
/// Nothing came for as long as was allowed.
const IDLE: u8 = 5;

/// Interrupted a second time: 128 + SIGINT, as shells report it.
const INTERRUPTED: u8 = 130;

/// Why a verb did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Empty when everything has been said.
    text: String,
}

impl Failure {
    /// The command line asks for something that makes no sense.
    pub(crate) fn usage(text: impl Display) -> Self {
        Self {
            code: USAGE,
            text: text.to_string(),
        }
    }

    /// Some messages or documents are wrong; they have been named already.
    pub(crate) const fn refused() -> Self {
        Self {
            code: REFUSED,
            text: String::new(),
        }
    }

    /// Not everything came in time.
    pub(crate) fn idle(text: impl Display) -> Self {
        Self {
            code: IDLE,
            text: text.to_string(),
        }
    }

    /// The user would not wait.
    pub(crate) fn interrupted(text: impl Display) -> Self {
        Self {
            code: INTERRUPTED,
            text: text.to_string(),
        }
    }

    /// This machine failed, not the server.
    pub(crate) fn local(doing: &str, error: &io::Error) -> Self {
        Self {
            code: REFUSED,
            text: format!("{doing}: {error}"),
        }
    }

    /// A call failed; `doing` names the object.
    pub(crate) fn call(doing: impl Display, server: &str, error: &Error) -> Self {
        if error.is_unreachable() {
            return Self {
                code: UNREACHABLE,
                text: format!("{doing}: {server} cannot be reached: {}", error.message),
            };
        }
        let code = if error.is_not_found() {
            NOT_FOUND
        } else {
            REFUSED
        };
        let (doing, error) = (doing.to_string(), error.to_string());
        // Most refusals name the object themselves.
        let text = if error.contains(&doing) {
            error
        } else {
            format!("{doing}: {error}")
        };
        Self { code, text }
    }

    /// Says it, and gives the code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.text.is_empty() {
            tell::line(format_args!("error: {}", self.text));
        }
        ExitCode::from(self.code)
    }
}
