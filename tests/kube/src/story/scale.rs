//! A cluster gets fewer brokers, and more again.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::replicas::{GOES_ON_LIMIT, find_condition, status, wait_stable, wait_votes};
use crate::case::{Case, Need, Verdict};
use crate::load::Load;
use crate::wait;
use crate::world::{CLUSTER, SECOND, SHOP, World};

/// Two brokers give all they have to a third one, one after the other.
const SHRINK_LIMIT: Duration = Duration::from_secs(240);

/// A queue with a number of copies of its own.
const PRECIOUS: &str = "
apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata: {name: precious}
spec: {replication: 3}
";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "three brokers become one under load, and three again",
        need: Need::None,
        run: shrunk,
    },
    Case {
        name: "five brokers found a cluster, and no more than two of them may go",
        need: Need::None,
        run: five,
    },
];

fn shrunk(world: &mut World) -> Result<Verdict> {
    let load = Load::start(world, "shrink", SHOP)?;
    let result = shrink_and_grow(world, &load);
    load.finish(world)?;
    result?;
    Ok(Verdict::Holds)
}

fn shrink_and_grow(world: &World, load: &Load) -> Result<()> {
    scale(world, SHOP, 1)?;
    wait_brokers(world, SHOP, 1)?;
    load.goes_on(world, GOES_ON_LIMIT)?;
    for ordinal in 1..3 {
        let claim = claim(world, SHOP, ordinal)?;
        let annotations = &claim["metadata"]["annotations"];
        ensure!(
            annotations["millrace.dev/node-id"].is_null()
                && annotations["millrace.dev/cluster-id"].is_string(),
            "claim {ordinal} is kept: {annotations}"
        );
    }
    // The old disks come back, and are let in.
    scale(world, SHOP, 3)?;
    wait_votes(world, 3)?;
    wait_stable(world, SHOP)?;
    load.goes_on(world, GOES_ON_LIMIT)
}

fn five(world: &mut World) -> Result<Verdict> {
    let five = super::declare::BROKERS.replace("spec:\n", "spec:\n  replicas: 5\n");
    world.shell.apply(SECOND, &five)?;
    wait_stable(world, SECOND)?;
    let founding = &status(world, SECOND)?["founding"]["founders"];
    let founders = founding.as_array().map_or(0, Vec::len);
    ensure!(founders == 5, "{founders} founders");
    let warning = |world: &World| find_condition(&status(world, SECOND)?, "Warning");
    ensure!(warning(world).is_err(), "five are warned of");
    scale(world, SECOND, 4)?;
    wait_brokers(world, SECOND, 4)?;
    let even = warning(world)?;
    ensure!(even["reason"] == "EvenReplicas", "{even}");
    scale(world, SECOND, 3)?;
    wait_brokers(world, SECOND, 3)?;
    ensure!(warning(world).is_err(), "three are warned of");
    refused(world)?;
    let object = format!("brokercluster/{CLUSTER}");
    world.shell.kubectl(&["delete", "-n", SECOND, &object])?;
    Ok(Verdict::Holds)
}

/// A queue that asks for three copies needs three brokers.
fn refused(world: &World) -> Result<()> {
    world.shell.apply(SECOND, PRECIOUS)?;
    let queue = "queue.millrace.dev/precious";
    world.wait_for(SECOND, queue, "Ready", Duration::from_secs(30))?;
    wait_stable(world, SECOND)?;
    scale(world, SECOND, 2)?;
    let refused = wait::until_true("a refusal", Duration::from_secs(30), || {
        let progressing = find_condition(&status(world, SECOND)?, "Progressing")?;
        let message = progressing["message"].as_str().unwrap_or_default();
        ensure!(
            progressing["reason"] == "ScaleDownBlocked" && message.contains("precious"),
            "{progressing}"
        );
        Ok(true)
    });
    scale(world, SECOND, 3)?;
    refused?;
    wait_stable(world, SECOND)
}

fn scale(world: &World, namespace: &str, replicas: u32) -> Result<()> {
    let object = format!("brokercluster/{CLUSTER}");
    let replicas = format!("--replicas={replicas}");
    let scale = ["scale", "-n", namespace, &object, &replicas];
    world.shell.kubectl(&scale).map(drop)
}

fn claim(world: &World, namespace: &str, ordinal: u32) -> Result<serde_json::Value> {
    world.get(
        namespace,
        &format!("persistentvolumeclaim/data-{CLUSTER}-{ordinal}"),
    )
}

/// Waits until there are no more than so many brokers, and nothing is left to be done.
fn wait_brokers(world: &World, namespace: &str, brokers: u64) -> Result<()> {
    wait::until_true("the others are gone", SHRINK_LIMIT, || {
        let set = world.get(namespace, &format!("statefulset/{CLUSTER}"))?;
        let status = status(world, namespace)?;
        let progressing = find_condition(&status, "Progressing")?;
        ensure!(
            set["spec"]["replicas"] == brokers && status["operation"].is_null(),
            "{progressing}"
        );
        Ok(true)
    })?;
    wait_stable(world, namespace)
}
