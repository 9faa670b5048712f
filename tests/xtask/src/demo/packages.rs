//! Real lines that every clone has: the packages in `Cargo.lock`, as JSON.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::house::House;

/// Fewer would not be a demonstration.
const PACKAGES_MIN: usize = 100;

/// A package of the lock file.
pub(super) struct Package {
    /// `registry`, or `workspace` for the project's own.
    pub(super) origin: &'static str,
    /// All of it, as one line of JSON.
    pub(super) line: String,
}

/// The packages this project is built of.
///
/// # Errors
/// When the lock file is not there, or is none.
pub(super) fn read(house: &House) -> Result<Vec<Package>> {
    let text = fs::read_to_string(house.root().join("Cargo.lock")).context("Cargo.lock")?;
    let packages: Vec<Package> = text
        .split("[[package]]")
        .skip(1)
        .filter_map(package)
        .collect();
    ensure!(
        packages.len() >= PACKAGES_MIN,
        "Cargo.lock has only {} packages",
        packages.len()
    );
    Ok(packages)
}

/// Names and versions in a lock file need no escaping in JSON.
fn package(entry: &str) -> Option<Package> {
    let value = |key: &str| {
        let start = format!("{key} = \"");
        let mut lines = entry.lines();
        lines.find_map(|line| line.strip_prefix(&start)?.strip_suffix('"'))
    };
    let (name, version) = (value("name")?, value("version")?);
    let (origin, checksum) = match value("checksum") {
        Some(checksum) => ("registry", checksum),
        None => ("workspace", ""),
    };
    let line = format!(
        r#"{{"origin":"{origin}","name":"{name}","version":"{version}","checksum":"{checksum}"}}"#
    );
    Some(Package { origin, line })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_the_registry_have_a_checksum() {
        let foreign =
            package("\nname = \"serde\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n").unwrap();
        assert_eq!(foreign.origin, "registry");
        let line = r#"{"origin":"registry","name":"serde","version":"1.0.0","checksum":"abc"}"#;
        assert_eq!(foreign.line, line);
        assert_eq!(
            package("\nname = \"millrace\"\nversion = \"0.1.0\"\n")
                .unwrap()
                .origin,
            "workspace"
        );
        assert!(package("\nversion = \"1\"\n").is_none());
    }
}
