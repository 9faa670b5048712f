//! Which crate may know which: the arrows of the architecture, compared with what cargo sees.

use serde::Deserialize;

/// A crate of the workspace and those it may depend on. Tests may use more: dev-dependencies are
/// not looked at.
const ALLOWED: [(&str, &[&str]); 20] = [
    ("millrace-types", &[]),
    ("millrace-engine", &["millrace-types"]),
    ("millrace-storage", &["millrace-types"]),
    ("millrace-replica", &["millrace-types"]),
    ("millrace-proto", &[]),
    ("millrace-crds", &["millrace-proto"]),
    ("millrace-client", &["millrace-proto"]),
    (
        "millrace-peers",
        &["millrace-proto", "millrace-replica", "millrace-types"],
    ),
    (
        "millrace-node",
        &[
            "millrace-engine",
            "millrace-proto",
            "millrace-replica",
            "millrace-storage",
            "millrace-types",
        ],
    ),
    (
        "millrace-server",
        &[
            "millrace-crds",
            "millrace-engine",
            "millrace-node",
            "millrace-peers",
            "millrace-proto",
            "millrace-storage",
            "millrace-types",
        ],
    ),
    (
        "millrace",
        &[
            "millrace-client",
            "millrace-crds",
            "millrace-proto",
            "millrace-server",
            "millrace-types",
        ],
    ),
    (
        "millrace-kubectl",
        &["millrace", "millrace-client", "millrace-crds"],
    ),
    (
        "millrace-operator",
        &["millrace-client", "millrace-crds", "millrace-proto"],
    ),
    ("millrace-bench", &["millrace-client", "millrace-proto"]),
    (
        "millrace-cluster-tests",
        &["millrace-client", "millrace-proto"],
    ),
    (
        "millrace-fuzz",
        &[
            "millrace-crds",
            "millrace-engine",
            "millrace-node",
            "millrace-peers",
            "millrace-proto",
            "millrace-replica",
            "millrace-server",
            "millrace-storage",
            "millrace-types",
        ],
    ),
    (
        "millrace-kube-tests",
        &["millrace-client", "millrace-crds", "millrace-proto"],
    ),
    (
        "millrace-sim",
        &[
            "millrace-engine",
            "millrace-node",
            "millrace-proto",
            "millrace-replica",
            "millrace-storage",
            "millrace-types",
        ],
    ),
    ("millrace-tidy", &[]),
    ("millrace-xtask", &[]),
];

/// A crate as `cargo metadata` tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Clone, Debug, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

/// The packages in the output of `cargo metadata --no-deps --format-version 1`.
///
/// # Errors
/// When it is not that.
pub fn packages(metadata: &str) -> Result<Vec<Package>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    serde_json::from_str::<Metadata>(metadata).map(|metadata| metadata.packages)
}

/// Dependencies between crates of the workspace that the architecture does not have.
#[must_use]
pub fn forbidden_edges(packages: &[Package]) -> Vec<String> {
    let mut broken = Vec::new();
    for package in packages {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            broken.push(format!("{}: not in the table of crates", package.name));
            continue;
        };
        let own = |edge: &&Dependency| edge.path.is_some() && edge.kind.as_deref() != Some("dev");
        for edge in package.dependencies.iter().filter(own) {
            if !allowed.contains(&edge.name.as_str()) {
                broken.push(format!("{} must not depend on {}", package.name, edge.name));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_arrows_of_the_architecture_are_allowed() {
        let metadata = r#"{"packages": [
            {"name": "millrace-engine", "dependencies": [
                {"name": "millrace-types", "kind": null, "path": "x"},
                {"name": "bytes", "kind": null, "path": null},
                {"name": "millrace-client", "kind": "dev", "path": "x"},
                {"name": "millrace-storage", "kind": null, "path": "x"}]},
            {"name": "millrace-surprise", "dependencies": []}]}"#;
        let found = forbidden_edges(&packages(metadata).unwrap());
        let expected = [
            "millrace-engine must not depend on millrace-storage",
            "millrace-surprise: not in the table of crates",
        ];
        assert_eq!(found, expected);
    }
}
