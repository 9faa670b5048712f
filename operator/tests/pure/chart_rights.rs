//! The chart grants exactly the rights that the code declares.

use std::collections::BTreeSet;

use millrace_operator::rules;
use serde_json::Value;

const RULES: &str = include_str!("../../../charts/millrace/templates/_rules.tpl");
const SELF_TEST: &str = include_str!("../../../charts/millrace/templates/tests/self-test.yaml");

/// The text between two marks.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text
        .split_once(start)
        .unwrap_or_else(|| panic!("no {start}"));
    rest.split_once(end)
        .unwrap_or_else(|| panic!("no {end} after {start}"))
        .0
}

fn template(name: &str) -> Value {
    let start = format!("{{{{- define \"millrace.{name}\" -}}}}");
    serde_saphyr::from_str(between(RULES, &start, "{{- end }}")).unwrap()
}

/// Each single right as a line, so that neither order nor grouping matters.
fn rights(rules: &Value) -> BTreeSet<String> {
    let mut rights = BTreeSet::new();
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        let texts = rule[field].as_array().cloned().unwrap_or_default();
        texts
            .iter()
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    };
    for rule in rules.as_array().unwrap() {
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                for verb in texts(rule, "verbs") {
                    let names = texts(rule, "resourceNames").join(",");
                    rights.insert(format!("{verb} {resource}.{group} {names}"));
                }
            }
        }
    }
    rights
}

#[test]
fn the_chart_grants_exactly_what_the_operator_declares() {
    let declared = rules::document();
    for (table, template_name) in [
        ("operator", "rules"),
        ("definitions", "definitionRules"),
        ("lease", "leaseRules"),
    ] {
        let granted = rights(&template(template_name));
        assert_eq!(granted, rights(&declared[table]), "{table}");
    }
}

#[test]
fn the_chart_grants_exactly_what_the_self_test_declares() {
    let granted: Value = serde_saphyr::from_str(between(SELF_TEST, "\nrules:\n", "\n---")).unwrap();

    assert_eq!(rights(&granted), rights(&rules::document()["selfTest"]));
}
