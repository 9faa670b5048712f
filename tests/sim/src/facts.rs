//! What is known for sure from what clients did and saw. Never guesses: what was asked and not
//! answered stays unknown. Shared by all invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use millrace_types::{Address, LogId};

use crate::damage::Damage;
use crate::event::{Answer, Delivered, Event, Read, ShardFigures, Tag};
use crate::message::{self, Found, PATTERNS, Published};
use crate::plan::{Bound, End, QueueShape, Shape, TopicShape};

/// The broker keeps time in whole milliseconds, and rounds twice on the way to a deadline.
const ROUNDING_MS: u64 = 5;

/// A batch that a client published.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Where it went.
    pub log: LogId,
    /// Numbers of its messages.
    pub messages: Range<u64>,
    /// The node that was given it last,
    pub node: usize,
    /// its place among all that was given to any,
    pub order: u64,
    /// and after how many events.
    pub asked: u64,
    /// Whether it has an id by which it may be sent again when nobody knows what became of it,
    pub has_id: bool,
    /// and how often it has been sent without being refused.
    pub attempts: u32,
    /// When it was sent.
    pub sent_ms: u64,
    /// The time of day then.
    pub sent_wall: u64,
    /// What came of it.
    pub answer: Answer<Range<u64>>,
}

/// A life of a queue or partition.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// How it is called.
    pub address: Address,
    /// Place of the declared object.
    pub object: usize,
    /// The implicit dead-letter queue of that object.
    pub dead: bool,
    /// Whether its messages may have gone with it.
    pub condemned: bool,
    /// Where it lives.
    pub shard: u32,
}

/// One place in a queue that was seen to hold a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Which message.
    pub number: u64,
    /// The queue and offset it died at, and how often it has died.
    pub death: Option<(String, u64, u32)>,
    /// Places of its leases.
    pub leases: Vec<usize>,
}

/// A lease that a client was told of.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    /// Names it.
    pub tag: Tag,
    /// Of which queue.
    pub log: LogId,
    /// Of which message.
    pub offset: u64,
    /// Hand-outs.
    pub acquired: u32,
    /// Failures.
    pub attempts: u32,
    /// Whose.
    pub session: Option<u64>,
    /// It cannot end by itself before.
    pub until_ms: u64,
    /// Its length.
    pub lease_ms: u64,
    /// What was asked for it.
    pub asked: Vec<End>,
    /// What was done with it,
    pub done: Option<End>,
    /// and after how many events that was known.
    pub done_at: u64,
    /// The client knows that it is over.
    pub lost: bool,
}

/// A consumer's session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    /// The broker has heard of its client at this time or later.
    pub heard_ms: u64,
    /// Silence that it outlives.
    pub ttl_ms: u64,
    /// Its end was asked for.
    pub closing: bool,
}

/// A time in which an object may have been of a shape.
#[derive(Clone, Debug)]
pub(crate) struct Era {
    /// `None`: it was not declared.
    pub shape: Option<Shape>,
    /// Until; `None`: it may still be.
    pub until_ms: Option<u64>,
}

/// All that is known.
#[derive(Default)]
pub(crate) struct Facts {
    /// Time since the beginning.
    pub now_ms: u64,
    /// The time of day, on the machine that is furthest behind.
    pub wall_ms: u64,
    /// The furthest the time of day has been anywhere.
    pub wall_max_ms: u64,
    /// A machine's second is shorter or longer than a true one by so many hundredths of it at most.
    pub drift_percent: u64,
    /// There are several nodes.
    pub is_cluster: bool,
    /// Every batch.
    pub batches: Vec<Batch>,
    /// Every message by its number, with the place of its batch.
    pub messages: BTreeMap<u64, (Published, usize)>,
    /// Every life of a queue or partition.
    pub logs: BTreeMap<LogId, Log>,
    /// What each declared object may have been.
    pub eras: Vec<Vec<Era>>,
    /// What was seen of queues.
    pub seen: BTreeMap<(LogId, u64), Seen>,
    /// Where messages of partitions are, from acknowledgements and reads.
    pub stored: BTreeMap<LogId, BTreeMap<u64, u64>>,
    /// Every lease.
    pub leases: Vec<Lease>,
    /// Leases by tag.
    pub tags: BTreeMap<Tag, usize>,
    /// Calls by queue that may have been handed messages without saying so.
    pub unanswered: BTreeMap<LogId, u32>,
    /// What was sent over connections that nobody listened to any more.
    pub unheard: BTreeMap<(LogId, u64), u32>,
    /// Every session by its id.
    pub sessions: BTreeMap<u64, Session>,
    /// What was said last of each replica, by node and shard.
    pub figures: BTreeMap<(usize, u32), ShardFigures>,
    /// What the disk did behind the node's back.
    pub damage: Damage,
    /// Events so far.
    pub events: u64,
}

impl Facts {
    /// Takes note of an event.
    pub(crate) fn note(&mut self, event: &Event) {
        self.events += 1;
        match event {
            Event::Published { batch, answer } => self.published(*batch, answer),
            Event::Delivered(delivered) => self.delivered(delivered),
            Event::Settling { lease, end } => self.leases[*lease].asked.push(*end),
            Event::Settled {
                lease,
                end,
                answer,
                asked_ms,
                ..
            } => self.settled(*lease, *end, answer, *asked_ms),
            Event::Lost { tag } => {
                if let Some(lease) = self.tags.get(tag) {
                    self.leases[*lease].lost = true;
                }
            }
            Event::Read(read) => self.read(read),
            Event::Declaring { object, shape } => self.declaring(*object, shape.as_ref()),
            Event::Declared { object, answer } => self.declared(*object, answer),
            Event::Figures { node, shards, .. } => {
                // Of what is not here any more, nothing is said.
                self.figures.retain(|(at, _), _| at != node);
                for figures in shards {
                    self.figures.insert((*node, figures.shard), figures.clone());
                }
                for figures in shards.iter().filter(|one| one.unavailable.is_some()) {
                    // With others that have everything, it is no excuse for anything.
                    if !self.is_cluster {
                        self.damage.note(figures.shard);
                    }
                }
            }
            Event::Started { .. }
            | Event::Up { .. }
            | Event::Trouble { .. }
            | Event::Publishing { .. }
            | Event::Peeked { .. }
            | Event::Stopped { .. }
            | Event::Checksum { .. }
            | Event::Confirmed { .. }
            | Event::Struck { .. }
            | Event::Unreadable { .. }
            | Event::Drained => {}
        }
    }

    fn published(&mut self, batch: usize, answer: &Answer<Range<u64>>) {
        let batch = &mut self.batches[batch];
        batch.answer = answer.clone();
        if let Answer::Done(offsets) = answer {
            let stored = self.stored.entry(batch.log).or_default();
            for (offset, number) in offsets.clone().zip(batch.messages.clone()) {
                stored.entry(offset).or_insert(number);
            }
        }
    }

    fn delivered(&mut self, delivered: &Delivered) {
        let place = (delivered.log, delivered.offset);
        if let Ok(found) = message::read(&delivered.message) {
            let seen = self.seen.entry(place).or_insert_with(|| Seen {
                number: found.number,
                death: death(&found),
                leases: Vec::new(),
            });
            if !self.tags.contains_key(&delivered.tag) {
                seen.leases.push(self.leases.len());
            }
        }
        if self.tags.contains_key(&delivered.tag) {
            return;
        }
        self.tags.insert(delivered.tag.clone(), self.leases.len());
        let until = delivered.since_ms + self.shortest(delivered.lease_ms);
        self.leases.push(Lease {
            tag: delivered.tag.clone(),
            log: delivered.log,
            offset: delivered.offset,
            acquired: delivered.acquired,
            attempts: delivered.attempts,
            session: delivered.session,
            until_ms: until.saturating_sub(ROUNDING_MS),
            lease_ms: delivered.lease_ms,
            asked: Vec::new(),
            done: None,
            done_at: 0,
            lost: false,
        });
    }

    /// How long something takes at least that a node waits for.
    pub(crate) fn shortest(&self, millis: u64) -> u64 {
        millis.saturating_sub(millis.saturating_mul(self.drift_percent) / 100)
    }

    fn settled(&mut self, lease: usize, end: End, answer: &Answer<()>, asked_ms: u64) {
        let events = self.events;
        let least_ms = self.shortest(self.leases[lease].lease_ms);
        let lease = &mut self.leases[lease];
        match answer {
            Answer::Done(()) if end == End::Extend => {
                let until = asked_ms + least_ms;
                lease.until_ms = lease.until_ms.max(until.saturating_sub(ROUNDING_MS));
            }
            Answer::Done(()) => (lease.done, lease.done_at) = (Some(end), events),
            Answer::Refused(why) => {
                // Certain not to be done: as if it had not been asked.
                let asked = lease.asked.iter().rposition(|asked| *asked == end);
                asked.map(|at| lease.asked.remove(at));
                lease.lost |= why == "STALE_DELIVERY";
            }
            Answer::Unknown => {}
        }
    }

    fn read(&mut self, read: &Read) {
        for (offset, _, body) in &read.records {
            if let Ok(found) = message::read(body) {
                let stored = self.stored.entry(read.log).or_default();
                stored.entry(*offset).or_insert(found.number);
            }
        }
    }

    fn declaring(&mut self, object: usize, shape: Option<&Shape>) {
        let era = Era {
            shape: shape.cloned(),
            until_ms: None,
        };
        if shape.is_none() && self.deletes(object) {
            let logs = self.logs.values_mut();
            for log in logs.filter(|log| log.object == object) {
                log.condemned = true;
            }
        }
        while self.eras.len() <= object {
            self.eras.push(Vec::new());
        }
        self.eras[object].push(era);
    }

    fn deletes(&self, object: usize) -> bool {
        let eras = self.eras.get(object).into_iter().flatten();
        eras.filter_map(|era| era.shape.as_ref())
            .any(|shape| match shape {
                Shape::Queue(queue) => queue.deletes,
                Shape::Topic(topic) => topic.deletes,
            })
    }

    /// The last change is certain to be in force, or certain not to be.
    fn declared(&mut self, object: usize, answer: &Answer<u64>) {
        let now = self.now_ms;
        let Some((last, earlier)) = self.eras[object].split_last_mut() else {
            return;
        };
        match answer {
            Answer::Done(_) => {
                for era in earlier {
                    era.until_ms.get_or_insert(now);
                }
            }
            Answer::Refused(_) => last.until_ms = Some(now),
            Answer::Unknown => {}
        }
    }
}

/// What follows from it.
impl Facts {
    /// Whether a lease is certain to run: nobody asked to end it, and its time is not over.
    #[must_use]
    pub(crate) fn runs(&self, lease: &Lease) -> bool {
        let ended = lease.asked.iter().any(|end| *end != End::Extend);
        let condemned = self.logs.get(&lease.log).is_some_and(|log| log.condemned);
        if ended || lease.lost || condemned || self.now_ms >= lease.until_ms {
            return false;
        }
        let session = lease.session.and_then(|id| self.sessions.get(&id));
        session.is_none_or(|session| {
            !session.closing
                && self.now_ms + ROUNDING_MS < session.heard_ms.saturating_add(session.ttl_ms)
        })
    }

    /// Every queue shape an object may have had from a time on.
    pub(crate) fn queues(&self, object: usize, from_ms: u64) -> impl Iterator<Item = &QueueShape> {
        self.shapes(object, from_ms)
            .filter_map(|shape| match shape {
                Some(Shape::Queue(queue)) => Some(queue),
                _ => None,
            })
    }

    /// Every topic shape an object may have had from a time on.
    pub(crate) fn topics(&self, object: usize, from_ms: u64) -> impl Iterator<Item = &TopicShape> {
        self.shapes(object, from_ms)
            .filter_map(|shape| match shape {
                Some(Shape::Topic(topic)) => Some(topic),
                _ => None,
            })
    }

    /// Every shape an object may have had from a time on; `None`: it was not declared.
    pub(crate) fn shapes(
        &self,
        object: usize,
        from_ms: u64,
    ) -> impl Iterator<Item = Option<&Shape>> {
        let eras = self.eras.get(object).into_iter().flatten();
        eras.filter(move |era| era.until_ms.is_none_or(|until| until >= from_ms))
            .map(|era| era.shape.as_ref())
    }

    /// One past the highest offset that a partition or queue can have.
    #[must_use]
    pub(crate) fn end_max(&self, log: LogId) -> u64 {
        let stored = self.stored.get(&log);
        let known = stored.and_then(|stored| stored.keys().next_back().map(|last| last + 1));
        let open = self.batches.iter().filter(|batch| batch.log == log);
        let open = open.filter(|batch| batch.answer == Answer::Unknown);
        let open: u64 = open.map(|b| b.messages.end - b.messages.start).sum();
        known.unwrap_or(0) + open
    }

    /// Whether a queue's message may have ended because a client asked for it, here or, once it
    /// was a dead letter, elsewhere.
    #[must_use]
    pub(crate) fn may_have_ended(&self, log: LogId, offset: u64, number: u64) -> bool {
        let asked = |end: End| {
            let seen = self.seen.get(&(log, offset)).into_iter();
            let mut leases = seen.flat_map(|seen| &seen.leases);
            leases.any(|lease| self.leases[*lease].asked.contains(&end))
        };
        if asked(End::Accept) || (asked(End::Reject) && self.is_last(log)) {
            return true;
        }
        // It may have died without having been seen here: its holder had no credit left.
        if self.may_be_buried(log) {
            return true;
        }
        let mut copies = self.dead_copies(log, offset, number);
        copies.any(|(copy, at)| self.may_be_missed(copy) || self.may_have_ended(copy, at, number))
    }

    /// Whether a queue's dead letters may have gone with one of the queues that took them.
    pub(crate) fn may_be_buried(&self, log: LogId) -> bool {
        let object = self.logs.get(&log).map(|log| log.object);
        object.is_some_and(|object| self.may_bury(object))
    }

    /// The same, of the dead letters of any queue that an object has been.
    pub(crate) fn may_bury(&self, object: usize) -> bool {
        let mut targets = BTreeSet::from([object]);
        loop {
            let before = targets.len();
            for target in targets.clone() {
                let queues = self.queues(target, 0);
                targets.extend(queues.filter_map(|queue| queue.dead_letter));
            }
            if targets.len() == before {
                break;
            }
        }
        let mut logs = self.logs.values();
        logs.any(|log| self.is_missable(log) && targets.contains(&log.object))
    }

    /// Whether a queue drops what is rejected: an implicit dead-letter queue.
    fn is_last(&self, log: LogId) -> bool {
        self.logs.get(&log).is_some_and(|log| log.dead)
    }

    /// Whether nobody may be surprised that messages of a log do not come: they have gone with it,
    /// or its shard has said that it is damaged.
    #[must_use]
    pub(crate) fn is_missable(&self, log: &Log) -> bool {
        log.condemned || self.damage.has_said(log.shard)
    }

    /// The same, of a log by its id.
    #[must_use]
    pub(crate) fn may_be_missed(&self, log: LogId) -> bool {
        self.logs.get(&log).is_some_and(|log| self.is_missable(log))
    }

    /// Whether a log's messages may have gone with it.
    #[must_use]
    pub(crate) fn is_condemned(&self, log: LogId) -> bool {
        self.logs.get(&log).is_some_and(|log| log.condemned)
    }

    /// Where a message was seen after it had died at a place, there or later once more: a message
    /// only says where it died last.
    pub(crate) fn dead_copies(
        &self,
        log: LogId,
        offset: u64,
        number: u64,
    ) -> impl Iterator<Item = (LogId, u64)> {
        let queue = self.logs.get(&log).map(|log| log.address.to_string());
        let deaths = self.seen.get(&(log, offset));
        let deaths = deaths
            .and_then(|seen| Some(seen.death.as_ref()?.2))
            .unwrap_or(0);
        let found = self.seen.iter().filter(move |(place, seen)| {
            let from_here = seen.death.as_ref().is_some_and(|(died_in, at, count)| {
                let here = Some(died_in) == queue.as_ref() && *at == offset;
                here || *count >= deaths + 2
            });
            from_here && seen.number == number && **place != (log, offset)
        });
        found.map(|(place, _)| *place)
    }
}

/// Where a message died.
#[must_use]
pub(crate) fn death(found: &Found) -> Option<(String, u64, u32)> {
    let death = found.death.as_ref()?;
    Some((death.queue.clone(), death.offset, death.count))
}

/// Whether a binding wants a message.
#[must_use]
pub(crate) fn wants(bound: &Bound, message: &Published) -> bool {
    let (_, subjects) = PATTERNS[bound.pattern];
    subjects.contains(&message.subject) && (!bound.marked || message.marked)
}
