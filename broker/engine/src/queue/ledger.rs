//! Which messages a queue holds and where each is in its life. An untouched backlog is two offsets;
//! only messages that were handed out once and are not settled have an entry, so what lies below
//! `next` and has none is settled: no set of settled offsets is needed.

use millrace_types::{Elapsed, Offset, SessionId, Wall};
use serde::{Deserialize, Serialize};

use crate::chunks::{ChunkSet, Chunks};
use crate::codec::DecodeError;
use crate::command::BatchHeader;
use crate::outcome::{MessageState, MessageView};
use crate::spans::Spans;

/// How much older a span's first message may be than its last: the error of `oldest`.
const SPAN_AGE_MS_MAX: u64 = 10_000;

/// A message that was handed out at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exception {
    /// Failed deliveries.
    pub(crate) attempts: u32,
    /// Times it was handed out.
    pub(crate) acquired: u32,
    pub(crate) state: State,
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Delivered next.
    Returned,
    /// Returned at this time.
    Delayed { until: Elapsed },
    /// Somebody's.
    Leased(Lease),
    /// In the outbox.
    Dying,
}

/// A right to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) owner: SessionId,
    pub(crate) deadline: Elapsed,
    /// What an extension adds.
    pub(crate) lease_ms: u64,
    /// Bytes charged to the owner.
    pub(crate) weight: u64,
    pub(crate) sent: Sent,
}

/// Whether the holder is known to have been sent the message: only then is the end of the lease a
/// failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sent {
    No,
    Yes,
}

/// All messages of a queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// The first message never handed out.
    next: Offset,
    /// One past the last message.
    end: Offset,
    exceptions: Chunks<Offset, Exception>,
    spans: Spans,
    #[serde(skip)]
    index: Index,
}

/// What can be computed from the exceptions.
#[derive(Clone, Debug, Default, PartialEq)]
struct Index {
    returned: ChunkSet<Offset>,
    /// Ends of leases and delays.
    timers: ChunkSet<(Elapsed, Offset)>,
    leased: u64,
    delayed: u64,
    dying: u64,
}

impl Index {
    fn add(&mut self, offset: Offset, state: State) {
        match state {
            State::Returned => {
                self.returned.add(offset);
            }
            State::Delayed { until } => {
                self.timers.add((until, offset));
                self.delayed = self.delayed.saturating_add(1);
            }
            State::Leased(lease) => {
                self.timers.add((lease.deadline, offset));
                self.leased = self.leased.saturating_add(1);
            }
            State::Dying => self.dying = self.dying.saturating_add(1),
        }
    }

    fn take(&mut self, offset: Offset, state: State) {
        match state {
            State::Returned => {
                self.returned.remove(&offset);
            }
            State::Delayed { until } => {
                self.timers.remove(&(until, offset));
                self.delayed = self.delayed.saturating_sub(1);
            }
            State::Leased(lease) => {
                self.timers.remove(&(lease.deadline, offset));
                self.leased = self.leased.saturating_sub(1);
            }
            State::Dying => self.dying = self.dying.saturating_sub(1),
        }
    }
}

impl Ledger {
    /// Adds a batch at the end and says where that was.
    pub(crate) fn append(&mut self, batch: &BatchHeader, wall: Wall) -> Offset {
        let first = self.end;
        self.spans.append(first, batch, wall, SPAN_AGE_MS_MAX);
        self.end = first.plus(u64::from(batch.count));
        first
    }

    /// The message to hand out next: returned ones in order of offset, then never delivered ones.
    pub(crate) fn front(&self) -> Option<Offset> {
        let fresh = (self.next < self.end).then_some(self.next);
        self.index.returned.first_key().or(fresh)
    }

    /// Leases the front message; `lease` is made from what it weighs.
    pub(crate) fn lease_front(&mut self, lease: impl FnOnce(u64) -> Lease) -> Option<Exception> {
        let offset = self.front()?;
        if offset == self.next {
            self.next = self.next.plus(1);
        }
        let old = self.exceptions.get(&offset);
        let leased = Exception {
            attempts: old.map_or(0, |e| e.attempts),
            acquired: old.map_or(0, |e| e.acquired).saturating_add(1),
            state: State::Leased(lease(self.spans.weight(offset))),
        };
        self.put(offset, leased);
        Some(leased)
    }

    /// What became of a message that was handed out and is not settled.
    pub(crate) fn exception(&self, offset: Offset) -> Option<&Exception> {
        self.exceptions.get(&offset)
    }

    /// Changes where a message is.
    pub(crate) fn put(&mut self, offset: Offset, exception: Exception) {
        if let Some(old) = self.exceptions.insert(offset, exception) {
            self.index.take(offset, old.state);
        }
        self.index.add(offset, exception.state);
    }

    /// Ends a message's life.
    pub(crate) fn settle(&mut self, offset: Offset) {
        if let Some(old) = self.exceptions.remove(&offset) {
            self.index.take(offset, old.state);
            self.spans.settle(offset);
        }
    }

    /// The first lease or delay that is over.
    pub(crate) fn due(&self, now: Elapsed) -> Option<Offset> {
        self.index
            .timers
            .first_key()
            .filter(|(at, _)| *at <= now)
            .map(|(_, offset)| offset)
    }

    /// Leases after one time and up to another, in order of their ends.
    pub(crate) fn due_between(
        &self,
        after: Elapsed,
        upto: Elapsed,
    ) -> impl Iterator<Item = (Offset, &Exception, Lease)> {
        let timers = self
            .index
            .timers
            .after(Some((after, Offset::new(u64::MAX))));
        let due = timers.map(|(key, ())| *key);
        due.take_while(move |(at, _)| *at <= upto)
            .filter_map(|(_, offset)| {
                let exception = self.exceptions.get(&offset)?;
                match exception.state {
                    State::Leased(lease) => Some((offset, exception, lease)),
                    State::Returned | State::Delayed { .. } | State::Dying => None,
                }
            })
    }

    pub(crate) fn next_deadline(&self) -> Option<Elapsed> {
        self.index.timers.first_key().map(|(at, _)| at)
    }

    /// All leases.
    pub(crate) fn leases(&self) -> impl Iterator<Item = (Offset, &Exception, Lease)> {
        self.exceptions
            .iter()
            .filter_map(|(offset, exception)| match exception.state {
                State::Leased(lease) => Some((*offset, exception, lease)),
                State::Returned | State::Delayed { .. } | State::Dying => None,
            })
    }

    /// Everything below is settled.
    pub(crate) fn head(&self) -> Offset {
        self.exceptions
            .first_key()
            .map_or(self.next, |first| first.min(self.next))
    }

    pub(crate) const fn end(&self) -> Offset {
        self.end
    }

    pub(crate) fn ready(&self) -> u64 {
        let returned = self.index.returned.len() as u64;
        self.next.until(self.end).saturating_add(returned)
    }

    pub(crate) const fn leased(&self) -> u64 {
        self.index.leased
    }

    pub(crate) const fn delayed(&self) -> u64 {
        self.index.delayed
    }

    pub(crate) const fn dying(&self) -> u64 {
        self.index.dying
    }

    pub(crate) fn unsettled(&self) -> u64 {
        let touched = self.exceptions.len() as u64;
        self.next.until(self.end).saturating_add(touched)
    }

    pub(crate) const fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Where a message is; `None` when it is settled or does not exist.
    pub(crate) fn view(&self, offset: Offset) -> Option<MessageView> {
        if let Some(exception) = self.exceptions.get(&offset) {
            return Some(view(offset, exception));
        }
        let fresh = self.next <= offset && offset < self.end;
        fresh.then_some(MessageView {
            offset,
            state: MessageState::Ready,
            attempts: 0,
            acquired: 0,
        })
    }

    /// Unsettled messages in order of offset.
    pub(crate) fn views(&self, from: Offset) -> impl Iterator<Item = MessageView> {
        let touched = self.exceptions.from(from);
        let fresh = from.max(self.next).get()..self.end.get();
        touched
            .map(|(offset, exception)| view(*offset, exception))
            .chain(fresh.map(|offset| MessageView {
                offset: Offset::new(offset),
                state: MessageState::Ready,
                attempts: 0,
                acquired: 0,
            }))
    }

    /// A known bug: whoever held something holds nothing.
    pub(crate) fn forget_leases(&mut self) {
        let leases: alloc::vec::Vec<_> = self.leases().map(|(at, e, _)| (at, *e)).collect();
        for (offset, exception) in leases {
            let state = State::Returned;
            self.put(offset, Exception { state, ..exception });
        }
    }

    /// Makes a state from disk whole, or finds that it cannot be one.
    pub(crate) fn restore(&mut self) -> Result<(), DecodeError> {
        let wrong = DecodeError::Inconsistent;
        let last = self.exceptions.last_key();
        if self.next > self.end || last.is_some_and(|last| last >= self.next) {
            return Err(wrong("offsets of a queue are out of order"));
        }
        self.index = Index::default();
        for (offset, exception) in self.exceptions.iter() {
            self.index.add(*offset, exception.state);
        }
        self.spans.check(self.end, self.unsettled())?;
        let before = Offset::new(self.next.get().saturating_sub(1));
        if millrace_types::mutant!(SettledWrittenAsLive) && !self.exceptions.contains_key(&before) {
            self.next = before;
        }
        Ok(())
    }
}

fn view(offset: Offset, exception: &Exception) -> MessageView {
    MessageView {
        offset,
        state: match exception.state {
            State::Returned => MessageState::Ready,
            State::Delayed { .. } => MessageState::Delayed,
            State::Leased(_) => MessageState::InFlight,
            State::Dying => MessageState::Dying,
        },
        attempts: exception.attempts,
        acquired: exception.acquired,
    }
}
