//! Runs programs: kubectl, helm and what drivers need. A failed one is an error that says what it
//! wrote.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Bytes of a failed program's output that are worth telling.
const TOLD_BYTES_MAX: usize = 3000;

/// kubectl and helm, pointed at one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Shell {
    kubectl: PathBuf,
    helm: PathBuf,
    kubeconfig: PathBuf,
}

impl Shell {
    /// Uses programs of `bin` if they are there, else those on the PATH.
    pub(crate) fn new(bin: &Path, kubeconfig: PathBuf) -> Self {
        let program = |name: &str| {
            let own = bin.join(name);
            if own.exists() {
                own
            } else {
                PathBuf::from(name)
            }
        };
        Self {
            kubectl: program("kubectl"),
            helm: program("helm"),
            kubeconfig,
        }
    }

    /// The cluster's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// kubectl, not yet run.
    pub(crate) fn kubectl_command<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        command
    }

    /// What kubectl says.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(&mut self.kubectl_command(arguments))
    }

    /// What kubectl says to something on its stdin.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) fn kubectl_with(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        run_with(&mut self.kubectl_command(arguments), stdin)
    }

    /// What kubectl says, as JSON.
    ///
    /// # Errors
    /// When it fails, or does not write JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = run(self.kubectl_command(arguments).args(["-o", "json"]))?;
        serde_json::from_str(&text).context("kubectl wrote something not JSON")
    }

    /// Applies documents in a namespace.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub(crate) fn apply(&self, namespace: &str, documents: &str) -> Result<String> {
        self.kubectl_with(&["apply", "-n", namespace, "-f", "-"], documents)
    }

    /// What helm says.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) fn helm<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        run(Command::new(&self.helm)
            .env("KUBECONFIG", &self.kubeconfig)
            .args(arguments))
    }
}

/// Runs a program and returns what it wrote to stdout.
///
/// # Errors
/// When it cannot be started or fails; its stderr is told.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .output()
        .with_context(|| format!("cannot start {shown}"))?;
    finished(&shown, &output)
}

/// Runs a program with something on its stdin.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn run_with(command: &mut Command, stdin: &str) -> Result<String> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let mut pipe = child.stdin.take().context("stdin is piped")?;
    let text = stdin.to_owned();
    // A program that ends without reading all of it says why on stderr.
    let writer = thread::spawn(move || pipe.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    drop(writer.join());
    finished(&shown, &output)
}

fn finished(shown: &str, output: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let told = format!("{}\n{}", stderr.trim(), stdout.trim());
        bail!("{shown}: {}: {}", output.status, tail(told.trim()));
    }
    Ok(stdout)
}

/// The end of a text, where programs say what went wrong.
fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(TOLD_BYTES_MAX);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy();
    let words = command.get_args().map(OsStr::to_string_lossy);
    words.fold(name.into_owned(), |shown, word| format!("{shown} {word}"))
}
