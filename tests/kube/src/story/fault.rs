//! Kubernetes itself fails: a node is unplugged or loses power, the API server is away.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::change::{numbered, take_numbered, wait_pod_ready};
use crate::broker::Broker;
use crate::case::{Case, Need, Verdict};
use crate::driver::Act;
use crate::shell;
use crate::wait;
use crate::world::{CLUSTER, SHOP, World};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a broker serves while the API server is away",
        need: Need::None,
        run: without_api_server,
    },
    Case {
        name: "an unplugged node shows in the cluster's status and comes back without a restart",
        need: Need::None,
        run: node_cut,
    },
    Case {
        name: "a broker is back with everything when its node is",
        need: Need::None,
        run: node_loss,
    },
];

fn without_api_server(world: &mut World) -> Result<Verdict> {
    let Some(mut publish) = world.driver.inside(&world.options.cli) else {
        return Ok(Verdict::Skipped(
            "this driver has no way to pods but the API server".to_owned(),
        ));
    };
    let Some(mut consume) = world.driver.inside(&world.options.cli) else {
        return Ok(Verdict::Skipped(
            "this driver has no way to pods but the API server".to_owned(),
        ));
    };
    if !world.driver.can(Act::StopApi) {
        return Ok(Verdict::Skipped(
            "this driver cannot stop the API server".to_owned(),
        ));
    }
    let pod = world.get(SHOP, &format!("pod/{CLUSTER}-0"))?;
    let ip = pod["status"]["podIP"]
        .as_str()
        .context("the broker has no address")?;
    let (server, queue) = (format!("http://{ip}:7070"), format!("queue/{SHOP}/kept"));
    publish.args(["publish", &queue, "--server", &server, "--lines"]);
    consume.args([
        "consume", &queue, "--server", &server, "--count", "20", "--ack",
    ]);
    consume.args(["--format", "raw"]);
    world.driver.act(Act::StopApi, "")?;
    let lines = numbered("without an API server", 20);
    let published = shell::run_with(&mut publish, &format!("{}\n", lines.join("\n")));
    let consumed = shell::run(&mut consume);
    world.driver.act(Act::StartApi, "")?;
    wait::until_true("the API server answers", Duration::from_secs(60), || {
        world
            .shell
            .kubectl(&["get", "--raw", "/readyz"])
            .map(|said| said.trim() == "ok")
    })?;
    published.context("publish")?;
    let consumed = consumed.context("consume")?;
    let mut got: Vec<&str> = consumed.lines().collect();
    got.sort_unstable();
    let mut expected = lines;
    expected.sort();
    ensure!(got == expected, "consumed {got:?}");
    Ok(Verdict::Holds)
}

fn node_cut(world: &mut World) -> Result<Verdict> {
    if !world.driver.can(Act::CutNode) {
        let why = format!("the {} driver cannot unplug a node", world.driver.name());
        return Ok(Verdict::Skipped(why));
    }
    let broker = Broker::connect(&world.shell, SHOP)?;
    broker.publish(
        &format!("queue/{SHOP}/kept"),
        &numbered("before the cut", 20),
    )?;
    drop(broker);
    let pod = world.get(SHOP, &format!("pod/{CLUSTER}-0"))?;
    let node = pod["spec"]["nodeName"]
        .as_str()
        .context("the broker is on no node")?
        .to_owned();
    let restarts = pod["status"]["containerStatuses"][0]["restartCount"].clone();
    world.driver.act(Act::CutNode, &node)?;
    // Whatever comes of it, the other cases need the node.
    let noticed = wait_cluster(world, "False");
    world.driver.act(Act::HealNode, &node)?;
    noticed?;
    wait_cluster(world, "True")?;
    let pod = world.get(SHOP, &format!("pod/{CLUSTER}-0"))?;
    let now = &pod["status"]["containerStatuses"][0]["restartCount"];
    ensure!(
        *now == restarts,
        "the broker restarted: {restarts} before, {now} after"
    );
    take_numbered(world, "before the cut", 20)?;
    Ok(Verdict::Holds)
}

/// Waits until the cluster's condition Ready has this status. The API server notices a silent node
/// after its grace period: 20 to 50 s.
fn wait_cluster(world: &World, ready: &str) -> Result<()> {
    let (object, condition) = (format!("brokercluster/{CLUSTER}"), format!("Ready={ready}"));
    world.wait_for(SHOP, &object, &condition, Duration::from_secs(120))
}

fn node_loss(world: &mut World) -> Result<Verdict> {
    if !world.driver.can(Act::StopNode) {
        let why = format!("the {} driver cannot stop a node", world.driver.name());
        return Ok(Verdict::Skipped(why));
    }
    let broker = Broker::connect(&world.shell, SHOP)?;
    broker.publish(
        &format!("queue/{SHOP}/kept"),
        &numbered("before the power cut", 20),
    )?;
    drop(broker);
    let pod = world.get(SHOP, &format!("pod/{CLUSTER}-0"))?;
    let node = pod["spec"]["nodeName"]
        .as_str()
        .context("the broker is on no node")?
        .to_owned();
    let started = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"].clone();
    world.driver.act(Act::StopNode, &node)?;
    world.driver.act(Act::StartNode, &node)?;
    wait::until_true(
        "the broker is started again",
        Duration::from_secs(120),
        || {
            let pod = world.get(SHOP, &format!("pod/{CLUSTER}-0"))?;
            let now = &pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"];
            Ok(now.is_string() && *now != started)
        },
    )?;
    wait_pod_ready(world)?;
    take_numbered(world, "before the power cut", 20)?;
    Ok(Verdict::Holds)
}
