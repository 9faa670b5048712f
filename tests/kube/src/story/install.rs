//! Helm install.

use anyhow::{Context as _, Result, ensure};

use crate::case::{Case, Need, Verdict};
use crate::world::{RELEASE, SYSTEM, World};

pub(super) const CASES: &[Case] = &[Case {
    name: "helm installs the operator and it is ready",
    need: Need::All,
    run: install,
}];

fn install(world: &mut World) -> Result<Verdict> {
    let notes = helm_install(world, RELEASE, SYSTEM, &[])?;
    ensure!(
        notes.contains("kubectl apply"),
        "the notes do not say what to do next: {notes}"
    );
    Ok(Verdict::Holds)
}

/// Installs the chart with the image under test and waits until the operator is ready.
///
/// # Errors
/// When Helm fails.
pub(super) fn helm_install(
    world: &World,
    release: &str,
    namespace: &str,
    more: &[&str],
) -> Result<String> {
    helm(world, "install", release, namespace, more)
}

/// The same for a release that is there.
///
/// # Errors
/// When Helm fails.
pub(super) fn helm_upgrade(
    world: &World,
    release: &str,
    namespace: &str,
    more: &[&str],
) -> Result<String> {
    helm(world, "upgrade", release, namespace, more)
}

fn helm(
    world: &World,
    verb: &str,
    release: &str,
    namespace: &str,
    more: &[&str],
) -> Result<String> {
    let chart = world.options.chart.to_string_lossy().into_owned();
    let (repository, tag) = world
        .options
        .image
        .rsplit_once(':')
        .context("the image has no tag")?;
    let (repository, tag) = (
        format!("image.repository={repository}"),
        format!("image.tag={tag}"),
    );
    let mut arguments = vec![verb, release, &chart, "-n", namespace];
    arguments.extend([
        "--wait",
        "--timeout",
        "120s",
        "--set",
        &repository,
        "--set",
        &tag,
    ]);
    arguments.extend(more);
    world.shell.helm(&arguments)
}
