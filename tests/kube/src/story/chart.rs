//! The chart by itself: what it refuses, what it renders, which rights it gives.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::case::{Case, Need, Verdict};
use crate::shell;
use crate::world::World;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "the chart passes helm lint",
        need: Need::None,
        run: lint,
    },
    Case {
        name: "the chart refuses values that it does not know or that make no sense",
        need: Need::None,
        run: refuses,
    },
    Case {
        name: "a namespaced install has no right outside of its namespaces",
        need: Need::None,
        run: namespaced,
    },
    Case {
        name: "definitions are kept when the release goes",
        need: Need::None,
        run: definitions_kept,
    },
    Case {
        name: "the chart gives the operator the rights it declares, and no others",
        need: Need::None,
        run: rights,
    },
];

/// Values that must be refused, and a word of the reason.
const REFUSED: [(&str, &str); 11] = [
    ("imagee.repository=x", "imagee"),
    ("image.tag=latest", "image"),
    ("image.digest=sha256:short", "digest"),
    ("image.pullPolicy=Sometimes", "pullPolicy"),
    ("watch.scope=galaxy", "scope"),
    ("watch.namespaces={a}", "namespaces"),
    ("replicas=-1", "replicas"),
    ("crds.keep=false", "keep"),
    ("selfTest.timeout=soon", "timeout"),
    (
        "podLabels.app\\.kubernetes\\.io/name=x",
        "app.kubernetes.io/name",
    ),
    ("commonLabels.helm\\.sh/chart=x", "helm.sh/chart"),
];

fn lint(world: &mut World) -> Result<Verdict> {
    let chart = world.options.chart.clone();
    world
        .shell
        .helm(["lint".as_ref(), "--strict".as_ref(), chart.as_os_str()])?;
    Ok(Verdict::Holds)
}

fn refuses(world: &mut World) -> Result<Verdict> {
    for (value, reason) in REFUSED {
        match render(world, &[value]) {
            Ok(_) => bail!("--set {value} is not refused"),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(
                    said.contains(reason),
                    "--set {value} is refused without a word: {said}"
                );
            }
        }
    }
    Ok(Verdict::Holds)
}

fn namespaced(world: &mut World) -> Result<Verdict> {
    let objects = render(world, &["watch.scope=namespaces", "watch.namespaces={a,b}"])?;
    let kinds: Vec<&str> = objects
        .iter()
        .filter_map(|object| object["kind"].as_str())
        .collect();
    ensure!(
        !kinds.iter().any(|kind| kind.starts_with("ClusterRole")),
        "it has {kinds:?}"
    );
    let namespaces: BTreeSet<&str> = objects
        .iter()
        .filter(|object| object["kind"] == "Role" && object["metadata"]["name"] == "millrace")
        .filter_map(|object| object["metadata"]["namespace"].as_str())
        .collect();
    ensure!(
        namespaces == BTreeSet::from(["a", "b"]),
        "it has roles in {namespaces:?}"
    );
    Ok(Verdict::Holds)
}

fn definitions_kept(world: &mut World) -> Result<Verdict> {
    let objects = render(world, &[])?;
    let definitions: Vec<&Value> = objects
        .iter()
        .filter(|object| object["kind"] == "CustomResourceDefinition")
        .collect();
    ensure!(definitions.len() == 3, "{} definitions", definitions.len());
    for definition in definitions {
        let metadata = &definition["metadata"];
        ensure!(
            metadata["annotations"]["helm.sh/resource-policy"] == "keep",
            "{metadata}"
        );
    }
    let without = render(world, &["crds.enabled=false"])?;
    let defines = |object: &Value| object["kind"] == "CustomResourceDefinition";
    ensure!(
        !without.iter().any(defines),
        "crds.enabled=false renders definitions"
    );
    Ok(Verdict::Holds)
}

fn rights(world: &mut World) -> Result<Verdict> {
    let table = shell::run(Command::new(&world.options.operator).arg("rules"))?;
    let declared: Value = serde_json::from_str(&table).context("the operator's table")?;
    let whole = render(world, &[])?;
    let narrow = render(world, &["watch.scope=namespaces", "watch.namespaces={a}"])?;
    same(
        &[&declared["operator"], &declared["definitions"]],
        find(&whole, "ClusterRole", "")?,
    )?;
    same(&[&declared["operator"]], find(&narrow, "Role", "millrace")?)?;
    same(
        &[&declared["lease"]],
        find(&whole, "Role", "millrace-lease")?,
    )?;
    same(
        &[&declared["selfTest"]],
        find(&whole, "Role", "millrace-self-test")?,
    )?;
    Ok(Verdict::Holds)
}

/// The rendered object of a kind and name; any name when it is empty.
fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let fits = |object: &&Value| {
        object["kind"] == kind && (name.is_empty() || object["metadata"]["name"] == name)
    };
    objects
        .iter()
        .find(fits)
        .with_context(|| format!("the chart has no {kind} {name}"))
}

fn same(declared: &[&Value], role: &Value) -> Result<()> {
    let declared: BTreeSet<Right> = declared.iter().flat_map(|rules| flat(rules)).collect();
    let given = flat(&role["rules"]);
    let missing: Vec<_> = declared.difference(&given).collect();
    let surplus: Vec<_> = given.difference(&declared).collect();
    let name = &role["metadata"]["name"];
    ensure!(missing.is_empty(), "{name} lacks {missing:?}");
    ensure!(
        surplus.is_empty(),
        "{name} has more than is declared: {surplus:?}"
    );
    Ok(())
}

/// What the chart makes of these values.
fn render(world: &World, values: &[&str]) -> Result<Vec<Value>> {
    let chart = world.options.chart.to_string_lossy().into_owned();
    let mut arguments = vec!["template", "millrace", &chart, "-n", "system"];
    for value in values {
        arguments.extend(["--set", value]);
    }
    let yaml = world.shell.helm(&arguments)?;
    let create = [
        "create",
        "--dry-run=client",
        "--validate=false",
        "-o",
        "json",
        "-f",
        "-",
    ];
    let json = world.shell.kubectl_with(&create, &yaml)?;
    let stream = serde_json::Deserializer::from_str(&json).into_iter::<Value>();
    let mut objects = Vec::new();
    for value in stream {
        let value = value?;
        match value["items"].as_array() {
            Some(items) => objects.extend(items.iter().cloned()),
            None => objects.push(value),
        }
    }
    Ok(objects)
}

/// Group, resource, verb, and the one name it is limited to.
type Right = (String, String, String, String);

fn flat(rules: &Value) -> BTreeSet<Right> {
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().cloned().unwrap_or_default();
        items
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        let mut names = texts(&rule["resourceNames"]);
        if names.is_empty() {
            names.push(String::new());
        }
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    let one = |name: &String| {
                        (group.clone(), resource.clone(), verb.clone(), name.clone())
                    };
                    rights.extend(names.iter().map(one));
                }
            }
        }
    }
    rights
}
