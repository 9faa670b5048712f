//! The guide lists every condition reason and event of the operator.

use std::path::PathBuf;

use millrace_operator::reasons;

const HEAD: &str = "\
# Conditions and events

`kubectl get` shows the reason of `Ready` as STATUS; `kubectl describe` shows all conditions and the
events. Reasons are stable: scripts may wait for them.

- `Ready`: the resource does what it declares. A BrokerCluster is ready as long as a majority of its
  brokers serves; its reason is `Degraded` when somebody is missing.
- `Stable` (BrokerCluster): every broker serves, every shard has all its copies, and nothing is
  being changed.
- `Synced`: the brokers work by the newest generation (on a BrokerCluster: of everything).
- `Progressing` (BrokerCluster): something is being changed.
- `Warning` (BrokerCluster): something is unwise; only there while it is.

A Queue or Topic also shows what its broker says keeps it from working: `TopicNotFound`,
`DeadLetterQueueNotFound`, `DeadLetterCycle`, `TargetFull`, `Stalled`, `ShardUnavailable`; and
`ReplicationUnchanged` when it has another number of copies than it asks for. The message says more.

| reason | meaning |
|---|---|
";

#[test]
fn the_guide_lists_every_reason() {
    let rows = reasons::ALL.iter().map(|(reason, meaning)| {
        let meaning = meaning.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("| `{reason}` | {meaning} |\n")
    });
    let expected = HEAD.to_owned() + &rows.collect::<String>();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/conditions.md");
    if std::env::var_os("MILLRACE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }

    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "run with MILLRACE_WRITE_GOLDEN=1 and look at the diff"
    );
}

#[test]
fn what_the_definitions_say_before_the_operator_does_is_in_the_guide_too() {
    let status = millrace_crds::BrokerClusterStatus::default();

    for condition in status.conditions {
        assert_eq!(condition.reason, reasons::NOT_RECONCILED);
    }
}
