//! What waits for the journal: requests in order, and releases.
//!
//! Never blocks. Whoever appends asks first whether there is room and, when there is none, to be
//! told; a request that is handed in anyway is taken, so that none is ever split or lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_types::{LogIndex, ShardId};

use super::format::frame_bytes;
use super::{JOURNAL_RECORD_BYTES_MAX, JournalOptions, JournalRecord};
use crate::error::AppendError;
use crate::signal::Signal;

/// Called when everything before it is durable, or when there is room.
pub(crate) type Done = Box<dyn FnOnce() + Send>;

pub(crate) struct Inbox {
    options: JournalOptions,
    state: Mutex<State>,
    /// Wakes the journal's routine.
    signal: Arc<Signal>,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    queued_bytes: u64,
    released: BTreeMap<ShardId, LogIndex>,
    /// Of these, what was released before that.
    restarted: BTreeSet<ShardId>,
    /// To be called when there is room.
    waiting: Vec<Done>,
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

/// One batch.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) records: Vec<JournalRecord>,
    /// Of requests whose last record is in the batch.
    pub(crate) dones: Vec<Done>,
}

/// What the journal's routine does next.
pub(crate) enum Taken {
    /// Writes this; no records when everything in the requests was written before.
    Batch(Batch),
    /// Waits for more.
    Nothing,
    /// Ends: everything is written and nothing more will come.
    Drained,
}

impl Inbox {
    pub(crate) fn new(options: JournalOptions, signal: Arc<Signal>) -> Self {
        let state = Mutex::default();
        Self {
            options,
            state,
            signal,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request.
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
        if state.phase != Phase::Open {
            return Err(AppendError::Stopped);
        }
        state.queued_bytes += bytes;
        state.requests.push_back(Request {
            records: records.into_iter(),
            done,
        });
        drop(state);
        self.signal.ring();
        Ok(())
    }

    pub(crate) fn has_room(&self) -> bool {
        let state = self.lock();
        self.is_roomy(&state)
    }

    /// Also without any, when nobody would ever make some.
    fn is_roomy(&self, state: &State) -> bool {
        state.queued_bytes < self.options.queued_bytes_max || state.phase != Phase::Open
    }

    /// Calls back when there is room, at once if there is.
    pub(crate) fn when_room(&self, wake: Done) {
        let mut state = self.lock();
        if self.is_roomy(&state) {
            drop(state);
            wake();
        } else {
            state.waiting.push(wake);
        }
    }

    pub(crate) fn release(&self, shard: ShardId, upto: LogIndex) {
        let mut state = self.lock();
        let released = state.released.entry(shard).or_default();
        *released = upto.max(*released);
        drop(state);
        self.signal.ring();
    }

    pub(crate) fn restart(&self, shard: ShardId) {
        let mut state = self.lock();
        state.released.remove(&shard);
        state.restarted.insert(shard);
        drop(state);
        self.signal.ring();
    }

    /// Whether it takes anything new.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().phase == Phase::Open
    }

    /// Lets what waits be written and takes nothing new.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Draining;
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.signal.ring();
        waiting.into_iter().for_each(|wake| wake());
    }

    /// Drops what waits, unanswered.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.phase = Phase::Stopped;
        let dropped = std::mem::take(&mut state.requests);
        let waiting = std::mem::take(&mut state.waiting);
        state.queued_bytes = 0;
        // Outside the lock: a callback's destructor is not ours.
        drop(state);
        drop(dropped);
        waiting.into_iter().for_each(|wake| wake());
    }

    pub(crate) fn queued_bytes(&self) -> u64 {
        self.lock().queued_bytes
    }

    /// Since the last call: shards that began anew, and what was released after that.
    pub(crate) fn take_released(&self) -> (BTreeSet<ShardId>, BTreeMap<ShardId, LogIndex>) {
        let mut state = self.lock();
        let restarted = std::mem::take(&mut state.restarted);
        (restarted, std::mem::take(&mut state.released))
    }

    /// The next batch.
    pub(crate) fn take(&self) -> Taken {
        let mut state = self.lock();
        if state.requests.is_empty() {
            return match state.phase {
                Phase::Open => Taken::Nothing,
                Phase::Draining | Phase::Stopped => Taken::Drained,
            };
        }
        let (batch, bytes) = self.gather(&mut state);
        state.queued_bytes -= bytes;
        let mut waiting = Vec::new();
        if self.is_roomy(&state) {
            waiting = std::mem::take(&mut state.waiting);
        }
        drop(state);
        waiting.into_iter().for_each(|wake| wake());
        Taken::Batch(batch)
    }

    /// Moves as many records as a batch takes, at least one if there is any, and their bytes.
    fn gather(&self, state: &mut State) -> (Batch, u64) {
        let (mut batch, mut bytes) = (Batch::default(), 0);
        while let Some(request) = state.requests.front_mut() {
            while let Some(record) = request.records.as_slice().first() {
                let frame = frame_bytes(record);
                let full = bytes + frame > self.options.batch_bytes_max
                    || batch.records.len() == self.options.batch_records_max;
                if full && !batch.records.is_empty() {
                    return (batch, bytes);
                }
                bytes += frame;
                batch.records.extend(request.records.next());
            }
            let request = state.requests.pop_front();
            batch.dones.extend(request.map(|request| request.done));
        }
        (batch, bytes)
    }
}
