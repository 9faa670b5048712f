//! Things go away, and some come back: clusters, releases, namespaces.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::change::{numbered, take_numbered, wait_pod_ready};
use super::declare::{BROKERS, KEPT, bound_queue};
use super::install::{helm_install, helm_upgrade};
use crate::broker::Broker;
use crate::case::{Case, Need, Verdict};
use crate::shell;
use crate::wait;
use crate::world::{CLUSTER, DOOMED, RELEASE, SECOND, SHOP, SYSTEM, World};

/// Whoever deletes a namespace waits for it; a finalizer that hangs is what people remember.
const GONE_LIMIT: Duration = Duration::from_secs(60);
/// The release that takes over after the first one is uninstalled.
const AGAIN: &str = "again";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a cluster deleted and created again has its messages",
        need: Need::None,
        run: recreated,
    },
    Case {
        name: "helm test passes and leaves nothing",
        need: Need::None,
        run: helm_test,
    },
    Case {
        name: "a namespace with everything in it is gone within a minute",
        need: Need::None,
        run: namespace_gone,
    },
    Case {
        name: "an operator of the whole cluster was never refused a right",
        need: Need::None,
        run: wide_never_refused,
    },
    Case {
        name: "brokers outlive the release, and a release of another name takes over",
        need: Need::None,
        run: reinstalled,
    },
    Case {
        name: "a second release without definitions looks after its own namespace",
        need: Need::None,
        run: second_release,
    },
    Case {
        name: "operators of namespaces were never refused a right they need",
        need: Need::None,
        run: narrow_never_refused,
    },
    Case {
        name: "uninstalling a release without definitions leaves them",
        need: Need::None,
        run: second_uninstalled,
    },
    Case {
        name: "everything deleted leaves nothing stuck",
        need: Need::None,
        run: all_gone,
    },
    // Last, for it replaces the definitions with its own.
    Case {
        name: "the API server's verdict on every document is our own",
        need: Need::None,
        run: verdict,
    },
];

fn recreated(world: &mut World) -> Result<Verdict> {
    let broker = Broker::connect(&world.shell, SHOP)?;
    broker.publish(
        &format!("queue/{SHOP}/kept"),
        &numbered("kept on the claim", 20),
    )?;
    drop(broker);
    let object = format!("brokercluster/{CLUSTER}");
    let before = world.get(SHOP, &object)?["status"]["clusterID"].clone();
    world
        .shell
        .kubectl(&["delete", "-n", SHOP, &object, "--timeout=60s"])?;
    wait::until_true("the broker's pod is gone", GONE_LIMIT, || {
        let selector = format!("statefulset.kubernetes.io/pod-name={CLUSTER}-0");
        let pods = world
            .shell
            .kubectl(&["get", "pods", "-n", SHOP, "-l", &selector, "-o", "name"]);
        Ok(pods?.trim().is_empty())
    })?;
    world.shell.apply(SHOP, BROKERS)?;
    world.wait_for(SHOP, &object, "Ready", Duration::from_secs(90))?;
    world.wait_for(
        SHOP,
        "queue.millrace.dev/kept",
        "Ready",
        Duration::from_secs(30),
    )?;
    let after = world.get(SHOP, &object)?["status"]["clusterID"].clone();
    ensure!(
        before == after && after.is_string(),
        "cluster {before} became {after}"
    );
    take_numbered(world, "kept on the claim", 20)?;
    Ok(Verdict::Holds)
}

fn helm_test(world: &mut World) -> Result<Verdict> {
    world
        .shell
        .helm(["test", RELEASE, "-n", SYSTEM, "--timeout", "180s", "--logs"])?;
    let left = world.shell.kubectl(&[
        "get",
        "-n",
        SYSTEM,
        "-o",
        "name",
        "brokerclusters,queues.millrace.dev,persistentvolumeclaims,statefulsets",
    ])?;
    ensure!(left.trim().is_empty(), "it left {left}");
    Ok(Verdict::Holds)
}

fn namespace_gone(world: &mut World) -> Result<Verdict> {
    let topic =
        "apiVersion: millrace.dev/v1alpha1\nkind: Topic\nmetadata: {name: audit}\nspec: {}\n";
    let queue = bound_queue("bound", &["get"]);
    world
        .shell
        .apply(DOOMED, &[BROKERS, topic, KEPT, &queue].join("---\n"))?;
    let object = format!("brokercluster/{CLUSTER}");
    world.wait_for(DOOMED, &object, "Ready", Duration::from_secs(90))?;
    world.wait_for(
        DOOMED,
        "queue.millrace.dev/bound",
        "Ready",
        Duration::from_secs(30),
    )?;
    delete_namespace(world, DOOMED)?;
    Ok(Verdict::Holds)
}

fn reinstalled(world: &mut World) -> Result<Verdict> {
    world
        .shell
        .helm(["uninstall", RELEASE, "-n", SYSTEM, "--wait"])?;
    let kept = world.definitions()?.len();
    ensure!(kept == 3, "{kept} definitions are left");
    wait_pod_ready(world).context("the broker did not outlive the operator")?;
    // The definitions carry the first release's name; Helm asks for consent to take them.
    match helm_install(world, AGAIN, SYSTEM, &[]) {
        Ok(_) => bail!("another release's definitions are taken without being asked"),
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(
                said.contains("millrace.dev"),
                "refused for another reason: {said}"
            );
        }
    }
    // A release that failed to install stays on Helm's books.
    if let Err(error) = world
        .shell
        .helm(["uninstall", AGAIN, "-n", SYSTEM, "--wait"])
    {
        eprintln!("nothing to clear up: {error:#}");
    }
    let shop = format!("watch.namespaces={{{SHOP}}}");
    let narrow = [
        "--set",
        "watch.scope=namespaces",
        "--set",
        &shop,
        "--take-ownership",
    ];
    helm_install(world, AGAIN, SYSTEM, &narrow)?;
    let patch = r#"{"spec": {"delivery": {"maxDeliveries": 5}}}"#;
    let object = "queue.millrace.dev/first";
    world
        .shell
        .kubectl(&["patch", "-n", SHOP, object, "--type=merge", "-p", patch])?;
    wait::until_true(
        "the new release applies an edit",
        Duration::from_secs(60),
        || {
            let value = world.get(SHOP, object)?;
            Ok(value["status"]["appliedGeneration"] == value["metadata"]["generation"])
        },
    )?;
    Ok(Verdict::Holds)
}

fn second_release(world: &mut World) -> Result<Verdict> {
    let own = format!("watch.namespaces={{{SECOND}}}");
    let values = [
        "--set",
        "crds.enabled=false",
        "--set",
        "watch.scope=namespaces",
        "--set",
        &own,
    ];
    helm_install(world, RELEASE, SECOND, &values)?;
    world.shell.apply(SECOND, &[BROKERS, KEPT].join("---\n"))?;
    let object = format!("brokercluster/{CLUSTER}");
    world.wait_for(SECOND, &object, "Ready", Duration::from_secs(90))?;
    world.wait_for(
        SECOND,
        "queue.millrace.dev/kept",
        "Ready",
        Duration::from_secs(30),
    )?;
    helm_upgrade(world, RELEASE, SECOND, &values)?;
    Ok(Verdict::Holds)
}

fn second_uninstalled(world: &mut World) -> Result<Verdict> {
    world
        .shell
        .helm(["uninstall", RELEASE, "-n", SECOND, "--wait"])?;
    let kept = world.definitions()?.len();
    ensure!(kept == 3, "{kept} definitions are left");
    Ok(Verdict::Holds)
}

fn wide_never_refused(world: &mut World) -> Result<Verdict> {
    never_refused(world, &[&format!("{SYSTEM}:{RELEASE}")], &[])
}

/// Without rights on the whole cluster an operator asks for the definitions in vain, and knows what
/// to do then.
fn narrow_never_refused(world: &mut World) -> Result<Verdict> {
    let accounts = [
        format!("{SYSTEM}:{AGAIN}-millrace"),
        format!("{SECOND}:{RELEASE}"),
    ];
    never_refused(
        world,
        &[&accounts[0], &accounts[1]],
        &["/customresourcedefinitions/"],
    )
}

/// Looks for refusals of the authoriser; a namespace that is going refuses everybody, which is no
/// matter of rights. To be called while the operators are there: Helm takes their rights first.
fn never_refused(world: &World, accounts: &[&str], but: &[&str]) -> Result<Verdict> {
    let Some(lines) = world.audit_lines()? else {
        return Ok(Verdict::Skipped(
            "there is no audit log to look into".to_owned(),
        ));
    };
    let forbidden = r#""authorization.k8s.io/decision":"forbid""#;
    let names: Vec<String> = accounts
        .iter()
        .map(|account| format!("\"username\":\"system:serviceaccount:{account}\""))
        .collect();
    let by_them = |line: &&String| names.iter().any(|name| line.contains(name));
    let allowed = |line: &&String| but.iter().any(|part| line.contains(part));
    let theirs: Vec<&String> = lines.iter().filter(by_them).collect();
    ensure!(
        !theirs.is_empty(),
        "the audit log does not know {accounts:?}"
    );
    let refused = theirs.iter().filter(|line| line.contains(forbidden));
    let refused: Vec<_> = refused.filter(|line| !allowed(line)).take(3).collect();
    ensure!(refused.is_empty(), "{refused:?}");
    Ok(Verdict::Holds)
}

fn all_gone(world: &mut World) -> Result<Verdict> {
    delete_namespace(world, SHOP)?;
    delete_namespace(world, SECOND)?;
    let left = [
        "brokerclusters,queues.millrace.dev,topics.millrace.dev",
        "-A",
        "-o",
        "name",
    ];
    let left = world.shell.kubectl(&[&["get"], &left[..]].concat())?;
    ensure!(left.trim().is_empty(), "left: {left}");
    Ok(Verdict::Holds)
}

fn verdict(world: &mut World) -> Result<Verdict> {
    let mut command = Command::new(&world.options.verdict);
    command.env("MILLRACE_TEST_KUBECONFIG", world.shell.kubeconfig());
    let said = shell::run(&mut command)?;
    let result = said.lines().find(|line| line.starts_with("test result:"));
    println!("corpus: {}", result.context("no result")?);
    Ok(Verdict::Holds)
}

fn delete_namespace(world: &World, namespace: &str) -> Result<()> {
    let start = Instant::now();
    let timeout = format!("--timeout={}s", GONE_LIMIT.as_secs());
    let deleted = world
        .shell
        .kubectl(&["delete", "namespace", namespace, &timeout]);
    deleted.with_context(|| {
        let namespace = world.shell.json(&["get", "namespace", namespace]);
        let stuck = namespace.map(|value| value["status"]["conditions"].to_string());
        stuck.unwrap_or_else(|error| error.to_string())
    })?;
    println!(
        "namespace {namespace} is gone after {} s",
        start.elapsed().as_secs()
    );
    Ok(())
}
