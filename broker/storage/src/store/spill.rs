//! What a checkpoint does with bodies: writes those in memory to segments, and those again that
//! pin a segment of which little is alive; then, once the checkpoint is durable, lets readers find
//! them there and frees the memory.
//!
//! Until `publish` nobody else sees what was written: an attempt that fails leaves the store as it
//! was, and the next one writes over it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use millrace_types::{LogId, LogIndex};

use super::Store;
use super::files::Known;
use super::log::{Batch, Log};
use super::rewrite::{self, Rewriting, Victims};
use super::run::Run;
use super::segment::{self, SEGMENT_BYTES_MAX};
use super::segment_writer::{Frames, Part, Writer};
use crate::disk::OpenMode;
use crate::error::{Action, DiskFailure, failed};

/// Bytes written in one step, about.
const STEP_BYTES: u64 = 4 << 20;
/// A log with as much as this to write gets a segment of its own, which goes away with its
/// messages; what is less shares one, as a file and a sync for each would cost more than they save.
const OWN_BYTES_MIN: u64 = 1 << 20;

/// Bodies appended before a checkpoint began, as seen by the worker that asked for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut(u64);

/// How much a checkpoint does besides what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Also rewrites.
    Full,
    /// Needs as little room as possible.
    Least,
}

/// A spill under way.
pub(crate) struct Spill {
    pub(super) index: LogIndex,
    cut: Cut,
    /// To be rewritten when everything else is written.
    victims: Option<Victims>,
    waiting: VecDeque<Task>,
    current: Option<Current>,
    /// The segment that logs with little to write share.
    shared: Option<Writer>,
    own: Option<Writer>,
    unsynced: VecDeque<Writer>,
    dir_synced: bool,
    /// Every segment that was added to.
    pub(super) touched: Vec<Touched>,
    pub(super) changes: Vec<Change>,
    /// Runs with nothing alive: not in the manifest any more.
    pub(super) dead: Vec<(Arc<Log>, Run)>,
    /// Segments that the manifest does not list any more.
    pub(super) retired: Vec<u64>,
}

enum Task {
    Spill(Arc<Log>),
    Rewrite(Rewriting),
}

/// The log that is being written.
struct Current {
    log: Arc<Log>,
    source: Source,
    owner: Option<LogId>,
    replaces: Vec<Run>,
    written: Vec<Run>,
}

enum Source {
    Memory(std::iter::FlatMap<std::vec::IntoIter<Part>, Frames, fn(Part) -> Frames>),
    Disk(Rewriting),
}

/// A segment that is added to.
pub(super) struct Touched {
    pub(super) number: u64,
    pub(super) owner: Option<LogId>,
    /// Its length before; `None`: it is new.
    before: Option<u64>,
    pub(super) bytes: u64,
}

/// What becomes of a log.
pub(super) struct Change {
    pub(super) log: Arc<Log>,
    pub(super) removed: Vec<Run>,
    pub(super) added: Vec<Run>,
}

impl Store {
    /// Draws the line: what was appended before belongs to the checkpoint, what comes after does
    /// not. Called by the worker, between two entries.
    pub(crate) fn cut(&self) -> Cut {
        Cut(self.epoch.fetch_add(1, Ordering::AcqRel))
    }

    /// Begins a spill of what lies before the line.
    pub(crate) fn begin_spill(&self, cut: Cut, index: LogIndex, effort: Effort) -> Spill {
        let logs = self.all_logs();
        Spill {
            index,
            cut,
            victims: (effort == Effort::Full).then(|| rewrite::choose(self, &logs)),
            waiting: logs.into_iter().map(Task::Spill).collect(),
            current: None,
            shared: None,
            own: None,
            unsynced: VecDeque::new(),
            dir_synced: false,
            touched: Vec::new(),
            changes: Vec::new(),
            dead: Vec::new(),
            retired: Vec::new(),
        }
    }

    pub(super) fn all_logs(&self) -> Vec<Arc<Log>> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.active.values().cloned().collect()
    }

    /// Writes a few MiB, or syncs one segment; true when everything is written and synced. After an
    /// error call `abandon`.
    pub(crate) fn spill_step(&self, spill: &mut Spill) -> Result<bool, DiskFailure> {
        if let Some(writer) = spill.unsynced.pop_front() {
            writer.sync()?;
            self.stats.syncs.add(1);
            return Ok(false);
        }
        let mut budget = STEP_BYTES;
        while budget > 0 && spill.unsynced.is_empty() {
            if spill.current.is_some() {
                self.write_some(spill, &mut budget)?;
            } else if let Some(task) = spill.waiting.pop_front() {
                spill.current = begin(task, spill.cut);
            } else if let Some(victims) = spill.victims.take() {
                let rewriting = rewrite::plan(self, &victims);
                spill
                    .waiting
                    .extend(rewriting.into_iter().map(Task::Rewrite));
            } else if let Some(shared) = spill.shared.take() {
                spill.retire(shared)?;
            } else {
                return self.finish_names(spill);
            }
        }
        Ok(false)
    }

    /// Names of new segments have to be durable, too.
    fn finish_names(&self, spill: &mut Spill) -> Result<bool, DiskFailure> {
        let new = spill.touched.iter().any(|touched| touched.before.is_none());
        if spill.dir_synced || !new {
            return Ok(true);
        }
        spill.dir_synced = true;
        let directory = self.files.directory();
        let disk = self.dir.disk();
        disk.sync_dir(directory)
            .map_err(failed(Action::Sync, directory))?;
        Ok(false)
    }

    fn write_some(&self, spill: &mut Spill, budget: &mut u64) -> Result<(), DiskFailure> {
        let Some(mut current) = spill.current.take() else {
            return Ok(());
        };
        let seed = segment::seed(self.shard, current.log.id);
        loop {
            let parts = match &mut current.source {
                Source::Memory(parts) => parts.next().map(|part| vec![part]),
                Source::Disk(rewriting) => match rewriting.next(self, &current.log) {
                    Ok(parts) => parts,
                    Err(error) => {
                        // It stays where it is; what was copied of it is not listed.
                        tracing::error!(%error, "a segment is damaged; it is not rewritten");
                        spill.end_run(&current);
                        return spill.retire_own();
                    }
                },
            };
            let Some(parts) = parts else {
                current.written.extend(spill.end_run(&current));
                spill.finish(current);
                return spill.retire_own();
            };
            for part in parts {
                let bytes = part.frame_bytes();
                *budget = budget.saturating_sub(bytes);
                let writer = self.writer(spill, current.owner)?;
                writer.push(seed, part)?;
                let full = writer.bytes() >= SEGMENT_BYTES_MAX;
                self.stats.segment_bytes.add(bytes);
                if matches!(current.source, Source::Disk(_)) {
                    self.stats.rewritten_bytes.add(bytes);
                }
                if full {
                    current.written.extend(spill.end_run(&current));
                    let writer = match current.owner {
                        Some(_) => spill.own.take(),
                        None => spill.shared.take(),
                    };
                    writer.map_or(Ok(()), |writer| spill.retire(writer))?;
                }
            }
            if *budget == 0 {
                spill.current = Some(current);
                return Ok(());
            }
        }
    }

    /// Where to write what is for `owner`, or for everybody.
    fn writer<'a>(
        &self,
        spill: &'a mut Spill,
        owner: Option<LogId>,
    ) -> Result<&'a mut Writer, DiskFailure> {
        let there = match owner {
            Some(_) => spill.own.is_some(),
            None => spill.shared.is_some(),
        };
        if !there {
            let writer = self.open_writer(spill, owner)?;
            match owner {
                Some(_) => spill.own = Some(writer),
                None => spill.shared = Some(writer),
            }
        }
        let writer = match owner {
            Some(_) => spill.own.as_mut(),
            None => spill.shared.as_mut(),
        };
        Ok(writer.expect("opened above"))
    }

    fn open_writer(&self, spill: &mut Spill, owner: Option<LogId>) -> Result<Writer, DiskFailure> {
        let (number, before) = {
            let mut state = self.files.lock();
            match state.growing(owner, |number| !spill.has_touched(number)) {
                Some((number, bytes)) => (number, Some(bytes)),
                None => {
                    state.next += 1;
                    (state.next - 1, None)
                }
            }
        };
        // Noted before anything is written, so that `abandon` knows it.
        spill.touched.push(Touched {
            number,
            owner,
            before,
            bytes: before.unwrap_or(0),
        });
        let path = self.files.path(number);
        let (disk, directory) = (self.dir.disk(), self.files.directory());
        let mode = match before {
            Some(_) => OpenMode::Write,
            None => {
                disk.create_dir_all(directory)
                    .map_err(failed(Action::Create, directory))?;
                OpenMode::CreateNew
            }
        };
        let file = disk.open(&path, mode);
        let file = file.map_err(failed(Action::Open, &path))?;
        let mut writer = Writer::new((file, path), number, before.unwrap_or(0));
        if before.is_none() {
            writer.write_header(self.shard);
        }
        Ok(writer)
    }

    /// The checkpoint is durable: readers find on disk what was written, and the memory is free.
    /// What nothing lists any more is to be removed now.
    pub(crate) fn publish(&self, spill: Spill) -> Vec<u64> {
        let mut grown = 0;
        {
            let mut files = self.files.lock();
            for touched in &spill.touched {
                grown += touched.bytes - touched.before.unwrap_or(0);
                let (bytes, owner) = (touched.bytes, touched.owner);
                let closed = bytes >= SEGMENT_BYTES_MAX;
                files.known.insert(
                    touched.number,
                    Known {
                        bytes,
                        owner,
                        closed,
                    },
                );
            }
        }
        self.disk_bytes.fetch_add(grown, Ordering::Relaxed);
        let mut idle = Vec::new();
        for Change {
            log,
            removed,
            added,
        } in spill.changes
        {
            let mut state = log.lock();
            if state.removed {
                continue;
            }
            state.runs = state.runs_after(&removed, &added);
            let cut = spill.cut;
            let freed = state
                .batches
                .extract_if(.., |_, resident| resident.batch.epoch <= cut.0);
            let freed: Vec<_> = freed.map(|(_, resident)| resident.batch).collect();
            state.let_go();
            drop(state);
            // Given back without the lock: it may be a lot.
            let freed = freed.iter().map(|batch| batch.memory_bytes()).sum();
            self.memory_bytes.fetch_sub(freed, Ordering::Relaxed);
        }
        for (log, run) in spill.dead {
            let mut state = log.lock();
            state.runs.retain(|other| other.place() != run.place());
            if state.is_empty() {
                state.runs = Vec::new();
                drop(state);
                idle.push(log);
            }
        }
        self.forget_idle(idle);
        self.stats.checkpoints.add(1);
        spill.retired
    }

    /// Removes a segment that the checkpoint in force does not list.
    pub(crate) fn remove_segment(&self, number: u64) -> Result<(), DiskFailure> {
        let bytes = self.files.remove(number)?;
        self.disk_bytes.fetch_sub(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// The checkpoint did not come to be: gives back the room that the attempt took.
    pub(crate) fn abandon(&self, spill: Spill) {
        let disk = self.dir.disk();
        for touched in spill.touched {
            let path = self.files.path(touched.number);
            match touched.before {
                // Best effort: what is behind the end is cut by the next start.
                Some(bytes) => {
                    if let Ok(open) = disk.open(&path, OpenMode::Write) {
                        drop(open.set_bytes(bytes));
                    }
                }
                None => {
                    if disk.remove(&path).is_err() {
                        // The next checkpoint removes it.
                        let (bytes, owner, closed) = (0, touched.owner, true);
                        let known = Known {
                            bytes,
                            owner,
                            closed,
                        };
                        self.files.lock().known.insert(touched.number, known);
                    }
                }
            }
        }
    }
}

impl Spill {
    pub(super) fn has_touched(&self, number: u64) -> bool {
        self.touched.iter().any(|touched| touched.number == number)
    }

    fn end_run(&mut self, current: &Current) -> Option<Run> {
        match current.owner {
            Some(_) => self.own.as_mut(),
            None => self.shared.as_mut(),
        }
        .and_then(Writer::end_run)
    }

    fn finish(&mut self, current: Current) {
        self.changes.push(Change {
            log: current.log,
            removed: current.replaces,
            added: current.written,
        });
    }

    fn retire_own(&mut self) -> Result<(), DiskFailure> {
        let own = self.own.take();
        own.map_or(Ok(()), |writer| self.retire(writer))
    }

    /// Nothing more is added to this segment; it is synced by the next step.
    fn retire(&mut self, mut writer: Writer) -> Result<(), DiskFailure> {
        writer.flush()?;
        for touched in &mut self.touched {
            if touched.number == writer.number {
                touched.bytes = writer.bytes();
            }
        }
        self.unsynced.push_back(writer);
        Ok(())
    }
}

/// What is to be written of a log; `None` when there is nothing.
fn begin(task: Task, cut: Cut) -> Option<Current> {
    let own = |log: &Log, bytes| (bytes >= OWN_BYTES_MIN).then_some(log.id);
    match task {
        Task::Spill(log) => {
            let parts = live_parts(&log, cut);
            let bytes: u64 = parts.iter().map(Part::frame_bytes).sum();
            (!parts.is_empty()).then(|| Current {
                owner: own(&log, bytes),
                log,
                source: Source::Memory(parts.into_iter().flat_map(Part::frames)),
                replaces: Vec::new(),
                written: Vec::new(),
            })
        }
        Task::Rewrite(rewriting) => Some(Current {
            owner: own(&rewriting.log, rewriting.bytes),
            log: Arc::clone(&rewriting.log),
            replaces: rewriting.runs.iter().copied().collect(),
            source: Source::Disk(rewriting),
            written: Vec::new(),
        }),
    }
}

/// What of a log is to be written.
fn live_parts(log: &Log, cut: Cut) -> Vec<Part> {
    let batches: Vec<(Arc<Batch>, Vec<Range<u64>>)> = {
        let state = log.lock();
        let all = state.batches.values().map(|resident| &resident.batch);
        all.filter(|batch| batch.epoch <= cut.0)
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
