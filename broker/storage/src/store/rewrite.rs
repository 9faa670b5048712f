//! Which bodies are written again, so that little that is alive does not pin much that is not, and
//! so that a log that grows slowly does not end as thousands of runs.
//!
//! A segment of which less than `1 / LIVE_PARTS_MIN` is alive is given up: the rest is copied and
//! the file goes. Each byte copied frees at least two that are dead, and a byte dies once, so
//! this adds at most half of what was written before. Short runs of a log are joined, like sizes
//! with like: this copies a byte about once for each of the `LEVELS` sizes, and only in logs that
//! wrote less than `JOINED_BYTES_MAX` at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Store;
use super::files::State;
use super::log::Log;
use super::run::Run;
use super::segment_writer::Part;
use crate::error::ReadError;
use crate::records;

/// A segment is rewritten when less than one part in so many is alive.
const LIVE_PARTS_MIN: u64 = 3;
/// A segment as small as this is left alone: it pins too little for another file and its name to be
/// worth while.
const SPARED_BYTES_MAX: u64 = 32 << 10;
/// Bytes rewritten by one checkpoint, but for the first segment: about what one writes anyway.
const REWRITE_BYTES_MAX: u64 = 16 << 20;
/// So many runs of like size, one behind the other, are joined.
const JOINED_RUNS_MIN: usize = 8;
/// Runs of this size are left alone: reading them costs no more than reading one.
const JOINED_BYTES_MAX: u32 = 1 << 20;
/// Sizes below that, each eight times the one before.
const LEVELS: u32 = 7;

/// Neighbouring runs of one log that become one.
pub(super) struct Rewriting {
    pub(super) log: Arc<Log>,
    pub(super) runs: VecDeque<Run>,
    /// About as many are alive.
    pub(super) bytes: u64,
    /// The next block of the first run.
    block: usize,
}

/// Segments to give up.
pub(super) struct Victims {
    numbers: BTreeSet<u64>,
    /// What may be joined besides.
    budget: u64,
}

/// Chooses segments to give up; nothing is added to them from now on.
pub(super) fn choose(store: &Store, logs: &[Arc<Log>]) -> Victims {
    let mut live: BTreeMap<u64, u64> = BTreeMap::new();
    for log in logs {
        let state = log.lock();
        for run in &state.runs {
            *live.entry(run.file).or_default() += run.live_bytes(&state.discarded);
        }
    }
    let mut files = store.files.lock();
    let State { known, damaged, .. } = &mut *files;
    let mut thin = Vec::new();
    for (number, known) in known {
        let live = live.get(number).copied().unwrap_or(0);
        let much = known.bytes > SPARED_BYTES_MAX && live * LIVE_PARTS_MIN < known.bytes;
        // One with nothing alive goes by itself, if nothing is added.
        known.closed |= much || live == 0;
        if much && live > 0 && !damaged.contains(number) {
            thin.push((live, *number));
        }
    }
    thin.sort_unstable();
    let (mut numbers, mut budget) = (BTreeSet::new(), REWRITE_BYTES_MAX);
    for (live, number) in thin {
        if live <= budget || numbers.is_empty() {
            budget = budget.saturating_sub(live);
            numbers.insert(number);
        }
    }
    Victims { numbers, budget }
}

/// What to rewrite: what is alive in the segments that are given up, and short runs.
pub(super) fn plan(store: &Store, victims: &Victims) -> Vec<Rewriting> {
    let mut budget = victims.budget;
    let damaged = store.files.lock().damaged.clone();
    let mut plan = Vec::new();
    for log in store.all_logs() {
        let state = log.lock();
        let given_up = |run: &Run| victims.numbers.contains(&run.file);
        let groups = state
            .runs
            .chunk_by(|one, other| given_up(one) == given_up(other));
        for group in groups.filter(|group| group.first().is_some_and(given_up)) {
            plan.extend(Rewriting::new(&log, group.to_vec(), &state));
        }
        let joined = join(&state.runs, |run| {
            !given_up(run) && !damaged.contains(&run.file)
        });
        let bytes: u64 = joined.iter().map(|run| u64::from(run.bytes)).sum();
        if bytes <= budget {
            budget -= bytes;
            plan.extend(Rewriting::new(&log, joined, &state));
        }
    }
    plan
}

/// The shortest runs that are worth joining; none when there are not enough of them.
fn join(runs: &[Run], fit: impl Fn(&Run) -> bool) -> Vec<Run> {
    if runs.len() < JOINED_RUNS_MIN {
        return Vec::new();
    }
    let size = |run: &Run| run.bytes.ilog2() / 3;
    for level in 0..LEVELS {
        let joins = |run: &Run| run.bytes < JOINED_BYTES_MAX && size(run) <= level && fit(run);
        let mut groups = runs.chunk_by(|one, other| joins(one) == joins(other));
        // Shorter ones between them go along; but without enough of this size, one would be copied
        // again and again to add a few that are much shorter.
        let is_worth_it = |group: &&[Run]| {
            let alike = group.iter().filter(|run| size(run) == level && joins(run));
            alike.count() >= JOINED_RUNS_MIN
        };
        if let Some(group) = groups.find(is_worth_it) {
            return group.to_vec();
        }
    }
    Vec::new()
}

impl Rewriting {
    fn new(log: &Arc<Log>, runs: Vec<Run>, state: &super::log::State) -> Option<Self> {
        let live = runs.iter().map(|run| run.live_bytes(&state.discarded));
        let bytes = live.sum();
        // What is dead altogether goes by itself.
        (bytes > 0).then(|| Self {
            log: Arc::clone(log),
            runs: runs.into(),
            bytes,
            block: 0,
        })
    }

    /// The live parts of the next block; `None` at the end.
    pub(super) fn next(
        &mut self,
        store: &Store,
        log: &Log,
    ) -> Result<Option<Vec<Part>>, ReadError> {
        let Some(run) = self.runs.front() else {
            return Ok(None);
        };
        let found = store.block(log.id, run, |_| self.block)?;
        self.block += 1;
        if found.next >= run.end {
            self.block = 0;
            self.runs.pop_front();
        }
        let mut parts = Vec::new();
        for frame in found.frames.iter() {
            let (header, range) = (&frame.header, frame.header.range());
            let gaps = log.lock().discarded.gaps(range.clone());
            let starts = records::starts(&frame.records).ok();
            for gap in gaps {
                let slice = starts.as_ref().and_then(|starts| {
                    let place = |offset: u64| {
                        let place = usize::try_from(offset - range.start).ok()?;
                        Some(*starts.get(place)? as usize)
                    };
                    Some(frame.records.slice(place(gap.start)?..place(gap.end)?))
                });
                let (range, records) = match slice {
                    Some(records) => (gap, records),
                    // It cannot be divided: kept whole, nothing is lost here.
                    None => (range.clone(), frame.records.clone()),
                };
                let whole = range == header.range();
                parts.push(Part {
                    range,
                    stored_at: header.stored_at,
                    records,
                });
                if whole {
                    break;
                }
            }
        }
        Ok(Some(parts))
    }
}
