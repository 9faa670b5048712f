//! Words to people, on stderr: stdout is for messages only.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Says one line. When nobody can hear it, so be it.
pub fn line(text: impl Display) {
    writeln!(io::stderr().lock(), "millrace: {text}").ok();
}
