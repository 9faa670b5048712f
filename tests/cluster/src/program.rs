//! The `millrace` binary: where it is, and running one of its verbs to the end.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};

/// Names the binary; without it, it is built and taken from beside the tests.
pub const BINARY_ENV: &str = "MILLRACE_BIN";

/// The binary under test.
///
/// # Errors
/// It cannot be built.
pub fn path() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    match found {
        Ok(path) => Ok(path),
        Err(error) => bail!("{error}"),
    }
}

fn find() -> Result<PathBuf> {
    if let Some(path) = env::var_os(BINARY_ENV) {
        // A path relative to where we are means nothing once a test changes directory.
        return Path::new(&path)
            .canonicalize()
            .with_context(|| format!("{BINARY_ENV} is {}", Path::new(&path).display()));
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    build.args([
        "build",
        "--quiet",
        "--package",
        "millrace",
        "--bin",
        "millrace",
    ]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let status = build.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("cannot build millrace: {status}");
    }
    // Tests are in `deps`, binaries beside it.
    let own = env::current_exe()?;
    let mut places = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("millrace"));
    places
        .find(|path| path.is_file())
        .with_context(|| format!("no millrace beside {}", own.display()))
}

/// A command line after `millrace`; no argument in it has spaces.
///
/// # Errors
/// The binary cannot be built.
pub fn command(line: &str) -> Result<Command> {
    let mut command = Command::new(path()?);
    command.args(line.split_whitespace());
    // What the caller's shell says must not change what is tested.
    for name in ["MILLRACE_SERVER", "MILLRACE_NAMESPACE", "RUST_LOG"] {
        command.env_remove(name);
    }
    Ok(command)
}

/// What a program that has ended said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Lines of stdout.
    pub lines: Vec<String>,
    /// All of stderr.
    pub stderr: String,
}

/// Runs a command to its end, with this stdin.
///
/// # Errors
/// It cannot be started.
pub async fn run(mut command: Command, stdin: &str) -> Result<Said> {
    let stdin = stdin.to_owned();
    let output = tokio::task::spawn_blocking(move || -> Result<Output> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut input = child.stdin.take().context("stdin is piped")?;
        let writer = std::thread::spawn(move || input.write_all(stdin.as_bytes()));
        let output = child.wait_with_output()?;
        // A program that needs no input may end before it is written.
        drop(writer.join());
        Ok(output)
    });
    let output = output.await??;
    let stdout = String::from_utf8(output.stdout).context("stdout is no text")?;
    Ok(Said {
        code: output.status.code(),
        lines: stdout.lines().map(str::to_owned).collect(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
