//! Exactly the rights the code uses, as a table. The chart's rules are compared with it by a test,
//! and a reader need not guess why a right is there.

/// Rights on one group of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// API group; empty is the core.
    pub group: &'static str,
    /// Plural names, with the subresource after a slash.
    pub resources: &'static [&'static str],
    /// Only these names; empty: any.
    pub names: &'static [&'static str],
    /// What may be done.
    pub verbs: &'static [&'static str],
    /// What for.
    pub reason: &'static str,
}

const NONE: &[&str] = &[];

/// In every namespace that is looked after.
pub const OPERATOR: &[Rule] = &[
    Rule {
        group: "millrace.dev",
        resources: &["brokerclusters"],
        names: NONE,
        verbs: &["get", "list", "watch"],
        reason: "reads what is declared; never writes a spec",
    },
    Rule {
        group: "millrace.dev",
        resources: &["queues", "topics"],
        names: NONE,
        verbs: &["list", "watch"],
        reason: "reads what is declared; never one by one",
    },
    Rule {
        group: "millrace.dev",
        resources: &["brokerclusters/status", "queues/status", "topics/status"],
        names: NONE,
        verbs: &["patch"],
        reason: "reports",
    },
    Rule {
        group: "millrace.dev",
        resources: &["brokerclusters/finalizers"],
        names: NONE,
        verbs: &["update"],
        reason: "owner references that block deletion, where an admission plugin guards them",
    },
    Rule {
        group: "apps",
        resources: &["statefulsets"],
        names: NONE,
        verbs: &["get", "list", "watch", "create", "patch"],
        reason: "the broker pods",
    },
    Rule {
        group: "",
        resources: &["configmaps", "serviceaccounts", "services"],
        names: NONE,
        verbs: &["get", "list", "watch", "create", "patch"],
        reason: "what broker pods refer to, and what clients connect to",
    },
    Rule {
        group: "policy",
        resources: &["poddisruptionbudgets"],
        names: NONE,
        verbs: &["get", "list", "watch", "create", "patch"],
        reason: "one broker at a time",
    },
    Rule {
        group: "",
        resources: &["secrets"],
        names: NONE,
        verbs: &["get", "list", "watch", "create"],
        reason: "the control token: made once, never changed; watched by metadata and label only",
    },
    Rule {
        group: "",
        resources: &["pods"],
        names: NONE,
        verbs: &["list", "watch", "delete"],
        reason: "restarts a broker whose template changed",
    },
    Rule {
        group: "",
        resources: &["persistentvolumeclaims"],
        names: NONE,
        verbs: &["get", "list", "watch", "patch"],
        reason: "whose data a claim holds; never deletes one",
    },
    Rule {
        group: "events.k8s.io",
        resources: &["events"],
        names: NONE,
        verbs: &["create", "patch"],
        reason: "events",
    },
];

/// In the whole Kubernetes cluster, where it can be had. Without it removals are sent with a delay.
pub const DEFINITIONS: &[Rule] = &[Rule {
    group: "apiextensions.k8s.io",
    resources: &["customresourcedefinitions"],
    names: &[
        "brokerclusters.millrace.dev",
        "queues.millrace.dev",
        "topics.millrace.dev",
    ],
    verbs: &["get"],
    reason: "a definition takes its resources with it; that is no wish to remove messages",
}];

/// In the namespace of the Lease.
pub const LEASE: &[Rule] = &[Rule {
    group: "coordination.k8s.io",
    resources: &["leases"],
    names: NONE,
    verbs: &["get", "create", "update"],
    reason: "elects the acting operator",
}];

/// Of `self-test`, in its namespace.
pub const SELF_TEST: &[Rule] = &[
    Rule {
        group: "millrace.dev",
        resources: &["brokerclusters", "queues"],
        names: NONE,
        verbs: &["get", "create", "delete"],
        reason: "makes a cluster and a queue and removes them",
    },
    Rule {
        group: "",
        resources: &["persistentvolumeclaims"],
        names: NONE,
        verbs: &["get", "delete"],
        reason: "claims outlive their cluster; this one must not",
    },
];

/// All tables with their names, as `millrace-operator rules` prints them.
pub const ALL: &[(&str, &[Rule])] = &[
    ("operator", OPERATOR),
    ("definitions", DEFINITIONS),
    ("lease", LEASE),
    ("selfTest", SELF_TEST),
];

/// All tables as one JSON document, each rule as in RBAC, so that programs can compare.
#[must_use]
pub fn document() -> serde_json::Value {
    let rule = |rule: &Rule| {
        let mut json = serde_json::json!({
            "apiGroups": [rule.group],
            "resources": rule.resources,
            "verbs": rule.verbs,
        });
        if !rule.names.is_empty() {
            json["resourceNames"] = serde_json::json!(rule.names);
        }
        json
    };
    ALL.iter()
        .map(|(name, rules)| {
            let rules: Vec<serde_json::Value> = rules.iter().map(rule).collect();
            ((*name).to_owned(), serde_json::Value::Array(rules))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_is_broader_than_it_says() {
        for (table, rules) in ALL {
            for rule in *rules {
                let words = [rule.resources, rule.verbs, rule.names].concat();
                assert!(
                    !words.contains(&"*") && rule.group != "*",
                    "{table}: {rule:?}"
                );
                assert!(
                    !rule.resources.is_empty() && !rule.verbs.is_empty(),
                    "{table}: {rule:?}"
                );
            }
        }
    }
}
