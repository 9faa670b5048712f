//! What a checkpoint does with bodies: writes those in memory to segments, then, once the
//! checkpoint is durable, lets readers find them there and frees the memory.
//!
//! Until `publish` nobody else sees what was written: an attempt that fails leaves the store as it
//! was, and the next one writes over it.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};

use bytes::Bytes;
use millrace_types::{LogIndex, Offset, Wall};

use super::Store;
use super::log::{Batch, Log};
use super::segment::{
    self, FRAME_HEADER_BYTES, FileHeader, FrameHeader, HEADER_BYTES, IndexBuilder,
    SEGMENT_BYTES_MAX, Segment,
};
use crate::checkpoint::{ListedLog, ListedSegment, Manifest};
use crate::disk::{DiskFile, OpenMode};
use crate::error::{Action, DiskFailure, failed};

/// Bytes handed to the disk at a time.
const WRITE_BYTES: u64 = 1 << 20;

/// Bodies appended before a checkpoint began, as seen by the worker that asked for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut(u64);

/// A spill under way.
pub(crate) struct Spill {
    cut: Cut,
    index: LogIndex,
    written: Vec<(Arc<Log>, Vec<Written>)>,
    /// Of logs that are gone.
    doomed: Vec<Arc<Segment>>,
    /// Whole segments with nothing alive: not in the manifest any more.
    dead: Vec<(Arc<Log>, Arc<Segment>)>,
}

/// A segment with what was added to it.
struct Written {
    first: u64,
    end: u64,
    bytes: u64,
    /// Unless the segment was there before and its index is not known.
    blocks: Option<IndexBuilder>,
    is_new: bool,
}

impl Store {
    /// Draws the line: what was appended before belongs to the checkpoint, what comes after does
    /// not. Called by the worker, between two entries.
    pub(crate) fn cut(&self) -> Cut {
        Cut(self.epoch.fetch_add(1, Ordering::AcqRel))
    }

    /// Writes what lies before the line to segments and syncs it.
    ///
    /// After an error call `abandon`.
    pub(crate) fn spill(&self, cut: Cut, index: LogIndex) -> (Spill, Result<(), DiskFailure>) {
        let doomed = {
            let mut doomed = self.doomed.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *doomed)
        };
        let logs: Vec<Arc<Log>> = {
            let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
            logs.values().cloned().collect()
        };
        let mut spill = Spill {
            cut,
            index,
            written: Vec::new(),
            doomed,
            dead: Vec::new(),
        };
        let mut new_directories = false;
        for log in logs {
            let parts = live_parts(&log, cut);
            if parts.is_empty() {
                continue;
            }
            let mut files = Vec::new();
            let result = self.write_log(&log, parts, index, &mut files);
            new_directories |= files.iter().any(|file| file.is_new);
            spill.written.push((log, files));
            if let Err(failure) = result {
                return (spill, Err(failure));
            }
        }
        let result = if new_directories {
            self.dir
                .disk()
                .sync_dir(&self.path)
                .map_err(failed(Action::Sync, &self.path))
        } else {
            Ok(())
        };
        (spill, result)
    }

    fn write_log(
        &self,
        log: &Log,
        parts: Vec<Part>,
        index: LogIndex,
        files: &mut Vec<Written>,
    ) -> Result<(), DiskFailure> {
        let mut last = log.lock().segments.last_key_value().map(|(_, segment)| {
            let mut blocks = IndexBuilder::default();
            let known = segment.index.get();
            if let Some(known) = known {
                blocks.blocks.extend_from_slice(known);
            }
            // Without the start of the index the rest is of no use.
            (Arc::clone(segment), known.map(|_| blocks))
        });
        let mut parts = parts.into_iter().peekable();
        while let Some(part) = parts.peek() {
            let grown = last
                .take()
                .filter(|(segment, _)| segment.bytes < SEGMENT_BYTES_MAX);
            // Noted before anything is written, so that `abandon` knows it.
            let mut writer = match grown {
                Some((segment, blocks)) => {
                    files.push(Written::begun(segment.first.get(), false));
                    self.reopen(log, &segment, blocks)?
                }
                None => {
                    let first = part.range.start;
                    files.push(Written::begun(first, true));
                    self.create(log, first, index)?
                }
            };
            while let Some(part) = parts.next_if(|_| writer.bytes() < SEGMENT_BYTES_MAX) {
                writer.push(part)?;
            }
            let written = writer.finish()?;
            files.pop();
            files.push(written);
        }
        Ok(())
    }

    fn reopen(
        &self,
        log: &Log,
        segment: &Segment,
        blocks: Option<IndexBuilder>,
    ) -> Result<Writer, DiskFailure> {
        let path = self.segment_path(log.id, segment.first);
        let file = self.dir.disk().open(&path, OpenMode::Write);
        let file = file.map_err(failed(Action::Open, &path))?;
        let seed = segment::seed(self.shard, log.id);
        let mut writer = Writer::new(file, path, seed, segment.first.get());
        (writer.at, writer.end, writer.blocks) = (segment.bytes, segment.end.get(), blocks);
        Ok(writer)
    }

    fn create(&self, log: &Log, first: u64, index: LogIndex) -> Result<Writer, DiskFailure> {
        let (disk, path) = (
            self.dir.disk(),
            self.segment_path(log.id, Offset::new(first)),
        );
        let directory = self.path.join(log.id.to_string());
        disk.create_dir_all(&directory)
            .map_err(failed(Action::Create, &directory))?;
        let file = match disk.open(&path, OpenMode::CreateNew) {
            // Of an attempt that failed: nothing lists it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(&path).map_err(failed(Action::Remove, &path))?;
                disk.open(&path, OpenMode::CreateNew)
            }
            opened => opened,
        }
        .map_err(failed(Action::Create, &path))?;
        let (shard, log, first_offset) = (self.shard, log.id, Offset::new(first));
        let header = FileHeader {
            shard,
            log,
            first: first_offset,
            checkpoint: index,
        }
        .encode();
        file.write_all_at(&[IoSlice::new(&header)], 0)
            .map_err(failed(Action::Write, &path))?;
        disk.sync_dir(&directory)
            .map_err(failed(Action::Sync, &directory))?;
        let mut writer = Writer::new(file, path, segment::seed(shard, log), first);
        writer.is_new = true;
        writer.blocks = Some(IndexBuilder::default());
        Ok(writer)
    }

    /// What the checkpoint says about bodies, once everything is written.
    pub(crate) fn manifest(&self, spill: &mut Spill) -> Manifest {
        let logs: Vec<Arc<Log>> = {
            let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
            logs.values().cloned().collect()
        };
        let mut manifest = Manifest {
            index: spill.index,
            ..Manifest::default()
        };
        let written: BTreeMap<_, _> = spill
            .written
            .iter()
            .map(|(log, files)| (log.id, files))
            .collect();
        for log in logs {
            let state = log.lock();
            let mut ranges: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
            for segment in state.segments.values() {
                ranges.insert(segment.first.get(), (segment.end.get(), segment.bytes));
            }
            for file in written
                .get(&log.id)
                .into_iter()
                .flat_map(|files| files.iter())
            {
                ranges.insert(file.first, (file.end, file.bytes));
            }
            let is_dead = |first: u64, end: u64| state.discarded.covers(first..end);
            for (first, (end, _)) in ranges.extract_if(.., |first, (end, _)| is_dead(*first, *end))
            {
                manifest.retired.push((log.id, Offset::new(first)));
                if let Some(segment) = state.segments.get(&first)
                    && segment.end.get() <= end
                {
                    spill.dead.push((Arc::clone(&log), Arc::clone(segment)));
                }
            }
            let (Some((&first, _)), Some((_, &(end, _)))) =
                (ranges.first_key_value(), ranges.last_key_value())
            else {
                continue;
            };
            let discarded = state.discarded.within(first..end);
            manifest.logs.push(ListedLog {
                log: log.id,
                end: Offset::new(state.end),
                segments: ranges.into_iter().map(listed).collect(),
                discarded: discarded
                    .into_iter()
                    .map(|range| (range.start, range.end))
                    .collect(),
            });
        }
        manifest.retired.extend(
            spill
                .doomed
                .iter()
                .map(|segment| (segment.log, segment.first)),
        );
        manifest
    }

    /// The checkpoint is durable: readers find on disk what was written, and the memory is free.
    /// Removes what nothing lists any more.
    pub(crate) fn publish(&self, spill: Spill) -> Result<(), DiskFailure> {
        let mut gone = spill.doomed;
        for (log, files) in spill.written {
            let mut state = log.lock();
            let removed = state.removed;
            let mut added = Vec::new();
            for file in files {
                let before = state
                    .segments
                    .get(&file.first)
                    .map_or(0, |segment| segment.bytes);
                let segment = Arc::new(file.into_segment(log.id));
                self.disk_bytes
                    .fetch_add(segment.bytes - before, Ordering::Relaxed);
                if removed {
                    added.push(segment);
                } else {
                    state.segments.insert(segment.first.get(), segment);
                }
            }
            let freed = free(&mut state.batches, spill.cut);
            drop(state);
            self.memory_bytes.fetch_sub(freed, Ordering::Relaxed);
            // The log went away meanwhile; the next checkpoint does not list it.
            self.doom(added);
        }
        for (log, segment) in spill.dead {
            let mut state = log.lock();
            if let Some(segment) = state.segments.remove(&segment.first.get()) {
                gone.push(segment);
            }
        }
        for segment in gone {
            self.remove_segment(&segment)?;
        }
        Ok(())
    }

    fn remove_segment(&self, segment: &Segment) -> Result<(), DiskFailure> {
        let path = self.segment_path(segment.log, segment.first);
        self.open_files().retain(|(open, _)| *open != path);
        match self.dir.disk().remove(&path) {
            // Doomed twice: with its log, and by a checkpoint that was writing it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.map_err(failed(Action::Remove, &path))?,
        }
        self.disk_bytes.fetch_sub(segment.bytes, Ordering::Relaxed);
        Ok(())
    }

    /// The checkpoint did not come to be: gives back the room that the attempt took.
    pub(crate) fn abandon(&self, spill: Spill) {
        for (log, files) in spill.written {
            for file in files {
                let path = self.segment_path(log.id, Offset::new(file.first));
                if file.is_new {
                    // Best effort: the next attempt, or the next start, removes it too.
                    drop(self.dir.disk().remove(&path));
                } else if let Some(segment) = log.lock().segments.get(&file.first).cloned()
                    && let Ok(open) = self.dir.disk().open(&path, OpenMode::Write)
                {
                    drop(open.set_bytes(segment.bytes));
                }
            }
        }
        self.doom(spill.doomed);
    }
}

fn listed((first, (end, bytes)): (u64, (u64, u64))) -> ListedSegment {
    ListedSegment {
        first: Offset::new(first),
        end: Offset::new(end),
        bytes,
    }
}

/// Records of one batch that are alive, without a gap between them.
struct Part {
    range: Range<u64>,
    stored_at: Wall,
    records: Bytes,
}

/// What of a log is to be written.
fn live_parts(log: &Log, cut: Cut) -> Vec<Part> {
    let batches: Vec<(Arc<Batch>, Vec<Range<u64>>)> = {
        let state = log.lock();
        let before = state.batches.values().filter(|batch| batch.epoch <= cut.0);
        before
            .map(|batch| (Arc::clone(batch), state.discarded.gaps(batch.range())))
            .collect()
    };
    let mut parts = Vec::new();
    for (batch, ranges) in batches {
        for range in ranges {
            // A batch that cannot be divided is kept whole: `append` was promised sound framing,
            // and this is no place to lose anything.
            let (range, records) = match batch.slice(range.clone()) {
                Ok(records) => (range, records),
                Err(_) => (batch.range(), batch.records.clone()),
            };
            let whole = range == batch.range();
            parts.push(Part {
                range,
                stored_at: batch.stored_at,
                records,
            });
            if whole {
                break;
            }
        }
    }
    parts
}

fn free(batches: &mut BTreeMap<u64, Arc<Batch>>, cut: Cut) -> u64 {
    batches
        .extract_if(.., |_, batch| batch.epoch <= cut.0)
        .map(|(_, batch)| batch.bytes())
        .sum()
}

impl Written {
    /// Nothing yet.
    fn begun(first: u64, is_new: bool) -> Self {
        Self {
            first,
            end: first,
            bytes: 0,
            blocks: None,
            is_new,
        }
    }

    fn into_segment(self, log: millrace_types::LogId) -> Segment {
        let index = OnceLock::new();
        if let Some(blocks) = self.blocks {
            drop(index.set(blocks.blocks.into()));
        }
        let (first, end) = (Offset::new(self.first), Offset::new(self.end));
        Segment {
            log,
            first,
            end,
            bytes: self.bytes,
            index,
        }
    }
}

/// Appends frames to a segment.
struct Writer {
    file: Arc<dyn DiskFile>,
    path: std::path::PathBuf,
    seed: u32,
    first: u64,
    end: u64,
    /// Where `pending` goes.
    at: u64,
    pending: Vec<(Vec<u8>, Bytes)>,
    pending_bytes: u64,
    blocks: Option<IndexBuilder>,
    is_new: bool,
}

impl Writer {
    fn new(file: Arc<dyn DiskFile>, path: std::path::PathBuf, seed: u32, first: u64) -> Self {
        Self {
            file,
            path,
            seed,
            first,
            end: first,
            at: HEADER_BYTES,
            pending: Vec::new(),
            pending_bytes: 0,
            blocks: None,
            is_new: false,
        }
    }

    fn bytes(&self) -> u64 {
        self.at + self.pending_bytes
    }

    fn push(&mut self, part: Part) -> Result<(), DiskFailure> {
        let Part {
            range,
            stored_at,
            records,
        } = part;
        let count = u32::try_from(range.end - range.start).expect("at most a batch");
        let header = FrameHeader::new(range.start, count, stored_at, &records, self.seed);
        let at = self.bytes();
        if let Some(blocks) = &mut self.blocks {
            blocks.push(&header, at);
        }
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES);
        header.encode(self.seed, &mut bytes);
        self.pending_bytes += bytes.len() as u64 + records.len() as u64;
        self.pending.push((bytes, records));
        self.end = range.end;
        if self.pending_bytes >= WRITE_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), DiskFailure> {
        let mut slices = Vec::with_capacity(2 * self.pending.len());
        for (header, records) in &self.pending {
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(records));
        }
        self.file
            .write_all_at(&slices, self.at)
            .map_err(failed(Action::Write, &self.path))?;
        self.at += self.pending_bytes;
        self.pending_bytes = 0;
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Written, DiskFailure> {
        self.flush()?;
        self.file
            .sync_data()
            .map_err(failed(Action::Sync, &self.path))?;
        let Self {
            first,
            end,
            at: bytes,
            blocks,
            is_new,
            ..
        } = self;
        Ok(Written {
            first,
            end,
            bytes,
            blocks,
            is_new,
        })
    }
}
