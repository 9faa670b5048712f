//! Checks that change nothing: format, lints, generated files, rules of the house. Its twin that
//! writes is `fix`.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::house::{House, succeed};
use crate::tally::Tally;
use crate::{generate, needs};

/// Runs all checks, also after one has failed, and says which failed.
pub(crate) fn run(house: &House) -> ExitCode {
    let tally = checks(house, Scope::WithTidy);
    println!("verify: {tally}");
    tally.exit_code()
}

/// Whether the rules of the house are checked here or by the caller's test run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    WithTidy,
    WithoutTidy,
}

/// The checks, each counted once.
pub(crate) fn checks(house: &House, scope: Scope) -> Tally {
    let mut tally = Tally::default();
    tally += check("toolchain", needs::rust_components());
    tally += check(
        "format",
        succeed(&mut house.cargo(["fmt", "--all", "--check"])),
    );
    tally += check("lints", succeed(&mut lints(house)));
    tally += check("generated files", unchanged(house));
    if scope == Scope::WithTidy {
        let mut tidy = house.cargo(["test", "--quiet", "--package", "millrace-tidy"]);
        tally += check("rules of the house", succeed(&mut tidy));
    }
    tally
}

/// Clippy over everything, warnings refused.
fn lints(house: &House) -> Command {
    let arguments = [
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    house.cargo(arguments)
}

fn unchanged(house: &House) -> Result<()> {
    let drifted = generate::drift(house)?;
    if !drifted.is_empty() {
        bail!(
            "not what `cargo xtask generate` writes: {}",
            drifted.join(", ")
        );
    }
    Ok(())
}

fn check(name: &str, result: Result<()>) -> Tally {
    match &result {
        Ok(()) => println!("ok {name}"),
        Err(error) => println!("FAILED {name}: {error:#}"),
    }
    Tally::of(result.is_ok())
}
