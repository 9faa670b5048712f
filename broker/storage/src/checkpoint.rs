//! The checkpoint of a shard: the engine's snapshot at an index, and which bodies are where.
//!
//! `DIR/shards/ID/checkpoint-INDEX` is written whole, beside the previous one, and replaces it. The
//! newest one counts; if it is damaged that is an error and no older one is taken instead, because
//! the journal was cut after it.
//!
//! Payload, version 2: `length of the head 8 | head (postcard) | snapshot`. Version 1 had no
//! members in its head.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use millrace_types::{LogId, LogIndex, ShardId, Term};
use serde::{Deserialize, Serialize};

use crate::data_dir::DataDir;
use crate::envelope::{self, Kind, Replacement};
use crate::error::{Action, Corruption, DiskFailure, OpenError, failed};
use crate::store::run::Run;

pub(crate) const CHECKPOINT: Kind = Kind {
    magic: *b"MRCHECKP",
    version: 2,
    // Snapshots hold metadata only; this is far beyond what a node can hold in memory.
    payload_bytes_max: 1 << 36,
};
/// Offset of the payload in the file, for error messages.
const PAYLOAD_AT: u64 = 24;
const PREFIX: &str = "checkpoint-";

/// Which entry a checkpoint covers, and who the shard's members were then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Everything up to and including this entry.
    pub index: LogIndex,
    /// Of that entry.
    pub term: Term,
    /// As consensus encodes them; empty when written by a version that had none.
    pub members: Bytes,
}

/// A loaded checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// What is in it.
    pub covered: Covered,
    /// The engine's.
    pub snapshot: Bytes,
    /// For `Store::open`.
    pub manifest: Manifest,
}

/// Which bodies a checkpoint covers and where they are. About 25 bytes for each run: a hundred
/// thousand queues with a few messages each take 3 MB, spread over the shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the checkpoint.
    pub(crate) index: LogIndex,
    /// The number of the next new segment: those from here on belong to no checkpoint yet.
    pub(crate) next_segment: u64,
    /// Ascending.
    pub(crate) segments: Vec<ListedSegment>,
    /// Segments with nothing alive: removed after this checkpoint, perhaps not yet.
    pub(crate) retired: Vec<u64>,
    /// Logs with anything in them, ascending.
    pub(crate) logs: Vec<ListedLog>,
}

/// A log in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListedLog {
    pub(crate) log: LogId,
    /// One past the last offset ever stored.
    pub(crate) end: u64,
    /// Ascending.
    pub(crate) runs: Vec<Run>,
    /// Within the runs; what is before the first one is discarded too.
    pub(crate) discarded: Vec<(u64, u64)>,
}

/// A segment in a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListedSegment {
    pub(crate) number: u64,
    /// Valid bytes.
    pub(crate) bytes: u64,
    /// The log that has it for itself.
    pub(crate) owner: Option<LogId>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    shard: ShardId,
    index: LogIndex,
    term: Term,
    members: Vec<u8>,
    manifest: Manifest,
}

/// The same in version 1.
#[cfg_attr(feature = "test-util", derive(Serialize))]
#[derive(Deserialize)]
struct HeadV1 {
    shard: ShardId,
    index: LogIndex,
    term: Term,
    manifest: Manifest,
}

impl From<HeadV1> for Head {
    fn from(head: HeadV1) -> Self {
        let HeadV1 {
            shard,
            index,
            term,
            manifest,
        } = head;
        Self {
            shard,
            index,
            term,
            members: Vec::new(),
            manifest,
        }
    }
}

impl Checkpoint {
    /// The checkpoint of a shard; `None` when it never had one. Removes what a crash left of
    /// others.
    ///
    /// # Errors
    /// When it is damaged or of a later version, or the system refuses.
    pub fn load(dir: &DataDir, shard: ShardId) -> Result<Option<Self>, OpenError> {
        let (disk, directory) = (dir.disk(), dir.shard_path(shard));
        disk.create_dir_all(&directory)
            .map_err(failed(Action::Create, &directory))?;
        let (complete, incomplete) = list(dir, &directory)?;
        for path in incomplete {
            disk.remove(&path).map_err(failed(Action::Remove, &path))?;
        }
        let Some((index, path)) = complete.last() else {
            return Ok(None);
        };
        let found = match Self::read(dir, shard, path) {
            Err(_) if millrace_types::mutant!(DamagedCheckpointSkipped) => None,
            found => found?,
        };
        let Some(found) = found else {
            return Ok(None);
        };
        if found.covered.index != *index {
            return Err(corrupt(path, Corruption::Content));
        }
        // Whoever wrote it may have been killed before its name was durable, and what it replaces
        // goes now.
        disk.sync_dir(&directory)
            .map_err(failed(Action::Sync, &directory))?;
        remove_older(dir, shard, *index)?;
        Ok(Some(found))
    }

    /// What such a file of a shard holds; `None` when it is not there.
    ///
    /// # Errors
    /// When it is damaged or of a later version, or the system refuses.
    pub(crate) fn read(
        dir: &DataDir,
        shard: ShardId,
        path: &Path,
    ) -> Result<Option<Self>, OpenError> {
        let Some((version, mut payload)) = envelope::read(&**dir.disk(), path, CHECKPOINT)? else {
            return Ok(None);
        };
        let bytes = payload.len();
        let length = payload
            .try_get_u64_le()
            .map_err(|_| corrupt(path, Corruption::Length))?;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= bytes - 8);
        let head = payload.split_to(length.ok_or_else(|| corrupt(path, Corruption::Length))?);
        let head = match version {
            1 => postcard::from_bytes::<HeadV1>(&head).map(Head::from),
            _ => postcard::from_bytes(&head),
        };
        let head = head.map_err(|_| corrupt(path, Corruption::Content))?;
        if head.shard != shard || !is_sound(&head.manifest) {
            return Err(corrupt(path, Corruption::Content));
        }
        let Head {
            index,
            term,
            members,
            manifest,
            ..
        } = head;
        let covered = Covered {
            index,
            term,
            members: members.into(),
        };
        Ok(Some(Self {
            covered,
            snapshot: payload,
            manifest,
        }))
    }
}

fn corrupt(path: &Path, kind: Corruption) -> OpenError {
    let (path, at) = (path.into(), PAYLOAD_AT);
    OpenError::Corrupt { path, at, kind }
}

/// Everything ascends, nothing overlaps, and runs are within segments: others rely on it.
fn is_sound(manifest: &Manifest) -> bool {
    let segments: BTreeMap<u64, u64> = manifest
        .segments
        .iter()
        .map(|segment| (segment.number, segment.bytes))
        .collect();
    let numbers = manifest.segments.iter().map(|segment| segment.number);
    let mut numbers = numbers.chain(manifest.retired.iter().copied());
    segments.len() == manifest.segments.len()
        && numbers.all(|number| number < manifest.next_segment)
        && manifest.logs.is_sorted_by(|one, other| one.log < other.log)
        && manifest.logs.iter().all(|log| {
            let within = |run: &Run| {
                let bytes = segments.get(&run.file);
                run.is_sound() && bytes.is_some_and(|bytes| run.bytes_end() <= *bytes)
            };
            log.runs.iter().all(within)
                && log.runs.is_sorted_by(|one, other| one.end <= other.first)
                && log.runs.last().is_none_or(|last| last.end <= log.end)
                && log.discarded.iter().all(|(start, end)| start < end)
        })
}

/// A checkpoint to be written.
pub(crate) fn begin(
    dir: &DataDir,
    shard: ShardId,
    covered: Covered,
    manifest: Manifest,
    snapshot: Bytes,
) -> Replacement {
    let path = path(dir, shard, covered.index);
    write(&path, shard, covered, manifest, snapshot)
}

/// Where the checkpoint at this index is, or would be.
pub(crate) fn path(dir: &DataDir, shard: ShardId, index: LogIndex) -> PathBuf {
    let name = format!("{PREFIX}{:020}", index.get());
    dir.shard_path(shard).join(name)
}

/// The same file in another place.
pub(crate) fn write(
    path: &Path,
    shard: ShardId,
    covered: Covered,
    manifest: Manifest,
    snapshot: Bytes,
) -> Replacement {
    let Covered {
        index,
        term,
        members,
    } = covered;
    let head = Head {
        shard,
        index,
        term,
        members: members.into(),
        manifest,
    };
    let head = postcard::to_allocvec(&head).expect("plain data in memory encodes");
    let length = Bytes::copy_from_slice(&(head.len() as u64).to_le_bytes());
    Replacement::new(path, CHECKPOINT, vec![length, head.into(), snapshot])
}

/// A checkpoint's file as version 1 would have written it.
#[cfg(feature = "test-util")]
pub(crate) fn as_version_1(file: &Bytes) -> Option<Bytes> {
    let mut payload = file.slice(usize::try_from(PAYLOAD_AT).ok()?..);
    let length = usize::try_from(payload.try_get_u64_le().ok()?).ok()?;
    let head: Head = postcard::from_bytes(&payload.split_to(length)).ok()?;
    let head = HeadV1 {
        shard: head.shard,
        index: head.index,
        term: head.term,
        manifest: head.manifest,
    };
    let head = postcard::to_allocvec(&head).ok()?;
    let length = Bytes::copy_from_slice(&(head.len() as u64).to_le_bytes());
    let kind = Kind {
        version: 1,
        ..CHECKPOINT
    };
    let parts = [length, head.into(), payload];
    let header = envelope::header(kind, &parts);
    Some([&header[..], &parts.concat()].concat().into())
}

/// The checkpoint in force; `None` when there is none or the directory cannot be listed.
pub(crate) fn newest(dir: &DataDir, shard: ShardId) -> Option<PathBuf> {
    let (complete, _) = list(dir, &dir.shard_path(shard)).ok()?;
    complete.into_iter().next_back().map(|(_, path)| path)
}

/// What the checkpoint in force covers.
pub(crate) fn newest_index(dir: &DataDir, shard: ShardId) -> Result<Option<LogIndex>, DiskFailure> {
    let (complete, _) = list(dir, &dir.shard_path(shard))?;
    Ok(complete.last().map(|(index, _)| *index))
}

/// Removes checkpoints before `index`.
pub(crate) fn remove_older(
    dir: &DataDir,
    shard: ShardId,
    index: LogIndex,
) -> Result<(), DiskFailure> {
    let (complete, _) = list(dir, &dir.shard_path(shard))?;
    for (_, path) in complete.iter().filter(|(older, _)| *older < index) {
        dir.disk()
            .remove(path)
            .map_err(failed(Action::Remove, path))?;
    }
    Ok(())
}

/// Complete checkpoints, oldest first.
type Complete = Vec<(LogIndex, PathBuf)>;

/// Complete checkpoints and unfinished ones.
fn list(dir: &DataDir, directory: &Path) -> Result<(Complete, Vec<PathBuf>), DiskFailure> {
    let names = dir
        .disk()
        .list(directory)
        .map_err(failed(Action::List, directory))?;
    let (mut complete, mut incomplete) = (Vec::new(), Vec::new());
    for name in names {
        let Some(number) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if number.ends_with(envelope::TEMPORARY) {
            incomplete.push(directory.join(&name));
        } else if let Ok(number) = number.parse() {
            complete.push((LogIndex::new(number), directory.join(&name)));
        }
    }
    complete.sort_unstable();
    Ok((complete, incomplete))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::open_dir;
    use crate::{Crash, Fault, FaultyDisk, MemoryDisk, Operation};

    #[test]
    fn a_checkpoint_that_was_loaded_once_stays_though_its_writer_was_killed() {
        let memory = MemoryDisk::new();
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        let dir = open_dir(&disk);
        let shard = ShardId::new(1);
        assert!(Checkpoint::load(&dir, shard).unwrap().is_none());
        let manifest = Manifest {
            index: LogIndex::new(7),
            ..Manifest::default()
        };
        let covered = Covered {
            index: manifest.index,
            ..Covered::default()
        };
        let mut file = begin(&dir, shard, covered, manifest, Bytes::new());
        disk.fail(Operation::SyncDir, Fault::Broken, 0, "shards");
        while file.step(&disk).is_ok() {}
        drop(dir);
        let load = || Checkpoint::load(&open_dir(&memory), shard).unwrap();
        // The journal is cut after it from now on.
        assert_eq!(load().unwrap().covered.index, LogIndex::new(7));

        memory.crash(Crash::DropAll);

        assert_eq!(load().unwrap().covered.index, LogIndex::new(7));
    }
}
