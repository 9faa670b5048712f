//! What waits for the journal's thread: requests in order, bounded by their bytes, and releases.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use millrace_types::{LogIndex, ShardId};

use super::format::frame_bytes;
use super::{JOURNAL_RECORD_BYTES_MAX, JournalOptions, JournalRecord};
use crate::error::AppendError;

/// Called when everything before it is durable.
pub(crate) type Done = Box<dyn FnOnce() + Send>;

pub(crate) struct Inbox {
    options: JournalOptions,
    state: Mutex<State>,
    work: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    queued_bytes: u64,
    released: BTreeMap<ShardId, LogIndex>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Takes nothing new, what waits is still written.
    Draining,
    Stopped,
}

struct Request {
    records: std::vec::IntoIter<JournalRecord>,
    done: Done,
}

/// What the journal's thread does next.
#[derive(Default)]
pub(crate) struct Work {
    /// One batch; empty when there are only releases.
    pub(crate) records: Vec<JournalRecord>,
    /// Of requests whose last record is in the batch.
    pub(crate) dones: Vec<Done>,
    /// New ones.
    pub(crate) released: BTreeMap<ShardId, LogIndex>,
}

impl Inbox {
    pub(crate) fn new(options: JournalOptions) -> Self {
        let (work, room) = (Condvar::new(), Condvar::new());
        Self {
            options,
            state: Mutex::default(),
            work,
            room,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request, waiting while too much is queued.
    pub(crate) fn push(&self, records: Vec<JournalRecord>, done: Done) -> Result<(), AppendError> {
        let mut bytes = 0;
        for record in &records {
            if record.bytes() > JOURNAL_RECORD_BYTES_MAX {
                let bytes_max = JOURNAL_RECORD_BYTES_MAX;
                return Err(AppendError::TooLarge {
                    bytes: record.bytes(),
                    bytes_max,
                });
            }
            bytes += frame_bytes(record);
        }
        let mut state = self.lock();
        while state.phase == Phase::Open
            && state.queued_bytes > 0
            && state.queued_bytes + bytes > self.options.queued_bytes_max
        {
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.phase != Phase::Open {
            return Err(AppendError::Stopped);
        }
        state.queued_bytes += bytes;
        state.requests.push_back(Request {
            records: records.into_iter(),
            done,
        });
        self.work.notify_one();
        Ok(())
    }

    pub(crate) fn release(&self, shard: ShardId, upto: LogIndex) {
        let mut state = self.lock();
        let released = state.released.entry(shard).or_default();
        *released = upto.max(*released);
        self.work.notify_one();
    }

    /// Lets what waits be written and takes nothing new.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Draining;
        }
        self.work.notify_one();
        self.room.notify_all();
    }

    /// Drops what waits, unanswered.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.phase = Phase::Stopped;
        let dropped = std::mem::take(&mut state.requests);
        state.queued_bytes = 0;
        self.room.notify_all();
        drop(state);
        // Outside the lock: a callback's destructor is not ours.
        drop(dropped);
    }

    pub(crate) fn queued_bytes(&self) -> u64 {
        self.lock().queued_bytes
    }

    /// Waits for work. `None` when everything is drained.
    pub(crate) fn take(&self) -> Option<Work> {
        let mut state = self.lock();
        while state.requests.is_empty() && state.released.is_empty() {
            if state.phase != Phase::Open {
                return None;
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let mut work = Work {
            released: std::mem::take(&mut state.released),
            ..Work::default()
        };
        let bytes = self.gather(&mut state, &mut work);
        state.queued_bytes -= bytes;
        self.room.notify_all();
        Some(work)
    }

    /// Moves as many records as a batch takes, at least one if there is any. Returns their bytes.
    fn gather(&self, state: &mut State, work: &mut Work) -> u64 {
        let mut bytes = 0;
        while let Some(request) = state.requests.front_mut() {
            while let Some(record) = request.records.as_slice().first() {
                let frame = frame_bytes(record);
                let full = bytes + frame > self.options.batch_bytes_max
                    || work.records.len() == self.options.batch_records_max;
                if full && !work.records.is_empty() {
                    return bytes;
                }
                bytes += frame;
                work.records.extend(request.records.next());
            }
            work.dones
                .extend(state.requests.pop_front().map(|request| request.done));
        }
        bytes
    }
}
