//! The documents both are asked about: `tests/corpus/{valid,invalid}/*.yaml`. An invalid one names
//! the fields that are wrong in comments, `# error: spec.partitions`; `# error: yaml` when it
//! cannot be read at all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A document, and what is expected of it.
pub(crate) struct Case {
    /// File and place in it, for messages.
    pub(crate) name: String,
    /// One document.
    pub(crate) yaml: String,
    /// Fields that are wrong; none: it is valid.
    pub(crate) errors: BTreeSet<String>,
}

/// Stands for a text that is no YAML, or has a key twice: no field can be named.
pub(crate) const UNREADABLE: &str = "yaml";

/// The documents of both folders, and of the examples.
pub(crate) fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cases = Vec::new();
    for (folder, valid) in [
        ("tests/corpus/valid", true),
        ("tests/corpus/invalid", false),
        ("examples", true),
    ] {
        for file in yaml_files(&root.join(folder)) {
            let text = std::fs::read_to_string(&file).expect("a readable file");
            for (i, yaml) in text.split("\n---\n").enumerate() {
                let name = format!(
                    "{folder}/{}#{i}",
                    file.file_name().unwrap_or_default().display()
                );
                let case = case(name, yaml);
                assert_eq!(
                    case.errors.is_empty(),
                    valid,
                    "{} is in the wrong folder",
                    case.name
                );
                cases.push(case);
            }
        }
    }
    cases
}

/// The examples, by file name.
pub(crate) fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let read = |file: PathBuf| {
        let name = file.file_name().unwrap_or_default().display().to_string();
        (
            name,
            std::fs::read_to_string(&file).expect("a readable file"),
        )
    };
    yaml_files(&folder).into_iter().map(read).collect()
}

fn case(name: String, yaml: &str) -> Case {
    let errors = yaml
        .lines()
        .filter_map(|line| line.strip_prefix("# error: "))
        .map(str::to_owned)
        .collect();
    Case {
        name,
        yaml: format!("{yaml}\n"),
        errors,
    }
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder of the repository");
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}
