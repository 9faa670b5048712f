//! `kubectl millrace` as a user has it: on the path, with nothing but the kubeconfig.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::case::{Case, Need, Verdict};
use crate::shell;
use crate::world::{CLUSTER, SHOP, World};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "kubectl millrace finds the cluster, and shows how it does",
        need: Need::None,
        run: status,
    },
    Case {
        name: "kubectl millrace publishes, peeks and consumes through its own port-forward",
        need: Need::None,
        run: messages,
    },
    Case {
        name: "a report has what a bug report needs, and no secret",
        need: Need::None,
        run: report,
    },
];

/// kubectl with the plugin on its path.
fn millrace<'a>(world: &World, arguments: impl IntoIterator<Item = &'a str>) -> Result<Command> {
    let plugins = world.options.plugin.parent().context("a folder")?;
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [plugins.to_owned()]
        .into_iter()
        .chain(env::split_paths(&path));
    let mut command = world.shell.kubectl_command(["millrace", "-n", SHOP]);
    command
        .env("PATH", env::join_paths(folders)?)
        .args(arguments);
    Ok(command)
}

fn said<'a>(world: &World, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
    shell::run(&mut millrace(world, arguments)?)
}

fn status(world: &mut World) -> Result<Verdict> {
    let text = said(world, ["status"])?;
    let title = format!("{SHOP}/{CLUSTER}: 1 of 1 brokers ready");
    let queue = format!("queue/{SHOP}/kept");
    for part in [
        title.as_str(),
        "CONDITION",
        "main-0",
        queue.as_str(),
        "topic/",
    ] {
        ensure!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let nodes: Value = serde_json::from_str(&said(world, ["nodes", "-o", "json"])?)?;
    ensure!(nodes[0]["leads"].as_u64() > Some(0), "{nodes}");
    let blocked = millrace(world, ["can-stop", "main-0"])?.output()?;
    let told = String::from_utf8_lossy(&blocked.stdout);
    ensure!(
        blocked.status.code() == Some(1) && told.contains("BLOCKER"),
        "the only broker may be stopped: {blocked:?}"
    );
    Ok(Verdict::Holds)
}

fn messages(world: &mut World) -> Result<Verdict> {
    shell::run_with(
        &mut millrace(world, ["publish", "queue/kept", "--lines"])?,
        "one\ntwo\n",
    )?;
    let peeked = said(world, ["peek", "queue/kept", "--format", "raw"])?;
    ensure!(peeked == "one\ntwo\n", "{peeked:?}");
    let count = ["consume", "queue/kept", "--count", "2", "--format", "raw"];
    let consumed = said(world, count)?;
    ensure!(consumed == "one\ntwo\n", "{consumed:?}");
    Ok(Verdict::Holds)
}

fn report(world: &mut World) -> Result<Verdict> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("report.tar.gz");
    let name = file.to_str().context("a path in UTF-8")?;
    said(world, ["report", "--file", name])?;
    let files = tar("-tzf", &file)?;
    for part in [
        "/resources/brokerclusters.yaml",
        "/resources/pods.yaml",
        "/resources/events.yaml",
        &format!("/logs/{SHOP}/main-0/"),
        "/metrics/main-0.txt",
        "/nodes.json",
        "/list.json",
    ] {
        ensure!(files.contains(part), "{part} is not in it:\n{files}");
    }
    ensure!(
        !files.contains("missing.txt"),
        "something is missing:\n{files}"
    );
    let secret = format!("secret/{CLUSTER}-control");
    let decoded = "go-template={{.data.token | base64decode}}";
    let token = world
        .shell
        .kubectl(&["get", "-n", SHOP, &secret, "-o", decoded])?;
    let content = tar("-xzOf", &file)?;
    ensure!(!token.trim().is_empty(), "there is no token");
    ensure!(
        !content.contains(token.trim()),
        "the control token is in it"
    );
    ensure!(!content.contains("kind: Secret"), "a Secret is in it");
    Ok(Verdict::Holds)
}

fn tar(what: &str, file: &Path) -> Result<String> {
    shell::run(Command::new("tar").arg(what).arg(file))
}
