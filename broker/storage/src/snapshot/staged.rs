//! A snapshot that has arrived and is durable, but not in force.
//!
//! Promises: `promote` puts all of it in force, or nothing; after a crash `complete_install` does
//! what was left of it, when the journal says that it was installed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use millrace_types::ShardId;

use super::layout;
use crate::checkpoint::{self, Checkpoint, Covered, Manifest};
use crate::data_dir::DataDir;
use crate::error::{Action, Corruption, DiskFailure, OpenError, failed};
use crate::journal::Installed;
use crate::store::{Store, files};

/// A state that is not in force.
pub struct Staged {
    /// The store it takes the place of.
    old: Arc<Store>,
    store: Arc<Store>,
    covered: Covered,
    snapshot: Bytes,
    path: PathBuf,
}

impl Staged {
    /// Makes a snapshot durable whose segments are, but for their names.
    pub(super) fn write(
        old: &Arc<Store>,
        covered: Covered,
        manifest: Manifest,
        snapshot: Bytes,
    ) -> Result<Self, OpenError> {
        let (dir, shard) = (&old.dir, old.shard);
        let directory = files::directory(dir, shard);
        let synced = dir.disk().sync_dir(&directory);
        synced.map_err(failed(Action::Sync, &directory))?;
        let path = layout::ready(dir, shard, covered.index);
        let (of, state) = (covered.clone(), snapshot.clone());
        let mut file = checkpoint::write(&path, shard, of, manifest.clone(), state);
        while !file.step(&**dir.disk())? {}
        Ok(Self {
            old: Arc::clone(old),
            store: Store::open_staged(dir, shard, &manifest)?,
            covered,
            snapshot,
            path,
        })
    }

    /// What it covers.
    #[must_use]
    pub const fn covered(&self) -> &Covered {
        &self.covered
    }

    /// The engine's state.
    #[must_use]
    pub const fn snapshot(&self) -> &Bytes {
        &self.snapshot
    }

    /// Its bodies.
    #[must_use]
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Puts it in force, durably: from now on a start begins with it. The store that it replaces
    /// can be read until `Store::remove` ends it. Blocks on the disk.
    ///
    /// # Errors
    /// When the disk fails: which of the two is in force is unknown then.
    pub fn promote(&self) -> Result<(), DiskFailure> {
        let (dir, shard) = (&self.store.dir, self.store.shard);
        let target = checkpoint::path(dir, shard, self.covered.index);
        rename(dir, shard, &self.path, &target)?;
        checkpoint::remove_older(dir, shard, self.covered.index)?;
        layout::clean(dir, shard)
    }

    /// Removes it. Blocks on the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn discard(self) -> Result<(), DiskFailure> {
        let (dir, shard) = (&self.old.dir, self.old.shard);
        let base = layout::staged_from(self.old.next_segment());
        layout::remove_segments(dir, shard, base)?;
        layout::clean(dir, shard)
    }
}

/// Puts a snapshot in force that the journal says was installed, if a crash came before that was
/// done. To be called before the shard's checkpoint is loaded.
///
/// # Errors
/// When it is not there: something that was durable is lost; or the system refuses.
pub fn complete_install(
    dir: &DataDir,
    shard: ShardId,
    installed: Installed,
) -> Result<(), OpenError> {
    let Installed { index, term, .. } = installed;
    let directory = dir.shard_path(shard);
    let created = dir.disk().create_dir_all(&directory);
    created.map_err(failed(Action::Create, &directory))?;
    if checkpoint::newest_index(dir, shard)?.is_some_and(|newest| newest >= index) {
        return Ok(());
    }
    let path = layout::ready(dir, shard, index);
    let found = Checkpoint::read(dir, shard, &path)?;
    let corrupt = |kind| OpenError::Corrupt {
        path: path.clone(),
        at: 0,
        kind,
    };
    let found = found.ok_or_else(|| corrupt(Corruption::Missing))?;
    if (found.covered.index, found.covered.term) != (index, term) {
        return Err(corrupt(Corruption::Content));
    }
    let target = checkpoint::path(dir, shard, index);
    rename(dir, shard, &path, &target)?;
    tracing::info!(%shard, %index, "a snapshot that was installed is in force now");
    Ok(())
}

fn rename(dir: &DataDir, shard: ShardId, from: &Path, to: &Path) -> Result<(), DiskFailure> {
    let (disk, directory) = (dir.disk(), dir.shard_path(shard));
    disk.rename(from, to)
        .map_err(failed(Action::Rename, from))?;
    let synced = disk.sync_dir(&directory);
    synced.map_err(failed(Action::Sync, &directory))
}
