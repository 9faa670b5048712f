//! Writes the CustomResourceDefinitions, one file each, to the folder that is its argument;
//! without one, to `crds/yaml`.

use std::path::{Path, PathBuf};

use millrace_crds::{crds, to_yaml};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let committed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    let folder = std::env::args_os()
        .nth(1)
        .map_or_else(committed, PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    for crd in crds() {
        let path = folder.join(format!("{}.yaml", crd.spec.names.plural));
        std::fs::write(path, to_yaml(&crd)?)?;
    }
    Ok(())
}
