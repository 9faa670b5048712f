//! A client in another language, generated from the protocol files: the protocol is what they say.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use millrace_cluster_tests::program;
use millrace_cluster_tests::suite::skip;

use crate::given::{self, assert_has};

/// What generates the client, and what it needs.
const PACKAGES: [&str; 3] = ["grpcio-tools", "grpcio-status", "googleapis-common-protos"];

/// Where the packages are kept between runs.
fn cache() -> Result<PathBuf> {
    if let Some(cache) = std::env::var_os("MILLRACE_CACHE") {
        return Ok(cache.into());
    }
    let home = std::env::var_os("HOME").context("HOME is not set, nor MILLRACE_CACHE")?;
    Ok(Path::new(&home).join(".cache/millrace"))
}

/// Python with the packages, installed once.
async fn python() -> Result<PathBuf> {
    let venv = cache()?.join("venv");
    let python = venv.join("bin/python");
    let has_packages = "import grpc_tools.protoc, grpc_status";
    let mut probe = Command::new(&python);
    probe.args(["-c", has_packages]);
    if program::run(probe, "")
        .await
        .is_ok_and(|said| said.code == Some(0))
    {
        return Ok(python);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&venv);
    let made = program::run(make, "").await;
    if !made.as_ref().is_ok_and(|said| said.code == Some(0)) {
        return skip(format!(
            "python3 cannot make a virtual environment: {made:?}"
        ));
    }
    let mut install = Command::new(&python);
    install
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(PACKAGES);
    let installed = program::run(install, "").await?;
    if installed.code != Some(0) {
        return skip(format!(
            "pip cannot install {PACKAGES:?}: {}",
            installed.stderr
        ));
    }
    Ok(python)
}

pub(crate) async fn a_client_generated_from_the_protocol_files_works() -> Result<()> {
    let python = python().await?;
    let (node, broker) = given::broker().await?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()?;
    let stubs = node.file("stubs");
    std::fs::create_dir_all(&stubs)?;
    let mut generate = Command::new(&python);
    generate.arg("-m").arg("grpc_tools.protoc");
    generate.arg(format!("--proto_path={}", root.join("proto").display()));
    for kind in ["--python_out", "--grpc_python_out"] {
        generate.arg(format!("{kind}={}", stubs.display()));
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root.join("proto/millrace/v1"))? {
        files.push(entry?.path());
    }
    files.sort();
    generate.args(&files);
    let generated = program::run(generate, "").await?;
    assert_eq!(generated.code, Some(0), "{}", generated.stderr);

    let mut client = Command::new(&python);
    client.arg(root.join("tests/cluster/python/client.py"));
    client
        .arg(broker.addresses().clients.to_string())
        .env("PYTHONPATH", &stubs);
    let said = program::run(client, "").await?;

    assert_eq!(
        said.code,
        Some(0),
        "{}\n{}",
        said.lines.join("\n"),
        said.stderr
    );
    assert_has(&said.lines.join("\n"), "all good");
    broker.stop().await
}
