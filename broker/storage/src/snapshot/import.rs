//! The receiving side: takes a snapshot in order, as it comes, and stages it beside the state in
//! force.
//!
//! Promises: what `finish` gives is whole, sound and durable, and nothing that is in force was
//! touched; memory holds what was written last, the list of bodies, and at the end the checkpoint,
//! as a start does. An import that is given up takes its files with it, at the latest at the next
//! start. It starts from the beginning after a restart: what a crash leaves of it is not trusted.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use millrace_types::{LogId, ShardId};

use super::sink::{Arrival, Sink};
use super::staged::Staged;
use super::{export, layout};
use crate::checkpoint::{CHECKPOINT, Checkpoint, Covered, ListedSegment, Manifest};
use crate::data_dir::DataDir;
use crate::disk::{DiskFile, OpenMode};
use crate::envelope;
use crate::error::{Action, Corruption, DiskFailure, OpenError, failed};
use crate::store::Store;
use crate::store::run::Run;
use crate::store::segment::{self, FileHeader};

/// A sender's checkpoint at most: ten times what half a million logs take. It has to be in memory
/// once, and what is larger would cost the node its life.
const CHECKPOINT_BYTES_MAX: u64 = 4 << 30;
/// Bytes written after which there is another look at how much of the disk is free.
const LOOK_BYTES: u64 = 16 << 20;

/// Why a snapshot is not taken. The shard goes on from what it has.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There is too little room on the disk.
    #[error("a snapshot needs {needed} bytes of disk besides the reserve, and {free} are free")]
    Full {
        /// For what is missing.
        needed: u64,
        /// Without what is reserved for others.
        free: u64,
    },
    /// It is damaged or makes no sense.
    #[error("the snapshot makes no sense at byte {at}: {kind}")]
    Unsound {
        /// Where in it, about.
        at: u64,
        /// How.
        kind: Corruption,
    },
    /// Its sender is of a later version.
    #[error("the snapshot has format version {found}; this program reads up to {supported}")]
    NewerVersion {
        /// Its version.
        found: u32,
        /// The latest we know.
        supported: u32,
    },
    /// What is on disk is unknown: the node stops.
    #[error(transparent)]
    Disk(DiskFailure),
}

/// A snapshot that arrives.
pub struct Import {
    store: Arc<Store>,
    /// Of the disk, for others.
    reserve_bytes: u64,
    total: u64,
    /// What has come.
    at: u64,
    /// Written since the last look at the disk.
    unseen: u64,
    /// The number of its first segment.
    base: u64,
    stage: Stage,
}

enum Stage {
    /// The sender's checkpoint.
    Checkpoint(Arriving),
    /// Bodies.
    Bodies(Box<Bodies>),
    /// It has failed.
    Nothing,
}

/// A file that is written as it comes.
struct Arriving {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    header: Vec<u8>,
    /// Of the whole file, once the header has come.
    bytes: Option<u64>,
}

struct Bodies {
    covered: Covered,
    /// As it will be here; runs that have not come are as their sender has them.
    manifest: Manifest,
    /// What comes next: where it is in the manifest, and whose segment it is in there.
    waiting: VecDeque<Waiting>,
    /// Whose segments they are, at the sender.
    owners: BTreeMap<u64, Option<LogId>>,
    sink: Option<(u64, Sink)>,
    run: Option<(Waiting, Arrival)>,
}

/// A run that has not come.
#[derive(Clone, Copy)]
struct Waiting {
    log: LogId,
    run: Run,
}

impl Import {
    /// Makes room for a snapshot of so many bytes, to take the place of what `store` has;
    /// `reserve_bytes` of the disk are not for it. There must be no other one of the shard, staged
    /// ones included. Blocks on the disk.
    ///
    /// # Errors
    /// When there is no room, or the disk fails.
    pub fn begin(store: &Arc<Store>, total: u64, reserve_bytes: u64) -> Result<Self, ImportError> {
        let (dir, shard) = (&store.dir, store.shard);
        let base = layout::staged_from(store.next_segment());
        let stage = Arriving::begin(dir, shard, base).map_err(ImportError::Disk)?;
        let mut import = Self {
            store: Arc::clone(store),
            reserve_bytes,
            total,
            at: 0,
            unseen: 0,
            base,
            stage: Stage::Checkpoint(stage),
        };
        match import.check_room() {
            Ok(()) => Ok(import),
            Err(error) => Err(import.give_up(error)),
        }
    }

    /// Bytes that have come: the next ones start there.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.at
    }

    /// Whether nothing is missing.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.at == self.total
    }

    /// Takes the next bytes. Blocks on the disk.
    ///
    /// # Errors
    /// When they make no sense, there is no room, or the disk fails. Nothing can follow; what was
    /// written is removed.
    pub fn write(&mut self, data: Bytes) -> Result<(), ImportError> {
        match self.take(data) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.give_up(error)),
        }
    }

    /// Everything has come: the state it makes, which is not in force yet. Blocks on the disk.
    ///
    /// # Errors
    /// As `write`.
    pub fn finish(mut self) -> Result<Staged, ImportError> {
        match self.stage_all() {
            Ok(staged) => Ok(staged),
            Err(error) => Err(self.give_up(error)),
        }
    }

    /// Removes what has come. Blocks on the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn discard(mut self) -> Result<(), DiskFailure> {
        self.stage = Stage::Nothing;
        self.remove()
    }

    fn take(&mut self, mut data: Bytes) -> Result<(), ImportError> {
        let bytes = data.len() as u64;
        if self
            .at
            .checked_add(bytes)
            .is_none_or(|end| end > self.total)
        {
            return Err(self.unsound(Corruption::Length));
        }
        self.unseen += bytes;
        if self.unseen >= LOOK_BYTES {
            self.unseen = 0;
            self.check_room()?;
        }
        while !data.is_empty() {
            let before = data.len();
            match &mut self.stage {
                Stage::Checkpoint(arriving) => {
                    let whole = arriving.take(&mut data, self.at, self.total)?;
                    self.at += (before - data.len()) as u64;
                    if whole {
                        self.begin_bodies()?;
                    }
                }
                Stage::Bodies(bodies) => {
                    bodies.take(&self.store, self.base, &mut data, self.at)?;
                    self.at += (before - data.len()) as u64;
                }
                Stage::Nothing => return Err(self.unsound(Corruption::Content)),
            }
        }
        if let Stage::Bodies(bodies) = &mut self.stage
            && let Some((_, sink)) = &mut bodies.sink
        {
            sink.flush().map_err(|failure| self.disk(failure))?;
        }
        Ok(())
    }

    /// The sender's checkpoint is whole: says what follows.
    fn begin_bodies(&mut self) -> Result<(), ImportError> {
        let (dir, shard) = (&self.store.dir, self.store.shard);
        let path = layout::arriving(dir, shard);
        let found = Checkpoint::read(dir, shard, &path).map_err(|error| self.unread(error))?;
        let Checkpoint {
            covered, manifest, ..
        } = found.ok_or_else(|| self.unsound(Corruption::Missing))?;
        let bodies = Bodies::new(covered, manifest);
        let follows = bodies
            .waiting
            .iter()
            .map(|waiting| u64::from(waiting.run.bytes));
        if follows.sum::<u64>() != self.total - self.at {
            return Err(self.unsound(Corruption::Length));
        }
        self.stage = Stage::Bodies(Box::new(bodies));
        Ok(())
    }

    fn stage_all(&mut self) -> Result<Staged, ImportError> {
        let Stage::Bodies(bodies) = std::mem::replace(&mut self.stage, Stage::Nothing) else {
            return Err(self.unsound(Corruption::Content));
        };
        if !self.is_complete() {
            let (expected, found) = (self.total, self.at);
            return Err(self.unsound(Corruption::Short { expected, found }));
        }
        let Bodies {
            covered,
            mut manifest,
            sink,
            ..
        } = *bodies;
        if let Some((_, sink)) = sink {
            sink.finish().map_err(|failure| self.disk(failure))?;
        }
        manifest.next_segment = self.base + manifest.segments.len() as u64;
        let path = layout::arriving(&self.store.dir, self.store.shard);
        let read = Checkpoint::read(&self.store.dir, self.store.shard, &path);
        let found = read.map_err(|error| self.unread(error))?;
        let found = found.filter(|found| found.covered == covered);
        let snapshot = found
            .ok_or_else(|| self.unsound(Corruption::Missing))?
            .snapshot;
        Staged::write(&self.store, covered, manifest, snapshot).map_err(|error| self.unread(error))
    }

    /// Whether what is missing fits on the disk.
    fn check_room(&self) -> Result<(), ImportError> {
        let free = self.store.dir.free_bytes().map_err(ImportError::Disk)?;
        let free = free.saturating_sub(self.reserve_bytes);
        let needed = self.total - self.at;
        if needed > free {
            return Err(ImportError::Full { needed, free });
        }
        Ok(())
    }

    fn unsound(&self, kind: Corruption) -> ImportError {
        ImportError::Unsound { at: self.at, kind }
    }

    fn disk(&self, failure: DiskFailure) -> ImportError {
        if failure.is_full() {
            let needed = self.total - self.at;
            return ImportError::Full { needed, free: 0 };
        }
        ImportError::Disk(failure)
    }

    fn unread(&self, error: OpenError) -> ImportError {
        match error {
            OpenError::NewerVersion {
                found, supported, ..
            } => ImportError::NewerVersion { found, supported },
            OpenError::Io {
                path,
                action,
                source,
            } => self.disk(DiskFailure {
                path,
                action,
                source,
            }),
            OpenError::Corrupt { kind, .. } => self.unsound(kind),
            _ => self.unsound(Corruption::Content),
        }
    }

    /// Gives the room back. A disk that fails at that is worse than what went wrong.
    fn give_up(&mut self, error: ImportError) -> ImportError {
        self.stage = Stage::Nothing;
        match self.remove() {
            Ok(()) => error,
            Err(failure) => ImportError::Disk(failure),
        }
    }

    fn remove(&self) -> Result<(), DiskFailure> {
        let (dir, shard) = (&self.store.dir, self.store.shard);
        layout::remove_segments(dir, shard, self.base)?;
        layout::clean(dir, shard)
    }
}

impl Arriving {
    /// An empty file, after what an earlier import has left is gone.
    fn begin(dir: &DataDir, shard: ShardId, base: u64) -> Result<Self, DiskFailure> {
        layout::remove_segments(dir, shard, base)?;
        layout::clean(dir, shard)?;
        let (disk, directory) = (dir.disk(), dir.shard_path(shard));
        let path = layout::arriving(dir, shard);
        let file = disk.open(&path, OpenMode::CreateNew);
        let file = file.map_err(failed(Action::Create, &path))?;
        // Who finds a segment of an import after a crash must find this, too.
        let synced = disk.sync_dir(&directory);
        synced.map_err(failed(Action::Sync, &directory))?;
        Ok(Self {
            file,
            path,
            header: Vec::new(),
            bytes: None,
        })
    }

    /// Takes what is of the file; whether that is complete.
    fn take(&mut self, data: &mut Bytes, at: u64, total: u64) -> Result<bool, ImportError> {
        let unsound = |kind| ImportError::Unsound { at, kind };
        let wanted = match self.bytes {
            None => envelope::HEADER_BYTES - self.header.len(),
            Some(bytes) => usize::try_from(bytes - at).unwrap_or(usize::MAX),
        };
        let piece = data.split_to(wanted.min(data.len()));
        if self.bytes.is_none() {
            self.header.extend_from_slice(&piece);
            if self.header.len() == envelope::HEADER_BYTES {
                let bytes = envelope::length(&self.header, CHECKPOINT).map_err(unsound)?;
                if bytes > total.min(CHECKPOINT_BYTES_MAX) {
                    return Err(unsound(Corruption::Length));
                }
                self.bytes = Some(bytes);
            }
        }
        let written = self.file.write_all_at(&[IoSlice::new(&piece)], at);
        written
            .map_err(failed(Action::Write, &self.path))
            .map_err(|failure| full_or(failure, total - at))?;
        Ok(self.bytes == Some(at + piece.len() as u64))
    }
}

fn full_or(failure: DiskFailure, needed: u64) -> ImportError {
    if failure.is_full() {
        return ImportError::Full { needed, free: 0 };
    }
    ImportError::Disk(failure)
}

impl Bodies {
    /// What a sender's checkpoint announces.
    fn new(covered: Covered, mut manifest: Manifest) -> Self {
        let waiting = export::runs(&manifest).into_iter();
        let waiting = waiting.map(|(log, run)| Waiting { log, run });
        let listed = std::mem::take(&mut manifest.segments).into_iter();
        let owners = listed.map(|segment| (segment.number, segment.owner));
        manifest.retired.clear();
        Self {
            covered,
            waiting: waiting.collect(),
            owners: owners.collect(),
            manifest,
            sink: None,
            run: None,
        }
    }

    /// Takes what is of the run under way, or of the next one.
    fn take(
        &mut self,
        store: &Store,
        base: u64,
        data: &mut Bytes,
        at: u64,
    ) -> Result<(), ImportError> {
        let unsound = |kind| ImportError::Unsound { at, kind };
        let needed = data.len() as u64;
        let full = |failure| full_or(failure, needed);
        let (waiting, mut run) = match self.run.take() {
            Some(run) => run,
            None => {
                let next = self.waiting.pop_front();
                let next = next.ok_or_else(|| unsound(Corruption::Length))?;
                let sink = self.sink(store, base, next.run.file).map_err(full)?;
                let seed = segment::seed(store.shard, next.log);
                (next, sink.begin_run(next.run, seed).map_err(unsound)?)
            }
        };
        let Some((_, sink)) = &mut self.sink else {
            return Err(unsound(Corruption::Content));
        };
        sink.take(&mut run, data).map_err(unsound)?;
        if !run.is_complete() {
            self.run = Some((waiting, run));
            return Ok(());
        }
        let here = sink.end_run(run).map_err(unsound)?;
        let bytes = sink.bytes();
        self.note(waiting, here, bytes).map_err(unsound)
    }

    /// A run is here: the list of bodies says so.
    fn note(&mut self, waiting: Waiting, here: Run, bytes: u64) -> Result<(), Corruption> {
        let logs = &mut self.manifest.logs;
        let log = logs.binary_search_by_key(&waiting.log, |listed| listed.log);
        let log = log.map_err(|_| Corruption::Content)?;
        let runs = &mut logs[log].runs;
        let run = runs.binary_search_by_key(&waiting.run.first, |run| run.first);
        runs[run.map_err(|_| Corruption::Content)?] = here;
        let listed = self.manifest.segments.last_mut();
        let listed = listed.filter(|listed| listed.number == here.file);
        listed.ok_or(Corruption::Content)?.bytes = bytes;
        Ok(())
    }

    /// The segment for what comes of a segment of the sender's.
    fn sink(&mut self, store: &Store, base: u64, theirs: u64) -> Result<&mut Sink, DiskFailure> {
        let goes_on = self.sink.as_ref().is_some_and(|(of, _)| *of == theirs);
        if !goes_on {
            if let Some((_, done)) = self.sink.take() {
                done.finish()?;
            }
            let number = base + self.manifest.segments.len() as u64;
            let owner = self.owners.get(&theirs).copied().flatten();
            let path = store.segment_path(number);
            let file = store.dir.disk().open(&path, OpenMode::CreateNew);
            let file = file.map_err(failed(Action::Create, &path))?;
            let shard = store.shard;
            let header = FileHeader { shard, number }.encode();
            let sink = Sink::new((file, path), number, header);
            let bytes = sink.bytes();
            self.manifest.segments.push(ListedSegment {
                number,
                bytes,
                owner,
            });
            self.sink = Some((theirs, sink));
        }
        let (_, sink) = self.sink.as_mut().expect("made above");
        Ok(sink)
    }
}
