//! A cluster of three brokers, and what may happen to one of them while messages flow.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use millrace_client::Settle;
use serde_json::Value;

use super::change::numbered;
use crate::broker::Broker;
use crate::case::{Case, Need, Verdict};
use crate::driver::Act;
use crate::load::Load;
use crate::wait;
use crate::world::{CLUSTER, RELEASE, SHOP, SYSTEM, World};

/// Three disks, three starts, one founding, and all copies.
pub(super) const STABLE_LIMIT: Duration = Duration::from_secs(180);
/// The API server notices a silent node after its grace period, 20 to 50 s.
const NOTICE_LIMIT: Duration = Duration::from_secs(120);
/// A node that is back starts its kubelet, its pods, and catches up.
const RETURN_LIMIT: Duration = Duration::from_secs(240);
/// A restart of each of three pods in turn.
const ROLL_LIMIT: Duration = Duration::from_secs(300);
/// Longest that nothing may arrive while a majority is there.
pub(super) const GOES_ON_LIMIT: Duration = Duration::from_secs(45);

/// Three brokers, from Helm install on.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "helm installs the operator on the node that nothing is done to",
        need: Need::All,
        run: installed,
    },
    Case {
        name: "three brokers found a cluster, each on a node of its own",
        need: Need::All,
        run: founded,
    },
    Case {
        name: "each of three brokers' pods deleted under load takes no message with it",
        need: Need::None,
        run: pods_deleted,
    },
    Case {
        name: "a node that loses power under load takes no message with it",
        need: Need::None,
        run: node_stopped,
    },
    Case {
        name: "a node unplugged under load takes no message with it",
        need: Need::None,
        run: node_cut,
    },
    Case {
        name: "one forwarded port is enough, whoever leads",
        need: Need::None,
        run: one_port,
    },
    Case {
        name: "changed resources restart one broker after the other under load",
        need: Need::None,
        run: rolled,
    },
];

/// One broker that grows, with everything the other cases left in it.
pub(super) const GROWTH: &[Case] = &[
    Case {
        name: "one broker becomes three under load",
        need: Need::None,
        run: grown,
    },
    Case {
        name: "the broker that was alone may go under load",
        need: Need::None,
        run: first_deleted,
    },
];

/// A queue that lines go through.
const LOAD: &str = "
apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata: {name: load}
spec:
  delivery: {ackDeadline: 30s, maxDeliveries: 20, backoff: {initial: 1s, max: 2s}}
";

/// An operator on a node that is taken away could not tell of it.
fn installed(world: &mut World) -> Result<Verdict> {
    let home = home(world)?;
    let pinned = format!("nodeSelector.kubernetes\\.io/hostname={home}");
    world.home = Some(home);
    super::install::helm_install(world, RELEASE, SYSTEM, &["--set", &pinned])?;
    Ok(Verdict::Holds)
}

fn founded(world: &mut World) -> Result<Verdict> {
    let three = super::declare::BROKERS.replace("spec:\n", "spec:\n  replicas: 3\n");
    let documents = [LOAD, super::declare::KEPT, &three].join("---\n");
    world.shell.apply(SHOP, &documents)?;
    wait_stable(world, SHOP)?;
    for queue in ["load", "kept"] {
        let queue = format!("queue.millrace.dev/{queue}");
        world.wait_for(SHOP, &queue, "Ready", Duration::from_secs(30))?;
    }
    let status = status(world, SHOP)?;
    let founders = status["founding"]["founders"].as_array();
    ensure!(
        founders.is_some_and(|founders| founders.len() == 3) && status["founding"]["done"] == true,
        "founding: {}",
        status["founding"]
    );
    let mut told = BTreeSet::new();
    for ordinal in 0..3 {
        let claim = world.get(
            SHOP,
            &format!("persistentvolumeclaim/data-{CLUSTER}-{ordinal}"),
        )?;
        let annotations = &claim["metadata"]["annotations"];
        let id = &annotations["millrace.dev/cluster-id"];
        ensure!(*id == status["clusterID"], "claim {ordinal}: {annotations}");
        told.insert(annotations["millrace.dev/node-id"].to_string());
    }
    ensure!(told.len() == 3, "nodes on the claims: {told:?}");
    let nodes = world.shell.json(&["get", "nodes"])?;
    let nodes = nodes["items"].as_array().map_or(0, Vec::len);
    let used: BTreeSet<String> = (0..3).map(|n| node_of(world, n)).collect::<Result<_>>()?;
    ensure!(used.len() == nodes.min(3), "the pods are on {used:?}");
    Ok(Verdict::Holds)
}

fn grown(world: &mut World) -> Result<Verdict> {
    world.shell.apply(SHOP, LOAD)?;
    let queue = "queue.millrace.dev/load";
    world.wait_for(SHOP, queue, "Ready", Duration::from_secs(30))?;
    let broker = Broker::connect(&world.shell, SHOP)?;
    let kept = format!("queue/{SHOP}/kept");
    broker.publish(&kept, &numbered("before the growth", 20))?;
    drop(broker);
    let load = Load::start(world, "growth", SHOP)?;
    let object = format!("brokercluster/{CLUSTER}");
    world
        .shell
        .kubectl(&["scale", "-n", SHOP, &object, "--replicas=3"])?;
    let grew = wait_votes(world, 3).and_then(|()| wait_stable(world, SHOP));
    let went_on = load.goes_on(world, GOES_ON_LIMIT);
    load.finish(world)?;
    grew?;
    went_on?;
    super::change::take_numbered(world, "before the growth", 20)?;
    Ok(Verdict::Holds)
}

fn pods_deleted(world: &mut World) -> Result<Verdict> {
    delete(world, 0..3)
}

fn first_deleted(world: &mut World) -> Result<Verdict> {
    delete(world, 0..1)
}

/// Deletes pods one after the other, each when the cluster is stable again.
fn delete(world: &mut World, ordinals: Range<u32>) -> Result<Verdict> {
    let load = Load::start(world, "pods", SHOP)?;
    let mut result = Ok(());
    for ordinal in ordinals {
        let pod = format!("pod/{CLUSTER}-{ordinal}");
        let delete = ["delete", "-n", SHOP, &pod, "--grace-period=0", "--force"];
        result = world
            .shell
            .kubectl(&delete)
            .map(drop)
            .and_then(|()| load.goes_on(world, GOES_ON_LIMIT))
            .and_then(|()| wait_stable(world, SHOP))
            .with_context(|| format!("pod {ordinal}"));
        if result.is_err() {
            break;
        }
    }
    load.finish(world)?;
    result.map(|()| Verdict::Holds)
}

fn node_stopped(world: &mut World) -> Result<Verdict> {
    without_a_node(world, "power", Act::StopNode, Act::StartNode, "Ready")
}

fn node_cut(world: &mut World) -> Result<Verdict> {
    without_a_node(world, "cut", Act::CutNode, Act::HealNode, "Ready")
}

/// Takes a node away under load, sees that the cluster serves and says who is missing, and gives it
/// back.
fn without_a_node(
    world: &mut World,
    name: &'static str,
    take: Act,
    give: Act,
    condition: &str,
) -> Result<Verdict> {
    if !world.driver.can(take) {
        let driver = world.driver.name();
        return Ok(Verdict::Skipped(format!(
            "the {driver} driver cannot do {take:?}"
        )));
    }
    let Some(node) = victim(world)? else {
        return Ok(Verdict::Skipped(
            "no broker is on a node without clients and DNS".to_owned(),
        ));
    };
    let load = Load::start(world, name, SHOP)?;
    world.driver.act(take, &node)?;
    println!("{name}: {take:?} {node}");
    // Whatever comes of it, the other cases need the node.
    let went_on = load.goes_on(world, GOES_ON_LIMIT);
    let noticed = wait::until_true("a degraded cluster that serves", NOTICE_LIMIT, || {
        let ready = find_condition(&status(world, SHOP)?, condition)?;
        ensure!(ready["status"] == "True", "{ready}");
        Ok(ready["reason"] == "Degraded")
    });
    let still = load.goes_on(world, GOES_ON_LIMIT);
    world.driver.act(give, &node)?;
    let whole = wait::until_true("the cluster is whole again", RETURN_LIMIT, || {
        let stable = find_condition(&status(world, SHOP)?, "Stable")?;
        Ok(stable["status"] == "True")
    });
    load.finish(world)?;
    went_on.context("right after the loss")?;
    noticed?;
    still.context("while the node is missing")?;
    whole?;
    Ok(Verdict::Holds)
}

fn one_port(world: &mut World) -> Result<Verdict> {
    // Through a pod that stays, while each of the others goes.
    let broker = Broker::through(&world.shell, SHOP, &format!("pod/{CLUSTER}-2"))?;
    let queue = format!("queue/{SHOP}/kept");
    for ordinal in 0..2 {
        let pod = format!("pod/{CLUSTER}-{ordinal}");
        let text = format!("without pod {ordinal}");
        let delete = ["delete", "-n", SHOP, &pod, "--grace-period=0", "--force"];
        world.shell.kubectl(&delete)?;
        broker.publish(&queue, &numbered(&text, 20))?;
        let mut texts = Vec::new();
        broker.take(&queue, |_, _| Settle::Accept, |got, _| texts.push(got))?;
        texts.sort();
        texts.dedup();
        ensure!(texts.len() == 20, "{} of 20 came: {texts:?}", texts.len());
        wait_stable(world, SHOP)?;
    }
    Ok(Verdict::Holds)
}

fn rolled(world: &mut World) -> Result<Verdict> {
    let load = Load::start(world, "roll", SHOP)?;
    let object = format!("brokercluster/{CLUSTER}");
    let patch = r#"{"spec": {"resources": {"requests": {"memory": "56Mi"}}}}"#;
    let patch = ["patch", "-n", SHOP, &object, "--type=merge", "-p", patch];
    world.shell.kubectl(&patch)?;
    let mut most_down = 0;
    let rolled = wait::until_true("all three have restarted", ROLL_LIMIT, || {
        let mut done = 0;
        let mut down = 0;
        for ordinal in 0..3 {
            let pod = world.get(SHOP, &format!("pod/{CLUSTER}-{ordinal}"));
            // For a moment there is none.
            let Ok(pod) = pod else {
                down += 1;
                continue;
            };
            let requests = &pod["spec"]["containers"][0]["resources"]["requests"];
            done += usize::from(requests["memory"] == "56Mi");
            down += usize::from(!is_ready(&pod));
        }
        most_down = most_down.max(down);
        Ok(done == 3 && down == 0)
    });
    let stable = rolled.and_then(|()| wait_stable(world, SHOP));
    load.finish(world)?;
    stable?;
    ensure!(most_down <= 1, "{most_down} pods were down at once");
    Ok(Verdict::Holds)
}

/// Where clients, operator and DNS are: a node that nothing is done to.
fn home(world: &World) -> Result<String> {
    let dns = ["get", "pods", "-n", "kube-system", "-l", "k8s-app=kube-dns"];
    let dns = world.shell.json(&dns)?;
    if let Some(node) = dns["items"][0]["spec"]["nodeName"].as_str() {
        return Ok(node.to_owned());
    }
    let nodes = world.shell.json(&["get", "nodes"])?;
    let first = nodes["items"][0]["metadata"]["name"].as_str();
    Ok(first.context("no node")?.to_owned())
}

/// A node with a broker, on which nothing else is that the test needs: of those the one whose
/// broker leads most.
fn victim(world: &World) -> Result<Option<String>> {
    let status = status(world, SHOP)?;
    let mut nodes: Vec<(i64, String)> = Vec::new();
    for ordinal in 0..3 {
        let node = node_of(world, ordinal)?;
        if Some(&node) != world.home.as_ref() {
            let leads = status["nodes"][ordinal]["leads"].as_i64();
            nodes.push((leads.unwrap_or_default(), node));
        }
    }
    nodes.sort();
    Ok(nodes.pop().map(|(_, node)| node))
}

fn node_of(world: &World, ordinal: usize) -> Result<String> {
    let pod = world.get(SHOP, &format!("pod/{CLUSTER}-{ordinal}"))?;
    let node = pod["spec"]["nodeName"].as_str();
    Ok(node.context("a broker is on no node")?.to_owned())
}

/// The status of the cluster in a namespace.
pub(super) fn status(world: &World, namespace: &str) -> Result<Value> {
    let cluster = world.get(namespace, &format!("brokercluster/{CLUSTER}"))?;
    Ok(cluster["status"].clone())
}

/// A condition in a status.
pub(super) fn find_condition(status: &Value, type_: &str) -> Result<Value> {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == type_);
    match found {
        Some(condition) => Ok(condition.clone()),
        None => bail!("no condition {type_} in {status}"),
    }
}

pub(super) fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// Waits until every broker serves and every shard has its copies, for the spec as it is now.
pub(super) fn wait_stable(world: &World, namespace: &str) -> Result<()> {
    wait::until_true("the cluster is stable", STABLE_LIMIT, || {
        let cluster = world.get(namespace, &format!("brokercluster/{CLUSTER}"))?;
        let status = &cluster["status"];
        let stable = find_condition(status, "Stable")?;
        let mut pods = (0..cluster["spec"]["replicas"].as_u64().unwrap_or(1))
            .map(|n| world.get(namespace, &format!("pod/{CLUSTER}-{n}")));
        let all_ready = pods.all(|pod| pod.is_ok_and(|pod| is_ready(&pod)));
        ensure!(
            stable["observedGeneration"] == cluster["metadata"]["generation"],
            "{stable}"
        );
        ensure!(stable["status"] == "True" && all_ready, "{stable}");
        Ok(true)
    })
}

/// Waits until this many brokers vote in some shard.
pub(super) fn wait_votes(world: &World, brokers: usize) -> Result<()> {
    wait::until_true("all brokers vote", STABLE_LIMIT, || {
        let status = status(world, SHOP)?;
        let nodes = status["nodes"].as_array().into_iter().flatten();
        let voting = nodes.filter(|node| node["votes"].as_i64() > Some(0));
        ensure!(voting.count() == brokers, "{}", status["nodes"]);
        Ok(true)
    })
}
