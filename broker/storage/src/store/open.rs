//! Opening a store: checks the segments a checkpoint lists, and deals with every other file. Reads
//! none of the bodies, so that it takes as long for ten gigabytes as for one.
//!
//! A segment whose number is not below the manifest's next one is of an attempt that did not
//! become a checkpoint, and its bodies are still in the journal, or of a snapshot that was not
//! installed: removed. One that the checkpoint names as retired, or that is of a state which a
//! snapshot has replaced: removed. Anything else is unknown and set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, RwLock};

use millrace_types::ShardId;

use super::files::{self, Files, Known};
use super::log::{Log, State};
use super::pinned::Pinned;
use super::segment::{self, FileHeader, SEGMENT_BYTES_MAX};
use super::stats::Counters;
use super::{Logs, Store};
use crate::checkpoint::{ListedLog, ListedSegment, Manifest};
use crate::data_dir::DataDir;
use crate::disk::OpenMode;
use crate::error::{Action, Corruption, OpenError, failed};
use crate::snapshot;

pub(super) fn open(
    dir: &DataDir,
    shard: ShardId,
    manifest: Option<&Manifest>,
) -> Result<Arc<Store>, OpenError> {
    let store = open_listed(dir, shard, manifest)?;
    sweep(dir, shard, manifest)?;
    Ok(store)
}

/// Opens what is listed, and looks at nothing else.
pub(super) fn open_listed(
    dir: &DataDir,
    shard: ShardId,
    manifest: Option<&Manifest>,
) -> Result<Arc<Store>, OpenError> {
    let files = Files::new(dir, shard);
    let directory = files.directory();
    dir.disk()
        .create_dir_all(directory)
        .map_err(failed(Action::Create, directory))?;
    let (mut active, mut disk_bytes) = (BTreeMap::new(), 0);
    if let Some(manifest) = manifest {
        let mut state = files.lock();
        state.next = manifest.next_segment;
        for listed in &manifest.segments {
            check_segment(dir, shard, listed, &files.path(listed.number))?;
            let (bytes, owner) = (listed.bytes, listed.owner);
            let closed = bytes >= SEGMENT_BYTES_MAX;
            let known = Known {
                bytes,
                owner,
                closed,
            };
            state.known.insert(listed.number, known);
            disk_bytes += bytes;
        }
        for listed in &manifest.logs {
            let log = Log::new(listed.log, state_of(listed));
            active.insert(listed.log, Arc::new(log));
        }
    }
    let settled = BTreeMap::new();
    Ok(Arc::new(Store {
        dir: dir.clone(),
        shard,
        logs: RwLock::new(Logs { active, settled }),
        epoch: AtomicU64::new(0),
        memory_bytes: AtomicU64::new(0),
        pinned: Pinned::default(),
        disk_bytes: AtomicU64::new(disk_bytes),
        files,
        stats: Counters::default(),
        retired: AtomicBool::new(false),
    }))
}

fn state_of(listed: &ListedLog) -> State {
    let mut state = State {
        end: listed.end,
        runs: listed.runs.clone(),
        ..State::default()
    };
    let first = listed.runs.first().map_or(listed.end, |run| run.first);
    state.discarded.insert(0..first);
    for &(start, end) in &listed.discarded {
        state.discarded.insert(start..end);
    }
    state
}

/// It is there, it is the right one, and it ends where it should: what follows is cut.
fn check_segment(
    dir: &DataDir,
    shard: ShardId,
    listed: &ListedSegment,
    path: &Path,
) -> Result<(), OpenError> {
    let corrupt = |at, kind| OpenError::Corrupt {
        path: path.into(),
        at,
        kind,
    };
    let file = match dir.disk().open(path, OpenMode::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(corrupt(0, Corruption::Missing));
        }
        opened => opened.map_err(failed(Action::Open, path))?,
    };
    let (expected, found) = (
        listed.bytes,
        file.bytes().map_err(failed(Action::Read, path))?,
    );
    if found < expected {
        return Err(corrupt(found, Corruption::Short { expected, found }));
    }
    let number = listed.number;
    FileHeader { shard, number }.check(&*file, path)?;
    if found > expected {
        file.set_bytes(expected)
            .map_err(failed(Action::Resize, path))?;
    }
    Ok(())
}

/// Deals with every segment that is not listed.
fn sweep(dir: &DataDir, shard: ShardId, manifest: Option<&Manifest>) -> Result<(), OpenError> {
    let (disk, path) = (dir.disk(), files::directory(dir, shard));
    let segments = manifest.iter().flat_map(|manifest| &manifest.segments);
    let listed: BTreeSet<u64> = segments.map(|segment| segment.number).collect();
    let importing = snapshot::is_importing(dir, shard)?;
    let ours_to_remove = |number: u64| match manifest {
        Some(manifest) => {
            number >= manifest.next_segment
                || number < snapshot::era_of(manifest.next_segment)
                || manifest.retired.contains(&number)
        }
        None => importing && number >= snapshot::staged_from(0),
    };
    for name in disk.list(&path).map_err(failed(Action::List, &path))? {
        let number = segment::parse_name(&name);
        if number.is_some_and(|number| listed.contains(&number)) {
            continue;
        }
        let file = path.join(&name);
        if number.is_some_and(ours_to_remove) {
            tracing::info!(path = %file.display(), "removed a segment no checkpoint needs");
            disk.remove(&file).map_err(failed(Action::Remove, &file))?;
        } else {
            set_aside(dir, shard, &file, &name)?;
        }
    }
    if importing {
        // What says whose they were goes last.
        disk.sync_dir(&path).map_err(failed(Action::Sync, &path))?;
    }
    snapshot::clean(dir, shard)?;
    Ok(())
}

fn set_aside(dir: &DataDir, shard: ShardId, path: &Path, name: &str) -> Result<(), OpenError> {
    let (disk, aside) = (dir.disk(), dir.aside_path());
    disk.create_dir_all(&aside)
        .map_err(failed(Action::Create, &aside))?;
    let taken = disk.list(&aside).map_err(failed(Action::List, &aside))?;
    let mut number = 0_u64;
    let target = loop {
        let target = format!("{shard}-{name}.{number}");
        if taken.binary_search(&target).is_err() {
            break aside.join(target);
        }
        number += 1;
    };
    tracing::warn!(
        path = %path.display(),
        target = %target.display(),
        "set a segment aside that no checkpoint knows"
    );
    disk.rename(path, &target)
        .map_err(failed(Action::Rename, path))?;
    disk.sync_dir(&aside)
        .map_err(failed(Action::Sync, &aside))?;
    Ok(())
}
