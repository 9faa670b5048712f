//! What a checkpoint does with bodies: writes those in memory to segments, then, once the
//! checkpoint is durable, lets readers find them there and frees the memory.
//!
//! Until `publish` nobody else sees what was written: an attempt that fails leaves the store as it
//! was, and the next one writes over it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use millrace_types::{LogId, LogIndex, Offset};

use super::Store;
use super::log::{Batch, Log, State};
use super::segment::{self, FileHeader, IndexBuilder, SEGMENT_BYTES_MAX, Segment};
use super::segment_writer::{Part, Writer, Written};
use crate::checkpoint::{ListedLog, ListedSegment, Manifest};
use crate::disk::OpenMode;
use crate::error::{Action, DiskFailure, failed};

/// Bodies appended before a checkpoint began, as seen by the worker that asked for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut(u64);

/// A spill under way.
pub(crate) struct Spill {
    cut: Cut,
    index: LogIndex,
    waiting: VecDeque<Arc<Log>>,
    written: Vec<(Arc<Log>, Vec<Written>)>,
    /// Of logs that are gone.
    doomed: Vec<Arc<Segment>>,
    /// Whole segments with nothing alive: not in the manifest any more.
    dead: Vec<(Arc<Log>, Arc<Segment>)>,
}

impl Store {
    /// Draws the line: what was appended before belongs to the checkpoint, what comes after does
    /// not. Called by the worker, between two entries.
    pub(crate) fn cut(&self) -> Cut {
        Cut(self.epoch.fetch_add(1, Ordering::AcqRel))
    }

    /// Begins a spill of what lies before the line.
    pub(crate) fn begin_spill(&self, cut: Cut, index: LogIndex) -> Spill {
        Spill {
            cut,
            index,
            waiting: self.all_logs(),
            written: Vec::new(),
            doomed: Vec::new(),
            dead: Vec::new(),
        }
    }

    /// Writes the bodies of one log and syncs them; true when that was the last. After an error
    /// call `abandon`.
    pub(crate) fn spill_step(&self, spill: &mut Spill) -> Result<bool, DiskFailure> {
        while let Some(log) = spill.waiting.pop_front() {
            let parts = live_parts(&log, spill.cut);
            let mut files = Vec::new();
            let result = self.write_log(&log, parts, spill.index, &mut files);
            let wrote = !files.is_empty();
            // Also without files: its memory may be freed.
            spill.written.push((log, files));
            result?;
            if wrote {
                break;
            }
        }
        Ok(spill.waiting.is_empty())
    }

    fn all_logs(&self) -> VecDeque<Arc<Log>> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.values().cloned().collect()
    }

    fn write_log(
        &self,
        log: &Log,
        parts: Vec<Part>,
        index: LogIndex,
        files: &mut Vec<Written>,
    ) -> Result<(), DiskFailure> {
        let mut parts = parts.into_iter().peekable();
        let mut growing = growing_segment(log);
        while let Some(part) = parts.peek() {
            // Noted before anything is written, so that `abandon` knows it.
            let mut writer = match growing.take() {
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
        let logs = {
            let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
            // Under the same lock: a log is either here, or its segments are among the doomed.
            let mut doomed = self.doomed.lock().unwrap_or_else(PoisonError::into_inner);
            spill.doomed.append(&mut doomed);
            logs.clone()
        };
        let mut manifest = Manifest {
            index: spill.index,
            ..Manifest::default()
        };
        let mut written: BTreeMap<LogId, &Vec<Written>> = spill
            .written
            .iter()
            .map(|(log, files)| (log.id, files))
            .collect();
        for (id, log) in logs {
            let files = written.remove(&id);
            let state = log.lock();
            let (listed, dead) = list(&state, files.into_iter().flatten());
            for first in dead {
                manifest.retired.push((id, Offset::new(first)));
                if let Some(segment) = state.segments.get(&first) {
                    spill.dead.push((Arc::clone(&log), Arc::clone(segment)));
                }
            }
            if let (Some(first), Some(last)) = (listed.first(), listed.last()) {
                let discarded = state.discarded.within(first.first.get()..last.end.get());
                manifest.logs.push(ListedLog {
                    log: id,
                    end: Offset::new(state.end),
                    discarded: discarded
                        .into_iter()
                        .map(|part| (part.start, part.end))
                        .collect(),
                    segments: listed,
                });
            }
        }
        for (id, files) in written {
            // The log went away while it was written.
            manifest
                .retired
                .extend(files.iter().map(|file| (id, Offset::new(file.first))));
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
            for file in files {
                let is_new = file.is_new;
                let segment = Arc::new(file.into_segment(log.id));
                let before = state.segments.get(&segment.first.get());
                let before = before.map_or(0, |before| before.bytes);
                if !state.removed {
                    self.disk_bytes
                        .fetch_add(segment.bytes - before, Ordering::Relaxed);
                    state.segments.insert(segment.first.get(), segment);
                } else if is_new {
                    self.disk_bytes.fetch_add(segment.bytes, Ordering::Relaxed);
                    // Not at once: the checkpoint may list it.
                    self.doom([segment]);
                }
            }
            let freed = free(&mut state.batches, spill.cut);
            drop(state);
            let freed = freed.iter().map(|batch| batch.bytes()).sum();
            self.memory_bytes.fetch_sub(freed, Ordering::Relaxed);
        }
        for (log, segment) in spill.dead {
            gone.extend(log.lock().segments.remove(&segment.first.get()));
        }
        for segment in gone {
            self.remove_segment(&segment)?;
        }
        Ok(())
    }

    fn remove_segment(&self, segment: &Segment) -> Result<(), DiskFailure> {
        let path = self.segment_path(segment.log, segment.first);
        self.open_files().retain(|(open, _)| *open != path);
        self.dir
            .disk()
            .remove(&path)
            .map_err(failed(Action::Remove, &path))?;
        self.disk_bytes.fetch_sub(segment.bytes, Ordering::Relaxed);
        if let Some(directory) = path.parent() {
            // Only the last segment of a log leaves it empty; otherwise it is refused.
            drop(self.dir.disk().remove_dir(directory));
        }
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

/// The segment to go on in, if there is one that is neither full nor about to go, and its index.
fn growing_segment(log: &Log) -> Option<(Arc<Segment>, Option<IndexBuilder>)> {
    let state = log.lock();
    let (_, segment) = state.segments.last_key_value()?;
    if segment.bytes >= SEGMENT_BYTES_MAX || state.discarded.covers(segment.range()) {
        return None;
    }
    // Without the start of the index the rest is of no use.
    let index = segment.index.get().map(|index| IndexBuilder {
        blocks: index.to_vec(),
    });
    Some((Arc::clone(segment), index))
}

/// Segments of a log with something alive, and the first offsets of those without.
fn list<'a>(
    state: &State,
    written: impl Iterator<Item = &'a Written>,
) -> (Vec<ListedSegment>, Vec<u64>) {
    let mut segments: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for segment in state.segments.values() {
        segments.insert(segment.first.get(), (segment.end.get(), segment.bytes));
    }
    for file in written {
        segments.insert(file.first, (file.end, file.bytes));
    }
    let (mut listed, mut dead) = (Vec::new(), Vec::new());
    for (first, (end, bytes)) in segments {
        if state.discarded.covers(first..end) {
            dead.push(first);
        } else {
            let (first, end) = (Offset::new(first), Offset::new(end));
            listed.push(ListedSegment { first, end, bytes });
        }
    }
    (listed, dead)
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

/// Takes out what was written. To be dropped without the lock: it may be a lot.
fn free(batches: &mut BTreeMap<u64, Arc<Batch>>, cut: Cut) -> Vec<Arc<Batch>> {
    let written = batches.extract_if(.., |_, batch| batch.epoch <= cut.0);
    written.map(|(_, batch)| batch).collect()
}
