//! Any cluster, by its kubeconfig. Its nodes are somebody's: nothing is loaded, stopped or emptied.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{Driver, kubeconfig_or_default};

/// A kubeconfig.
pub(super) struct Plain {
    kubeconfig: Option<PathBuf>,
}

impl Plain {
    pub(super) fn new(kubeconfig: Option<PathBuf>) -> Self {
        Self { kubeconfig }
    }
}

impl Driver for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn start(&mut self) -> Result<PathBuf> {
        kubeconfig_or_default(self.kubeconfig.as_ref())
    }

    fn load(&self, _archive: &Path) -> Result<()> {
        bail!(
            "images cannot be loaded into just any cluster: name one that it can pull with \
             --image, or the cluster's kind with --driver"
        )
    }

    fn owns_nodes(&self) -> bool {
        false
    }
}
