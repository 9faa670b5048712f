//! Reads the checkpoint in force, a piece at a time.

use std::path::PathBuf;

use millrace_types::ShardId;

use crate::checkpoint;
use crate::data_dir::DataDir;
use crate::envelope::Verify;
use crate::error::ReadError;

/// A checkpoint being read.
pub(super) struct Reading {
    shard: ShardId,
    path: PathBuf,
    verify: Verify,
    /// It did not check the first time: perhaps a bit flipped on its way.
    again: bool,
}

impl Reading {
    /// Of the newest one; `None` when there is none.
    pub(super) fn begin(dir: &DataDir, shard: ShardId) -> Option<Self> {
        let path = checkpoint::newest(dir, shard)?;
        let verify = Verify::default();
        Some(Self {
            shard,
            path,
            verify,
            again: false,
        })
    }

    /// The bytes read; `None` at the end, or when a newer one has replaced it.
    pub(super) fn look(&mut self, dir: &DataDir) -> Result<Option<u64>, ReadError> {
        let result = self
            .verify
            .step(&**dir.disk(), &self.path, checkpoint::CHECKPOINT);
        match result {
            Err(_) if checkpoint::newest(dir, self.shard).as_ref() != Some(&self.path) => Ok(None),
            Err(ReadError::Corrupt { .. }) if !self.again => {
                (self.verify, self.again) = (Verify::default(), true);
                Ok(Some(0))
            }
            result => result,
        }
    }
}
