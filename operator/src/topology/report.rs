//! What is known of a cluster's topology, for those who write status: the result of one exchange
//! with its broker. Replaced as a whole, never changed.

use std::collections::{BTreeMap, BTreeSet};

/// Result of the last exchange with a cluster's broker.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What the broker said.
    pub broker: Broker,
    /// The revision that what was sent made: an answer that shows an older one is a late view.
    pub sent: u64,
    /// Whether its pod is ready: only then the Service leads clients to it.
    pub serves: bool,
    /// Objects it refused, with its words, by address. What it had of them before is unchanged.
    pub refused: BTreeMap<String, Refused>,
    /// Changes that were not sent yet, for there were too many to be sent at once.
    pub unsent: usize,
    /// The broker's digest when everything was sent to it anew: while it stays the same, sending
    /// again is in vain. A broker of another version may know fewer fields.
    pub resent_at: Option<Vec<u8>>,
    /// Why nothing was removed although resources seem to be gone; `None` when nothing was held
    /// back.
    pub frozen: Option<String>,
}

/// What the broker said.
#[derive(Clone, Debug, PartialEq)]
pub enum Broker {
    /// It could not be asked.
    Unavailable {
        /// One of `reasons`.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// It answered.
    Answered(Answer),
}

/// What the broker has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Of the broker.
    pub version: String,
    /// Of its disk.
    pub node_id: String,
    /// Topology revision it has taken.
    pub revision: u64,
    /// Revision every shard works by.
    pub applied_revision: u64,
    /// All it has, by address.
    pub objects: BTreeMap<String, Held>,
}

impl Answer {
    /// Whether every shard works by all that the broker has.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.revision == self.applied_revision && self.objects.values().all(|held| held.applied)
    }
}

/// What the broker has of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Of the resource it took.
    pub uid: String,
    /// Generation of the resource it took.
    pub generation: i64,
    /// Every shard works by it.
    pub applied: bool,
    /// Frozen, for its resource is gone.
    pub orphaned: bool,
    /// What keeps it from working as declared.
    pub problems: Vec<Problem>,
}

/// What keeps an object from working as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Stable, CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// An object the broker refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Generation that was refused.
    pub generation: i64,
    /// In the broker's words.
    pub message: String,
}

/// Which objects a report says something new about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// All of them.
    All,
    /// Those at these addresses.
    Some(BTreeSet<String>),
}

impl Report {
    /// The broker could not be asked.
    #[must_use]
    pub fn unavailable(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            broker: Broker::Unavailable {
                reason,
                message: message.into(),
            },
            sent: 0,
            serves: false,
            refused: BTreeMap::new(),
            unsent: 0,
            resent_at: None,
            frozen: None,
        }
    }

    /// What the broker answered, if it did.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match &self.broker {
            Broker::Answered(answer) => Some(answer),
            Broker::Unavailable { .. } => None,
        }
    }

    /// Whether the broker works by all that it can be told: there is nothing to wait for.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let settled = |answer: &Answer| answer.revision >= self.sent && answer.is_settled();
        self.unsent == 0 && self.answer().is_some_and(settled)
    }

    /// The newest revision that the cluster is known to have; 0 when nobody answered.
    #[must_use]
    pub fn known_revision(&self) -> u64 {
        self.answer()
            .map_or(0, |answer| answer.revision.max(self.sent))
    }

    /// Which objects this report says something new about. Why a broker cannot be asked is told by
    /// the cluster in all its words, by its objects in one: not each of them is touched when the
    /// words change.
    #[must_use]
    pub fn touched_since(&self, before: Option<&Self>) -> Touched {
        let (old, new) = match (before.map(|before| &before.broker), &self.broker) {
            (
                Some(Broker::Unavailable { reason: old, .. }),
                Broker::Unavailable { reason: new, .. },
            ) if old == new => return Touched::Some(BTreeSet::new()),
            (Some(Broker::Answered(old)), Broker::Answered(new)) => (old, new),
            _ => return Touched::All,
        };
        let Some(before) = before.filter(|before| before.serves == self.serves) else {
            return Touched::All;
        };
        let held = old.objects.keys().chain(new.objects.keys());
        let held = held.filter(|address| old.objects.get(*address) != new.objects.get(*address));
        let refused = before.refused.keys().chain(self.refused.keys());
        let refused =
            refused.filter(|address| before.refused.get(*address) != self.refused.get(*address));
        Touched::Some(held.chain(refused).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(objects: &[(&str, i64)]) -> Report {
        let held = |generation| Held {
            uid: "u".to_owned(),
            generation,
            applied: true,
            orphaned: false,
            problems: Vec::new(),
        };
        let objects = objects
            .iter()
            .map(|(address, generation)| ((*address).to_owned(), held(*generation)));
        Report {
            broker: Broker::Answered(Answer {
                objects: objects.collect(),
                ..Answer::default()
            }),
            sent: 0,
            serves: true,
            refused: BTreeMap::new(),
            unsent: 0,
            resent_at: None,
            frozen: None,
        }
    }

    #[test]
    fn a_report_touches_only_what_it_says_something_new_about() {
        let before = report(&[
            ("queue/a/same", 1),
            ("queue/a/changed", 1),
            ("queue/a/gone", 1),
        ]);
        let mut after = report(&[
            ("queue/a/same", 1),
            ("queue/a/changed", 2),
            ("queue/a/new", 1),
        ]);
        let no = Refused {
            generation: 1,
            message: "no".to_owned(),
        };
        after.refused.insert("queue/a/refused".to_owned(), no);

        let touched = after.touched_since(Some(&before));

        let expected = [
            "queue/a/changed",
            "queue/a/gone",
            "queue/a/new",
            "queue/a/refused",
        ];
        assert_eq!(touched, Touched::Some(expected.map(str::to_owned).into()));
    }

    #[test]
    fn a_broker_that_comes_or_goes_touches_everything() {
        let answered = report(&[("queue/a/x", 1)]);
        let gone = Report::unavailable("BrokerUnavailable", "gone");

        let starting = Report {
            serves: false,
            ..answered.clone()
        };

        assert_eq!(answered.touched_since(None), Touched::All);
        assert_eq!(answered.touched_since(Some(&starting)), Touched::All);
        assert_eq!(gone.touched_since(Some(&answered)), Touched::All);
        assert_eq!(answered.touched_since(Some(&gone)), Touched::All);
        let other_words = Report::unavailable("BrokerUnavailable", "still gone");
        let nothing = Touched::Some(BTreeSet::new());
        assert_eq!(other_words.touched_since(Some(&gone)), nothing);
        let other_reason = Report::unavailable("WrongCluster", "gone");
        assert_eq!(other_reason.touched_since(Some(&gone)), Touched::All);
    }
}
