//! Rules about where things are.

use std::collections::BTreeSet;

use crate::tree::Tree;

/// What may be at the top of the clone; names that begin with a dot may be there too.
const TOP: [&str; 14] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "broker",
    "charts",
    "crds",
    "docs",
    "operator",
    "proto",
    "rust-toolchain.toml",
    "tests",
];

/// Entries at the top of the clone that do not belong there.
#[must_use]
pub fn foreign_entries(tree: &Tree) -> Vec<String> {
    let first = |path: &str| path.split('/').next().unwrap_or(path).to_owned();
    let entries: BTreeSet<String> = tree.files.iter().map(|file| first(&file.path)).collect();
    let foreign = |name: &String| !name.starts_with('.') && !TOP.contains(&name.as_str());
    entries.into_iter().filter(foreign).collect()
}

/// Modules named `mod.rs`: a file has its module's name.
#[must_use]
pub fn misplaced_modules(tree: &Tree) -> Vec<String> {
    let is_mod = |path: &String| path.ends_with("/mod.rs");
    tree.files
        .iter()
        .map(|file| file.path.clone())
        .filter(is_mod)
        .collect()
}

/// Examples that no Rust source names, unless a test reads the whole folder: an example that is not
/// tested is wrong sooner or later.
#[must_use]
pub fn untested_examples(tree: &Tree) -> Vec<String> {
    let examples = tree
        .files
        .iter()
        .filter(|file| file.path.starts_with("crds/examples/"));
    let in_tests = |path: &str| path.starts_with("crds/tests/");
    if tree
        .sources()
        .any(|file| in_tests(&file.path) && file.text.contains("\"examples\""))
    {
        return Vec::new();
    }
    let mut untested = Vec::new();
    for example in examples.filter(|file| file.path.ends_with(".yaml")) {
        let name = example.path.rsplit('/').next().unwrap_or_default();
        if !tree.sources().any(|file| file.text.contains(name)) {
            untested.push(example.path.clone());
        }
    }
    untested
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| File {
            path: path.to_string(),
            text: text.to_string(),
        };
        Tree {
            files: files.iter().map(file).collect(),
        }
    }

    #[test]
    fn only_what_the_contract_names_is_at_the_top() {
        let tree = tree(&[
            (".gitignore", ""),
            ("broker/Cargo.toml", ""),
            ("notes.txt", ""),
        ]);
        assert_eq!(foreign_entries(&tree), ["notes.txt"]);
    }

    #[test]
    fn an_example_that_no_test_names_is_found() {
        let examples = [("crds/examples/a.yaml", ""), ("crds/examples/b.yaml", "")];
        let tree = tree(&[
            examples[0],
            examples[1],
            ("crds/tests/examples.rs", "\"a.yaml\""),
        ]);
        assert_eq!(untested_examples(&tree), ["crds/examples/b.yaml"]);
    }
}
