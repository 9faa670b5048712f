//! The twin of `verify` that writes: generated files, lint suggestions, format.

use anyhow::Result;

use crate::house::{House, succeed};
use crate::{generate, needs};

/// Changes the clone until `verify` has little left to say.
///
/// # Errors
/// When a tool is missing or fails.
pub(crate) fn run(house: &House) -> Result<()> {
    needs::rust_components()?;
    generate::run(house)?;
    let clippy = ["clippy", "--fix", "--allow-dirty", "--allow-staged"];
    succeed(house.cargo(clippy).args(["--workspace", "--all-targets"]))?;
    succeed(&mut house.cargo(["fmt", "--all"]))
}
