//! What was sent, acknowledged, delivered and settled, and whether it all fits: every acknowledged
//! message is everywhere it had to be, settled ones never come again, dead ones arrive once, and
//! nothing appears that nobody sent.
//!
//! Messages are counted once for each place they have to reach. A place is a queue or topic; within
//! it a message is one (partition, offset).

mod audit;

use std::collections::BTreeMap;
use std::fmt;

use millrace_client::{Ack, Applied, Error};

/// Names a message; in its payload, too.
pub type Id = u64;

/// Address of a queue or topic.
pub type Place = String;

/// Partition and offset.
pub type At = (u32, u64);

/// Whether a message may be in a place more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// Its publisher does not send it again.
    One,
    /// Its publisher sends it again when the outcome is unknown.
    OneOrMore,
}

/// What is known of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Publish {
    /// No answer yet: at the end, that is as good as unknown.
    Unknown,
    Acknowledged,
    Refused,
}

/// A message that was sent.
#[derive(Debug)]
struct Sent {
    plan: Plan,
    publish: Publish,
}

/// What has to become of a message.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everywhere it has to be once it is acknowledged.
    pub places: Vec<Place>,
    /// How often in each.
    pub copies: Copies,
    /// In a topic, messages of one lane are in order of their numbers.
    pub lane: String,
}

/// One time a message was handed out.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Where in its place.
    pub at: At,
    /// Which message, by its payload; `None` when the payload is none of ours.
    pub id: Option<Id>,
    /// Failed deliveries before.
    pub attempts: u32,
    /// Hand-outs, this one included.
    pub acquired: u32,
    /// Queue and offset it died at.
    pub death: Option<(Place, u64)>,
}

/// How a lease was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Gone for good.
    Accept,
    /// Comes back, no failure.
    Release,
    /// Comes back or dies.
    Retry,
    /// Dies.
    Reject,
}

/// What is known of one ended lease.
#[derive(Clone, Copy, Debug)]
struct Settled {
    acquired: u32,
    attempts: u32,
    ending: Ending,
    /// The server said so; otherwise nobody knows.
    is_confirmed: bool,
}

/// All that happened to one message in one place.
#[derive(Debug, Default)]
struct Story {
    id: Option<Id>,
    /// (acquired, attempts), as they came.
    handed_out: Vec<(u32, u32)>,
    settled: Vec<Settled>,
    death: Option<(Place, u64)>,
    /// It was not the same message each time.
    is_mixed_up: bool,
}

/// A queue's rule about death.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    /// Where its dead letters go.
    pub to: Place,
    /// Failures that kill.
    pub deliveries_max: u32,
}

/// The books.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: BTreeMap<Id, Sent>,
    places: BTreeMap<Place, BTreeMap<At, Story>>,
    dead_letters: BTreeMap<Place, DeadLetters>,
}

impl Ledger {
    /// Books for queues whose dead letters go elsewhere.
    #[must_use]
    pub fn new(dead_letters: BTreeMap<Place, DeadLetters>) -> Self {
        Self {
            dead_letters,
            ..Self::default()
        }
    }

    /// A message is about to be sent.
    pub fn sending(&mut self, id: Id, plan: Plan) {
        let publish = Publish::Unknown;
        let sent = Sent { plan, publish };
        let before = self.sent.insert(id, sent);
        assert!(before.is_none(), "message {id} was sent twice");
    }

    /// Leases that were handed out and whose end was not confirmed: as far as anybody knows, they
    /// are held.
    #[must_use]
    pub fn leases_held(&self) -> u64 {
        let held = |story: &Story| {
            let confirmed = story.settled.iter().filter(|settled| settled.is_confirmed);
            let newest = story.handed_out.iter().map(|(acquired, _)| *acquired).max();
            let mut ended = confirmed.map(|settled| settled.acquired);
            newest.is_some_and(|newest| !ended.any(|acquired| acquired == newest))
        };
        let queues = self
            .places
            .iter()
            .filter(|(place, _)| place.starts_with("queue/"));
        let held = queues.map(|(_, stories)| stories.values().filter(|s| held(s)).count());
        u64::try_from(held.sum::<usize>()).unwrap_or(u64::MAX)
    }

    /// What the broker said of it.
    pub fn published(&mut self, id: Id, outcome: &Result<Ack, Error>) {
        let Some(sent) = self.sent.get_mut(&id) else {
            return;
        };
        sent.publish = match outcome {
            Ok(_) => Publish::Acknowledged,
            Err(error) => match error.applied {
                Applied::No => Publish::Refused,
                Applied::Yes => Publish::Acknowledged,
                Applied::Unknown => Publish::Unknown,
            },
        };
    }

    /// A message was delivered from a queue, or read from a topic.
    pub fn seen(&mut self, place: &str, seen: Seen) {
        let story = self
            .places
            .entry(place.to_owned())
            .or_default()
            .entry(seen.at)
            .or_default();
        story.is_mixed_up |= !story.handed_out.is_empty() && story.id != seen.id;
        story.handed_out.push((seen.acquired, seen.attempts));
        story.id = seen.id;
        story.death = seen.death;
    }

    /// A lease was ended; `confirmed` says whether the server said so.
    pub fn settled(
        &mut self,
        place: &str,
        seen: &Seen,
        ending: Ending,
        outcome: &Result<(), Error>,
    ) {
        let is_confirmed = match outcome {
            Ok(()) => true,
            Err(error) if error.applied == Applied::Unknown => false,
            // It did not happen: as if it had not been tried.
            Err(_) => return,
        };
        let story = self
            .places
            .entry(place.to_owned())
            .or_default()
            .entry(seen.at)
            .or_default();
        story.settled.push(Settled {
            acquired: seen.acquired,
            attempts: seen.attempts,
            ending,
            is_confirmed,
        });
    }

    /// How many messages the broker has acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        let is_acknowledged = |sent: &&Sent| sent.publish == Publish::Acknowledged;
        self.sent.values().filter(is_acknowledged).count()
    }

    /// Closes the books: everything that is still in a queue counts as lost.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        audit::audit(self)
    }
}

/// What the books say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages that had to be in a place, once for each place, dead letters included.
    pub acknowledged: u64,
    /// Those that were seen there.
    pub delivered: u64,
    /// Those that were not.
    pub lost: u64,
    /// Too often in a place, or delivered after they were settled.
    pub duplicated: u64,
    /// In a place where they should not be, or never sent at all.
    pub misrouted: u64,
    /// Handed out again for a good reason: released, failed, or the broker died before it knew.
    pub redelivered: u64,
    /// Published again for a good reason: the outcome was unknown.
    pub repeated: u64,
    /// Publishes of which nobody knows whether they happened.
    pub unknown: u64,
    /// All that is wrong, for people: the first of each kind.
    pub problems: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.lost + self.duplicated + self.misrouted == 0 && self.problems.is_empty()
    }

    /// The line that every fault run ends with.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "ledger: acknowledged {}, delivered {}, lost {}, duplicated {}, misrouted {}",
            self.acknowledged, self.delivered, self.lost, self.duplicated, self.misrouted
        )
    }

    /// What is wrong, and what is fine and worth knowing.
    #[must_use]
    pub fn details(&self) -> impl fmt::Display {
        let mut text = self.problems.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        format!(
            "{text}allowed: redelivered {}, published again {}, outcome unknown {}",
            self.redelivered, self.repeated, self.unknown
        )
    }
}
