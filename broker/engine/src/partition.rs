//! One partition of a topic: which offsets it holds, since when and of how many bytes. Says what
//! retention wants gone; a `Trim` command makes it so.

mod first;

use alloc::format;

use millrace_types::{Address, Elapsed, LogId, Offset, Refusal, Stamp, Wall};
use serde::{Deserialize, Serialize};

use crate::codec::DecodeError;
use crate::command::BatchHeader;
use crate::dedup::{Seen, Time};
use crate::outcome::{BodyChange, Effect, Outcome};
use crate::queue::{Publish, check_batch};
use crate::refusal;
use crate::shard::Changes;
use crate::spans::Spans;
use crate::spec::PartitionSpec;

pub(crate) use first::First;

/// How long one span may reach at most: retention by age lets a span go as a whole.
const SPAN_AGE_MS_MAX: u64 = 600_000;
/// How long one may reach at least: more spans would only cost memory.
const SPAN_AGE_MS_MIN: u64 = 1_000;
/// Age is kept to one part in so many.
const SPAN_AGE_PARTS: u64 = 64;

/// State of a partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Partition {
    log: LogId,
    topic: Address,
    partition: u32,
    revision: u64,
    spec: PartitionSpec,
    frozen: bool,
    first: Offset,
    end: Offset,
    spans: Spans,
    seen: Seen,
}

/// What a partition is configured to be, as `Command::ConfigurePartition` has it.
pub(crate) struct Configuration<'a> {
    pub(crate) topic: &'a Address,
    pub(crate) partition: u32,
    pub(crate) revision: u64,
    pub(crate) spec: &'a PartitionSpec,
}

impl Partition {
    pub(crate) fn new(log: LogId, configuration: &Configuration<'_>) -> Self {
        Self {
            log,
            topic: configuration.topic.clone(),
            partition: configuration.partition,
            revision: configuration.revision,
            spec: configuration.spec.clone(),
            frozen: false,
            first: Offset::default(),
            end: Offset::default(),
            spans: Spans::default(),
            seen: Seen::default(),
        }
    }

    /// Takes over what is declared now and thaws; older revisions are ignored.
    pub(crate) fn configure(&mut self, configuration: &Configuration<'_>) {
        if configuration.revision >= self.revision {
            self.topic = configuration.topic.clone();
            self.partition = configuration.partition;
            self.revision = configuration.revision;
            self.spec = configuration.spec.clone();
            self.frozen = false;
        }
    }

    /// Takes and trims nothing from now on.
    pub(crate) fn freeze(&mut self, revision: u64) {
        if revision >= self.revision {
            self.revision = revision;
            self.frozen = true;
        }
    }

    pub(crate) fn publish(
        &mut self,
        publish: &Publish<'_>,
        stamp: Stamp,
        changes: &mut Changes,
    ) -> Outcome {
        // First: what is stored is acknowledged whatever has become of the topic since.
        let time = self.dedup_time(stamp);
        let attempt = publish.attempt(&self.topic, time);
        match attempt.as_ref().map(|attempt| self.seen.look(attempt)) {
            Some(Ok(Some(offsets))) => return Outcome::Repeated(offsets),
            Some(Err(refusal)) => return Outcome::Refused(refusal),
            Some(Ok(None)) | None => {}
        }
        let batch = publish.batch;
        if let Err(refusal) = self.check_publish(batch) {
            return Outcome::Refused(refusal);
        }
        let age_ms_max = self.spec.age_ms_max.map_or(SPAN_AGE_MS_MAX, |age_ms| {
            (age_ms / SPAN_AGE_PARTS).clamp(SPAN_AGE_MS_MIN, SPAN_AGE_MS_MAX)
        });
        let (log, first) = (self.log, self.end);
        self.spans.append(first, batch, stamp.wall, age_ms_max);
        self.end = first.plus(u64::from(batch.count));
        if let Some(attempt) = &attempt {
            self.seen.note(attempt, first);
        }
        let (end, offsets) = (self.end, first..self.end);
        changes.bodies.push(BodyChange::Store { log, offsets });
        changes.effects.push(Effect::Appended { log, end });
        Outcome::Appended(first..end)
    }

    /// Refuses what cannot be appended.
    pub(crate) fn check_publish(&self, batch: &BatchHeader) -> Result<(), Refusal> {
        check_batch(batch)?;
        if self.frozen {
            return Err(refusal::orphaned(&self.topic));
        }
        Ok(())
    }

    fn dedup_time(&self, stamp: Stamp) -> Time {
        Time {
            now: stamp.elapsed,
            window_ms: self.spec.dedup_ms,
        }
    }

    /// Forgets dedup ids that are over.
    pub(crate) fn forget(&mut self, stamp: Stamp, budget: &mut u32) {
        let time = self.dedup_time(stamp);
        self.seen.forget(time, budget);
    }

    /// When `forget` has something to do.
    pub(crate) fn forgets_at(&self) -> Option<Elapsed> {
        self.seen.next_deadline(self.spec.dedup_ms)
    }

    /// Dedup ids that are known.
    pub(crate) fn dedup_ids(&self) -> usize {
        self.seen.len()
    }

    /// Lets everything below `first` go; what is gone already is no error.
    pub(crate) fn trim(&mut self, first: Offset, changes: &mut Changes) -> Outcome {
        if self.frozen {
            return Outcome::Refused(refusal::orphaned(&self.topic));
        }
        let more = u64::from(millrace_types::mutant!(TrimOffByOne) && first < self.end);
        let first = first.plus(more);
        if first > self.end {
            let (topic, partition, end) = (&self.topic, self.partition, self.end);
            return Outcome::Refused(refusal::invalid(format!(
                "partition {partition} of {topic} ends at {end} and cannot be trimmed to {first}"
            )));
        }
        if first > self.first {
            let (log, offsets) = (self.log, self.first..first);
            self.spans.trim(first);
            self.first = first;
            changes.bodies.push(BodyChange::Discard { log, offsets });
        }
        Outcome::Done
    }

    /// Makes a state from disk whole, or finds that it cannot be one.
    pub(crate) fn restore(&mut self) -> Result<(), DecodeError> {
        self.seen.restore()?;
        if self.first > self.end || self.spans.iter().any(|(first, _)| first < self.first) {
            return Err(DecodeError::Inconsistent(
                "offsets of a partition are out of order",
            ));
        }
        self.spans.check(self.end, self.first.until(self.end))
    }
}

/// What can be asked.
impl Partition {
    /// Its life.
    #[must_use]
    pub const fn log(&self) -> LogId {
        self.log
    }

    /// The topic it is of.
    #[must_use]
    pub const fn topic(&self) -> &Address {
        &self.topic
    }

    /// Which one of it.
    #[must_use]
    pub const fn partition(&self) -> u32 {
        self.partition
    }

    /// Topology revision that configured it last.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// What is declared.
    #[must_use]
    pub const fn spec(&self) -> &PartitionSpec {
        &self.spec
    }

    /// Whether it is an orphan.
    #[must_use]
    pub const fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// The oldest message kept, or the end.
    #[must_use]
    pub const fn first(&self) -> Offset {
        self.first
    }

    /// One past the last message.
    #[must_use]
    pub const fn end(&self) -> Offset {
        self.end
    }

    /// Bytes kept.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.spans.bytes()
    }

    /// When the oldest message kept was stored, or one shortly before it.
    #[must_use]
    pub fn oldest(&self) -> Option<Wall> {
        self.spans.oldest()
    }

    /// The offset to read from for messages stored at a time or later: no later than the first of
    /// them, and only a span before it. The reader skips the rest by the time each message has.
    #[must_use]
    pub fn offset_at(&self, wall: Wall) -> Offset {
        let mut spans = self.spans.iter();
        spans
            .find(|(_, span)| span.wall_last >= wall)
            .map_or(self.end, |(first, _)| first)
    }

    /// What retention wants gone at a time: everything below. By age whole spans go, once their
    /// last message is too old; by bytes a message counts as the average of its span; an orphan
    /// keeps everything.
    #[must_use]
    pub fn trim_point(&self, wall: Wall) -> Option<Offset> {
        self.trim_point_within(1, wall)
    }

    /// The same, if every bound were this many times what it is.
    #[must_use]
    pub fn trim_point_within(&self, factor: u64, wall: Wall) -> Option<Offset> {
        if self.frozen {
            return None;
        }
        let times = |max: Option<u64>| max.map(|max| max.saturating_mul(factor));
        let by_count = times(self.spec.messages_max).map(|max| {
            let excess = self.first.until(self.end).saturating_sub(max);
            self.first.plus(excess)
        });
        let by_age = times(self.spec.age_ms_max).map(|age| self.first_within(age, wall));
        let by_bytes = times(self.spec.bytes_max).map(|max| self.first_of_last(max));
        let points = [by_count, by_age, by_bytes].into_iter().flatten();
        points.max().filter(|point| *point > self.first)
    }

    /// Start of the first span that is not wholly older than this.
    fn first_within(&self, age_ms: u64, wall: Wall) -> Offset {
        let mut spans = self.spans.iter();
        spans
            .find(|(_, span)| wall.millis_since(span.wall_last) <= age_ms)
            .map_or(self.end, |(first, _)| first)
    }

    /// The first of the last messages that have at most so many bytes together.
    fn first_of_last(&self, bytes_max: u64) -> Offset {
        let mut excess = self.spans.bytes().saturating_sub(bytes_max);
        for (first, span) in self.spans.iter() {
            if excess < span.bytes {
                let average = (span.bytes / span.live.max(1)).max(1);
                return first.plus(excess.div_ceil(average).min(span.live));
            }
            excess -= span.bytes;
        }
        self.end
    }
}
