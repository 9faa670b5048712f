//! What a broker's disk had to go through in a run: kills only prove something when they hit work.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Result;

/// Seen on the disk while the broker was down, and in the books.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Hand-outs whose end nobody had confirmed when the broker died, added up: leases held, and
    /// settlements on their way.
    pub(crate) leases_at_deaths: u64,
    /// Shard and index of checkpoints.
    checkpoints: BTreeSet<String>,
    /// Numbers of journal files: ascending over all uses of all files.
    journal_files_max: u64,
    segments: BTreeSet<String>,
}

impl Work {
    /// Looks at a data directory.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn look(&mut self, data: &Path) -> Result<()> {
        for entry in fs::read_dir(data.join("journal"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let number = name.split('.').next().unwrap_or_default();
            let number = u64::from_str_radix(number, 16).unwrap_or(0);
            self.journal_files_max = self.journal_files_max.max(number);
        }
        self.look_at_shards(&data.join("shards"))
    }

    fn look_at_shards(&mut self, directory: &Path) -> Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                self.look_at_shards(&path)?;
                continue;
            }
            let name = path.display().to_string();
            if name.ends_with(".seg") {
                self.segments.insert(name);
            } else if name.contains("checkpoint-") {
                self.checkpoints.insert(name);
            }
        }
        Ok(())
    }

    /// For people.
    pub(crate) fn line(&self) -> String {
        format!(
            "work: {} unsettled hand-outs at deaths, {} checkpoints and {} segments seen between \
             lives, {} journal files used",
            self.leases_at_deaths,
            self.checkpoints.len(),
            self.segments.len(),
            self.journal_files_max
        )
    }
}
