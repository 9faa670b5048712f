//! What `check` says of the corpus, without an API server.

use std::collections::BTreeSet;

use millrace_crds::{DEFAULT_NAMESPACE, Report, check, load};

use crate::corpus::{Case, UNREADABLE, cases, examples};

/// The fields that `check` finds wrong.
pub(crate) fn fields(report: &Report) -> BTreeSet<String> {
    let field = |field: &str| match field {
        "" => UNREADABLE.to_owned(),
        field => field.to_owned(),
    };
    report.errors.iter().map(|e| field(&e.field)).collect()
}

#[test]
fn the_corpus_is_judged_as_it_says() {
    let wrong: Vec<String> = cases().iter().filter_map(disagreement).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn disagreement(case: &Case) -> Option<String> {
    let report = check(&case.yaml, DEFAULT_NAMESPACE);
    let found = fields(&report);
    (found != case.errors).then(|| {
        format!(
            "{}: expected {:?}, found {found:?}\n{report}",
            case.name, case.errors
        )
    })
}

#[test]
fn the_corpus_is_large_enough_to_mean_something() {
    let (valid, invalid): (Vec<_>, Vec<_>) =
        cases().into_iter().partition(|case| case.errors.is_empty());
    assert!(valid.len() >= 30, "{} valid documents", valid.len());
    assert!(invalid.len() >= 100, "{} invalid documents", invalid.len());
}

#[test]
fn every_valid_document_compiles() {
    for case in cases().iter().filter(|case| case.errors.is_empty()) {
        if let Err(report) = load(&case.yaml) {
            panic!("{}: {report}", case.name);
        }
    }
}

#[test]
fn every_example_is_accepted_without_a_warning_and_compiles() {
    let expected: [(&str, &[&str]); 6] = [
        (
            "dead-letters.yaml",
            &[
                "queue/default/payments",
                "queue/default/refunds",
                "queue/default/to-look-at",
                "queue/default/mails",
            ],
        ),
        (
            "dependencies.yaml",
            &[
                "topic/default/packages",
                "queue/default/registry",
                "queue/default/workspace",
            ],
        ),
        ("queue.yaml", &["queue/default/invoices"]),
        ("single-node.yaml", &[]),
        ("three-nodes.yaml", &[]),
        (
            "topic-with-bindings.yaml",
            &[
                "topic/default/orders",
                "queue/default/billing",
                "queue/default/urgent-exports",
            ],
        ),
    ];
    let examples = examples();
    assert_eq!(
        examples.len(),
        expected.len(),
        "every example is in the list"
    );
    for ((file, text), (name, addresses)) in examples.iter().zip(expected) {
        assert_eq!(file, name);
        let report = check(text, DEFAULT_NAMESPACE);
        assert!(report.is_accepted(), "{name}:\n{report}");
        assert_eq!(report.warnings, [], "{name}");
        let objects = load(text).unwrap();
        let compiled: Vec<&str> = objects.iter().map(|o| o.address.as_str()).collect();
        assert_eq!(compiled, addresses, "{name}");
    }
}

#[test]
fn errors_name_line_resource_and_field() {
    let yaml = "\
apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata:
  name: first
spec: {}
---
apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata:
  name: second
spec:
  bindings:
    - topic: { name: orders }
      subject: a..b
";
    let report = check(yaml, DEFAULT_NAMESPACE).to_string();
    let expected = "line 14: Queue second: spec.bindings[0].subject: must be at most 32 words";
    assert!(report.starts_with(expected), "{report}");
}

#[test]
fn other_kinds_and_versions_are_refused_with_their_line() {
    for (text, field) in [
        ("apiVersion: v1\nkind: Queue\n", "apiVersion"),
        (
            "apiVersion: millrace.dev/v1beta1\nkind: Queue\n",
            "apiVersion",
        ),
        ("kind: Queue\n", "apiVersion"),
        (
            "apiVersion: millrace.dev/v1alpha1\nkind: Exchange\n",
            "kind",
        ),
        ("apiVersion: millrace.dev/v1alpha1\n", "kind"),
        ("just a text\n", ""),
        ("- a\n- list\n", ""),
    ] {
        let report = check(&format!("# one\n# two\n{text}"), DEFAULT_NAMESPACE);
        assert_eq!(report.errors.len(), 1, "{text}");
        assert_eq!(report.errors[0].field, field, "{text}");
        assert!((3..=4).contains(&report.errors[0].line), "{text}: {report}");
    }
}

#[test]
fn what_another_document_must_bring_is_a_warning() {
    let yaml = "\
apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata: { name: a }
spec: {}
---
apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata: { name: a }
spec:
  bindings:
    - topic: { name: nowhere }
  deadLetter:
    queueRef: { name: b }
---
apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata: { name: b }
spec:
  deadLetter:
    queueRef: { name: a }
";
    let report = check(yaml, DEFAULT_NAMESPACE);
    assert!(report.is_accepted());
    let warnings: Vec<String> = report.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "line 8: Queue a: metadata.name: stands in the text already; the last one counts",
            "line 11: Queue a: spec.bindings[0].topic.name: there is no Topic nowhere in the text",
            "line 13: Queue a: spec.deadLetter.queueRef.name: dead letters go round: a -> b -> a",
            "line 20: Queue b: spec.deadLetter.queueRef.name: dead letters go round: b -> a -> b",
        ]
    );
    assert_eq!(report.objects.len(), 2);
}

#[test]
fn a_namespace_of_its_own_wins_over_the_default() {
    let yaml = "\
apiVersion: millrace.dev/v1alpha1
kind: Topic
metadata: { name: a, namespace: shop }
spec: {}
---
apiVersion: millrace.dev/v1alpha1
kind: Topic
metadata: { name: a }
spec: {}
";
    let report = check(yaml, "team");
    let namespaces: Vec<_> = report
        .objects
        .iter()
        .map(|o| &o["metadata"]["namespace"])
        .collect();
    assert_eq!(namespaces, ["shop", "team"]);
}
