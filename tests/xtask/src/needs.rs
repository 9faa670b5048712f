//! What this machine must have before a part can run, and what to do about it: every refusal names
//! the missing thing and the command that brings it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// Oldest Go that builds the Kubernetes of `tests/kube/testbed`: it wants 1.26, and from this one
/// on `go` fetches a newer toolchain by itself.
const GO_MINOR_MIN: u32 = 21;

/// rustfmt and clippy of the toolchain in use.
///
/// # Errors
/// When one is missing.
pub(crate) fn rust_components() -> Result<()> {
    for (program, component) in [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")] {
        if !runs(Command::new(program).arg("--version")) {
            bail!("{component} is missing: rustup component add {component}");
        }
    }
    Ok(())
}

/// What the project's own test cluster needs: Linux, root and Go. Debian packages are installed by
/// `tests/kube/testbed/build`.
///
/// # Errors
/// When something is missing that this program does not bring by itself.
pub(crate) fn test_cluster() -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("the project's own test cluster needs Linux; here, name one with --kubeconfig");
    }
    if !is_root() {
        bail!(
            "the project's own test cluster needs root (network namespaces, containerd); run this \
             as root, or name a cluster with --kubeconfig"
        );
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "the project's own test cluster takes its parts from Debian packages and apt-get is \
             not here; name a cluster with --kubeconfig"
        );
    }
    go()
}

/// What compiles libFuzzer.
///
/// # Errors
/// When there is none.
pub(crate) fn cxx() -> Result<()> {
    let named = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    if !runs(Command::new(&named).arg("--version")) {
        bail!(
            "libFuzzer needs a C++ compiler and `c++` is not one: apt-get install g++, or set CXX"
        );
    }
    Ok(())
}

fn go() -> Result<()> {
    let wanted = format!("Go 1.{GO_MINOR_MIN} or newer builds the test cluster's Kubernetes");
    let told = Command::new("go")
        .arg("version")
        .output()
        .ok()
        .filter(|o| o.status.success());
    let Some(told) = told else {
        bail!("{wanted} and `go` is not on the PATH: https://go.dev/doc/install");
    };
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    match go_minor(&told) {
        Some(minor) if minor < GO_MINOR_MIN => bail!("{wanted}; this is {}", told.trim()),
        _ => Ok(()),
    }
}

fn go_minor(told: &str) -> Option<u32> {
    let version = told
        .split_whitespace()
        .find_map(|word| word.strip_prefix("go1."))?;
    version
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn runs(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_read() {
        assert_eq!(go_minor("go version go1.26.8 linux/amd64"), Some(26));
        assert_eq!(go_minor("go version go1.19 linux/arm64"), Some(19));
        assert_eq!(go_minor("go version devel +abc linux/amd64"), None);
    }
}
