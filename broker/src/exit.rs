//! How a verb ends when it did not succeed: a text for people, an exit code for scripts.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::process::ExitCode;

use millrace_client::Error;

use crate::tell;

/// Told at the end of the help of every verb that talks to a server, since scripts branch on them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  some messages were refused or not settled, documents are invalid, or a node cannot be stopped
  2  wrong usage
  3  the server cannot be reached
  4  no such queue, topic, partition or node
  5  nothing came for as long as --wait allows, and --count was not reached";

/// Some messages were refused or not settled, documents are invalid, or a node cannot be stopped.
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
pub struct Failure {
    code: u8,
    /// Empty when everything has been said.
    text: String,
}

impl Failure {
    /// The command line asks for something that makes no sense.
    pub fn usage(text: impl Display) -> Self {
        Self {
            code: USAGE,
            text: text.to_string(),
        }
    }

    /// What has to be asked first cannot be reached.
    pub fn unreachable(text: impl Display) -> Self {
        Self {
            code: UNREACHABLE,
            text: text.to_string(),
        }
    }

    /// What is named is not there.
    pub fn not_found(text: impl Display) -> Self {
        Self {
            code: NOT_FOUND,
            text: text.to_string(),
        }
    }

    /// It was refused.
    pub fn failed(text: impl Display) -> Self {
        Self {
            code: REFUSED,
            text: text.to_string(),
        }
    }

    /// Some messages or documents are wrong; they have been named already.
    pub const fn refused() -> Self {
        Self {
            code: REFUSED,
            text: String::new(),
        }
    }

    /// Not everything came in time.
    pub fn idle(text: impl Display) -> Self {
        Self {
            code: IDLE,
            text: text.to_string(),
        }
    }

    /// The user would not wait.
    pub fn interrupted(text: impl Display) -> Self {
        Self {
            code: INTERRUPTED,
            text: text.to_string(),
        }
    }

    /// This machine failed, not the server.
    pub fn local(doing: &str, error: &io::Error) -> Self {
        Self {
            code: REFUSED,
            text: format!("{doing}: {error}"),
        }
    }

    /// A call failed; `doing` names the object.
    pub fn call(doing: impl Display, server: &str, error: &Error) -> Self {
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
    pub fn report(&self) -> ExitCode {
        if !self.text.is_empty() {
            tell::line(format_args!("error: {}", self.text));
        }
        ExitCode::from(self.code)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
