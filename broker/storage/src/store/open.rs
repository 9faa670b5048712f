//! Opening a store: checks the segments a checkpoint lists, and deals with every other file.
//!
//! A segment made by a later checkpoint than the one loaded is an unfinished attempt whose bodies
//! are still in the journal: removed. One that the checkpoint names as retired: removed. Anything
//! else is unknown and set aside.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use millrace_types::{LogId, LogIndex, Offset, ShardId};

use super::Store;
use super::log::{Log, State};
use super::segment::{self, FileHeader, Segment};
use crate::checkpoint::{ListedLog, Manifest};
use crate::data_dir::DataDir;
use crate::disk::{DiskFile, OpenMode};
use crate::error::{Action, Corruption, OpenError, failed};

pub(super) fn open(
    dir: &DataDir,
    shard: ShardId,
    manifest: Option<&Manifest>,
) -> Result<Arc<Store>, OpenError> {
    let path = dir.shard_path(shard);
    dir.disk()
        .create_dir_all(&path)
        .map_err(failed(Action::Create, &path))?;
    let (mut logs, mut listed, mut disk_bytes) = (BTreeMap::new(), BTreeSet::new(), 0);
    for log in manifest.iter().flat_map(|manifest| &manifest.logs) {
        for segment in &log.segments {
            listed.insert((log.log, segment.first));
            disk_bytes += segment.bytes;
        }
        logs.insert(log.log, Arc::new(open_log(dir, shard, log)?));
    }
    sweep(dir, shard, manifest, &listed)?;
    Ok(Arc::new(Store {
        dir: dir.clone(),
        shard,
        path,
        logs: RwLock::new(logs),
        epoch: AtomicU64::new(0),
        memory_bytes: AtomicU64::new(0),
        disk_bytes: AtomicU64::new(disk_bytes),
        open_files: Mutex::new(VecDeque::new()),
        doomed: Mutex::new(Vec::new()),
    }))
}

fn open_log(dir: &DataDir, shard: ShardId, listed: &ListedLog) -> Result<Log, OpenError> {
    let mut state = State {
        end: listed.end.get(),
        ..State::default()
    };
    let directory = dir.shard_path(shard).join(listed.log.to_string());
    for segment in &listed.segments {
        let path = directory.join(segment::name(segment.first));
        let file = match dir.disk().open(&path, OpenMode::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let kind = Corruption::Missing;
                return Err(OpenError::Corrupt { path, at: 0, kind });
            }
            opened => opened.map_err(failed(Action::Open, &path))?,
        };
        let found = file.bytes().map_err(failed(Action::Read, &path))?;
        if found < segment.bytes {
            let kind = Corruption::Short {
                expected: segment.bytes,
                found,
            };
            return Err(OpenError::Corrupt {
                path,
                at: found,
                kind,
            });
        }
        let header = read_header(&*file, &path)?;
        let expected = (shard, listed.log, segment.first);
        if (header.shard, header.log, header.first) != expected {
            let kind = Corruption::Content;
            return Err(OpenError::Corrupt { path, at: 0, kind });
        }
        if found > segment.bytes {
            file.set_bytes(segment.bytes)
                .map_err(failed(Action::Resize, &path))?;
        }
        let (log, first, end, bytes) = (listed.log, segment.first, segment.end, segment.bytes);
        let index = OnceLock::new();
        state.segments.insert(
            first.get(),
            Arc::new(Segment {
                log,
                first,
                end,
                bytes,
                index,
            }),
        );
    }
    let first = listed
        .segments
        .first()
        .map_or(listed.end, |segment| segment.first);
    state.discarded.insert(0..first.get());
    for &(start, end) in &listed.discarded {
        state.discarded.insert(start..end);
    }
    Ok(Log::with_state(listed.log, state))
}

fn read_header(file: &dyn DiskFile, path: &Path) -> Result<FileHeader, OpenError> {
    let corrupt = |kind| OpenError::Corrupt {
        path: path.into(),
        at: 0,
        kind,
    };
    let found = file.bytes().map_err(failed(Action::Read, path))?;
    let expected = segment::HEADER_BYTES;
    if found < expected {
        return Err(corrupt(Corruption::Short { expected, found }));
    }
    let mut bytes = [0; segment::HEADER_SIZE];
    file.read_exact_at(&mut bytes, 0)
        .map_err(failed(Action::Read, path))?;
    let (version, header) = FileHeader::decode(&bytes).map_err(corrupt)?;
    if version > segment::VERSION {
        let (path, supported) = (path.into(), segment::VERSION);
        return Err(OpenError::NewerVersion {
            path,
            found: version,
            supported,
        });
    }
    Ok(header)
}

/// Deals with every segment that is not listed.
fn sweep(
    dir: &DataDir,
    shard: ShardId,
    manifest: Option<&Manifest>,
    listed: &BTreeSet<(LogId, Offset)>,
) -> Result<(), OpenError> {
    let (disk, path) = (dir.disk(), dir.shard_path(shard));
    for name in disk.list(&path).map_err(failed(Action::List, &path))? {
        let Some(log) = name.parse().ok().map(LogId::new) else {
            continue;
        };
        let directory = path.join(&name);
        let mut kept = 0;
        for file in disk
            .list(&directory)
            .map_err(failed(Action::List, &directory))?
        {
            let first = segment::parse_name(&file);
            if first.is_some_and(|first| listed.contains(&(log, first))) {
                kept += 1;
                continue;
            }
            let path = directory.join(&file);
            if is_ours_to_remove(dir, &path, manifest, first.map(|first| (log, first)))? {
                tracing::info!(path = %path.display(), "removed a segment no checkpoint needs");
                disk.remove(&path).map_err(failed(Action::Remove, &path))?;
            } else {
                set_aside(dir, shard, &path, &format!("{name}-{file}"))?;
            }
        }
        if kept == 0 {
            // Only tidiness: another file may have come to be there.
            drop(disk.remove_dir(&directory));
        }
    }
    Ok(())
}

fn is_ours_to_remove(
    dir: &DataDir,
    path: &Path,
    manifest: Option<&Manifest>,
    segment: Option<(LogId, Offset)>,
) -> Result<bool, OpenError> {
    let (Some(manifest), Some(segment)) = (manifest, segment) else {
        return Ok(false);
    };
    if manifest.retired.contains(&segment) {
        return Ok(true);
    }
    let file = dir
        .disk()
        .open(path, OpenMode::Read)
        .map_err(failed(Action::Open, path))?;
    let made_by = match read_header(&*file, path) {
        Ok(header) => header.checkpoint,
        Err(OpenError::Corrupt { .. }) => LogIndex::new(0),
        Err(error) => return Err(error),
    };
    Ok(made_by > manifest.index)
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
