//! Counts what passed, failed and was skipped, from the output of the parts: libtest's `test
//! result:` lines and the suites' own `cases:` lines. Output is shown as it comes.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::ops::AddAssign;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::house::show;

/// How many checks ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// One check that ended well or not.
    pub(crate) fn of(ok: bool) -> Self {
        Self {
            passed: u64::from(ok),
            failed: u64::from(!ok),
            skipped: 0,
        }
    }

    /// Failure when anything failed.
    pub(crate) fn exit_code(self) -> ExitCode {
        if self.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// What a line of output says about totals, if it does.
    fn parse(line: &str) -> Option<Self> {
        if let Some(rest) = line.strip_prefix("test result: ") {
            let counts = rest.split_once(". ")?.1;
            let ignored = number_before(counts, " ignored")?;
            return Some(Self {
                skipped: ignored,
                ..Self::passed_failed(counts)?
            });
        }
        let counts = line.strip_prefix("cases: ")?;
        let skipped = number_before(counts, " skipped")?;
        Some(Self {
            skipped,
            ..Self::passed_failed(counts)?
        })
    }

    fn passed_failed(counts: &str) -> Option<Self> {
        let passed = number_before(counts, " passed")?;
        let failed = number_before(counts, " failed")?;
        Some(Self {
            passed,
            failed,
            skipped: 0,
        })
    }

    /// Runs `command`, shows its stdout and adds up every total in it. A command that fails without
    /// having reported a failed check, or that reports nothing, counts as one check itself.
    ///
    /// # Errors
    /// When the command cannot be started or its output cannot be read.
    pub(crate) fn count(command: &mut Command) -> Result<Self> {
        let shown = show(command);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {shown}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut sum = Self::default();
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.with_context(|| format!("cannot read the output of {shown}"))?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            sum += Self::parse(&line).unwrap_or_default();
        }
        let status = child
            .wait()
            .with_context(|| format!("cannot wait for {shown}"))?;
        let silent = sum == Self::default();
        if silent || (!status.success() && sum.failed == 0) {
            sum += Self::of(status.success());
        }
        if !status.success() {
            eprintln!("{shown}: {status}");
        }
        Ok(sum)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

fn number_before(text: &str, what: &str) -> Option<u64> {
    let before = &text[..text.find(what)?];
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_libtest_and_of_suites_are_understood() {
        let libtest = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out";
        let table = [
            (libtest, Some((12, 0, 3))),
            (
                "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured",
                Some((1, 2, 0)),
            ),
            ("cases: 7 passed, 1 failed, 2 skipped", Some((7, 1, 2))),
            ("test engine::routing ... ok", None),
            ("cases: none", None),
        ];
        for (line, expected) in table {
            let expected = expected.map(|(passed, failed, skipped)| Tally {
                passed,
                failed,
                skipped,
            });
            assert_eq!(Tally::parse(line), expected, "{line}");
        }
    }

    #[test]
    fn a_command_that_dies_silently_counts_as_one_failure() {
        let sum = Tally::count(Command::new("sh").args(["-c", "exit 3"])).unwrap();
        assert_eq!(sum, Tally::of(false));
    }

    #[test]
    fn a_command_that_dies_after_good_totals_is_still_a_failure() {
        let script = "echo 'cases: 4 passed, 0 failed, 0 skipped'; exit 1";
        let sum = Tally::count(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(
            sum,
            Tally {
                passed: 4,
                failed: 1,
                skipped: 0
            }
        );
    }
}
