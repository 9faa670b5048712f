//! Names and numbers of what an import writes.
//!
//! Segments of a snapshot are where the shard's own are, under numbers of a later era, which the
//! running state never reaches: there is nothing to rename when they come into force, and nothing
//! to mistake them for. Numbers of an earlier era than a checkpoint's next one belong to a state
//! that a snapshot has replaced.

use std::path::PathBuf;

use millrace_types::{LogIndex, ShardId};

use crate::data_dir::DataDir;
use crate::error::{Action, DiskFailure, failed};
use crate::store::files;
use crate::store::segment;

/// Segments of an era: more than a shard writes in its life, few enough for as many eras.
const ERA: u64 = 1 << 32;
/// What arrives of the sender's checkpoint. There as long as an import is, and durably so before
/// its first segment is.
const ARRIVING: &str = "incoming";
/// The checkpoint that will be in force.
const READY: &str = "incoming-";

/// The first number of the era that a number is in.
pub(crate) const fn era_of(number: u64) -> u64 {
    number & !(ERA - 1)
}

/// The first number that an import uses when the next one of the state in force is this.
pub(crate) const fn staged_from(next: u64) -> u64 {
    era_of(next) + ERA
}

/// Where the sender's checkpoint arrives.
pub(super) fn arriving(dir: &DataDir, shard: ShardId) -> PathBuf {
    dir.shard_path(shard).join(ARRIVING)
}

/// Where the checkpoint is made that will be in force.
pub(super) fn ready(dir: &DataDir, shard: ShardId, index: LogIndex) -> PathBuf {
    let name = format!("{READY}{:020}", index.get());
    dir.shard_path(shard).join(name)
}

/// Whether an import has begun and nobody has cleaned up after it.
pub(crate) fn is_importing(dir: &DataDir, shard: ShardId) -> Result<bool, DiskFailure> {
    Ok(names(dir, shard)?.iter().any(|name| name == ARRIVING))
}

/// Removes the files of imports, but for their segments, which go first.
pub(crate) fn clean(dir: &DataDir, shard: ShardId) -> Result<(), DiskFailure> {
    for name in names(dir, shard)? {
        if name == ARRIVING || name.starts_with(READY) {
            let path = dir.shard_path(shard).join(name);
            let removed = dir.disk().remove(&path);
            removed.map_err(failed(Action::Remove, &path))?;
        }
    }
    Ok(())
}

/// Removes segments from this number on.
pub(super) fn remove_segments(dir: &DataDir, shard: ShardId, from: u64) -> Result<(), DiskFailure> {
    let (disk, directory) = (dir.disk(), files::directory(dir, shard));
    let names = disk.list(&directory);
    let names = names.map_err(failed(Action::List, &directory))?;
    for name in names {
        if segment::parse_name(&name).is_some_and(|number| number >= from) {
            let path = directory.join(name);
            disk.remove(&path).map_err(failed(Action::Remove, &path))?;
        }
    }
    Ok(())
}

fn names(dir: &DataDir, shard: ShardId) -> Result<Vec<String>, DiskFailure> {
    let directory = dir.shard_path(shard);
    let names = dir.disk().list(&directory);
    names.map_err(failed(Action::List, &directory))
}
