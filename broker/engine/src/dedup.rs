//! What a queue or partition was given lately, by dedup id: so that a retry is stored once and
//! answered with the place of the first attempt.
//!
//! Two kinds of ids, one table. An id of a message's own is known for the window, at some seventy
//! bytes. A producer numbers its batches and says below which number it will retry none any more:
//! it costs what it has undecided, however much it publishes. Time is shard time, so that neither
//! an outage nor a clock that jumps forgets anything. What is over is not known any more at once,
//! and leaves the memory a little later, so that an idle shard is seldom woken for it.

mod id;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::sync::Arc;
use core::ops::Range;

use millrace_types::{Address, Count, DedupKey, Elapsed, ErrorCode, Offset, Refusal};
use serde::{Deserialize, Serialize};

use crate::chunks::Chunks;
use crate::codec::DecodeError;
use crate::command::{Dedup, DedupId};
use crate::limits::{DEDUP_IDS_MAX, DEDUP_IDS_OF_SHARD_MAX, PRODUCER_BATCHES_MAX};
use crate::refusal;

/// Parts of the window by which what is over may outstay it: for one queue a shard is woken at
/// most so many times in a window.
const FORGET_PARTS: u64 = 8;
/// Wake-ups are at whole multiples of this at least, so that many queues share them.
const FORGET_EVERY_MS_MIN: u64 = 1_000;
/// Room comes by itself, as time passes.
const FULL_RETRY_MS: u64 = 1_000;

/// What one log was given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen(Option<Box<Table>>);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Table {
    known: Chunks<DedupKey, Known>,
    /// Who was heard of when, the one that was not for longest first.
    order: Chunks<u64, (DedupKey, Elapsed)>,
    /// Batches that are known: computed.
    #[serde(skip)]
    batches: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    /// Its place in `order`.
    number: u64,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum What {
    /// A message's own id.
    Message { first: Offset, count: Count },
    /// A producer.
    Producer(Arc<Producer>),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Producer {
    /// It retries none below.
    floor: u64,
    /// Its batches from there on, by number.
    batches: VecDeque<(u64, Stored)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Stored {
    first: Offset,
    count: Count,
}

impl Stored {
    fn offsets(self) -> Range<Offset> {
        self.first..self.first.plus(u64::from(self.count))
    }
}

/// A publish that may be a retry.
pub(crate) struct Attempt<'a> {
    pub(crate) address: &'a Address,
    pub(crate) dedup: &'a Dedup,
    pub(crate) count: Count,
    /// Dedup ids that the whole shard has.
    pub(crate) of_shard: usize,
    pub(crate) time: Time,
}

/// Now, and for how long ids are known.
#[derive(Clone, Copy)]
pub(crate) struct Time {
    pub(crate) now: Elapsed,
    pub(crate) window_ms: u64,
}

impl Time {
    fn is_over(self, at: Elapsed) -> bool {
        at.plus_millis(self.window_ms) <= self.now
    }
}

impl Seen {
    /// Batches that are known.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |table| table.batches)
    }

    /// Where the batch is, if it was stored before.
    ///
    /// # Errors
    /// When that cannot be told, or could not be told of a retry of this one.
    pub(crate) fn look(&self, attempt: &Attempt<'_>) -> Result<Option<Range<Offset>>, Refusal> {
        let known = self.0.as_ref().and_then(|table| table.find(attempt));
        let before = match (&attempt.dedup.id, known) {
            (_, None) => None,
            (DedupId::Message(_), Some(What::Message { first, count })) => {
                let (first, count) = (*first, *count);
                Some(Stored { first, count })
            }
            (DedupId::Batch { sequence, .. }, Some(What::Producer(producer))) => {
                producer.look(*sequence, attempt)?
            }
            _ => return Err(refusal::invalid("the dedup id is a producer's id, too")),
        };
        if before.is_some() {
            return Ok(before.map(Stored::offsets));
        }
        // What it repeats may be forgotten. Half of the window is left for the way here.
        if attempt.dedup.age_ms > attempt.time.window_ms / 2 {
            return Err(too_late(attempt));
        }
        let limits = [
            ("dedup ids", self.len(), DEDUP_IDS_MAX),
            (
                "dedup ids of its shard",
                attempt.of_shard,
                DEDUP_IDS_OF_SHARD_MAX,
            ),
        ];
        for (what, known, max) in limits {
            if known >= max {
                let refusal = refusal::limit_reached(attempt.address, what, max as u64);
                return Err(refusal.retry_after_millis(FULL_RETRY_MS));
            }
        }
        Ok(None)
    }

    /// The batch is stored from an offset on; it was not before.
    pub(crate) fn note(&mut self, attempt: &Attempt<'_>, first: Offset) {
        let table = self.0.get_or_insert_default();
        let (key, count) = (attempt.dedup.id.key(), attempt.count);
        let old = table.take(key, attempt.time);
        let what = match (&attempt.dedup.id, old) {
            (DedupId::Message(_), _) => {
                table.batches += 1;
                What::Message { first, count }
            }
            (
                DedupId::Batch {
                    sequence, floor, ..
                },
                old,
            ) => {
                let mut producer = match old {
                    Some(What::Producer(producer)) => producer,
                    _ => Arc::default(),
                };
                let gone =
                    Arc::make_mut(&mut producer).note(*sequence, *floor, Stored { first, count });
                table.batches = (table.batches + 1).saturating_sub(gone);
                What::Producer(producer)
            }
        };
        let number = table.order.last_key();
        let number = number.map_or(0, |last| last.saturating_add(1));
        table.order.insert(number, (key, attempt.time.now));
        table.known.insert(key, Known { number, what });
    }

    /// Forgets what is over, as much as the budget allows.
    pub(crate) fn forget(&mut self, time: Time, budget: &mut u32) {
        let Some(table) = &mut self.0 else {
            return;
        };
        while *budget > 0
            && let Some((&number, &(key, at))) = table.order.first()
            && time.is_over(at)
        {
            *budget -= 1;
            table.order.remove(&number);
            let gone = table.known.remove(&key);
            let gone = gone.map_or(0, |known| known.what.len());
            table.batches = table.batches.saturating_sub(gone);
        }
        if table.known.is_empty() {
            self.0 = None;
        }
    }

    /// When `forget` has something to do: never before something is over, at times that many logs
    /// share.
    pub(crate) fn next_deadline(&self, window_ms: u64) -> Option<Elapsed> {
        let (_, (_, at)) = self.0.as_ref()?.order.first()?;
        let every = (window_ms / FORGET_PARTS).max(FORGET_EVERY_MS_MIN);
        let over = at.plus_millis(window_ms).as_millis();
        Some(Elapsed::from_millis(
            over.div_ceil(every).saturating_mul(every),
        ))
    }

    /// Makes a state from disk whole, or finds that it cannot be one.
    pub(crate) fn restore(&mut self) -> Result<(), DecodeError> {
        if millrace_types::mutant!(DedupForgotten) {
            self.0 = None;
        }
        let Some(table) = &mut self.0 else {
            return Ok(());
        };
        let wrong = DecodeError::Inconsistent;
        if table.known.is_empty() || table.known.len() != table.order.len() {
            return Err(wrong("dedup ids and their order differ"));
        }
        let mut batches = 0_usize;
        for (key, known) in table.known.iter() {
            let placed = table.order.get(&known.number).map(|(placed, _)| placed);
            if placed != Some(key) {
                return Err(wrong("a dedup id is not in its place"));
            }
            if let What::Producer(producer) = &known.what {
                producer.check()?;
            }
            batches = batches.saturating_add(known.what.len());
        }
        if !table.order.values().is_sorted_by_key(|(_, at)| at) {
            return Err(wrong("dedup ids are out of order"));
        }
        table.batches = batches;
        Ok(())
    }
}

impl Table {
    /// What is known under an id and is not over.
    fn find(&self, attempt: &Attempt<'_>) -> Option<&What> {
        let known = self.known.get(&attempt.dedup.id.key())?;
        let (_, at) = self.order.get(&known.number)?;
        (!attempt.time.is_over(*at)).then_some(&known.what)
    }

    /// Takes an id out, and what is known under it if that is not over.
    fn take(&mut self, key: DedupKey, time: Time) -> Option<What> {
        let known = self.known.remove(&key)?;
        let (_, at) = self.order.remove(&known.number)?;
        if time.is_over(at) {
            self.batches = self.batches.saturating_sub(known.what.len());
            return None;
        }
        Some(known.what)
    }
}

impl What {
    fn len(&self) -> usize {
        match self {
            Self::Message { .. } => 1,
            Self::Producer(producer) => producer.batches.len(),
        }
    }
}

impl Producer {
    fn look(&self, sequence: u64, attempt: &Attempt<'_>) -> Result<Option<Stored>, Refusal> {
        match self.find(sequence) {
            Ok(at) => {
                let stored = self.batches.get(at).map(|(_, stored)| *stored);
                match stored {
                    Some(stored) if stored.count != attempt.count => {
                        let (had, has) = (stored.count, attempt.count);
                        Err(refusal::invalid(format!(
                            "batch {sequence} of this producer had {had} messages, not {has}"
                        )))
                    }
                    stored => Ok(stored),
                }
            }
            Err(_) if sequence < self.floor => Err(too_late(attempt)),
            Err(_) if self.batches.len() >= PRODUCER_BATCHES_MAX => {
                let what = "undecided batches of one producer";
                let limit = PRODUCER_BATCHES_MAX as u64;
                Err(refusal::limit_reached(attempt.address, what, limit))
            }
            Err(_) => Ok(None),
        }
    }

    /// Takes note of a batch that was not known, and of what will not be retried; how many are
    /// forgotten.
    fn note(&mut self, sequence: u64, floor: u64, stored: Stored) -> usize {
        if let Err(at) = self.find(sequence) {
            self.batches.insert(at, (sequence, stored));
        }
        self.floor = self.floor.max(floor.min(sequence));
        let gone = self
            .batches
            .partition_point(|(sequence, _)| *sequence < self.floor);
        self.batches.drain(..gone);
        gone
    }

    fn find(&self, sequence: u64) -> Result<usize, usize> {
        self.batches
            .binary_search_by_key(&sequence, |(sequence, _)| *sequence)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let ascending = |(a, b): (&(u64, Stored), &(u64, Stored))| a.0 < b.0;
        let from_floor = self.batches.front().is_some_and(|b| b.0 >= self.floor);
        if from_floor
            && self
                .batches
                .iter()
                .zip(self.batches.iter().skip(1))
                .all(ascending)
        {
            return Ok(());
        }
        Err(DecodeError::Inconsistent(
            "batches of a producer are out of order",
        ))
    }
}

fn too_late(attempt: &Attempt<'_>) -> Refusal {
    let (address, age_ms) = (attempt.address, attempt.dedup.age_ms);
    let window_ms = attempt.time.window_ms;
    let message = match &attempt.dedup.id {
        DedupId::Batch { sequence, .. } => format!(
            "batch {sequence} of this producer is a retry after {age_ms} ms, or was decided \
             before; {address} knows what it was given for {window_ms} ms, and takes retries for \
             half of that"
        ),
        DedupId::Message(_) => format!(
            "this is a retry after {age_ms} ms; {address} knows what it was given for \
             {window_ms} ms, and takes retries for half of that"
        ),
    };
    Refusal::new(ErrorCode::RetryTooLate, message)
        .with("address", format!("{address}"))
        .unknown()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_costs_what_the_documentation_says() {
        assert_eq!(size_of::<(DedupKey, Known)>(), 40);
        assert_eq!(size_of::<(u64, (DedupKey, Elapsed))>(), 32);
        assert_eq!(size_of::<(u64, Stored)>(), 24);
        // Of many queues, most have nothing here.
        assert_eq!(size_of::<Seen>(), 8);
    }
}
