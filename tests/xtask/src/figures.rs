//! The published figures (`tests/bench`): a release build of the broker, measured on this machine's
//! disk.

use anyhow::Result;

use crate::house::{House, succeed};

/// Handed to the measuring program as they are.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// A scenario and its options; `--help` lists them
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        default_value = "--help"
    )]
    arguments: Vec<String>,
}

/// Builds for release and measures.
///
/// # Errors
/// When something does not build, or a scenario cannot be run to its end.
pub(crate) fn run(house: &House, options: &Options) -> Result<()> {
    house.build_release(&["millrace", "millrace-bench"])?;
    let mut command = house.command(house.release_binary("millrace-bench"));
    command.env("MILLRACE_BIN", house.release_binary("millrace"));
    command.args(&options.arguments);
    succeed(&mut command)
}
