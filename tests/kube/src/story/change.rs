//! What people do to a cluster in use: they edit YAML, move pods, and try doors.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use millrace_client::{Applied, Settle};
use serde_json::Value;

use crate::broker::{self, Broker};
use crate::case::{Case, Need, Verdict};
use crate::pods;
use crate::wait;
use crate::world::{CLUSTER, RELEASE, SHOP, SYSTEM, World};

/// A restart: drain, stop, start, recover, ready.
const RESTART_LIMIT: Duration = Duration::from_secs(90);

pub(super) const CASES: &[Case] = &[
    Case {
        name: "an edited number of deliveries is applied",
        need: Need::None,
        run: max_deliveries,
    },
    Case {
        name: "an edited binding is applied",
        need: Need::None,
        run: binding,
    },
    Case {
        name: "changed resources restart the broker, with an event, and nothing is lost",
        need: Need::None,
        run: resources,
    },
    Case {
        name: "a drain of the broker's node goes through",
        need: Need::None,
        run: drain,
    },
    Case {
        name: "the control port refuses whoever has no token",
        need: Need::None,
        run: token,
    },
    Case {
        name: "upgrading the operator restarts no broker",
        need: Need::None,
        run: operator_upgrade,
    },
];

fn max_deliveries(world: &mut World) -> Result<Verdict> {
    let patch = r#"{"spec": {"delivery": {"maxDeliveries": 2}}}"#;
    patch_and_wait(world, "queue.millrace.dev/first", patch)?;
    let broker = Broker::connect(&world.shell, SHOP)?;
    let (queue, dead) = (
        format!("queue/{SHOP}/first"),
        format!("queue/{SHOP}/first/dead"),
    );
    broker.publish(&queue, &["twice and no more".to_owned()])?;
    let retry = |_: &str, _: &_| Settle::Retry {
        delay: None,
        note: "not today".to_owned(),
    };
    let deliveries = broker.take(&queue, retry, |_, _| ())?;
    ensure!(deliveries == 2, "it was delivered {deliveries} times");
    let mut letters = Vec::new();
    broker.take(
        &dead,
        |_, _| Settle::Accept,
        |text, delivery| {
            letters.push((text, delivery.message.death.clone()));
        },
    )?;
    let [(text, Some(death))] = &letters[..] else {
        bail!("dead letters: {letters:?}")
    };
    ensure!(
        text == "twice and no more" && death.note == "not today",
        "{text}: {death:?}"
    );
    ensure!(
        death.attempts == 2,
        "it died after {} attempts",
        death.attempts
    );
    Ok(Verdict::Holds)
}

fn binding(world: &mut World) -> Result<Verdict> {
    let patch = r##"[{"op": "add", "path": "/spec/bindings/-",
                     "value": {"topic": {"name": "audit"}, "subject": "extra.#"}}]"##;
    let object = "queue.millrace.dev/second";
    world
        .shell
        .kubectl(&["patch", "-n", SHOP, object, "--type=json", "-p", patch])?;
    wait_applied(world, object)?;
    let address = format!("topic/{SHOP}/audit");
    let server = format!("http://{CLUSTER}.{SHOP}:7070");
    let publish = [
        "publish",
        &address,
        "--server",
        &server,
        "--subject",
        "extra.bound.late",
    ];
    let message = ["--message", "by the new binding"];
    let (said, ok) = pods::run_to_end(world, "extra", &[&publish[..], &message].concat())?;
    ensure!(ok, "the publisher failed: {said}");
    let broker = Broker::connect(&world.shell, SHOP)?;
    let mut texts = Vec::new();
    let queue = format!("queue/{SHOP}/second");
    broker.take(&queue, |_, _| Settle::Accept, |text, _| texts.push(text))?;
    ensure!(texts == ["by the new binding"], "the queue has {texts:?}");
    Ok(Verdict::Holds)
}

fn resources(world: &mut World) -> Result<Verdict> {
    let broker = Broker::connect(&world.shell, SHOP)?;
    broker.publish(
        &format!("queue/{SHOP}/kept"),
        &numbered("before the restart", 20),
    )?;
    drop(broker);
    let before = pod_uid(world)?;
    let patch = r#"{"spec": {"resources": {"requests": {"memory": "48Mi"}}}}"#;
    let object = format!("brokercluster/{CLUSTER}");
    world
        .shell
        .kubectl(&["patch", "-n", SHOP, &object, "--type=merge", "-p", patch])?;
    wait::until_true("another pod", RESTART_LIMIT, || {
        Ok(pod_uid(world)? != before)
    })?;
    wait_pod_ready(world)?;
    let pod = world.get(SHOP, &format!("pod/{CLUSTER}-0"))?;
    let requests = &pod["spec"]["containers"][0]["resources"]["requests"];
    ensure!(
        requests["memory"] == "48Mi",
        "the new pod requests {requests}"
    );
    let events = world
        .shell
        .json(&["get", "events.events.k8s.io", "-n", SHOP])?;
    let mut reasons = events["items"].as_array().into_iter().flatten();
    let restarted = |event: &Value| {
        event["reason"] == "RestartingPod" && event["regarding"]["kind"] == "BrokerCluster"
    };
    ensure!(
        reasons.any(restarted),
        "no event RestartingPod about the cluster"
    );
    take_numbered(world, "before the restart", 20)?;
    Ok(Verdict::Holds)
}

fn drain(world: &mut World) -> Result<Verdict> {
    if !world.driver.owns_nodes() {
        let why = format!(
            "the nodes of a {} cluster are not ours",
            world.driver.name()
        );
        return Ok(Verdict::Skipped(why));
    }
    let pod = world.get(SHOP, &format!("pod/{CLUSTER}-0"))?;
    let node = pod["spec"]["nodeName"]
        .as_str()
        .context("the broker is on no node")?
        .to_owned();
    let selector = format!("--pod-selector=statefulset.kubernetes.io/pod-name={CLUSTER}-0");
    let flags = [
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--timeout=60s",
    ];
    let drained = world
        .shell
        .kubectl(&[&["drain", &node, &selector], &flags[..]].concat());
    world.shell.kubectl(&["uncordon", &node])?;
    drained.context("the drain is blocked")?;
    wait_pod_ready(world)?;
    Ok(Verdict::Holds)
}

fn token(world: &mut World) -> Result<Verdict> {
    // As any pod of the cluster could try it.
    let server = format!("http://{CLUSTER}-0.{CLUSTER}-nodes.{SHOP}:7071");
    let (said, ok) = pods::run_to_end(world, "burglar", &["list", "--server", &server])?;
    ensure!(!ok, "the control port lists for everybody: {said}");
    for wrong in ["", "wrong", &"f".repeat(64)] {
        match broker::control_metadata(&world.shell, SHOP, wrong)? {
            Ok(_) => bail!("token {wrong:?} is accepted"),
            Err(error) => {
                let code = error.code;
                ensure!(
                    code == millrace_client::Code::Unauthenticated,
                    "{error}: {code:?}"
                );
                ensure!(error.applied == Applied::No, "{error}: {:?}", error.applied);
            }
        }
    }
    let secret = world.get(SHOP, &format!("secret/{CLUSTER}-control"))?;
    let encoded = secret["data"]["token"]
        .as_str()
        .context("the Secret has no token")?;
    let token = String::from_utf8(decode_base64(encoded)?)?;
    let id = broker::control_metadata(&world.shell, SHOP, &token)??;
    let status = world.get(SHOP, &format!("brokercluster/{CLUSTER}"))?["status"].clone();
    ensure!(
        status["clusterID"] == id.as_str(),
        "another cluster answers: {id}, {status}"
    );
    Ok(Verdict::Holds)
}

fn operator_upgrade(world: &mut World) -> Result<Verdict> {
    let (before, image) = (pod_uid(world)?, status_image(world)?);
    let next = world
        .options
        .next_image
        .clone()
        .unwrap_or_else(|| world.options.image.clone());
    let tag = next.rsplit_once(':').context("the image has no tag")?.1;
    let tag = format!("image.tag={tag}");
    let more = [
        "--set",
        &tag,
        "--set",
        "podAnnotations.millrace\\.dev/test=upgraded",
    ];
    super::install::helm_upgrade(world, RELEASE, SYSTEM, &more)?;
    let patch = r#"{"spec": {"delivery": {"maxDeliveries": 4}}}"#;
    patch_and_wait(world, "queue.millrace.dev/first", patch)?;
    let deployment = world.get(SYSTEM, &format!("deployment/{RELEASE}"))?;
    let running = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    ensure!(*running == next.as_str(), "the operator runs {running}");
    ensure!(pod_uid(world)? == before, "the broker's pod was replaced");
    ensure!(
        status_image(world)? == image,
        "the cluster's image is not pinned"
    );
    Ok(Verdict::Holds)
}

fn status_image(world: &World) -> Result<String> {
    let cluster = world.get(SHOP, &format!("brokercluster/{CLUSTER}"))?;
    Ok(cluster["status"]["image"]
        .as_str()
        .context("no image in the status")?
        .to_owned())
}

/// Patches an object of the shop and waits until the brokers work by it.
fn patch_and_wait(world: &World, object: &str, patch: &str) -> Result<()> {
    world
        .shell
        .kubectl(&["patch", "-n", SHOP, object, "--type=merge", "-p", patch])?;
    wait_applied(world, object)
}

fn wait_applied(world: &World, object: &str) -> Result<()> {
    wait::until_true(
        &format!("{object} is applied"),
        Duration::from_secs(30),
        || {
            let value = world.get(SHOP, object)?;
            Ok(value["status"]["appliedGeneration"] == value["metadata"]["generation"])
        },
    )
}

fn pod_uid(world: &World) -> Result<String> {
    let pod = world.get(SHOP, &format!("pod/{CLUSTER}-0"))?;
    Ok(pod["metadata"]["uid"]
        .as_str()
        .context("no UID")?
        .to_owned())
}

/// Waits until the broker's pod exists and serves.
pub(super) fn wait_pod_ready(world: &World) -> Result<()> {
    wait::until_true("the broker's pod is ready", RESTART_LIMIT, || {
        let pod = world.get(SHOP, &format!("pod/{CLUSTER}-0"))?;
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        Ok(pod["metadata"]["deletionTimestamp"].is_null()
            && conditions.any(|one| one["type"] == "Ready" && one["status"] == "True"))
    })
}

/// `TEXT 0`, `TEXT 1`, …
pub(super) fn numbered(text: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{text} {number}"))
        .collect()
}

/// Takes messages of queue `kept` and checks that they are [`numbered`] ones, all of them.
pub(super) fn take_numbered(world: &World, text: &str, count: usize) -> Result<()> {
    let broker = Broker::connect(&world.shell, SHOP)?;
    let mut texts = Vec::new();
    let queue = format!("queue/{SHOP}/kept");
    broker.take(&queue, |_, _| Settle::Accept, |text, _| texts.push(text))?;
    texts.sort();
    texts.dedup();
    let mut expected = numbered(text, count);
    expected.sort();
    ensure!(
        texts == expected,
        "{} of {count} are there: {texts:?}",
        texts.len()
    );
    Ok(())
}

/// Standard base64, as Secrets have it.
fn decode_base64(text: &str) -> Result<Vec<u8>> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.trim().trim_end_matches('=').bytes() {
        let value = LETTERS
            .iter()
            .position(|one| *one == letter)
            .context("not base64")?;
        bits = bits << 6 | u32::try_from(value)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff)?);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_decoded() {
        assert_eq!(decode_base64("aGVsbG8=").unwrap(), b"hello");
        assert_eq!(decode_base64("aGVsbG8h\n").unwrap(), b"hello!");
        assert!(decode_base64("a?b").is_err());
    }
}
