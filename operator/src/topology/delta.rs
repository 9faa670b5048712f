//! The difference between what is declared and what the broker has, in pages the broker takes.
//! Pure.
//!
//! Promises: nothing is removed here; what seems to be gone is a candidate that `removal` has to
//! confirm.

use std::collections::VecDeque;

use millrace_proto::v1::{ApplyTopologyRequest, Removal, TopologyObject};

use super::convert;
use super::declared::{Declared, resource_of};
use super::report::{Answer, Held};

/// Objects and removals of one call; the broker refuses more.
pub const PAGE_OBJECTS_MAX: usize = 1000;
/// Bytes of one call: gRPC servers take 4 MiB unless told otherwise, and a page has some frame.
pub const PAGE_BYTES_MAX: usize = 2 << 20;

/// What the broker lacks, and what it may have too much.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Topics before queues, so that no queue is ever bound to a topic that comes only later.
    pub upserts: Vec<TopologyObject>,
    /// Objects of the broker without a resource, as far as the watches know.
    pub candidates: Vec<Candidate>,
}

/// An object that seems to have lost its resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Its address.
    pub address: String,
    /// Of the resource it was made from.
    pub uid: String,
}

/// Compares. A resource deleted and created again under its name is an upsert: its messages are
/// taken over, never dropped on the way.
#[must_use]
pub fn delta(namespace: &str, declared: &Declared, answer: &Answer) -> Delta {
    let mut upserts: Vec<TopologyObject> = declared
        .objects
        .values()
        .filter(|object| !is_held(object, answer.objects.get(&object.address)))
        .cloned()
        .collect();
    upserts.sort_by_key(|object| resource_of(&object.address, namespace).map(|(kind, _)| kind));
    let gone = answer.objects.iter().filter(|(address, held)| {
        !held.orphaned && resource_of(address, namespace).is_some() && !declared.has(address)
    });
    let candidates = gone.map(|(address, held)| Candidate {
        address: address.clone(),
        uid: held.uid.clone(),
    });
    Delta {
        candidates: candidates.collect(),
        upserts,
    }
}

/// Everything that is declared, for a broker whose digest says that it has something else although
/// generations agree: another version of the operator compiled it differently.
#[must_use]
pub fn everything(declared: &Declared) -> Vec<TopologyObject> {
    declared.objects.values().cloned().collect()
}

fn is_held(object: &TopologyObject, held: Option<&Held>) -> bool {
    held.is_some_and(|held| {
        !held.orphaned && held.uid == object.uid && held.generation == object.generation
    })
}

/// One call's worth of changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Objects to be taken.
    pub upserts: Vec<TopologyObject>,
    /// Objects to be removed.
    pub removals: Vec<Candidate>,
}

impl Page {
    /// The call, against a revision.
    #[must_use]
    pub fn request(&self, cluster_id: &str, base_revision: u64) -> ApplyTopologyRequest {
        let removal = |candidate: &Candidate| Removal {
            address: candidate.address.clone(),
            uid: candidate.uid.clone(),
        };
        ApplyTopologyRequest {
            cluster_id: cluster_id.to_owned(),
            base_revision,
            upserts: self.upserts.clone(),
            removals: self.removals.iter().map(removal).collect(),
        }
    }

    /// Objects and removals in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.upserts.len() + self.removals.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Two halves, to find out which object of a refused page is at fault.
    #[must_use]
    pub fn halves(mut self) -> [Self; 2] {
        let half = self.len() / 2;
        let upserts = self.upserts.split_off(half.min(self.upserts.len()));
        let removals = self.removals.split_off(
            half.saturating_sub(self.upserts.len())
                .min(self.removals.len()),
        );
        [self, Self { upserts, removals }]
    }
}

/// Cuts changes into pages: upserts first.
#[must_use]
pub fn pages(upserts: Vec<TopologyObject>, removals: Vec<Candidate>) -> VecDeque<Page> {
    let mut pages = VecDeque::new();
    let mut page = Page::default();
    let mut bytes = 0;
    for object in upserts {
        let object_bytes = convert::encoded_bytes(&object);
        if !page.is_empty()
            && (page.len() == PAGE_OBJECTS_MAX || bytes + object_bytes > PAGE_BYTES_MAX)
        {
            pages.push_back(std::mem::take(&mut page));
            bytes = 0;
        }
        bytes += object_bytes;
        page.upserts.push(object);
    }
    for candidate in removals {
        if page.len() == PAGE_OBJECTS_MAX {
            pages.push_back(std::mem::take(&mut page));
        }
        page.removals.push(candidate);
    }
    if !page.is_empty() {
        pages.push_back(page);
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(address: &str, uid: &str, generation: i64) -> TopologyObject {
        TopologyObject {
            address: address.to_owned(),
            uid: uid.to_owned(),
            generation,
            spec: None,
        }
    }

    fn declared(objects: &[(&str, &str, i64)]) -> Declared {
        let objects = objects
            .iter()
            .map(|(address, uid, generation)| {
                ((*address).to_owned(), object(address, uid, *generation))
            })
            .collect();
        Declared {
            objects,
            kept: [].into(),
        }
    }

    fn held(uid: &str, generation: i64) -> Held {
        Held {
            uid: uid.to_owned(),
            generation,
            applied: true,
            orphaned: false,
            problems: Vec::new(),
        }
    }

    fn answer(objects: &[(&str, Held)]) -> Answer {
        let objects = objects
            .iter()
            .map(|(address, held)| ((*address).to_owned(), held.clone()));
        Answer {
            objects: objects.collect(),
            ..Answer::default()
        }
    }

    fn upserted(delta: &Delta) -> Vec<&str> {
        delta
            .upserts
            .iter()
            .map(|object| object.address.as_str())
            .collect()
    }

    #[test]
    fn nothing_is_sent_when_the_broker_has_what_is_declared() {
        let declared = declared(&[("queue/a/x", "u", 2)]);
        let answer = answer(&[("queue/a/x", held("u", 2))]);

        assert_eq!(delta("a", &declared, &answer), Delta::default());
    }

    #[test]
    fn what_is_new_changed_created_again_or_orphaned_is_upserted_topics_first() {
        let orphan = Held {
            orphaned: true,
            ..held("u", 1)
        };
        let declared = declared(&[
            ("queue/a/again", "new", 1),
            ("queue/a/changed", "u", 2),
            ("queue/a/new", "u", 1),
            ("queue/a/orphan", "u", 1),
            ("topic/a/new", "u", 1),
        ]);
        let answer = answer(&[
            ("queue/a/again", held("old", 1)),
            ("queue/a/changed", held("u", 1)),
            ("queue/a/orphan", orphan),
        ]);

        let delta = delta("a", &declared, &answer);

        let expected = [
            "topic/a/new",
            "queue/a/again",
            "queue/a/changed",
            "queue/a/new",
            "queue/a/orphan",
        ];
        assert_eq!(upserted(&delta), expected);
        assert_eq!(delta.candidates, []);
    }

    #[test]
    fn only_what_has_no_resource_of_any_shape_is_a_candidate_for_removal() {
        let mut declared = declared(&[("queue/a/there", "u", 1)]);
        declared.kept.insert("queue/a/broken".to_owned());
        let orphan = Held {
            orphaned: true,
            ..held("u", 1)
        };
        let answer = answer(&[
            ("queue/a/there", held("u", 1)),
            ("queue/a/broken", held("u", 1)),
            ("queue/a/gone", held("u9", 1)),
            ("queue/a/gone/dead", held("u9", 1)),
            ("queue/a/orphan", orphan),
            ("queue/other/gone", held("u", 1)),
        ]);

        let delta = delta("a", &declared, &answer);

        let gone = Candidate {
            address: "queue/a/gone".to_owned(),
            uid: "u9".to_owned(),
        };
        assert_eq!(delta.candidates, [gone]);
    }

    #[test]
    fn pages_stay_below_what_the_broker_takes() {
        let upserts: Vec<_> = (0..2500)
            .map(|n| object(&format!("queue/a/{n}"), "u", 1))
            .collect();
        let gone = Candidate {
            address: "queue/a/gone".to_owned(),
            uid: "u".to_owned(),
        };
        let large = object(&"x".repeat(PAGE_BYTES_MAX - 100), "u", 1);

        let many = pages(upserts, vec![gone; 600]);
        let heavy = pages(vec![large.clone(), large], Vec::new());

        let sizes: Vec<usize> = many.iter().map(Page::len).collect();
        assert_eq!(sizes, [1000, 1000, 1000, 100]);
        assert_eq!(many.back().map(|page| page.removals.len()), Some(100));
        assert_eq!(heavy.len(), 2);
    }

    #[test]
    fn halves_of_a_page_have_everything_once() {
        let gone = |n: u32| Candidate {
            address: n.to_string(),
            uid: String::new(),
        };
        for (upserts, removals) in [(2, 0), (3, 4), (1, 5), (0, 2), (4, 1)] {
            let page = Page {
                upserts: (0..upserts)
                    .map(|n| object(&n.to_string(), "u", 1))
                    .collect(),
                removals: (0..removals).map(gone).collect(),
            };
            let whole = page.clone();

            let [first, second] = page.halves();

            assert!(!first.is_empty() && !second.is_empty());
            assert_eq!([first.upserts, second.upserts].concat(), whole.upserts);
            assert_eq!([first.removals, second.removals].concat(), whole.removals);
        }
    }

    #[test]
    fn no_page_is_made_of_nothing() {
        assert!(pages(Vec::new(), Vec::new()).is_empty());
    }
}
