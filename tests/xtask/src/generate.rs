//! Generated files: protocol code from `proto/`, resource definitions from `crds/`, and the chart's
//! copies of those. All are committed; [`run`] writes them, [`drift`] says which ones it would
//! change.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::house::{House, succeed};

/// Where the chart keeps its copies of the resource definitions.
const CHART_CRDS: &str = "charts/millrace/charts/crds/templates";

/// Generated files in a directory of the clone, and how to make them anew somewhere else.
struct Product {
    /// The committed directory, below the clone's root.
    committed: &'static str,
    /// Writes the directory's content to the path given.
    write: fn(&House, &Path) -> Result<()>,
}

const PRODUCTS: [Product; 3] = [
    Product {
        committed: "proto/src/generated",
        write: write_proto,
    },
    Product {
        committed: "crds/yaml",
        write: write_crds,
    },
    Product {
        committed: CHART_CRDS,
        write: write_chart_crds,
    },
];

/// Writes every generated file.
///
/// # Errors
/// When a generator fails or a file cannot be written.
pub(crate) fn run(house: &House) -> Result<()> {
    for product in PRODUCTS {
        let fresh = Fresh::make(house, &product)?;
        let committed = house.root().join(product.committed);
        for name in fresh.changed(&committed)? {
            let (from, to) = (fresh.path.join(&name), committed.join(&name));
            if from.exists() {
                fs::create_dir_all(&committed)?;
                fs::copy(&from, &to).with_context(|| format!("cannot write {}", to.display()))?;
            } else {
                fs::remove_file(&to).with_context(|| format!("cannot remove {}", to.display()))?;
            }
            println!("wrote {}/{name}", product.committed);
        }
    }
    Ok(())
}

/// Paths of committed files that differ from what the generators make of their sources.
///
/// # Errors
/// When a generator fails.
pub(crate) fn drift(house: &House) -> Result<Vec<String>> {
    let mut drifted = Vec::new();
    for product in PRODUCTS {
        let fresh = Fresh::make(house, &product)?;
        let committed = house.root().join(product.committed);
        let changed = fresh.changed(&committed)?;
        drifted.extend(
            changed
                .iter()
                .map(|name| format!("{}/{name}", product.committed)),
        );
    }
    Ok(drifted)
}

/// A directory of freshly generated files; removed when dropped.
struct Fresh {
    path: PathBuf,
}

impl Fresh {
    fn make(house: &House, product: &Product) -> Result<Self> {
        let name = product.committed.replace('/', "-");
        let path = house
            .cache()
            .join("generated")
            .join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let fresh = Self { path };
        (product.write)(house, &fresh.path)?;
        if names(&fresh.path)?.is_empty() {
            bail!("nothing was generated for {}", product.committed);
        }
        Ok(fresh)
    }

    /// Names of files that are not the same here and in `committed`, in order.
    fn changed(&self, committed: &Path) -> Result<Vec<String>> {
        let mut all = names(&self.path)?;
        all.extend(names(committed)?);
        all.sort();
        all.dedup();
        let same = |name: &String| {
            let (fresh, old) = (
                fs::read(self.path.join(name)),
                fs::read(committed.join(name)),
            );
            matches!((fresh, old), (Ok(fresh), Ok(old)) if fresh == old)
        };
        all.retain(|name| !same(name));
        Ok(all)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Names of the files directly in `directory`; none when it does not exist.
fn names(directory: &Path) -> Result<Vec<String>> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

fn write_proto(house: &House, out: &Path) -> Result<()> {
    // Behind a feature: nobody else needs the protocol's compiler.
    house.build_with(&["generate-proto"], &["millrace-proto/generate"])?;
    succeed(house.command(house.binary("generate-proto")).arg(out))
}

fn write_crds(house: &House, out: &Path) -> Result<()> {
    house.build(&["generate-crds"])?;
    succeed(house.command(house.binary("generate-crds")).arg(out))
}

/// Makes Helm templates of the generated definitions: kept when the release is uninstalled, because
/// removing a definition removes every object of its kind.
fn write_chart_crds(house: &House, out: &Path) -> Result<()> {
    let definitions = house.root().join("crds/yaml");
    for name in names(&definitions)? {
        let yaml = fs::read_to_string(definitions.join(&name))?;
        let template = chart_template(&yaml).with_context(|| format!("crds/yaml/{name}"))?;
        fs::write(out.join(&name), template)?;
    }
    let helpers = house.root().join(CHART_CRDS).join("_helpers.tpl");
    fs::copy(&helpers, out.join("_helpers.tpl")).context("the chart's helpers are missing")?;
    Ok(())
}

fn chart_template(yaml: &str) -> Result<String> {
    const METADATA: &str = "\nmetadata:\n";
    let body = yaml.trim_start_matches("---\n");
    let Some(at) = body.find(METADATA) else {
        bail!("no metadata at the top level");
    };
    if body.contains("\n  annotations:") || body.contains("\n  labels:") {
        bail!("annotations and labels are added here; the generator must not write them");
    }
    let (before, after) = body.split_at(at + METADATA.len());
    let after = after.replace("{{", "{{ \"{{\" }}");
    Ok(format!(
        "{{{{- /* Generated by `cargo xtask generate` from crds/yaml; do not edit. */ -}}}}\n\
         {before}  annotations:\n    helm.sh/resource-policy: keep\n  labels:\n    \
         {{{{- include \"crds.labels\" . | nindent 4 }}}}\n{after}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_becomes_a_kept_template() {
        let yaml = "apiVersion: v1\nkind: X\nmetadata:\n  name: x\nspec: 'a {{ b }}'\n";
        let template = chart_template(yaml).unwrap();
        assert!(
            template.contains("metadata:\n  annotations:\n    helm.sh/resource-policy: keep\n")
        );
        assert!(template.contains("nindent 4 }}\n  name: x\nspec: 'a {{ \"{{\" }} b }}'\n"));
    }

    #[test]
    fn a_definition_without_metadata_is_refused() {
        assert!(chart_template("kind: X\n").is_err());
    }
}
