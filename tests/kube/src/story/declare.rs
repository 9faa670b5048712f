//! YAML becomes brokers, topics and queues.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::case::{Case, Need, Verdict};
use crate::lines::Source;
use crate::world::{CLUSTER, DOOMED, SHOP, World};

/// Pulling nothing, a broker is there in a few seconds; the volume takes some more.
const READY_LIMIT: Duration = Duration::from_secs(120);

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a queue whose cluster is not there says so",
        need: Need::None,
        run: cluster_not_found,
    },
    Case {
        name: "a number of replicas that makes no cluster is refused by name",
        need: Need::None,
        run: replicas_refused,
    },
    Case {
        name: "resources applied at once in any order become ready",
        need: Need::All,
        run: become_ready,
    },
    Case {
        name: "no printer column is empty",
        need: Need::None,
        run: columns,
    },
];

/// The cluster; as much of it as every case needs.
pub(super) const BROKERS: &str = "
apiVersion: millrace.dev/v1alpha1
kind: BrokerCluster
metadata: {name: main}
spec:
  storage: {size: 1Gi}
  shutdown: {drainTimeout: 10s}
";

const TOPICS: &str = "
apiVersion: millrace.dev/v1alpha1
kind: Topic
metadata: {name: audit}
spec: {partitions: 4, retention: {age: 1h}}
---
apiVersion: millrace.dev/v1alpha1
kind: Topic
metadata: {name: short}
spec: {retention: {messages: 10}}
";

/// A queue that nothing is bound to.
pub(super) const KEPT: &str = "
apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata: {name: kept}
spec: {}
";

/// A queue bound to topic `audit` by these subjects.
pub(super) fn bound_queue(name: &str, subjects: &[&str]) -> String {
    let bindings = subjects
        .iter()
        .map(|subject| format!("  - {{topic: {{name: audit}}, subject: {subject}}}\n"));
    format!(
        "apiVersion: millrace.dev/v1alpha1\nkind: Queue\nmetadata: {{name: {name}}}\nspec:\n  \
         delivery: {{ackDeadline: 20s, maxDeliveries: 3, backoff: {{initial: 1s, max: 2s}}}}\n  \
         bindings:\n{}",
        bindings.collect::<String>()
    )
}

fn cluster_not_found(world: &mut World) -> Result<Verdict> {
    world.shell.apply(DOOMED, KEPT)?;
    crate::wait::until_true(
        "Ready=False, ClusterNotFound",
        Duration::from_secs(20),
        || {
            let queue = world.get(DOOMED, "queue.millrace.dev/kept")?;
            let mut conditions = queue["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten();
            let ready = conditions.find(|condition| condition["type"] == "Ready");
            let Some(ready) = ready else {
                bail!("no condition Ready in {}", queue["status"])
            };
            ensure!(
                ready["reason"] == "ClusterNotFound" && ready["status"] == "False",
                "{ready}"
            );
            Ok(true)
        },
    )?;
    no_empty_cell(
        &world
            .shell
            .kubectl(&["get", "-n", DOOMED, "queues.millrace.dev"])?,
    )?;
    world.shell.kubectl(&[
        "delete",
        "-n",
        DOOMED,
        "queue.millrace.dev/kept",
        "--timeout=30s",
    ])?;
    Ok(Verdict::Holds)
}

fn replicas_refused(world: &mut World) -> Result<Verdict> {
    for replicas in [0, 10] {
        let wanted = format!("spec:\n  replicas: {replicas}\n");
        match world
            .shell
            .apply(SHOP, &BROKERS.replace("spec:\n", &wanted))
        {
            Ok(_) => bail!("{replicas} replicas are accepted"),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(
                    said.contains("spec.replicas"),
                    "the field is not named: {said}"
                );
            }
        }
    }
    Ok(Verdict::Holds)
}

fn become_ready(world: &mut World) -> Result<Verdict> {
    let source = Source::of(world)?;
    // Last things first: nobody sorts the files of a directory by dependency.
    let documents = [
        bound_queue("first", source.first),
        bound_queue("second", source.second),
        KEPT.to_owned(),
        TOPICS.to_owned(),
        BROKERS.to_owned(),
    ];
    world.shell.apply(SHOP, &documents.join("---\n"))?;
    world.wait_for(
        SHOP,
        &format!("brokercluster/{CLUSTER}"),
        "Ready",
        READY_LIMIT,
    )?;
    for object in ["topic.millrace.dev/audit", "topic.millrace.dev/short"] {
        world.wait_for(SHOP, object, "Ready", Duration::from_secs(30))?;
    }
    for name in ["first", "second", "kept"] {
        let object = format!("queue.millrace.dev/{name}");
        world.wait_for(SHOP, &object, "Ready", Duration::from_secs(30))?;
    }
    Ok(Verdict::Holds)
}

fn columns(world: &mut World) -> Result<Verdict> {
    for kind in [
        "brokerclusters",
        "queues.millrace.dev",
        "topics.millrace.dev",
    ] {
        no_empty_cell(
            &world
                .shell
                .kubectl(&["get", "-n", SHOP, kind, "-o", "wide"])?,
        )?;
    }
    Ok(Verdict::Holds)
}

/// Columns are padded with at least three spaces; a cell may contain single ones.
fn no_empty_cell(table: &str) -> Result<()> {
    let mut rows = table.lines();
    let header = rows.next().unwrap_or_default();
    let starts: Vec<usize> = column_starts(header);
    let mut count = 0;
    for row in rows {
        count += 1;
        for (index, start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(row.len());
            let cell = row
                .get(*start..end.min(row.len()))
                .unwrap_or_default()
                .trim();
            if cell.is_empty() || cell == "<none>" || cell == "<unknown>" {
                bail!("an empty cell:\n{table}");
            }
        }
    }
    ensure!(count > 0, "no rows:\n{table}");
    Ok(())
}

fn column_starts(header: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut before = "   ";
    for (index, _) in header.char_indices() {
        let here = &header[index..=index];
        if here != " " && before.ends_with("  ") {
            starts.push(index);
        }
        before = &header[..=index];
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_cell_is_seen_wherever_it_is() {
        let good = "NAME   READY   AGE\na      True    1s\n";
        assert!(no_empty_cell(good).is_ok());
        assert!(no_empty_cell("NAME   READY   AGE\na              1s\n").is_err());
        assert!(no_empty_cell("NAME   READY   AGE\na      True    \n").is_err());
        assert!(no_empty_cell("NAME   READY   AGE\na      <none>  1s\n").is_err());
        assert!(no_empty_cell("NAME   READY   AGE\n").is_err());
    }
}
