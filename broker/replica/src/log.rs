//! The part of the log that is in memory, as raft-rs reads it: what is not applied and a little
//! more, and the term of every entry since the last compaction.
//!
//! Promises: entries that are not applied are always here; those before may be asked for, which
//! only sending to a follower does. Does not know what is synced.

use std::cell::RefCell;
use std::collections::VecDeque;

use raft::eraftpb::{Entry, EntryType, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::entry::Mark;
use super::recovered::{Passed, Point};

/// The first entry is never sent to a follower: whoever lacks it knows no members, and starts from
/// a snapshot, which has them.
const SENT_FIRST: u64 = 2;
/// What an entry costs besides its bytes.
const ENTRY_BYTES: u64 = 128;

/// The log of one replica.
pub(crate) struct Log {
    initial: RaftState,
    /// What can be sent to a follower that is too far behind.
    point: Point,
    /// The last entry that is gone.
    before: Mark,
    last: u64,
    /// Where each term begins, ascending, of the entries that are not gone.
    terms: VecDeque<(u64, u64)>,
    window: VecDeque<Held>,
    /// Bytes of all that ever was in the window.
    total: u64,
    /// Places of changes of members that are not gone.
    changes: VecDeque<u64>,
    asked: RefCell<Asked>,
}

struct Held {
    entry: Entry,
    /// Bytes of all that came before it, in any window.
    bytes_before: u64,
}

/// What raft-rs asked for while it only had a shared reference.
#[derive(Default)]
struct Asked {
    loads: Vec<Pending>,
    staged: Option<Staged>,
    snapshot: bool,
}

struct Pending {
    from: u64,
    to: u64,
    bytes_max: u64,
    told: bool,
    context: GetEntriesContext,
}

/// Entries that have been loaded; none when they are gone for good.
struct Staged {
    from: u64,
    entries: Vec<Entry>,
}

impl Log {
    /// A log that begins behind a point and has nothing in memory yet; `initial` is for raft-rs.
    pub(crate) fn new(point: Point, passed: &Passed, initial: RaftState) -> Self {
        let terms = passed.terms.iter();
        let changes = passed.changes.iter();
        Self {
            initial,
            before: point.mark,
            last: passed.last().unwrap_or(point.mark).index.get(),
            point,
            terms: terms
                .map(|mark| (mark.index.get(), mark.term.get()))
                .collect(),
            window: VecDeque::new(),
            total: 0,
            changes: changes.map(|entry| entry.index.get()).collect(),
            asked: RefCell::default(),
        }
    }

    /// Takes entries, dense; the first may replace one that is there, and all behind it.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return;
        };
        assert!(
            first > self.gone() && first <= self.last + 1,
            "raft-rs appends at {first} to a log from {} to {}",
            self.gone(),
            self.last
        );
        self.truncate(first);
        for entry in entries {
            self.last = entry.index;
            if self
                .terms
                .back()
                .is_none_or(|(_, term)| *term != entry.term)
            {
                self.terms.push_back((entry.index, entry.term));
            }
            if entry.get_entry_type() != EntryType::EntryNormal {
                self.changes.push_back(entry.index);
            }
            let bytes_before = self.total;
            self.total += size(&entry);
            self.window.push_back(Held {
                entry,
                bytes_before,
            });
        }
    }

    fn truncate(&mut self, first: u64) {
        while self.terms.back().is_some_and(|(index, _)| *index >= first) {
            self.terms.pop_back();
        }
        while self.changes.back().is_some_and(|index| *index >= first) {
            self.changes.pop_back();
        }
        while let Some(held) = self.window.pop_back_if(|held| held.entry.index >= first) {
            self.total = held.bytes_before;
        }
        self.last = first - 1;
    }

    /// A snapshot takes the place of everything.
    pub(crate) fn install(&mut self, point: Point) {
        self.before = point.mark;
        self.last = point.mark.index.get();
        self.terms.clear();
        self.window.clear();
        self.changes.clear();
        self.point = point;
    }

    /// A later state can be sent.
    pub(crate) fn snapshot_made(&mut self, point: Point) {
        if point.mark.index > self.point.mark.index {
            self.point = point;
        }
    }

    /// Forgets entries up to and including one that is there.
    pub(crate) fn compact(&mut self, upto: u64) {
        let Some(term) = self.term_of(upto).filter(|_| upto > self.gone()) else {
            return;
        };
        self.before = Mark::new(upto, term);
        while self.window.front().is_some_and(|h| h.entry.index <= upto) {
            self.window.pop_front();
        }
        while self.changes.front().is_some_and(|index| *index <= upto) {
            self.changes.pop_front();
        }
        while self
            .terms
            .get(1)
            .is_some_and(|(index, _)| *index <= upto + 1)
        {
            self.terms.pop_front();
        }
        if upto == self.last {
            self.terms.clear();
        } else if let Some((index, _)) = self.terms.front_mut() {
            *index = (*index).max(upto + 1);
        }
    }

    /// Lets go of what is applied and too much.
    pub(crate) fn evict(&mut self, applied: u64, kept_bytes_max: u64) {
        while let Some(held) = self.window.front() {
            let kept = self.total - held.bytes_before;
            if held.entry.index > applied || kept <= kept_bytes_max {
                return;
            }
            self.window.pop_front();
        }
    }

    /// Bytes of the entries after one.
    pub(crate) fn bytes_after(&self, index: u64) -> u64 {
        // Before the window: a snapshot is being installed, or it was let go; then all of it.
        let at = self.place(index + 1).unwrap_or_default();
        let held = self.window.get(at);
        held.map_or(0, |held| self.total - held.bytes_before)
    }

    /// Whether a change of members is after the one and not after the other.
    pub(crate) fn has_change(&self, after: u64, upto: u64) -> bool {
        self.changes.iter().any(|at| *at > after && *at <= upto)
    }

    /// The term of an entry that is there, or of the last one that is gone.
    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.gone() {
            return Some(self.before.term.get());
        }
        if index < self.gone() || index > self.last {
            return None;
        }
        let behind = self.terms.partition_point(|(first, _)| *first <= index);
        Some(self.terms[behind - 1].1)
    }

    /// Entries that raft-rs wants and has not been told of.
    pub(crate) fn take_loads(&mut self) -> Vec<(u64, u64, u64)> {
        let asked = self.asked.get_mut();
        let mut loads = Vec::new();
        for pending in asked.loads.iter_mut().filter(|pending| !pending.told) {
            pending.told = true;
            loads.push((pending.from, pending.to, pending.bytes_max));
        }
        loads
    }

    /// Whether a later snapshot is wanted; not any more after this.
    pub(crate) fn take_wants_snapshot(&mut self) -> bool {
        std::mem::take(&mut self.asked.get_mut().snapshot)
    }

    /// Whether somebody has to be told of something.
    pub(crate) fn asks(&self) -> bool {
        let asked = self.asked.borrow();
        asked.snapshot || asked.loads.iter().any(|pending| !pending.told)
    }

    /// Has loaded entries at hand; returns for whom they are. `unstage` comes after.
    pub(crate) fn stage(&mut self, from: u64, entries: Vec<Entry>) -> Vec<GetEntriesContext> {
        let asked = self.asked.get_mut();
        let mut contexts = Vec::new();
        let (wanted, others) = std::mem::take(&mut asked.loads)
            .into_iter()
            .partition::<Vec<_>, _>(|pending| pending.from == from && pending.told);
        asked.loads = others;
        contexts.extend(wanted.into_iter().map(|pending| pending.context));
        asked.staged = Some(Staged { from, entries });
        contexts
    }

    /// Drops what was loaded.
    pub(crate) fn unstage(&mut self) {
        self.asked.get_mut().staged = None;
    }

    /// The last entry that is gone.
    pub(crate) const fn gone(&self) -> u64 {
        self.before.index.get()
    }

    /// Where an entry is in the window, or would be behind it; `None` when it is before it.
    fn place(&self, index: u64) -> Option<usize> {
        let first = self.window.front()?.entry.index;
        usize::try_from(index.checked_sub(first)?).ok()
    }

    fn ask(&self, from: u64, to: u64, bytes_max: u64, context: GetEntriesContext) {
        let mut asked = self.asked.borrow_mut();
        // Who else wants the same asks again with its next heartbeat.
        if !asked.loads.iter().any(|pending| pending.from == from) {
            asked.loads.push(Pending {
                from,
                to,
                bytes_max,
                told: false,
                context,
            });
        }
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        if low <= self.gone() || (low < SENT_FIRST && context.can_async()) {
            return Err(StorageError::Compacted.into());
        }
        if let Some(at) = self.place(low) {
            let count = usize::try_from(high - low).unwrap_or(usize::MAX);
            let held = self.window.iter().skip(at).take(count);
            return Ok(fit(held.map(|held| &held.entry), bytes_max));
        }
        if !context.can_async() {
            return Err(StorageError::Unavailable.into());
        }
        if let Some(staged) = &self.asked.borrow().staged
            && staged.from == low
        {
            if staged.entries.is_empty() {
                return Err(StorageError::Compacted.into());
            }
            let within = staged.entries.iter().filter(|entry| entry.index < high);
            return Ok(fit(within, bytes_max));
        }
        self.ask(low, high, bytes_max, context);
        Err(StorageError::LogTemporarilyUnavailable.into())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let missing = if index < self.gone() {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        };
        self.term_of(index).ok_or_else(|| missing.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.gone() + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let index = self.point.mark.index.get();
        let knows = self.point.members.find(millrace_types::ReplicaId::new(to));
        // One that does not know its receiver would be ignored there.
        if index == 0 || index < request_index.max(self.gone()) || knows.is_none() {
            self.asked.borrow_mut().snapshot = true;
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(super::convert::snapshot(&self.point))
    }
}

/// The first of them that fit, at least one.
fn fit<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: u64) -> Vec<Entry> {
    let mut bytes = 0;
    let mut fitting = Vec::new();
    for entry in entries {
        bytes += size(entry);
        if bytes > bytes_max && !fitting.is_empty() {
            break;
        }
        fitting.push(entry.clone());
    }
    fitting
}

/// What an entry costs in memory, about.
pub(crate) fn size(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len()) as u64 + ENTRY_BYTES
}
