//! Writes the CustomResourceDefinitions to `crds/yaml/`, one file each.

use std::path::Path;

use millrace_crds::{crds, to_yaml};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    std::fs::create_dir_all(&folder)?;
    for crd in crds() {
        let path = folder.join(format!("{}.yaml", crd.spec.names.plural));
        std::fs::write(path, to_yaml(&crd)?)?;
    }
    Ok(())
}
